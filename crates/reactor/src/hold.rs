//! What keeps a thread from exiting beside its own lists: the channels that somebody holds on it.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::core::ThreadCore;
use crate::current;

/// Keeps the current thread from exiting until dropped, and says in dumps why. `!Send`.
///
/// Every open channel has one. A layer that keeps a channel in an [extension](crate::extension) must do
/// without: the extension is dropped by the exit that would wait for it.
#[must_use = "dropping it lets the thread exit"]
pub struct Hold {
    core: Weak<ThreadCore>,
    name: Arc<str>,
}

impl Hold {
    /// Holds the current thread; `device` is what the channel leads to.
    ///
    /// # Panics
    /// Away from a Spindle thread.
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
            // The thread has ended, and is not held any more.
            None => Hold { core: Weak::new(), name: self.name.clone() },
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let mut holds = core.holds.borrow_mut();
        // Not there: the runtime stopped, and nobody waits for the exit.
        if let Some(count) = holds.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.name);
                // It may have been the last that an exit waits for.
                core.local.ready.list(&core);
            }
        }
    }
}
