//! The context of handlers: the runtime, the phase of the application, and its parts.
//!
//! A handle for tasks of the app thread.

use std::rc::Rc;

use spindle_bdev::Registry;
use spindle_bdev::modules::gpt;
use spindle_lvol::Lvols;
use spindle_nbd::{Options, Server};
use spindle_reactor::{CpuSet, CreateError, Handle, Thread};
use spindle_rpc::Phase;

use crate::core_locks::{CORE_LOCKS, CoreLocks};
use crate::log::Log;
use crate::open_files::ServerLimits;
use crate::settings::bdev_options::BdevOptions;
use crate::settings::copies::Copies;
use crate::settings::core_times::CoreClock;
use crate::settings::framework::Framework;
use crate::settings::histograms::Histograms;
use crate::settings::iobuf::IobufOptions;
use crate::settings::keyring::Keyring;
use crate::settings::queue_depth::QueueDepths;
use crate::settings::scheduler::SchedulerSettings;
use crate::settings::sockets::Sockets;
use crate::start_error::StartError;

/// The context of handlers. A handle.
#[derive(Clone)]
pub struct Control(Rc<Inner>);

struct Inner {
    runtime: Handle,
    phase: Phase,
    registry: Registry,
    lvols: Lvols,
    nbd: Server,
    log: Log,
    scheduler: SchedulerSettings,
    copies: Copies,
    bdev_options: BdevOptions,
    iobuf: IobufOptions,
    framework: Framework,
    core_locks: CoreLocks,
    core_clock: CoreClock,
    queue_depths: QueueDepths,
    histograms: Histograms,
    sockets: Sockets,
    keyring: Keyring,
}

impl Control {
    /// For the current runtime; the calling thread becomes the one on which bdevs are registered and removed.
    /// NBD connections get a thread on each other core.
    ///
    /// # Errors
    /// The runtime is stopping.
    ///
    /// # Panics
    /// Outside a Spindle thread.
    pub async fn new(phase: Phase) -> Result<Control, StartError> {
        let log = Log::default();
        let nbd = ServerLimits::of_process(&log).nbd;
        Control::with(phase, CoreLocks::new(CORE_LOCKS.into()), log, nbd).await
    }

    /// As [`new`](Self::new), with locks of cores that may be held already, a log, and limits of the NBD server.
    pub(crate) async fn with(
        phase: Phase,
        core_locks: CoreLocks,
        log: Log,
        nbd: Options,
    ) -> Result<Control, StartError> {
        let runtime = Handle::current().expect("the control plane lives on a Spindle thread");
        let registry = Registry::start().expect("a Spindle thread may have a registry");
        gpt::start(&registry).await?;
        let lvols = Lvols::start(&registry).await?;
        let nbd = Server::new(nbd, nbd_threads(&runtime)?);
        Ok(Control(Rc::new(Inner {
            runtime,
            phase,
            registry,
            lvols,
            nbd,
            log,
            scheduler: SchedulerSettings::default(),
            copies: Copies::default(),
            bdev_options: BdevOptions::default(),
            iobuf: IobufOptions::default(),
            framework: Framework::default(),
            core_locks,
            core_clock: CoreClock::start(),
            queue_depths: QueueDepths::default(),
            histograms: Histograms::default(),
            sockets: Sockets::default(),
            keyring: Keyring::default(),
        })))
    }

    /// The runtime it controls.
    pub fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// The bdevs.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The logical volumes.
    pub fn lvols(&self) -> &Lvols {
        &self.0.lvols
    }

    /// The NBD server.
    pub fn nbd(&self) -> &Server {
        &self.0.nbd
    }

    /// The daemon's log.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// The scheduler's settings.
    pub(crate) fn scheduler(&self) -> &SchedulerSettings {
        &self.0.scheduler
    }

    /// Copies of volumes that were started.
    pub(crate) fn copies(&self) -> &Copies {
        &self.0.copies
    }

    /// Options of the bdev layer.
    pub(crate) fn bdev_options(&self) -> &BdevOptions {
        &self.0.bdev_options
    }

    /// Sizes of buffer pools.
    pub(crate) fn iobuf(&self) -> &IobufOptions {
        &self.0.iobuf
    }

    /// Settings of the framework.
    pub(crate) fn framework(&self) -> &Framework {
        &self.0.framework
    }

    /// The lock files of the cores.
    pub(crate) fn core_locks(&self) -> &CoreLocks {
        &self.0.core_locks
    }

    /// The times of the cores since the start.
    pub(crate) fn core_clock(&self) -> &CoreClock {
        &self.0.core_clock
    }

    /// Samples of queue depths.
    pub(crate) fn queue_depths(&self) -> &QueueDepths {
        &self.0.queue_depths
    }

    /// Histograms that calls asked for.
    pub(crate) fn histograms(&self) -> &Histograms {
        &self.0.histograms
    }

    /// Options of sockets.
    pub(crate) fn sockets(&self) -> &Sockets {
        &self.0.sockets
    }

    /// Keys in files.
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    /// The phase of the application.
    pub fn phase(&self) -> &Phase {
        &self.0.phase
    }
}

/// One thread on each core but the first, which has the app thread; empty if there is no other core.
fn nbd_threads(runtime: &Handle) -> Result<Vec<Thread>, CreateError> {
    let others: CpuSet = runtime.cores().iter().copied().skip(1).collect();
    let others = others.iter().filter(|core| Some(core) != runtime.cores().first());
    others.map(|core| Thread::create_on(&format!("nbd_{core}"), CpuSet::from_iter([core]))).collect()
}
