//! What the framework was told, and how far its start has come.

use std::cell::{Cell, RefCell};

use spindle_bdev::LocalFuture;

/// What was set.
pub(crate) struct Framework {
    pub(crate) monitors_context_switches: Cell<bool>,
    /// What is left of the configuration when the framework is started.
    pub(crate) rest: RefCell<Option<LocalFuture<'static, Result<(), String>>>>,
    pub(crate) starting: Cell<bool>,
    /// Why the application ends.
    pub(crate) failure: RefCell<Option<String>>,
}

impl Framework {
    /// Has this run when the framework is started by a call.
    pub(crate) fn set_rest(&self, rest: LocalFuture<'static, Result<(), String>>) {
        self.rest.replace(Some(rest));
    }

    /// Why the application ends, if its start failed behind a call.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Nothing is started any more.
    pub(crate) fn forget_rest(&self) {
        self.rest.take();
    }
}

impl Default for Framework {
    fn default() -> Framework {
        let (monitors_context_switches, starting) = (Cell::new(true), Cell::new(false));
        Framework {
            monitors_context_switches,
            rest: RefCell::new(None),
            starting,
            failure: RefCell::new(None),
        }
    }
}
