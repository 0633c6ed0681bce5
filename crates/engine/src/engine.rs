//! The choice of engine, made once per runtime, and the state that its drivers share.

use std::fmt;
use std::sync::Arc;

use crate::engine_id::EngineId;
use crate::epoll::EpollDriver;
use crate::os::{Clock, Workers};
use crate::sim::World;
use crate::uring::{self, UringDriver};
use crate::{Driver, EngineError, EngineKind};

/// One engine: makes a driver for each reactor. Cloneable; drivers of one engine share the zero of
/// their clock and may use each other's handles.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    kind: EngineKind,
    fallback_reason: Option<String>,
    backend: Backend,
}

enum Backend {
    Kernel { clock: Clock, engine_id: EngineId, workers: Arc<Workers> },
    Sim(World),
}

impl Engine {
    /// Probes the kernel and resolves [`EngineKind::Auto`].
    pub fn open(kind: EngineKind) -> Result<Engine, EngineError> {
        match kind {
            EngineKind::Sim(seed) => Ok(Engine::simulated(World::new(seed))),
            EngineKind::Epoll => Ok(Engine::of_kernel(EngineKind::Epoll, None)),
            EngineKind::IoUring => match uring::probe() {
                Ok(()) => Ok(Engine::of_kernel(EngineKind::IoUring, None)),
                Err(why) => Err(EngineError::NoUring { why }),
            },
            EngineKind::Auto => match uring::probe() {
                Ok(()) => Ok(Engine::of_kernel(EngineKind::IoUring, None)),
                Err(why) => Ok(Engine::of_kernel(EngineKind::Epoll, Some(why))),
            },
        }
    }

    fn of_kernel(kind: EngineKind, fallback_reason: Option<String>) -> Engine {
        let engine_id = EngineId::new();
        let workers = Arc::new(Workers::new(engine_id.clone(), kind == EngineKind::IoUring));
        let backend = Backend::Kernel { clock: Clock::start(), engine_id, workers };
        Engine(Arc::new(Shared { kind, fallback_reason, backend }))
    }

    /// The engine of an existing simulated world, for a test that also holds the world.
    pub fn simulated(world: World) -> Engine {
        let kind = EngineKind::Sim(world.seed());
        Engine(Arc::new(Shared { kind, fallback_reason: None, backend: Backend::Sim(world) }))
    }

    /// The engine in use: never [`EngineKind::Auto`].
    pub fn kind(&self) -> EngineKind {
        self.0.kind
    }

    /// Why `Auto` did not take io_uring; none if it did or was not asked.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.0.fallback_reason.as_deref()
    }

    /// The simulated world; none outside of simulation.
    pub fn world(&self) -> Option<&World> {
        match &self.0.backend {
            Backend::Sim(world) => Some(world),
            Backend::Kernel { .. } => None,
        }
    }

    /// Makes the driver of reactor number `reactor`. Call it on the OS thread that will use the driver: a
    /// ring belongs to the thread that made it. In simulation `reactor` is the simulated core; panics if that
    /// core already has a driver.
    pub fn driver(&self, reactor: usize) -> Result<Box<dyn Driver>, EngineError> {
        let (clock, engine_id, workers) = match &self.0.backend {
            Backend::Sim(world) => return Ok(Box::new(world.driver(reactor))),
            Backend::Kernel { clock, engine_id, workers } => (*clock, engine_id.clone(), Arc::clone(workers)),
        };
        match self.0.kind {
            EngineKind::IoUring => Ok(Box::new(UringDriver::new(clock, engine_id, workers)?)),
            _ => Ok(Box::new(EpollDriver::new(clock, engine_id, workers)?)),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.kind())
    }
}
