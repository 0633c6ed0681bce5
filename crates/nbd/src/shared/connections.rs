//! The connections of a server.
//!
//! Part of the server's lists, under their lock. Counted by origin and by thread, and listed by export, so that a new
//! one costs the same however many there are, and an export costs only its own.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use spindle_engine::Time;

use super::placing::{self, Candidate};
use super::{Control, Options};
use crate::origin::Origin;

/// Connections, by their numbers: in the order in which they came.
pub(super) struct Connections {
    all: BTreeMap<u64, Connection>,
    next_id: u64,
    staying: Staying,
    staying_of: BTreeMap<Origin, Staying>,
    /// Those that use each export, by its number.
    using: BTreeMap<u64, BTreeSet<u64>>,
    /// Number of those told to make room.
    leaving: usize,
    /// How many each thread has, and how many of these may be [`new`](placing::NEW).
    on_threads: Vec<OnThread>,
    new: BTreeSet<u64>,
    /// Connections looked at so far.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

/// Some connections of a server.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    All,
    /// Those that use the export of this number.
    Using(u64),
}

pub(super) struct Connection {
    pub(super) control: Arc<Control>,
    /// When it was placed, where that is known.
    since: Option<Time>,
    /// Its index among the threads; none for one that stays on the accepting thread.
    thread: Option<usize>,
    pub(super) thread_name: String,
    stay: Stay,
    /// The number of the export that it uses.
    export: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stay {
    InHandshake,
    UsesExport,
    /// Told to end at once.
    Ends {
        makes_room: bool,
    },
}

/// Connections that were not told to end at once.
#[derive(Default)]
struct Staying {
    count: usize,
    in_handshake: BTreeSet<u64>,
}

#[derive(Clone, Copy, Default)]
struct OnThread {
    connections: usize,
    new: usize,
}

/// All places are taken by clients that use an export.
pub(super) struct Full;

impl Staying {
    fn change(&mut self, id: u64, from: Option<Stay>, to: Option<Stay>) {
        let stays = |stay| matches!(stay, Some(Stay::InHandshake | Stay::UsesExport));
        self.count -= usize::from(stays(from));
        self.count += usize::from(stays(to));
        match to {
            Some(Stay::InHandshake) => self.in_handshake.insert(id),
            _ => self.in_handshake.remove(&id),
        };
    }

    /// The connection that must leave for one more of these, of which there may be `most`: the one that has been
    /// longest in its handshake.
    fn leaves(&self, most: usize) -> Result<Option<u64>, Full> {
        match self.in_handshake.first() {
            _ if self.count < most => Ok(None),
            Some(id) => Ok(Some(*id)),
            None => Err(Full),
        }
    }
}

impl Connections {
    /// None, of a server with so many threads.
    pub(super) fn new(threads: usize) -> Connections {
        Connections {
            all: BTreeMap::new(),
            next_id: 0,
            staying: Staying::default(),
            staying_of: BTreeMap::new(),
            using: BTreeMap::new(),
            leaving: 0,
            on_threads: vec![OnThread::default(); threads],
            new: BTreeSet::new(),
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The connections that use the export of this number.
    pub(super) fn using(&self, export: u64) -> impl Iterator<Item = &Connection> {
        let ids = self.using.get(&export).into_iter().flatten();
        ids.filter_map(|id| {
            self.looked();
            self.all.get(id)
        })
    }

    /// True if there is one of these.
    pub(super) fn has(&self, which: Which) -> bool {
        match which {
            Which::All => !self.is_empty(),
            Which::Using(export) => self.using.contains_key(&export),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.all.values()
    }

    pub(super) fn controls(&self, which: Which) -> Vec<Arc<Control>> {
        let control = |connection: &Connection| connection.control.clone();
        match which {
            Which::All => self.iter().map(control).collect(),
            Which::Using(export) => self.using(export).map(control).collect(),
        }
    }

    /// Makes room for one more connection of an origin: if there is none, the connection that has been longest in
    /// its handshake must leave, so that silent clients do not keep others out. If the origin has as many as it may
    /// have, one of the same origin must leave. Returns the one that must.
    pub(super) fn make_room(
        &mut self,
        options: &Options,
        origin: Origin,
    ) -> Result<Option<Arc<Control>>, Full> {
        // They end in the next turn of their threads.
        if self.leaving >= options.leaving {
            return Err(Full);
        }
        let own =
            self.staying_of.get(&origin).map_or(Ok(None), |own| own.leaves(options.connections_of_one))?;
        let Some(id) = own.map_or_else(|| self.staying.leaves(options.connections), |id| Ok(Some(id)))?
        else {
            return Ok(None);
        };
        self.change(id, Stay::Ends { makes_room: true });
        Ok(self.all.get(&id).map(|connection| connection.control.clone()))
    }

    /// Adds a connection, which is in its handshake.
    pub(super) fn add(
        &mut self,
        control: impl FnOnce(u64) -> Arc<Control>,
        since: Option<Time>,
        thread: Option<usize>,
        thread_name: String,
    ) -> Arc<Control> {
        let id = self.next_id;
        self.next_id += 1;
        let control = control(id);
        let stay = Stay::InHandshake;
        self.count(id, control.origin, None, Some(stay));
        if let Some(on_thread) = thread.and_then(|thread| self.on_threads.get_mut(thread)) {
            on_thread.connections += 1;
            on_thread.new += 1;
            self.new.insert(id);
        }
        let connection =
            Connection { control: control.clone(), since, thread, thread_name, stay, export: None };
        self.all.insert(id, connection);
        control
    }

    /// Notes that a connection uses the export of this number.
    pub(super) fn uses_export(&mut self, id: u64, export: u64) {
        self.set_export(id, Some(export));
        self.change(id, Stay::UsesExport);
    }

    /// Notes that a connection is in its handshake again.
    pub(super) fn uses_none(&mut self, id: u64) {
        self.set_export(id, None);
        self.change(id, Stay::InHandshake);
    }

    /// Notes that a connection was told to end at once.
    pub(super) fn ends(&mut self, id: u64) {
        self.change(id, Stay::Ends { makes_room: false });
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.set_export(id, None);
        let Some(connection) = self.all.remove(&id) else { return };
        self.count(id, connection.control.origin, Some(connection.stay), None);
        self.grows_old(id, connection.thread);
        if let Some(on_thread) = connection.thread.and_then(|thread| self.on_threads.get_mut(thread)) {
            on_thread.connections -= 1;
        }
    }

    /// The threads, which have these loads, as they may serve one more connection. At an unknown time all
    /// connections are new that were so before.
    pub(super) fn candidates(&mut self, loads: &[f64], now: Option<Time>) -> Vec<Candidate> {
        while let Some(id) = self.new.first().copied() {
            self.looked();
            let Some(Connection { since, thread, .. }) = self.all.get(&id) else { break };
            let (since, thread) = (*since, *thread);
            if now.is_none_or(|now| since.is_some_and(|since| now.since(since) < placing::NEW)) {
                break;
            }
            self.grows_old(id, thread);
        }
        let candidate = |(on_thread, load): (&OnThread, &f64)| Candidate {
            load: *load,
            connections: on_thread.connections,
            new: on_thread.new,
        };
        self.on_threads.iter().zip(loads).map(candidate).collect()
    }

    fn set_export(&mut self, id: u64, export: Option<u64>) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        let before = std::mem::replace(&mut connection.export, export);
        if let Some(before) = before
            && let Entry::Occupied(mut users) = self.using.entry(before)
        {
            users.get_mut().remove(&id);
            if users.get().is_empty() {
                users.remove();
            }
        }
        if let Some(export) = export {
            self.using.entry(export).or_default().insert(id);
        }
    }

    fn change(&mut self, id: u64, to: Stay) {
        self.looked();
        let Some(connection) = self.all.get_mut(&id) else { return };
        let from = connection.stay;
        // What was told to end does not stay any more, whatever it does until then.
        if matches!(from, Stay::Ends { .. }) {
            return;
        }
        connection.stay = to;
        let origin = connection.control.origin;
        self.count(id, origin, Some(from), Some(to));
    }

    fn count(&mut self, id: u64, origin: Origin, from: Option<Stay>, to: Option<Stay>) {
        self.staying.change(id, from, to);
        let own = self.staying_of.entry(origin).or_default();
        own.change(id, from, to);
        if own.count == 0 {
            self.staying_of.remove(&origin);
        }
        let makes_room = |stay| stay == Some(Stay::Ends { makes_room: true });
        self.leaving += usize::from(makes_room(to));
        self.leaving -= usize::from(makes_room(from));
    }

    fn grows_old(&mut self, id: u64, thread: Option<usize>) {
        if self.new.remove(&id)
            && let Some(on_thread) = thread.and_then(|thread| self.on_threads.get_mut(thread))
        {
            on_thread.new -= 1;
        }
    }

    fn looked(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Time = Time(1_000_000_000);

    /// The number of an export.
    const EXPORT: u64 = 1;

    /// A server's connections, at a time.
    struct Server {
        connections: Connections,
        options: Options,
        now: Time,
    }

    impl Server {
        fn new(connections: usize, connections_of_one: usize) -> Server {
            let options = Options { connections, connections_of_one, ..Options::default() };
            Server { connections: Connections::new(2), options, now: START }
        }

        /// One more connection: its number and that of the one that must leave; none if it is refused.
        fn comes(&mut self, origin: Origin) -> Option<(u64, Option<u64>)> {
            let leaves = self.connections.make_room(&self.options, origin).ok()?;
            let thread = placing::choose(&self.connections.candidates(&[0.0, 0.0], Some(self.now)));
            let control = |id| Arc::new(Control::new(id, String::new(), origin));
            let control = self.connections.add(control, Some(self.now), thread, String::new());
            Some((control.id, leaves.map(|leaves| leaves.id)))
        }

        fn new_ones(&self) -> Vec<usize> {
            self.connections.on_threads.iter().map(|thread| thread.new).collect()
        }
    }

    fn network(n: usize) -> Origin {
        Origin::Network(n as u64)
    }

    #[test]
    fn a_connection_looks_at_as_many_others_with_10_as_with_100_000() {
        for many in [10, 1000, 100_000] {
            let mut server = Server::new(many, many / 2);
            for n in 0..many {
                let (id, leaves) = server.comes(network(n % 5)).expect("there is room");
                assert_eq!(leaves, None);
                if n % 2 == 0 {
                    server.connections.uses_export(id, EXPORT);
                }
            }
            // Ones that all are old now, which are looked at once.
            server.now = server.now + placing::NEW;
            server.connections.looks.set(0);
            server.comes(network(0)).expect("one must leave");
            assert!(server.connections.looks.get() <= many + 2);
            for n in 0..1000 {
                server.connections.looks.set(0);
                let (id, leaves) = server.comes(network(n)).expect("one must leave");
                server.connections.remove(leaves.expect("one must leave"));
                if server.connections.staying.in_handshake.len() > 3 {
                    server.connections.uses_export(id, EXPORT);
                }
                assert!(server.connections.looks.get() <= 3, "{}", server.connections.looks.get());
            }
        }
    }

    #[test]
    fn the_end_of_an_export_looks_at_its_own_connections_however_many_others_there_are() {
        for many in [10, 1000, 100_000] {
            let mut server = Server::new(many + 3, many + 3);
            for n in 0..many {
                let (id, _) = server.comes(network(n)).expect("there is room");
                server.connections.uses_export(id, EXPORT);
            }
            let own = EXPORT + 1;
            let ids = [0, 1, 2].map(|n| {
                let (id, _) = server.comes(network(n)).expect("there is room");
                server.connections.uses_export(id, own);
                id
            });
            server.connections.looks.set(0);
            let told = server.connections.controls(Which::Using(own));
            assert_eq!(told.iter().map(|control| control.id).collect::<Vec<_>>(), ids);
            server.connections.uses_export(ids[1], EXPORT);
            server.connections.uses_none(ids[2]);
            assert!(server.connections.has(Which::Using(own)));
            server.connections.remove(ids[0]);
            assert!(!server.connections.has(Which::Using(own)));
            assert!(server.connections.looks.get() <= 6, "{}", server.connections.looks.get());
            assert_eq!(server.connections.using(EXPORT).count(), many + 1);
            assert_eq!(server.connections.controls(Which::All).len(), many + 2);
        }
    }

    #[test]
    fn those_told_to_make_room_are_limited_too_and_those_told_to_end_for_another_reason_are_not_counted() {
        let mut server = Server::new(1, 1);
        let leaving = server.options.leaving;
        server.comes(network(0)).expect("there is room");
        for n in 0..leaving {
            let came = server.comes(network(n + 1)).expect("there is room");
            assert_eq!(came, (n as u64 + 1, Some(n as u64)));
        }
        assert_eq!(server.comes(network(0)), None);
        server.connections.remove(5);
        assert!(server.comes(network(0)).is_some());
        let mut server = Server::new(1, 1);
        for n in 0..2 * leaving {
            let (id, leaves) = server.comes(network(n)).expect("there is room");
            assert_eq!(leaves, None);
            server.connections.ends(id);
        }
    }

    #[test]
    fn the_oldest_handshake_leaves_that_of_the_origin_first_and_none_that_uses_an_export() {
        let mut server = Server::new(4, 2);
        let came: Vec<_> = [0, 1, 0, 1].map(|n| server.comes(network(n))).into();
        assert_eq!(came, (0..4).map(|id| Some((id, None))).collect::<Vec<_>>());
        assert_eq!(server.comes(network(1)), Some((4, Some(1))), "the origin's own");
        assert_eq!(server.comes(network(2)), Some((5, Some(0))), "the oldest of all");
        for id in [2, 3, 4, 5] {
            server.connections.uses_export(id, EXPORT);
        }
        assert_eq!(server.comes(network(2)), None);
        server.connections.uses_none(3);
        assert_eq!(server.comes(network(2)), Some((6, Some(3))));
        (0..7).for_each(|id| server.connections.remove(id));
        assert!(server.connections.is_empty() && server.connections.staying_of.is_empty());
        assert_eq!((server.connections.staying.count, server.connections.leaving), (0, 0));
    }

    #[test]
    fn a_connection_counts_as_new_for_a_while_or_until_it_ends() {
        let mut server = Server::new(100, 100);
        for n in 0..10 {
            server.comes(network(n));
        }
        assert_eq!(server.new_ones(), [5, 5]);
        server.connections.remove(0);
        assert_eq!(server.new_ones(), [4, 5]);
        let moment = Duration::from_nanos(1);
        server.now = START + (placing::NEW - moment);
        server.comes(network(0));
        assert_eq!(server.new_ones(), [5, 5]);
        server.now = START + placing::NEW;
        server.comes(network(0));
        assert_eq!(server.new_ones().iter().sum::<usize>(), 2);
        let candidates = server.connections.candidates(&[0.0, 0.0], None);
        assert_eq!(candidates.iter().map(|one| one.connections).sum::<usize>(), 11);
        assert_eq!(server.connections.new.len(), 2);
    }
}
