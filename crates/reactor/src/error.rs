//! Errors of a runtime and its threads. Device errors are elsewhere.

use std::fmt;
use std::panic::Location;

use spindle_engine::{BadCpuSet, EngineError};

/// A message could not be sent: the thread has exited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread {thread} has exited; create a new one")]
pub struct ThreadGone {
    /// Its name.
    pub thread: String,
}

/// A task panicked. The thread that ran it continues.
#[derive(Clone, Debug)]
pub struct Panicked {
    /// The panic's message.
    pub message: String,
    /// Where the task was spawned.
    pub spawned_at: &'static Location<'static>,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task spawned at {} panicked: {}", self.spawned_at, self.message)
    }
}

impl std::error::Error for Panicked {}

/// No result came back from another thread, or from the runtime's main.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// The thread had exited, or exited before the result was there.
    #[error("thread {thread} exited before the result was there; create a new one")]
    Gone {
        /// Its name.
        thread: String,
    },
    /// The future panicked. The thread continues.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The future was cancelled there.
    #[error("the task was cancelled")]
    Cancelled,
    /// The call was polled on one Spindle thread and then on another.
    #[error(
        "a call to thread {thread} was moved to another thread while it waited; await it where it was first polled, or use Thread::spawn"
    )]
    Moved {
        /// The name of the thread that was called.
        thread: String,
    },
    /// No task can run, and main still waits (simulation only).
    #[error("deadlock: nothing is left that could run, and main still waits\n{dump}")]
    Deadlock {
        /// What everything waits for.
        dump: String,
    },
    /// The runtime was asked to stop before main had ended.
    #[error("stopped by {by} before main had ended")]
    Stopped {
        /// The origin of the stop: a signal's name, or `stop`.
        by: &'static str,
        /// The exit code for the process.
        code: u8,
    },
    /// A reactor could not be started.
    #[error(transparent)]
    Start(std::sync::Arc<BuildError>),
}

impl RunError {
    /// The exit code for a process that ends with this error: the code given to the stop, 130 for SIGINT, 143
    /// for SIGTERM, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Stopped { code, .. } => *code,
            _ => 1,
        }
    }

    /// The exit code for a process that ends with `error`: that of the run error in it or among its sources, or 1.
    pub fn exit_code_of(error: &(dyn std::error::Error + 'static)) -> u8 {
        let behind = std::iter::successors(Some(error), |error| error.source());
        let found = behind.filter_map(|error| error.downcast_ref::<RunError>()).next();
        found.map_or(1, RunError::exit_code)
    }
}

/// A runtime could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The core list is invalid.
    #[error(transparent)]
    Cores(#[from] BadCpuSet),
    /// The core list names cores that this process may not use.
    #[error(
        "cores {missing} cannot be used: this process may run on {available} ({limits}); give cores of those, or leave the list out"
    )]
    NotAvailable {
        /// The cores that are not available, as a list.
        missing: String,
        /// The cores that are available.
        available: String,
        /// The source of the limit.
        limits: String,
    },
    /// No core, or no reactor, was asked for.
    #[error("a runtime needs at least one core; this process may run on {available}")]
    NoCore {
        /// The cores that are available.
        available: String,
    },
    /// Too many reactors were asked for.
    #[error(
        "{asked} reactors are too many: at most {most}, as each pair of them has its own rings; ask for one per core"
    )]
    TooManyReactors {
        /// The number asked for.
        asked: usize,
        /// The most that are allowed.
        most: usize,
    },
    /// The supervisor could not be made.
    #[error("cannot start the supervisor: {0}")]
    Supervisor(std::io::Error),
    /// `SPINDLE_ENGINE` names no engine.
    #[error("SPINDLE_ENGINE: {0}")]
    EngineName(#[from] spindle_engine::BadEngineKind),
    /// The engine is not available.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An OS thread could not be started.
    #[error("cannot start {name} on core {core}: {source}")]
    OsThread {
        /// Its name.
        name: String,
        /// Its core.
        core: usize,
        /// The kernel's error.
        source: std::io::Error,
    },
}

/// A thread could not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The core list is invalid.
    #[error("thread {thread}: {source}")]
    Cores {
        /// The thread's name.
        thread: String,
        /// What is wrong with the list.
        source: BadCpuSet,
    },
    /// No reactor runs on any of the cores.
    #[error(
        "thread {thread} wants cores {wanted}, but the runtime's reactors run on {cores}; choose one of those"
    )]
    NoReactor {
        /// The thread's name.
        thread: String,
        /// The cores it wants, as a list.
        wanted: String,
        /// The runtime's cores, as a list.
        cores: String,
    },
    /// The caller is not on a Spindle thread, so there is no runtime in which to create it.
    #[error(
        "thread {thread}: not on a Spindle thread; create it inside Runtime::run, or by Handle::create_thread"
    )]
    NotOnThread {
        /// The thread's name.
        thread: String,
    },
    /// The runtime is stopping.
    #[error("thread {thread}: the runtime is stopping")]
    Stopping {
        /// The thread's name.
        thread: String,
    },
}
