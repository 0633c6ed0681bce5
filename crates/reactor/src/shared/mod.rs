//! The state shared by all reactors of one runtime and all its handles.
//!
//! Reached from any OS thread; nothing here knows which thread runs the caller.

pub(crate) mod extensions;
pub(crate) mod hangup;
pub(crate) mod lock_order;
pub(crate) mod lock_state;
pub(crate) mod lock_wait;
pub(crate) mod port;
pub(crate) mod thread;
pub(crate) mod wait_list;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use slab::Slab;
use spindle_engine::{CpuSet, Unparker};

use crate::diagnosis::stall::Stall;
use crate::error::CreateError;
use crate::mode::Mode;
use crate::say::Reports;
use crate::shared::extensions::Extensions;
use crate::shared::hangup::Hangup;
use crate::shared::lock_order::LockOrder;
use crate::shared::lock_state::LockAction;
use crate::shared::lock_wait::LockWaits;
use crate::shared::port::{News, Port};
use crate::shared::thread::{RUNNING, ThreadShared};
use crate::shared::wait_list::WaitList;

/// Reports of checked locks, and of stalls, that are kept: the first ones show the mistake.
const REPORTS: usize = 64;

/// Settings of the builder besides cores and engine.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) lock_action: LockAction,
    /// True if the order of locks is checked.
    pub(crate) lock_order: bool,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) reports: Reports,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mode: Mode::default(),
            lock_action: LockAction::default(),
            lock_order: cfg!(debug_assertions),
            watchdog: Some(Duration::from_millis(10)),
            reports: Reports::default(),
        }
    }
}

/// One runtime's shared state. Locked on control paths only.
pub(crate) struct Shared {
    /// One for each reactor.
    pub(crate) ports: Box<[Port]>,
    /// The core of each reactor.
    pub(crate) cores: Box<[usize]>,
    /// The name of each reactor: see [`names`].
    pub(crate) names: Box<[String]>,
    directory: Mutex<Directory>,
    stop: Mutex<Option<Stop>>,
    /// What checked locks have found.
    lock_reports: Mutex<Vec<String>>,
    pub(crate) lock_action: LockAction,
    /// `None`: not checked.
    pub(crate) lock_order: Option<LockOrder>,
    pub(crate) lock_waits: Arc<LockWaits>,
    stalls: Mutex<Vec<Stall>>,
    pub(crate) watchdog: Option<Duration>,
    /// Where reports go.
    pub(crate) reports: Reports,
    supervisor: OnceLock<Unparker>,
    /// Number of calls from outside so far: numbers them.
    calls: AtomicU64,
    /// What a stop does first: it drops main. `None`: there is no main, and everything ends at once.
    on_stop: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// SIGHUPs that main takes.
    pub(crate) hangup: Hangup,
    /// Set to make every reactor end its threads and then itself; read once per turn.
    shutting_down: AtomicBool,
    /// Number of running reactors.
    running: AtomicU64,
    /// Values that layers above keep beside the runtime.
    pub(crate) extensions: Extensions,
}

/// The origin of a stop, and its exit code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) by: &'static str,
    pub(crate) code: u8,
}

/// The living threads.
struct Directory {
    next_id: u64,
    next_reactor: usize,
    stopping: bool,
    /// By id.
    threads: BTreeMap<u64, Arc<ThreadShared>>,
    /// Their slots in the tables of their reactors.
    places: Slab<()>,
}

impl Shared {
    pub(crate) fn new(cores: Vec<usize>, settings: Settings) -> Arc<Shared> {
        let ports = cores.iter().map(|_| Port::new(settings.mode)).collect();
        let directory = Directory {
            next_id: 1,
            next_reactor: 0,
            stopping: false,
            threads: BTreeMap::new(),
            places: Slab::new(),
        };
        let lock_waits = Arc::new(LockWaits::new(cores.len()));
        Arc::new(Shared {
            ports,
            shutting_down: AtomicBool::new(false),
            running: AtomicU64::new(cores.len() as u64),
            names: names(&cores),
            cores: cores.into(),
            directory: Mutex::new(directory),
            stop: Mutex::new(None),
            lock_reports: Mutex::default(),
            lock_action: settings.lock_action,
            lock_order: settings.lock_order.then(LockOrder::default),
            lock_waits,
            stalls: Mutex::default(),
            watchdog: settings.watchdog,
            reports: settings.reports,
            supervisor: OnceLock::new(),
            calls: AtomicU64::new(0),
            on_stop: Mutex::new(None),
            hangup: Hangup::default(),
            extensions: Extensions::default(),
        })
    }

    /// Creates a thread on the next reactor, round robin, whose core is in `cpuset`.
    pub(crate) fn create(
        self: &Arc<Shared>,
        name: String,
        cpuset: CpuSet,
    ) -> Result<Arc<ThreadShared>, CreateError> {
        let mut directory = self.directory();
        if directory.stopping {
            return Err(CreateError::Stopping { thread: name });
        }
        let reactors = self.cores.len();
        let fits = |offset: &usize| cpuset.contains(self.cores[(directory.next_reactor + offset) % reactors]);
        let Some(offset) = (0..reactors).find(fits) else {
            let mut cores = CpuSet::default();
            self.cores.iter().for_each(|core| {
                cores.insert(*core);
            });
            return Err(CreateError::NoReactor {
                thread: name,
                wanted: cpuset.as_list(),
                cores: cores.as_list(),
            });
        };
        let reactor = (directory.next_reactor + offset) % reactors;
        directory.next_reactor = (reactor + 1) % reactors;
        let id = directory.next_id;
        directory.next_id += 1;
        let slot = u32::try_from(directory.places.insert(())).expect("fewer threads than fit in memory");
        let thread = Arc::new(ThreadShared {
            id,
            name: name.into(),
            cpuset,
            slot,
            reactor,
            runtime: self.clone(),
            state: AtomicU8::new(RUNNING),
            joining: WaitList::default(),
        });
        // Under the lock: a shut-down in between would let the reactor end without the thread.
        match self.ports[reactor].incoming.tell(News::Thread(thread.clone())) {
            Ok(()) => {
                directory.threads.insert(id, thread.clone());
                drop(directory);
                let (name, core) = (&thread.name, self.cores[reactor]);
                self.reports.tell("thread", format_args!("thread {id} ({name}) begins on core {core}"));
                Ok(thread)
            }
            Err(_) => {
                directory.places.remove(slot as usize);
                Err(CreateError::Stopping { thread: thread.name.to_string() })
            }
        }
    }

    /// A number for a call from outside, unique in the runtime.
    pub(crate) fn number_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes a thread that has exited.
    pub(crate) fn forget(&self, thread: &ThreadShared) {
        let mut directory = self.directory();
        directory.threads.remove(&thread.id);
        directory.places.try_remove(thread.slot as usize);
        drop(directory);
        self.reports.tell("thread", format_args!("thread {} ({}) has ended", thread.id, thread.name));
    }

    /// The living threads, in the order of their ids.
    pub(crate) fn threads(&self) -> Vec<Arc<ThreadShared>> {
        self.directory().threads.values().cloned().collect()
    }

    /// The living thread of that id.
    pub(crate) fn thread(&self, id: u64) -> Option<Arc<ThreadShared>> {
        self.directory().threads.get(&id).cloned()
    }

    /// The first living thread after `id`.
    pub(crate) fn next_thread(&self, id: u64) -> Option<Arc<ThreadShared>> {
        self.directory().threads.range(id + 1..).next().map(|(_, thread)| thread.clone())
    }

    /// Asks for a stop; the first caller's code counts. True if this was the first.
    pub(crate) fn request_stop(&self, by: &'static str, code: u8) -> bool {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let first = stop.is_none();
        stop.get_or_insert(Stop { by, code });
        drop(stop);
        if first {
            let action = self.on_stop.lock().unwrap_or_else(PoisonError::into_inner).take();
            match action {
                Some(action) => action(),
                None => self.shut_down(),
            }
            // The supervisor reports what a stop waits for, of which there may be no other sign.
            self.wake_supervisor();
        }
        first
    }

    /// Keeps a checked lock's report, if it is among the first.
    pub(crate) fn note_lock_report(&self, report: &str) {
        let mut reports = self.lock_reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() < REPORTS {
            reports.push(report.to_owned());
        }
    }

    /// The reports of checked locks.
    pub(crate) fn lock_reports(&self) -> Vec<String> {
        self.lock_reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what held a reactor too long, if it is among the first of its kind, and reports it.
    pub(crate) fn note_stall(&self, stall: Stall) {
        let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let room = stalls.len() < REPORTS;
        let times = match stalls.iter_mut().find(|known| known.is_like(&stall)) {
            Some(known) => {
                known.times += 1;
                known.held = known.held.max(stall.held);
                known.times
            }
            None if room => {
                stalls.push(stall.clone());
                1
            }
            None => 0,
        };
        drop(stalls);
        self.reports.stall(&Stall { times, ..stall });
    }

    /// The calls that have held a reactor too long.
    pub(crate) fn stalls(&self) -> Vec<Stall> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the supervisor, woken for events that only it handles.
    pub(crate) fn supervised_by(&self, unparker: Unparker) {
        // A runtime never gets a second supervisor.
        let _ = self.supervisor.set(unparker);
    }

    fn wake_supervisor(&self) {
        self.supervisor.get().into_iter().for_each(|unparker| unparker.unpark());
    }

    /// Sets what a stop does first.
    pub(crate) fn on_stop(&self, action: impl FnOnce() + Send + 'static) {
        *self.on_stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(action));
    }

    /// The stop that was asked for.
    pub(crate) fn stop(&self) -> Option<Stop> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no thread is created, and every reactor ends its threads and then itself.
    pub(crate) fn shut_down(&self) {
        self.directory().stopping = true;
        self.shutting_down.store(true, Ordering::Release);
        self.ports.iter().for_each(|port| port.incoming.unpark());
        self.wake_supervisor();
    }

    /// True if [`shut_down`](Self::shut_down) was called.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Counts a reactor that has ended; the last one drops the values of layers above.
    pub(crate) fn reactor_ended(&self) {
        if self.running.load(Ordering::Acquire) == 1 {
            self.extensions.clear();
        }
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Two that ended at once each saw the other still running.
            self.extensions.clear();
        }
        self.wake_supervisor();
    }

    /// True if all reactors have ended; their OS threads are about to.
    pub(crate) fn all_reactors_ended(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of reactors on `cores`, also of their OS threads: `reactor_N` for the only one on core N;
/// `reactor_N.1`, `reactor_N.2` where several share it.
fn names(cores: &[usize]) -> Box<[String]> {
    let on = |core: usize, some: &[usize]| some.iter().filter(|other| **other == core).count();
    let name = |(index, &core): (usize, &usize)| match on(core, cores) {
        1 => format!("reactor_{core}"),
        _ => format!("reactor_{core}.{}", on(core, &cores[..index]) + 1),
    };
    cores.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactors_are_named_by_their_core_and_apart_where_they_share_it() {
        assert_eq!(*names(&[4, 7]), ["reactor_4", "reactor_7"]);
        assert_eq!(*names(&[0, 1, 0]), ["reactor_0.1", "reactor_1", "reactor_0.2"]);
    }
}
