//! The simulated world: clock, choices, trace, and the order of turns.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::flight::Flights;
use super::net::Net;
use super::storage::Storage;
use super::trace::Trace;
use super::{Disk, Traced};
use crate::engine_id::EngineId;
use crate::handle::{Body, FileInner, ListenerInner, SocketInner};
use crate::rng::{Rng, mix};
use crate::sim_handle::{Closed, SimHandle, SimObject};
use crate::{Address, Completion, File, FileInfo, Listener, Socket, Time, Unpark};

/// Looks at the world (a turn, a poll, a reading of the clock) at one instant before the clock moves anyway:
/// a core that spins until a time has come, or until an operation is done, must make progress.
const LOOKS_AT_ONE_INSTANT: u32 = 1000;

/// How far the clock then moves at most: a spinning core may keep its own list of times.
const LONGEST_STEP: Duration = Duration::from_millis(1);

/// A simulated world. Cloneable handle; its drivers belong on one OS thread at a time.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    seed: u64,
    engine_id: EngineId,
    foreign_wake: Arc<ForeignWake>,
    inner: Mutex<Inner>,
}

/// The state of the world, under one uncontended lock.
pub(super) struct Inner {
    pub(super) rng: Rng,
    pub(super) clock: Time,
    pub(super) trace: Trace,
    pub(super) cores: BTreeMap<usize, Core>,
    pub(super) flights: Flights,
    pub(super) storage: Storage,
    pub(super) net: Net,
    running: usize,
    looks: u32,
    pub(super) maker: HandleMaker,
    /// Operations that may proceed, until [`Inner::retry_woken`] schedules them; kept for its capacity.
    pub(super) woken: Vec<usize>,
}

/// One simulated reactor.
pub(super) struct Core {
    parked: bool,
    deadline: Option<Time>,
    unpark: Arc<SimUnpark>,
    /// Finished operations, by their key among the flights.
    pub(super) ready: Vec<usize>,
    /// Results of operations that go on, in order.
    pub(super) came: Vec<Completion>,
    /// Quiet sends that have ended: they end no sleep.
    pub(super) quiet: Vec<usize>,
    /// Submitted and not reaped.
    pub(super) in_flight: usize,
}

impl Core {
    fn runnable(&self) -> bool {
        !self.parked
            || !self.ready.is_empty()
            || !self.came.is_empty()
            || self.unpark.flag.load(Ordering::SeqCst)
    }

    fn wake(&mut self) {
        self.parked = false;
        self.deadline = None;
        self.unpark.flag.store(false, Ordering::SeqCst);
    }
}

impl World {
    /// A world whose every choice follows from `seed`.
    pub fn new(seed: u64) -> World {
        let engine_id = EngineId::new();
        World(Arc::new(Shared {
            seed,
            engine_id: engine_id.clone(),
            foreign_wake: Arc::default(),
            inner: Mutex::new(Inner {
                rng: Rng::new(mix(seed)),
                clock: Time(0),
                trace: Trace::new(seed),
                cores: BTreeMap::new(),
                flights: Flights::default(),
                storage: Storage::default(),
                net: Net::default(),
                running: 0,
                looks: 0,
                maker: HandleMaker { engine_id, closed: Closed::default() },
                woken: Vec::new(),
            }),
        }))
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The core that has the next turn, picked by the seed among those not parked. When all are parked the
    /// clock first moves to the next completion or deadline. None: there is no core, or all are parked
    /// without a deadline and nothing is under way, so that only an unpark from another OS thread can
    /// continue ([`wait_for_unpark`](Self::wait_for_unpark)).
    ///
    /// The clock also moves after 1000 looks (turns, polls, readings of the clock) at one instant, so that a
    /// core that spins instead of parking does not stop time.
    pub fn next_core(&self) -> Option<usize> {
        let mut inner = self.inner();
        inner.look();
        inner.advance_if_idle();
        let runnable = inner.cores.values().filter(|core| core.runnable()).count();
        if runnable == 0 {
            return None;
        }
        let pick = inner.rng.below(runnable);
        let (&number, core) = inner.cores.iter_mut().filter(|(_, core)| core.runnable()).nth(pick)?;
        core.wake();
        inner.running = number;
        inner.trace.add(number);
        Some(number)
    }

    /// The core picked last by [`next_core`](Self::next_core), or whose driver was used last.
    pub fn current_core(&self) -> usize {
        self.inner().running
    }

    /// Blocks the OS thread until an [`Unparker`](crate::Unparker) of this world is used from another OS
    /// thread, or `limit` of real time has passed. True if some core may run. Outside events do not follow
    /// the seed.
    pub fn wait_for_unpark(&self, limit: Option<Duration>) -> bool {
        let Some(event) = self.0.foreign_wake.listen() else { return self.any_runnable() };
        if !self.any_runnable() {
            let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
            // An interrupted or failed wait is an early return, which the caller must expect anyway.
            let _ = poll(&mut [PollFd::new(event, PollFlags::IN)], timeout.as_ref());
        }
        let _ = rustix::io::read(event, &mut [0; 8]);
        self.any_runnable()
    }

    fn any_runnable(&self) -> bool {
        self.inner().cores.values().any(Core::runnable)
    }

    /// The virtual clock: moves only when no core can run, or when a core spins (see
    /// [`next_core`](Self::next_core)).
    pub fn now(&self) -> Time {
        self.inner().clock
    }

    /// A seeded choice of 0 to `n - 1`; 0 when `n` is 0 or 1.
    pub fn choose(&self, n: usize) -> usize {
        let mut inner = self.inner();
        let pick = inner.rng.below(n);
        inner.trace.add((n, pick));
        pick
    }

    /// A seeded random number.
    pub fn random(&self) -> u64 {
        let mut inner = self.inner();
        let number = inner.rng.next_u64();
        inner.trace.add(number);
        number
    }

    /// Feeds an event into the trace.
    pub fn event(&self, what: impl Traced) {
        self.inner().trace.add(what);
    }

    /// The hash of all events so far: choices, turns, clock, operations and results.
    pub fn trace_hash(&self) -> u64 {
        self.inner().trace.hash()
    }

    /// Registers `disk` under `path`: [`Op::Open`](crate::Op::Open) of that path finds it. Returns the
    /// previous disk; files opened on that keep it.
    pub fn add_disk(&self, path: &str, disk: Disk) -> Option<Disk> {
        self.inner().storage.add(path, disk)
    }

    /// The disk registered under `path`, or made there by an open that creates.
    pub fn disk(&self, path: &str) -> Option<Disk> {
        self.inner().storage.find(path)
    }

    /// Adds simulated core `core`; returns what ends its sleep.
    pub(super) fn add_core(&self, core: usize) -> Arc<SimUnpark> {
        let unpark =
            Arc::new(SimUnpark { flag: AtomicBool::new(false), foreign_wake: self.0.foreign_wake.clone() });
        let mut inner = self.inner();
        assert!(!inner.cores.contains_key(&core), "simulated core {core} has a driver already");
        inner.cores.insert(
            core,
            Core {
                parked: false,
                deadline: None,
                unpark: Arc::clone(&unpark),
                ready: Vec::new(),
                came: Vec::new(),
                quiet: Vec::new(),
                in_flight: 0,
            },
        );
        drop(inner);
        unpark
    }

    pub(crate) fn engine_id(&self) -> &EngineId {
        &self.0.engine_id
    }

    /// Locks the world, and first closes objects dropped since the last call.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.close_dropped();
        inner
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(seed {})", self.0.seed)
    }
}

impl Inner {
    /// The driver of `core` is in use: it runs.
    pub(super) fn enter(&mut self, core: usize) -> &mut Core {
        self.running = core;
        let core = self.cores.get_mut(&core).expect("a driver's core lives as long as the driver");
        core.parked = false;
        core
    }

    /// Counts a look; see [`LOOKS_AT_ONE_INSTANT`].
    pub(super) fn look(&mut self) {
        self.looks += 1;
        if self.looks > LOOKS_AT_ONE_INSTANT {
            let step = self.clock + LONGEST_STEP;
            self.advance_to(self.next_event().map_or(step, |next| next.min(step)));
        }
    }

    /// See [`Driver::park`](crate::Driver::park).
    pub(super) fn park(&mut self, number: usize, deadline: Option<Time>) {
        self.complete_due();
        let clock = self.clock;
        let core = self.enter(number);
        if core.unpark.flag.swap(false, Ordering::SeqCst)
            || !core.ready.is_empty()
            || !core.came.is_empty()
            || deadline.is_some_and(|d| d <= clock)
        {
            return;
        }
        core.parked = true;
        core.deadline = deadline;
        self.trace.add(("park", deadline.map_or(u64::MAX, Time::as_nanos)));
        self.advance_if_idle();
    }

    fn advance_if_idle(&mut self) {
        while !self.cores.is_empty() && !self.cores.values().any(Core::runnable) {
            if !self.advance() {
                return;
            }
        }
    }

    /// Moves the clock to the next event; false if there is none.
    fn advance(&mut self) -> bool {
        let next = self.next_event();
        next.is_some_and(|next| {
            self.advance_to(next);
            true
        })
    }

    /// The time of the next operation event or the end of the next sleep.
    fn next_event(&self) -> Option<Time> {
        let deadlines = self.cores.values().filter(|c| c.parked).filter_map(|core| core.deadline);
        deadlines.chain(self.flights.next_due()).min()
    }

    fn advance_to(&mut self, next: Time) {
        self.clock = self.clock.max(next);
        self.looks = 0;
        self.trace.add(self.clock.as_nanos());
        self.complete_due();
        let clock = self.clock;
        for core in self.cores.values_mut().filter(|c| c.parked && c.deadline.is_some_and(|d| d <= clock)) {
            core.wake();
        }
    }

    fn close_dropped(&mut self) {
        if !self.maker.closed.any.swap(false, Ordering::Relaxed) {
            return;
        }
        let closed = std::mem::take(&mut *self.maker.closed.list());
        for object in closed {
            match object {
                SimObject::File(file) => self.storage.close(file),
                SimObject::Socket(socket) => self.net.close_socket(socket, &mut self.woken),
                SimObject::Listener(listener) => self.net.close_listener(listener, &mut self.woken),
            }
        }
        self.retry_woken();
    }
}

/// Makes handles on a world's objects.
pub(super) struct HandleMaker {
    engine_id: EngineId,
    closed: Closed,
}

impl HandleMaker {
    fn body<Fd>(&self, object: SimObject) -> Body<Fd> {
        Body::Sim(SimHandle::new(object, self.closed.clone()))
    }

    pub(super) fn file(&self, number: usize, path: PathBuf, info: FileInfo) -> File {
        let body = self.body(SimObject::File(number));
        File(Arc::new(FileInner { engine_id: self.engine_id.clone(), body, path, info }))
    }

    pub(super) fn socket(&self, number: usize) -> Socket {
        let body = self.body(SimObject::Socket(number));
        Socket(Arc::new(SocketInner::new(self.engine_id.clone(), body)))
    }

    pub(super) fn listener(&self, number: usize, address: Address) -> Listener {
        let body = self.body(SimObject::Listener(number));
        Listener(Arc::new(ListenerInner { engine_id: self.engine_id.clone(), body, address, _owned: None }))
    }
}

/// Ends a simulated core's sleep; from another OS thread, also the world's wait for outside.
pub(super) struct SimUnpark {
    flag: AtomicBool,
    foreign_wake: Arc<ForeignWake>,
}

impl Unpark for SimUnpark {
    fn unpark(&self) {
        self.flag.store(true, Ordering::SeqCst);
        if let Some(event) = self.foreign_wake.0.get() {
            // Only a full counter can refuse, and that wakes too.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

/// Wakes the OS thread that waits for outside events; made on first use, since most worlds never wait.
#[derive(Default)]
struct ForeignWake(OnceLock<OwnedFd>);

impl ForeignWake {
    fn listen(&self) -> Option<&OwnedFd> {
        if self.0.get().is_none() {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
            let _ = self.0.set(event);
        }
        self.0.get()
    }
}
