//! What handlers work with: the runtime, how far the application is, and what it has.
//!
//! A handle for tasks of the app thread.

use std::rc::Rc;

use spindle_reactor::Handle;
use spindle_rpc::Phase;

/// What handlers work with. A handle.
#[derive(Clone)]
pub struct Control(Rc<Inner>);

struct Inner {
    runtime: Handle,
    phase: Phase,
}

impl Control {
    /// For the runtime that runs the caller.
    ///
    /// # Panics
    /// Away from a Spindle thread.
    pub fn new(phase: Phase) -> Control {
        let runtime = Handle::current().expect("the control plane lives on a Spindle thread");
        Control(Rc::new(Inner { runtime, phase }))
    }

    /// The runtime it controls.
    pub fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// How far the application is.
    pub fn phase(&self) -> &Phase {
        &self.0.phase
    }
}
