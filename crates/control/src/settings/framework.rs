//! Settings of the framework, and the state of its start.

use std::cell::{Cell, RefCell};

use spindle_bdev::LocalFuture;

/// The settings and the state.
pub(crate) struct Framework {
    pub(crate) monitors_context_switches: Cell<bool>,
    /// The part of the configuration that runs when the framework is started.
    pub(crate) rest: RefCell<Option<LocalFuture<'static, Result<(), String>>>>,
    pub(crate) starting: Cell<bool>,
    /// Why the application ends.
    pub(crate) failure: RefCell<Option<String>>,
}

impl Framework {
    /// Sets what runs when a call starts the framework.
    pub(crate) fn set_rest(&self, rest: LocalFuture<'static, Result<(), String>>) {
        self.rest.replace(Some(rest));
    }

    /// Why the application ends, if a start requested by a call failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Drops what would run when the framework is started.
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
