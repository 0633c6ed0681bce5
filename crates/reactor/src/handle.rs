//! The handle by which other OS threads, tasks and executors reach a running runtime.

use std::sync::Arc;

use spindle_engine::CpuSet;

use crate::current;
use crate::error::CreateError;
use crate::mode::Mode;
use crate::pending_dump::PendingDump;
use crate::shared::Shared;
use crate::supervisor::Stall;
use crate::thread::Thread;

/// Reaches a running runtime from anywhere.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// The handle of the runtime that runs the caller; none on a plain OS thread.
    pub fn current() -> Option<Handle> {
        current::with(|core| core.map(|core| Handle { shared: core.local.shared.clone() }))
    }

    /// Creates a thread named `name` on a reactor whose core is in `cores`, as [`Thread::create`] does.
    ///
    /// # Errors
    /// [`CreateError`] names the thread, what it asked for and what there is.
    pub fn create_thread(&self, name: &str, cores: &str) -> Result<Thread, CreateError> {
        let cpuset = cores.parse::<CpuSet>();
        let cpuset = cpuset.map_err(|source| CreateError::Cores { thread: name.to_owned(), source })?;
        Ok(Thread { shared: self.shared.create(name.to_owned(), cpuset)? })
    }

    /// The cores its reactors run on, one entry a reactor.
    pub fn cores(&self) -> &[usize] {
        &self.shared.cores
    }

    /// The living threads, in the order of their ids.
    pub fn threads(&self) -> Vec<Thread> {
        self.shared.threads().into_iter().map(|shared| Thread { shared }).collect()
    }

    /// What checked locks have reported, the first 64: threads that went off their core with a guard held.
    pub fn lock_reports(&self) -> Vec<String> {
        self.shared.lock_reports()
    }

    /// What has held a reactor longer than the watchdog's limit, the first 64.
    pub fn stalls(&self) -> Vec<Stall> {
        self.shared.stalls()
    }

    /// What every reactor, thread, task and poller is doing. Await it, or [wait](PendingDump::wait) for it
    /// on a plain OS thread. The reactors answer between two turns.
    pub fn dump(&self) -> PendingDump {
        PendingDump::ask(&self.shared)
    }

    /// Has every reactor work in `mode` from its next turn on.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.ports.iter().for_each(|port| port.set_mode(mode));
    }

    /// Has one reactor, by its number from 0, work in `mode`; false if there is no such reactor.
    pub fn set_reactor_mode(&self, reactor: usize, mode: Mode) -> bool {
        self.shared.ports.get(reactor).map(|port| port.set_mode(mode)).is_some()
    }

    /// Asks for a stop: main is dropped, and [`Runtime::run`] returns [`RunError::Stopped`] with `code`.
    /// The first caller's code counts.
    pub fn stop(&self, code: u8) {
        self.shared.request_stop("stop", code);
    }
}
