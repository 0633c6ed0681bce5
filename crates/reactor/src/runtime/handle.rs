//! The handle by which other OS threads, tasks and executors reach a running runtime.

use std::sync::Arc;

use spindle_engine::{BadCpuSet, CpuSet};

use crate::diagnosis::stall::Stall;
use crate::error::{CreateError, RunError};
use crate::local::current;
use crate::message::thread::{Thread, cores_of};
use crate::mode::Mode;
use crate::runtime::hangups::Hangups;
use crate::runtime::pending_dump::PendingDump;
use crate::runtime::stop::StopRequested;
use crate::shared::Shared;
use crate::thread::io_device::IoDevice;

/// A handle on a running runtime, usable anywhere.
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
    /// [`CreateError`] names the thread, the cores it asked for and those available.
    pub fn create_thread(
        &self,
        name: &str,
        cores: impl TryInto<CpuSet, Error: Into<BadCpuSet>>,
    ) -> Result<Thread, CreateError> {
        Ok(Thread { shared: self.shared.create(name.to_owned(), cores_of(name, cores)?)? })
    }

    /// Registers an io device, as [`IoDevice::register`] does.
    pub fn register_io_device<C: 'static, E>(
        &self,
        name: &str,
        create: impl Fn() -> Result<C, E> + Send + Sync + 'static,
    ) -> IoDevice<C>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        IoDevice::of(self.shared.clone(), name, create)
    }

    /// Calls `f` on every thread, one after the other, in the order of their ids: its future there has ended
    /// before the next thread is visited. A thread that has exited by then is skipped; one created meanwhile
    /// is visited too. May be awaited anywhere.
    ///
    /// Dropping the future cancels the current call, and no further thread is visited.
    ///
    /// # Errors
    /// `f` panicked on a thread, or the runtime stopped; the threads after that one are not visited.
    pub async fn for_each_thread(&self, f: impl AsyncFn() + Send + Sync + 'static) -> Result<(), RunError> {
        let f = Arc::new(f);
        let mut last = 0;
        while let Some(shared) = self.shared.next_thread(last) {
            last = shared.id;
            let f = f.clone();
            match (Thread { shared }).run(async move || f().await).await {
                Ok(()) | Err(RunError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The runtime's value of type `T`, if a layer above has [set](Self::set_extension) one.
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.shared.extensions.get()
    }

    /// Stores a value beside the runtime, one of each type, until the runtime ends. For layers above with one
    /// state per runtime. False if there is one already, which stays.
    pub fn set_extension<T: Send + Sync + 'static>(&self, value: Arc<T>) -> bool {
        self.shared.extensions.set(value)
    }

    /// Removes and returns the value of type `T`; another one can be set then.
    pub fn take_extension<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.shared.extensions.take()
    }

    /// The cores of its reactors, one entry per reactor.
    pub fn cores(&self) -> &[usize] {
        &self.shared.cores
    }

    /// The living threads, in the order of their ids.
    pub fn threads(&self) -> Vec<Thread> {
        self.shared.threads().into_iter().map(|shared| Thread { shared }).collect()
    }

    /// Faults found by checked locks on threads of this runtime, the first 64.
    pub fn lock_reports(&self) -> Vec<String> {
        self.shared.lock_reports()
    }

    /// Calls that held a reactor longer than the watchdog's limit, the first 64.
    pub fn stalls(&self) -> Vec<Stall> {
        self.shared.stalls()
    }

    /// The state of every reactor, thread, task and poller. Await it, or [wait](PendingDump::wait) for it on
    /// a plain OS thread. The reactors answer between two turns.
    pub fn dump(&self) -> PendingDump {
        PendingDump::ask(&self.shared)
    }

    /// Sets the mode of every reactor, from its next turn on.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.ports.iter().for_each(|port| port.set_mode(mode));
    }

    /// Sets the mode of one reactor, by its number from 0; false if there is no such reactor.
    pub fn set_reactor_mode(&self, reactor: usize, mode: Mode) -> bool {
        self.shared.ports.get(reactor).map(|port| port.set_mode(mode)).is_some()
    }

    /// Asks for a stop: main is dropped, and [`Runtime::run`](crate::Runtime::run) returns
    /// [`RunError::Stopped`] with `code`. The first caller's code counts. A runtime that was started beside
    /// another program has no main and returns no code: its tasks are dropped, as when its
    /// [`Running`](crate::Running) is.
    pub fn stop(&self, code: u8) {
        self.shared.request_stop("stop", code);
    }

    /// Lets main handle a stop, by a signal or [`stop`](Self::stop): from now on a stop resolves
    /// this future instead of dropping main. A second signal still ends the process at once. For programs
    /// that shut down in order: they close what they opened and return, and their result is the result of
    /// [`Runtime::run`](crate::Runtime::run).
    pub fn stop_requested(&self) -> StopRequested {
        StopRequested::new(self.shared.clone())
    }

    /// The exit code of the stop that was asked for: the code given to [`stop`](Self::stop), or that of the signal.
    pub fn stop_code(&self) -> Option<u8> {
        self.shared.stop().map(|stop| stop.code)
    }

    /// Takes the SIGHUPs of a runtime that holds the process's signals: while the value exists they are delivered
    /// to it instead of asking for a stop. For a daemon that reopens its log.
    pub fn hangups(&self) -> Hangups {
        Hangups::new(self.shared.clone())
    }
}
