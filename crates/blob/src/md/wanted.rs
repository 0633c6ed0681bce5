//! Tells the task that creates or loads a store whether its caller still waits.
//!
//! Shared by the task and the future of its caller; both are on the thread that becomes the store's metadata
//! thread. When the future is dropped the task runs to its end and then releases the device: the next load of
//! the device waits for that.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::shared::StoreDevice;

/// The task's half.
#[derive(Clone, Default)]
pub(crate) struct Wanted(Rc<State>);

#[derive(Default)]
struct State {
    given_up: Cell<bool>,
    device: RefCell<Option<Arc<StoreDevice>>>,
}

/// The half of the future: dropping it gives the store up.
pub(crate) struct Asked(Option<Wanted>);

impl Wanted {
    /// The future's half.
    pub(crate) fn asked(&self) -> Asked {
        Asked(Some(self.clone()))
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.0.given_up.get()
    }

    /// Notes the device that the task has claimed.
    pub(crate) fn has(&self, device: &Arc<StoreDevice>) {
        if self.is_given_up() {
            device.leave();
        }
        *self.0.device.borrow_mut() = Some(device.clone());
    }
}

impl Asked {
    /// The caller has the store.
    pub(crate) fn met(mut self) {
        self.0 = None;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(wanted) = self.0.take() {
            wanted.0.given_up.set(true);
            wanted.0.device.borrow().iter().for_each(|device| device.leave());
        }
    }
}
