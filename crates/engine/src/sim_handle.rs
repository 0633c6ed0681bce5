//! Handles on the objects of a world.
//!
//! Held by the engine's counted handles, on any OS thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object of a world, identified by its handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SimObject {
    File(usize),
    Socket(usize),
    Listener(usize),
}

/// A handle's tie to an object of a world; dropping it closes the object when the world next moves.
pub(crate) struct SimHandle {
    object: SimObject,
    closed: Closed,
}

impl SimHandle {
    pub(crate) fn new(object: SimObject, closed: Closed) -> SimHandle {
        SimHandle { object, closed }
    }

    pub(crate) fn object(&self) -> SimObject {
        self.object
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.closed.list().push(self.object);
        self.closed.any.store(true, Ordering::Relaxed);
    }
}

/// Objects whose last handle dropped. Separate from the world's lock: a handle may drop while that is held.
#[derive(Clone, Default)]
pub(crate) struct Closed(Arc<ClosedInner>);

#[derive(Default)]
pub(crate) struct ClosedInner {
    pub(crate) any: AtomicBool,
    list: Mutex<Vec<SimObject>>,
}

impl std::ops::Deref for Closed {
    type Target = ClosedInner;
    fn deref(&self) -> &ClosedInner {
        &self.0
    }
}

impl ClosedInner {
    pub(crate) fn list(&self) -> MutexGuard<'_, Vec<SimObject>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
