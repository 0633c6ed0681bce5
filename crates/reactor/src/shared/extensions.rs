//! Values that layers above keep beside a runtime, one of each type.
//!
//! Locked on control paths only. Dropped when the runtime's last reactor ends, on that reactor's OS thread: a
//! value may hold handles on threads, and with them the runtime.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Value = Arc<dyn Any + Send + Sync>;

/// The values by type; few, so that searching a list is fastest.
#[derive(Default)]
pub(crate) struct Extensions(Mutex<Vec<(TypeId, Value)>>);

impl Extensions {
    /// The value of that type, if there is one.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let values = self.values();
        let found = values.iter().find(|(id, _)| *id == TypeId::of::<T>()).map(|(_, value)| value.clone());
        drop(values);
        found.and_then(|value| value.downcast().ok())
    }

    /// Stores a value; false, and the old value stays, if there is one of its type.
    pub(crate) fn set<T: Send + Sync + 'static>(&self, value: Arc<T>) -> bool {
        let mut values = self.values();
        let is_new = values.iter().all(|(id, _)| *id != TypeId::of::<T>());
        if is_new {
            values.push((TypeId::of::<T>(), value));
        }
        is_new
    }

    /// Removes and returns the value of that type.
    pub(crate) fn take<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let mut values = self.values();
        let place = values.iter().position(|(id, _)| *id == TypeId::of::<T>())?;
        let (_, value) = values.swap_remove(place);
        drop(values);
        value.downcast().ok()
    }

    /// Drops all values, the latest first.
    pub(crate) fn clear(&self) {
        // One by one and not under the lock: the destructor of a value may ask for another.
        loop {
            let last = self.values().pop();
            if last.is_none() {
                return;
            }
        }
    }

    fn values(&self) -> MutexGuard<'_, Vec<(TypeId, Value)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
