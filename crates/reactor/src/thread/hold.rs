//! Holds that keep a thread from exiting, besides its own lists: one per open channel.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::local::current;
use crate::local::thread_core::ThreadCore;

/// Keeps the current thread from exiting until dropped, and shows the reason in dumps. `!Send`.
///
/// Every open channel has one, except a channel that a layer keeps in an [extension](crate::extension): the
/// exit that would wait for it is what drops the extension.
#[must_use = "dropping it lets the thread exit"]
pub struct Hold {
    core: Weak<ThreadCore>,
    name: Arc<str>,
}

impl Hold {
    /// Holds the current thread; `device` is the channel's device.
    ///
    /// # Panics
    /// Outside a Spindle thread.
    pub fn channel(device: impl Into<Arc<str>>) -> Hold {
        let core = current::expect("a channel");
        Hold::on(&core, device.into())
    }

    fn on(core: &Rc<ThreadCore>, name: Arc<str>) -> Hold {
        *core.holds.borrow_mut().entry(name.clone()).or_default() += 1;
        Hold { core: Rc::downgrade(core), name }
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        match self.core.upgrade() {
            Some(core) => Hold::on(&core, self.name.clone()),
            // The thread has ended; there is nothing to hold.
            None => Hold { core: Weak::new(), name: self.name.clone() },
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let mut holds = core.holds.borrow_mut();
        // Missing after a stop of the runtime, when no exit waits for it.
        if let Some(count) = holds.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.name);
                // It may have been the last hold that an exit waits for.
                core.local.ready.list(&core);
            }
        }
    }
}
