//! The runtime: reactors on cores, and the async main that runs on the first of them.
//!
//! Built by a [`Builder`], then either [run](Runtime::run) to the end of main on the calling OS thread, or
//! [started](Runtime::start) beside another program. Everything hangs off this value: several runtimes
//! run side by side in one process. In simulation all reactors take turns on one OS thread.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use spindle_engine::sim::World;
use spindle_engine::{AvailableCores, CpuSet, ENGINE_VARIABLE, Engine, EngineKind, Signal, Signals};

use crate::current;
use crate::dump::Dump;
use crate::error::{BuildError, CreateError, RunError};
use crate::join::JoinHandle;
use crate::reactor::Reactor;
use crate::shared::{Shared, Stop};
use crate::thread::Thread;

/// A reactor that is busy looks for signals once in so many turns.
const TURNS_BETWEEN_SIGNALS: u32 = 64;

/// How long a simulated world in which nothing can run waits for other OS threads, in real time, before
/// that is called a deadlock.
const DEADLOCK_WAIT: Duration = Duration::from_millis(200);

/// What a reactor does when it has nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Looks for work without end: the least latency, a whole core.
    Poll,
    /// Sleeps in the engine at once.
    Interrupt,
    /// Looks for a little longer than a wake-up would cost, then sleeps.
    #[default]
    Adaptive,
}

/// Says what runtime to build.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    cores: Option<Result<CpuSet, spindle_engine::BadCpuSet>>,
    reactors: Option<usize>,
    engine: Option<EngineKind>,
    world: Option<World>,
    mode: Mode,
}

impl Builder {
    /// The cores to put a reactor on each, as SPDK takes them: "0x3" or "[0,2-4]". By default those that
    /// affinity and cgroup quota together allow.
    pub fn cores(mut self, list: &str) -> Builder {
        self.cores = Some(CpuSet::from_str(list));
        self
    }

    /// How many reactors. More than there are cores share them; fewer use the lowest.
    pub fn reactors(mut self, count: usize) -> Builder {
        self.reactors = Some(count);
        self
    }

    /// The engine; by default what `SPINDLE_ENGINE` says, or io_uring with epoll behind it.
    pub fn engine(mut self, kind: EngineKind) -> Builder {
        self.engine = Some(kind);
        self
    }

    /// Runs in a simulated world that the caller keeps in hand.
    pub fn world(mut self, world: World) -> Builder {
        self.world = Some(world);
        self
    }

    /// What a reactor does when it has nothing to do.
    pub fn mode(mut self, mode: Mode) -> Builder {
        self.mode = mode;
        self
    }

    /// Checks everything that can be checked before a thread starts.
    ///
    /// # Errors
    /// [`BuildError`] says what was wrong and what is available.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let engine = match self.world {
            Some(world) => Engine::simulated(world),
            None => Engine::open(match self.engine {
                Some(kind) => kind,
                None => engine_from_environment()?,
            })?,
        };
        let cores = if engine.world().is_some() {
            simulated_cores(self.cores.transpose()?, self.reactors)
        } else {
            real_cores(self.cores.transpose()?, self.reactors, &spindle_engine::available_cores())
        }?;
        Ok(Runtime { shared: Shared::new(cores), engine, mode: self.mode })
    }
}

fn engine_from_environment() -> Result<EngineKind, BuildError> {
    match std::env::var(ENGINE_VARIABLE) {
        Ok(word) if !word.is_empty() => Ok(word.parse()?),
        _ => Ok(EngineKind::Auto),
    }
}

/// A simulated machine has whatever cores are asked for; two by default.
fn simulated_cores(asked: Option<CpuSet>, reactors: Option<usize>) -> Result<Vec<usize>, BuildError> {
    // Each reactor has a simulated core of its own: there is no machine to share.
    match reactors {
        Some(count) => spread(CpuSet::first(count), None),
        None => spread(asked.unwrap_or(CpuSet::first(2)), None),
    }
}

fn real_cores(
    asked: Option<CpuSet>,
    reactors: Option<usize>,
    available: &AvailableCores,
) -> Result<Vec<usize>, BuildError> {
    let Some(asked) = asked else { return spread(available.set, reactors) };
    let missing: Vec<usize> = asked.iter().filter(|core| !available.affinity.contains(*core)).collect();
    if missing.is_empty() {
        return spread(asked, reactors);
    }
    if reactors.is_some() {
        return spread(available.set, Some(reactors.unwrap_or(asked.len())));
    }
    Err(BuildError::NotAvailable {
        missing: missing.into_iter().collect::<CpuSet>().as_list(),
        available: available.affinity.as_list(),
        limits: available.reasons.join("; "),
    })
}

/// One reactor a core, or as many as asked for, the lowest cores first and around again.
fn spread(cores: CpuSet, reactors: Option<usize>) -> Result<Vec<usize>, BuildError> {
    let count = reactors.unwrap_or(cores.len());
    if cores.is_empty() || count == 0 {
        return Err(BuildError::NoCore { available: spindle_engine::available_cores().affinity.as_list() });
    }
    let cores: Vec<usize> = cores.iter().collect();
    Ok(cores.into_iter().cycle().take(count).collect())
}

/// A runtime that has not started yet.
pub struct Runtime {
    shared: Arc<Shared>,
    engine: Engine,
    mode: Mode,
}

impl Runtime {
    /// A runtime with the defaults: the available cores, the engine of `SPINDLE_ENGINE`.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The engine in use, and in simulation its world.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The cores its reactors run on, one entry a reactor.
    pub fn cores(&self) -> &[usize] {
        &self.shared.cores
    }

    /// How many reactors it has.
    pub fn reactors(&self) -> usize {
        self.shared.cores.len()
    }

    /// Runs `main` on the app thread, the first thread of the first reactor, and returns what it
    /// returns. What then still runs is dropped, each future on its own thread.
    ///
    /// SIGINT and SIGTERM drop main and end the runtime in order; a second one ends the process. They
    /// belong to the first runtime of the process that asked.
    ///
    /// # Errors
    /// Main panicked, or was stopped, or nothing is left that could wake it (simulation).
    #[track_caller]
    pub fn run<F, T>(self, main: F) -> Result<T, RunError>
    where
        F: AsyncFnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let first_core = CpuSet::from_iter([self.shared.cores[0]]);
        let app = self.shared.create("app_thread".to_owned(), first_core);
        let app = Thread { shared: app.expect("the first reactor runs on the first core") };
        let main = app.spawn(main);
        self.shared.on_stop(main.aborter());
        match self.engine.world() {
            Some(world) => simulate_main(&world.clone(), &self, main),
            None => {
                let running = self.start_reactors(true).map_err(|error| RunError::Start(Arc::new(error)))?;
                main.wait().map_err(|error| stopped(error, &running.handle.shared))
            }
        }
    }

    /// Starts the reactors and returns; `Running` ends them when dropped. For programs that have a main
    /// of their own. Signals are left alone.
    ///
    /// # Errors
    /// An OS thread or a driver could not be had.
    pub fn start(self) -> Result<Running, BuildError> {
        match self.engine.world() {
            Some(_) => self.start_simulation(),
            None => self.start_reactors(false),
        }
    }

    fn start_reactors(self, signals: bool) -> Result<Running, BuildError> {
        let (shared, engine, mode) = (self.shared, self.engine, self.mode);
        let mut running = Running { handle: Handle { shared: shared.clone() }, os_threads: Vec::new() };
        let (report, started) = mpsc::channel();
        for (index, &core) in shared.cores.iter().enumerate() {
            let name = format!("reactor_{core}");
            let (shared, engine, report) = (shared.clone(), engine.clone(), report.clone());
            let os_thread = spindle_engine::spawn_pinned(&name, Some(core), move || {
                run_reactor(shared, index, &engine, mode, signals && index == 0, report);
            });
            let os_thread = os_thread.map_err(|source| BuildError::OsThread { name, core, source })?;
            running.os_threads.push(os_thread);
        }
        drop(report);
        for outcome in started {
            outcome?;
        }
        Ok(running)
    }

    fn start_simulation(self) -> Result<Running, BuildError> {
        let handle = Handle { shared: self.shared.clone() };
        let os_thread = spindle_engine::spawn_pinned("simulation", None, move || {
            let Some(world) = self.engine.world().cloned() else { return };
            let mut reactors = simulated_reactors(&world, &self);
            while !reactors.is_empty() {
                if !simulate_turn(&world, &mut reactors) {
                    world.wait_outside(None);
                }
            }
        });
        let os_thread = os_thread.map_err(|source| BuildError::OsThread {
            name: "simulation".to_owned(),
            core: 0,
            source,
        })?;
        Ok(Running { handle, os_threads: vec![os_thread] })
    }
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
    mode: Mode,
    signals: bool,
    started: mpsc::Sender<Result<(), BuildError>>,
) {
    let driver = match engine.driver(index) {
        Ok(driver) => driver,
        Err(error) => {
            shared.shut_down();
            // The starter listens until every reactor has answered.
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    let unparker = driver.unparker();
    let mut reactor = Reactor::new(shared.clone(), index, driver, mode, false);
    // Held by the first runtime that asks; this one then runs without.
    let signals =
        signals.then(|| Signals::take("a runtime", &[Signal::Interrupt, Signal::Terminate], unparker).ok());
    let _ = started.send(Ok(()));
    drop(started);
    for turn in 0u32.. {
        let busy = reactor.turn();
        if let Some(Some(signals)) = &signals
            && (!busy || turn % TURNS_BETWEEN_SIGNALS == 0)
        {
            obey(signals, &shared);
        }
        if reactor.is_finished() {
            break;
        }
        reactor.read_clock_ahead();
        if !busy {
            reactor.rest();
        }
    }
    reactor.close();
}

/// The first signal asks for an orderly stop, the second ends the process.
fn obey(signals: &Signals, shared: &Shared) {
    for (signal, name, code) in [(Signal::Interrupt, "SIGINT", 130), (Signal::Terminate, "SIGTERM", 143)] {
        for _ in 0..signals.arrived(signal) {
            if !shared.request_stop(name, code) {
                eprintln!("spindle: second signal: ending at once");
                std::process::exit(i32::from(code));
            }
        }
    }
}

/// The reactors of a simulation, by their simulated cores.
type Simulated = BTreeMap<usize, Reactor>;

fn simulated_reactors(world: &World, runtime: &Runtime) -> Simulated {
    let make = |(index, core): (usize, &usize)| {
        let driver = Box::new(world.driver(*core));
        (*core, Reactor::new(runtime.shared.clone(), index, driver, runtime.mode, true))
    };
    runtime.shared.cores.iter().enumerate().map(make).collect()
}

/// Gives the reactor that the seed picks one turn. False if none can run.
fn simulate_turn(world: &World, reactors: &mut Simulated) -> bool {
    let Some(core) = world.next_core() else { return false };
    let Some(reactor) = reactors.get_mut(&core) else { return false };
    let busy = reactor.turn();
    if reactor.is_finished() {
        reactor.close();
        reactors.remove(&core);
    } else if !busy {
        reactor.rest();
    }
    true
}

/// Runs the whole runtime in simulation, on this OS thread.
fn simulate_main<T: Send + 'static>(
    world: &World,
    runtime: &Runtime,
    mut main: JoinHandle<T>,
) -> Result<T, RunError> {
    let mut reactors = simulated_reactors(world, runtime);
    let mut result = None;
    while !reactors.is_empty() {
        let went_on = simulate_turn(world, &mut reactors) || world.wait_outside(Some(DEADLOCK_WAIT));
        if result.is_some() {
            continue;
        }
        // Looked at after every turn, so nothing needs to wake this loop.
        if let Poll::Ready(ended) = Pin::new(&mut main).poll(&mut Context::from_waker(Waker::noop())) {
            result = Some(ended.map_err(|error| stopped(error, &runtime.shared)));
            runtime.shared.shut_down();
        } else if !went_on {
            let dump = Dump::of(reactors.values()).to_string();
            result = Some(Err(RunError::Deadlock { dump }));
            runtime.shared.shut_down();
        }
    }
    result.unwrap_or(Err(RunError::Cancelled))
}

/// A cancelled main was stopped, if a stop was asked for.
fn stopped(error: RunError, shared: &Shared) -> RunError {
    match (error, shared.stop()) {
        (RunError::Cancelled, Some(Stop { by, code })) => RunError::Stopped { by, code },
        (error, _) => error,
    }
}

/// The reactors of a runtime that was started beside another program. Dropping it drops what still runs
/// on them, each future on its own thread, and waits for their OS threads.
pub struct Running {
    handle: Handle,
    os_threads: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    /// What other OS threads and tasks use the runtime by.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shared.shut_down();
        for os_thread in self.os_threads.drain(..) {
            // A reactor catches the panics of what it runs; one of its own has been reported.
            let _ = os_thread.join();
        }
    }
}

/// Reaches a running runtime from anywhere.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
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

    /// Asks for a stop: main is dropped, and [`Runtime::run`] returns [`RunError::Stopped`] with `code`.
    /// The first caller's code counts.
    pub fn stop(&self, code: u8) {
        self.shared.request_stop("stop", code);
    }
}
