//! The phase of the application, shared by code that refuses methods and code that advances the phase.
//!
//! On one thread.

use std::cell::Cell;
use std::rc::Rc;

use spindle_reactor::WaitList;

/// The state of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Subsystems are not initialised.
    Startup,
    /// Subsystems are initialised.
    Runtime,
}

/// The states in which a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    startup: bool,
    runtime: bool,
}

impl States {
    /// Before subsystems are initialised only.
    pub const STARTUP: States = States { startup: true, runtime: false };
    /// After that only.
    pub const RUNTIME: States = States { startup: false, runtime: true };
    /// Always.
    pub const BOTH: States = States { startup: true, runtime: true };

    /// True if `state` is among them.
    pub fn contain(self, state: State) -> bool {
        match state {
            State::Startup => self.startup,
            State::Runtime => self.runtime,
        }
    }
}

/// The phase of the application; a handle, all clones of which show the same.
#[derive(Clone)]
pub struct Phase(Rc<Inner>);

struct Inner {
    state: Cell<State>,
    changing: WaitList,
}

impl Phase {
    /// An application in that state.
    pub fn new(state: State) -> Phase {
        Phase(Rc::new(Inner { state: Cell::new(state), changing: WaitList::default() }))
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.0.state.get()
    }

    /// Changes the state, and wakes the tasks that wait for it.
    pub fn set(&self, state: State) {
        self.0.state.set(state);
        self.0.changing.wake_all();
    }

    /// Waits until the application has that state. Dropping the future ends the wait.
    pub async fn reached(&self, state: State) {
        self.0.changing.until(|| (self.state() >= state).then_some(())).await;
    }
}
