//! A thread without a reactor: its owner steps it.
//!
//! Owned by value on one OS thread (`!Send`); a step needs `&mut`, and it cannot be cloned, so two pollers of
//! one thread cannot exist. It has its own driver, and its [`Thread`] handle works like any other: other OS
//! threads, runtimes and executors can send to it, call it and await it.

use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{CpuSet, Engine, EngineKind, Time};

use crate::diagnosis::dump::Dump;
use crate::error::BuildError;
use crate::message::thread::Thread;
use crate::mode::Mode;
use crate::reactor::Reactor;
use crate::shared::{Settings, Shared};
use crate::task::poller_cell::Busy;

/// One Spindle thread, stepped by its owner.
pub struct ThreadRunner {
    reactor: Reactor,
    thread: Thread,
    engine: Engine,
}

impl ThreadRunner {
    /// Makes a thread named `name` on this OS thread, with an engine of its own.
    ///
    /// # Errors
    /// The engine is not available.
    pub fn new(name: &str, kind: EngineKind) -> Result<ThreadRunner, BuildError> {
        let engine = Engine::open(kind)?;
        let driver = engine.driver(0)?;
        let settings = Settings { mode: Mode::Interrupt, watchdog: None, ..Settings::default() };
        let shared: Arc<Shared> = Shared::new(vec![driver.cpu()], settings);
        let simulated = engine.world().is_some();
        let reactor = Reactor::new(shared.clone(), 0, driver, simulated);
        let cpuset = shared.cores.iter().copied().collect::<CpuSet>();
        let thread = shared.create(name.to_owned(), cpuset).expect("its own core is among its cores");
        Ok(ThreadRunner { reactor, thread: Thread { shared: thread }, engine })
    }

    /// The thread's handle.
    pub fn thread(&self) -> Thread {
        self.thread.clone()
    }

    /// The engine in use, and in simulation its world.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// One bounded turn: messages, tasks, timers, pollers, completions.
    pub fn step(&mut self) -> Busy {
        let busy = self.reactor.turn();
        // Read here, so that the owner's own work between two steps is not counted.
        self.reactor.read_clock();
        if busy { Busy::Yes } else { Busy::No }
    }

    /// Sleeps until there is work, or `limit` has passed. May return early.
    pub fn park(&mut self, limit: Option<Duration>) {
        let limit = limit.map(|limit| self.reactor.local.now.get() + limit);
        self.reactor.rest_until(limit);
    }

    /// The thread's state, as of the last step.
    pub fn dump(&self) -> Dump {
        Dump::of(std::iter::once(&self.reactor))
    }

    /// The time at which the thread needs its next step even if nothing arrives.
    pub fn next_deadline(&self) -> Option<Time> {
        self.reactor.next_deadline()
    }

    /// Steps, sleeping where there is no work, until `done` returns true.
    pub fn run_until(&mut self, mut done: impl FnMut() -> bool) {
        while !done() {
            if self.step() == Busy::No {
                self.park(Some(Duration::from_millis(100)));
            }
        }
    }
}

impl Drop for ThreadRunner {
    fn drop(&mut self) {
        self.reactor.local.shared.shut_down();
        while !self.reactor.is_finished() {
            if !self.reactor.turn() {
                self.reactor.rest();
            }
        }
        self.reactor.close();
    }
}
