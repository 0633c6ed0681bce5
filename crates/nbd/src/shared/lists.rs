//! The lists of a server: exports, connections, listeners.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_engine::{Address, Time};
use spindle_mem::Pool;
use spindle_reactor::{Thread, WaitList, now, reactor_loads};

use super::connections::{Connection, Connections, Which};
use super::placing;
use super::visits::Visits;
use super::waiting::Waiting;
use super::{ConnectionInfo, Control, End, ExportInfo, Exported, ListenerInfo, Options, Stop};
use crate::budget::{Budget, CONNECTION_LIMIT};
use crate::codec::{Refusal, shortened};
use crate::origin::Origin;
use crate::{Export, ExportError, ExportOptions, Tls};

/// State shared by the handles and connections of a server.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) pool: Pool,
    pub(crate) budget: Arc<Budget>,
    pub(crate) visits: Visits,
    pub(crate) waiting: Waiting,
    threads: Vec<Thread>,
    lists: Mutex<Lists>,
    /// Tasks that wait for the end of a connection.
    ending: WaitList,
    failed_flushes: AtomicU64,
}

struct Lists {
    exports: BTreeMap<String, Arc<Exported>>,
    next_export: u64,
    connections: Connections,
    listeners: Vec<Accepting>,
    stopping: bool,
    /// When clients that do not read were last looked for.
    stuck_sought: Option<Time>,
}

/// A listener's address, and the means to end it.
#[derive(Clone)]
pub(crate) struct Accepting {
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    pub(crate) end: Arc<End>,
}

impl Shared {
    pub(crate) fn new(options: Options, threads: Vec<Thread>) -> Arc<Shared> {
        let memory = options.memory.max(CONNECTION_LIMIT);
        let share = options.memory_of_one.max(CONNECTION_LIMIT);
        let lists = Lists {
            exports: BTreeMap::new(),
            next_export: 0,
            connections: Connections::new(threads.len()),
            listeners: Vec::new(),
            stopping: false,
            stuck_sought: None,
        };
        Arc::new(Shared {
            // Buffers are lent in powers of two, and allowances come on top.
            pool: Pool::new("nbd", memory.saturating_mul(3)),
            budget: Budget::new(memory, share),
            visits: Visits::new(options.connections_of_one, options.visits_of_one),
            waiting: Waiting::new(options.waiting),
            options,
            threads,
            lists: Mutex::new(lists),
            ending: WaitList::default(),
            failed_flushes: AtomicU64::new(0),
        })
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lists().stopping
    }

    /// Puts a client on the list, and chooses a thread for it whose reactor has little to do, unless clients are served
    /// where they are accepted. `None` if there are too many, or the server stops.
    pub(crate) fn register(
        self: &Arc<Shared>,
        peer: String,
        origin: Origin,
    ) -> Option<(Registered, Option<Thread>)> {
        let (control, thread, leaves) = {
            let mut lists = self.lists();
            if lists.stopping {
                return None;
            }
            let Ok(leaves) = lists.connections.make_room(&self.options, origin) else {
                drop(lists);
                let why = "as many clients use exports as may be connected";
                spindle_reactor::tell("nbd", || format!("client ({peer}) is refused: {why}"));
                return None;
            };
            let thread = placing::choose(&lists.connections.candidates(&self.loads(), time()));
            let here = thread.map(|index| self.threads[index].clone()).or_else(Thread::current);
            let thread_name = here.map_or_else(String::new, |thread| thread.name().to_owned());
            let control = |id| Arc::new(Control::new(id, peer, origin));
            let control = lists.connections.add(control, time(), thread, thread_name);
            (control, thread, leaves)
        };
        leaves.into_iter().for_each(|control| control.stop(Stop::AtOnce));
        spindle_reactor::tell("nbd", || format!("client {} ({}) has connected", control.id, control.peer));
        let registered = Registered { server: self.clone(), control };
        Some((registered, thread.map(|index| self.threads[index].clone())))
    }

    /// The busy shares of the threads' reactors.
    fn loads(&self) -> Vec<f64> {
        // Outside of a Spindle thread no load is known.
        let loads = Thread::current().map_or_else(Vec::new, |_| reactor_loads());
        let load = |thread: &Thread| loads.get(thread.reactor()).copied().unwrap_or(0.0);
        self.threads.iter().map(load).collect()
    }

    /// Waits until none of these connections is left.
    pub(crate) async fn ended(&self, which: Which) {
        self.ending.until(|| (!self.lists().connections.has(which)).then_some(())).await;
    }

    /// Tells these connections to end when their requests have; returns how many of them use an export.
    pub(crate) fn tell_to_end(&self, which: Which) -> usize {
        let told = self.lists().connections.controls(which);
        told.iter().for_each(|control| control.stop(Stop::Gently));
        told.iter().filter(|control| control.export().is_some()).count()
    }

    /// The time for which a connection that waits for memory leaves alone those that have some.
    pub(crate) fn patience(&self) -> Duration {
        self.options.stalled.min(self.options.withheld) / 4
    }

    /// Closes clients that leave replies unread, or the data of a write unsent, while others wait for their memory.
    /// However many wait, clients are looked at once in the time of [`patience`](Self::patience).
    pub(crate) fn close_stuck(&self, now: Time) {
        let mut lists = self.lists();
        if lists.stuck_sought.is_some_and(|before| now.since(before) < self.patience()) {
            return;
        }
        lists.stuck_sought = Some(now);
        let is_stuck = |control: &&Arc<Control>| control.is_stuck(now, &self.options);
        let controls = lists.connections.iter().map(|connection| &connection.control);
        let stuck: Vec<Arc<Control>> = controls.filter(is_stuck).cloned().collect();
        for control in stuck {
            lists.connections.ends(control.id);
            control.stop(Stop::AtOnce);
        }
    }

    pub(crate) fn add(&self, export: Export) -> Result<Arc<Exported>, ExportError> {
        export.check()?;
        let mut lists = self.lists();
        if lists.stopping {
            return Err(ExportError::Stopping(shortened(&export.name)));
        }
        if lists.exports.contains_key(&export.name) {
            return Err(ExportError::Exists(shortened(&export.name)));
        }
        let same = |exported: &&Arc<Exported>| {
            std::ptr::addr_eq(Arc::as_ptr(&exported.export.device), Arc::as_ptr(&export.device))
        };
        let overlaps = lists.exports.values().find(same).map(|exported| exported.overlaps.clone());
        let name = export.name.clone();
        let exported = Exported::new(lists.next_export, export, overlaps.unwrap_or_default());
        lists.next_export += 1;
        lists.exports.insert(name, exported.clone());
        drop(lists);
        let name = || shortened(&exported.export.name);
        spindle_reactor::tell("nbd", || format!("export {:?} is there", name()));
        Ok(exported)
    }

    /// Removes this export from the list, if it is there.
    pub(crate) fn forget_export(&self, exported: &Arc<Exported>) {
        let name = &exported.export.name;
        let mut lists = self.lists();
        if lists.exports.get(name).is_some_and(|listed| Arc::ptr_eq(listed, exported)) {
            lists.exports.remove(name);
        }
    }

    /// Removes an export from the list: clients no longer find it.
    pub(crate) fn take_export(&self, name: &str) -> Result<Arc<Exported>, ExportError> {
        let mut lists = self.lists();
        lists.exports.remove(name).ok_or_else(|| ExportError::Unknown(shortened(name)))
    }

    /// The export for a client's name: the empty name selects the only export.
    fn named<'a>(lists: &'a Lists, name: &str) -> Result<&'a Arc<Exported>, Refusal> {
        if lists.stopping {
            return Err(Refusal::ShuttingDown);
        }
        let only = || lists.exports.values().next().filter(|_| name.is_empty() && lists.exports.len() == 1);
        lists.exports.get(name).or_else(only).ok_or(Refusal::Unknown)
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Exported>, Refusal> {
        Shared::named(&self.lists(), name).cloned()
    }

    /// Finds an export for a connection that is about to use it.
    pub(crate) fn attach(&self, control: &Control, name: &str) -> Result<Arc<Exported>, Refusal> {
        let mut lists = self.lists();
        let exported = Shared::named(&lists, name)?.clone();
        // Under the lock, so that a removal of the export finds the connection.
        control.set_export(Some(exported.clone()));
        lists.connections.uses_export(control.id, exported.number);
        Ok(exported)
    }

    /// Takes back that a connection uses an export.
    pub(crate) fn detach(&self, control: &Control) {
        let mut lists = self.lists();
        control.set_export(None);
        lists.connections.uses_none(control.id);
    }

    pub(crate) fn connections(&self) -> usize {
        self.lists().connections.len()
    }

    /// Names and descriptions of all exports.
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        let lists = self.lists();
        let exports = lists.exports.values();
        exports
            .map(|exported| (exported.export.name.clone(), exported.export.options.description.clone()))
            .collect()
    }

    pub(crate) fn exports(&self) -> Vec<ExportInfo> {
        let lists = self.lists();
        lists.exports.values().map(|exported| lists.info(exported)).collect()
    }

    /// Counts a connection whose last flush failed.
    pub(crate) fn flush_failed(&self, exported: &Exported) {
        self.failed_flushes.fetch_add(1, Ordering::Relaxed);
        exported.flush_failed();
    }

    pub(crate) fn failed_flushes(&self) -> u64 {
        self.failed_flushes.load(Ordering::Relaxed)
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.lists().listeners.iter().map(|accepting| accepting.address.clone()).collect()
    }

    pub(crate) fn listeners(&self) -> Vec<ListenerInfo> {
        let lists = self.lists();
        let shown = |accepting: &Accepting| ListenerInfo {
            address: accepting.address.clone(),
            tls: accepting.tls.as_ref().map(|tls| tls.folder().to_owned()),
        };
        lists.listeners.iter().map(shown).collect()
    }

    pub(crate) fn add_listener(&self, accepting: Accepting) -> bool {
        let mut lists = self.lists();
        if !lists.stopping {
            lists.listeners.push(accepting);
        }
        !lists.stopping
    }

    pub(crate) fn take_listener(&self, address: &Address) -> Option<Accepting> {
        let mut lists = self.lists();
        let index = lists.listeners.iter().position(|accepting| accepting.address == *address)?;
        Some(lists.listeners.remove(index))
    }

    /// Refuses all further connections; returns the listeners that must be ended.
    pub(crate) fn begin_stop(&self) -> Vec<Accepting> {
        let mut lists = self.lists();
        lists.stopping = true;
        std::mem::take(&mut lists.listeners)
    }
}

impl Lists {
    fn info(&self, exported: &Arc<Exported>) -> ExportInfo {
        let info = |Connection { control, thread_name, .. }: &Connection| ConnectionInfo {
            id: control.id,
            peer: control.peer.clone(),
            thread: thread_name.clone(),
            encrypted: control.is_encrypted(),
            counts: control.counters.counts(),
        };
        let connections: Vec<_> = self.connections.using(exported.number).map(info).collect();
        let mut counts = exported.past();
        connections.iter().for_each(|connection| counts += connection.counts);
        let export = &exported.export;
        let geometry = export.device.geometry();
        ExportInfo {
            name: export.name.clone(),
            options: ExportOptions { read_only: export.is_read_only(), ..export.options.clone() },
            device: export.device.name().to_owned(),
            bdev: export.bdev().map(|bdev| bdev.name().to_owned()),
            size: geometry.bytes(),
            block_size: geometry.block_size(),
            connections,
            counts,
        }
    }
}

/// A connection's place on the list; removed when its task ends, by a panic too.
pub(crate) struct Registered {
    pub(crate) server: Arc<Shared>,
    pub(crate) control: Arc<Control>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.control.came_to_something() {
            self.server.visits.was_worth(self.control.origin);
        }
        let mut lists = self.server.lists();
        lists.connections.remove(self.control.id);
        if let Some(exported) = self.control.export() {
            exported.remember(self.control.counters.counts());
        }
        // Before waiting tasks are woken: they may then need the export's device for themselves.
        self.control.set_export(None);
        if lists.connections.is_empty() {
            self.server.pool.trim();
        }
        drop(lists);
        self.server.ending.wake_all();
    }
}

/// The time, on a Spindle thread.
fn time() -> Option<Time> {
    Thread::current().map(|_| now())
}
