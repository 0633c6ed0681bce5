//! The runtime: reactors on cores, and the async main that runs on the first of them.
//!
//! Built by a [`Builder`], then either [run](Runtime::run) to the end of main on the calling OS thread, or
//! [started](Runtime::start) beside another program. All state hangs off this value: several runtimes can run
//! in one process. In simulation all reactors take turns on one OS thread.

pub(crate) mod builder;
pub(crate) mod handle;
pub(crate) mod hangups;
mod panic_hook;
pub(crate) mod pending_dump;
mod placement;
pub(crate) mod runner;
mod simulate;
pub(crate) mod stop;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;

use spindle_engine::{CpuSet, Engine};

use crate::error::{BuildError, RunError};
use crate::message::join::JoinHandle;
use crate::message::thread::Thread;
use crate::reactor::Reactor;
use crate::runtime::builder::Builder;
use crate::runtime::handle::Handle;
use crate::runtime::placement::Placement;
use crate::runtime::simulate::{simulate, simulate_main};
use crate::runtime::supervisor::Supervisor;
use crate::shared::{Shared, Stop};

/// A runtime that has not started yet.
pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
}

impl Runtime {
    /// A builder with the defaults: the available cores, the engine of `SPINDLE_ENGINE`.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The engine in use, and in simulation its world.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The cores of its reactors, one entry per reactor.
    pub fn cores(&self) -> &[usize] {
        &self.shared.cores
    }

    /// Number of reactors.
    pub fn reactors(&self) -> usize {
        self.shared.cores.len()
    }

    /// Runs `main` on the app thread, the first thread of the first reactor, and returns its result. Then
    /// everything that still runs is dropped, each future on its own thread.
    ///
    /// SIGINT and SIGTERM drop main and end the runtime in order; a second signal ends the process. Signals
    /// belong to the first runtime of the process that asked for them.
    ///
    /// # Errors
    /// Main panicked, or was stopped, or no task can wake it any more (simulation). The process should then
    /// end with the error's [exit code](RunError::exit_code), or [that of](RunError::exit_code_of) an error
    /// made from it.
    /// # Panics
    /// On a Spindle thread: it would block its reactor.
    #[track_caller]
    pub fn run<F, T>(self, main: F) -> Result<T, RunError>
    where
        F: AsyncFnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        assert!(Thread::current().is_none(), "Runtime::run blocks a reactor; call it on a plain OS thread");
        let first_core = CpuSet::from_iter([self.shared.cores[0]]);
        let app = self.shared.create("app_thread".to_owned(), first_core);
        let app = Thread { shared: app.expect("the first reactor runs on the first core") };
        let main = app.spawn(main);
        self.shared.on_stop(main.aborter());
        match self.engine.world() {
            Some(world) => simulate_main(&world.clone(), &self, main),
            None => self.run_main(main),
        }
    }

    /// As [`run`](Self::run), for a main that can fail: one error type for its own failures and for those of the
    /// runtime, instead of a result in a result.
    ///
    /// # Errors
    /// Those of main, and [`RunError`] as one of them.
    /// # Panics
    /// On a Spindle thread: it would block its reactor.
    #[track_caller]
    pub fn try_run<F, T, E>(self, main: F) -> Result<T, E>
    where
        F: AsyncFnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<RunError> + Send + 'static,
    {
        self.run(main)?
    }

    fn run_main<T: Send + 'static>(self, main: JoinHandle<T>) -> Result<T, RunError> {
        let cannot_start = |error| RunError::Start(Arc::new(error));
        let mut supervisor = self.supervisor(true).map_err(cannot_start)?;
        let os_threads = self.start_reactors().map_err(cannot_start)?;
        let result = supervisor.until(main);
        self.shared.shut_down();
        supervisor.until_stopped(os_threads);
        result.map_err(|error| stopped(error, &self.shared))
    }

    /// Starts the reactors and returns; dropping the `Running` ends them. For programs with their own main.
    /// Signals are left alone.
    ///
    /// # Errors
    /// An OS thread or a driver is not available.
    pub fn start(self) -> Result<Running, BuildError> {
        let handle = Handle { shared: self.shared.clone() };
        let os_thread = match self.engine.world().cloned() {
            Some(world) => spawn("simulation", None, move || simulate(&world, &self))?,
            None => {
                let mut supervisor = self.supervisor(false)?;
                let os_threads = self.start_reactors()?;
                spawn("spindle_watch", None, move || supervisor.until_stopped(os_threads))?
            }
        };
        Ok(Running { handle, os_thread: Some(os_thread) })
    }

    fn supervisor(&self, signals: bool) -> Result<Supervisor, BuildError> {
        Supervisor::new(self.shared.clone(), signals).map_err(BuildError::Supervisor)
    }

    /// Starts the reactors, all or none.
    fn start_reactors(&self) -> Result<Vec<std::thread::JoinHandle<()>>, BuildError> {
        let (report, started) = mpsc::channel();
        let mut os_threads = Vec::new();
        let mut outcome = Ok(());
        for (index, &core) in self.shared.cores.iter().enumerate() {
            let (shared, engine, report) = (self.shared.clone(), self.engine.clone(), report.clone());
            let run = move || run_reactor(shared, index, &engine, &report);
            match spawn(&self.shared.names[index], Some(core), run) {
                Ok(os_thread) => os_threads.push(os_thread),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        drop(report);
        // Each started reactor sends one outcome, and then drops its end.
        let outcome = outcome.and_then(|()| started.iter().take(os_threads.len()).collect());
        if outcome.is_err() {
            self.shared.shut_down();
            os_threads.drain(..).for_each(|os_thread| drop(os_thread.join()));
        }
        outcome.map(|()| os_threads)
    }
}

fn spawn(
    name: &str,
    core: Option<usize>,
    f: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, BuildError> {
    let failed =
        |source| BuildError::OsThread { name: name.to_owned(), core: core.unwrap_or_default(), source };
    spindle_engine::spawn_pinned(name, core, f).map_err(failed)
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runtime({:?}, reactors on cores {:?})", self.engine, self.shared.cores)
    }
}

/// The loop of one reactor's OS thread.
fn run_reactor(
    shared: Arc<Shared>,
    index: usize,
    engine: &Engine,
    started: &mpsc::Sender<Result<(), BuildError>>,
) {
    let told = shared.clone();
    let placement = Placement::pinned(shared.cores[index], &shared.cores);
    let (outcome, reactor) = match engine.driver(index) {
        Ok(driver) => (Ok(()), Some(Reactor::new(shared, index, driver, false))),
        Err(error) => (Err(error.into()), None),
    };
    // The starter waits until every reactor has answered.
    let _ = started.send(outcome);
    if let Some(reactor) = reactor {
        let (name, core) = (&told.names[index], told.cores[index]);
        told.reports.tell("reactor", format_args!("{name} begins on core {core}"));
        turn_until_finished(reactor, placement);
        told.reports.tell("reactor", format_args!("{name} has ended"));
    }
}

fn turn_until_finished(mut reactor: Reactor, mut placement: Placement) {
    loop {
        let busy = reactor.turn();
        reactor.go_on();
        if reactor.is_finished() {
            break;
        }
        reactor.read_clock_ahead();
        if !busy || reactor.can_rest() {
            placement.follow(reactor.mode());
            reactor.rest();
        }
    }
    reactor.close();
}

/// Turns the error of a cancelled main, or of one whose thread has exited, into a stop, if one was asked for.
pub(crate) fn stopped(error: RunError, shared: &Shared) -> RunError {
    match (error, shared.stop()) {
        (RunError::Cancelled | RunError::Gone { .. }, Some(Stop { by, code })) => {
            RunError::Stopped { by, code }
        }
        (error, _) => error,
    }
}

/// The reactors of a runtime that was started beside another program. Dropping it drops what still runs on
/// them, each future on its own thread, and waits for their OS threads. On a Spindle thread of any runtime it
/// does not wait, because that would block a reactor: they end in the background.
pub struct Running {
    handle: Handle,
    /// Supervises the reactors, or runs the simulation. `Some` until dropped.
    os_thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// The handle by which other OS threads and tasks use the runtime.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shared.shut_down();
        if Thread::current().is_some() {
            return;
        }
        // It catches panics of tasks; one of its own has been reported.
        self.os_thread.take().into_iter().for_each(|os_thread| drop(os_thread.join()));
    }
}
