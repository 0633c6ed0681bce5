//! Predicts the contents of a store now, and those that it may have after a crash.
//!
//! The model follows the history event by event. For data it keeps, per io unit, every value that a crash may
//! leave. For metadata it applies the operations that have ended, in every order that is possible and makes a
//! difference ([`World`]). A pending operation may have happened or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use spindle_engine::sim::UnmapReads;

use crate::kept::{Blob, Versions};
use crate::op::{Event, Op, Outcome, Tag};
use crate::profile::Profile;
use crate::seen::Seen;
use crate::units::{ANYTHING, NEVER, Time, Units, Value, ZERO};
use crate::world::{Open, World};

/// No operation that changes metadata begins while so many are under way or in doubt after an error of the device:
/// each may have happened or not, in any order.
pub const MOST_OPEN: usize = 5;

/// A pending operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The operation.
    pub op: Op,
    /// True if nothing that it depends on was changing when it began.
    steady: bool,
}

/// Properties that do not change while a store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Io units of a cluster.
    pub per_cluster: u64,
    /// True if unmapped blocks read zero.
    pub unmap_reads_zero: bool,
    /// Clusters for data, before and after the device has grown.
    pub clusters: (u64, u64),
}

impl Rules {
    /// Returns the rules of a profile.
    pub fn of(profile: &Profile) -> Rules {
        let clusters = profile.data_clusters();
        Rules {
            per_cluster: profile.per_cluster(),
            unmap_reads_zero: profile.discard == Some(UnmapReads::Zero),
            clusters: (clusters, clusters + profile.growth),
        }
    }
}

/// The model of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Properties that never change.
    pub rules: Rules,
    /// The possible stores without the pending operations; the first is the most likely.
    pub worlds: Vec<World>,
    /// True if the device has grown.
    pub device_grown: bool,
    /// Pending operations by the event at which they began.
    pub pending: BTreeMap<Time, Pending>,
    /// The time at which the data a blob reads, or the effect of unmap on it, last changed.
    reshaped: BTreeMap<Tag, Time>,
    /// An outcome that the model does not allow.
    impossible: Option<String>,
    /// The number of the next event.
    pub time: Time,
    /// The next unused tag and value.
    pub next: (Tag, Value),
}

impl Model {
    /// Creates a model of a device without a store.
    pub fn new(rules: Rules) -> Model {
        Model {
            rules,
            worlds: vec![World::nothing()],
            device_grown: false,
            pending: BTreeMap::new(),
            reshaped: BTreeMap::new(),
            impossible: None,
            time: 1,
            next: (1, 1),
        }
    }

    /// Creates a model in which everything is known, from the contents of a store.
    pub fn found(seen: &Seen, before: &Model) -> Model {
        let blob = |(tag, seen): (&Tag, &crate::seen::SeenBlob)| {
            let blank = before.blank_of(*tag);
            let units = Units::known(seen.units.iter().map(|(at, value)| (*at, *value)), blank);
            let blob = Blob {
                thin: seen.thin,
                read_only: seen.read_only,
                parent: seen.parent,
                xattrs: Versions::known(seen.xattrs.clone()),
                ..Blob::new(Some(seen.id), seen.clusters, units)
            };
            (*tag, blob.into())
        };
        let world = World {
            blobs: seen.blobs.iter().map(blob).collect(),
            super_blob: seen.super_blob,
            bs_type: seen.bs_type,
            absent: false,
            clusters: seen.clusters,
            ahead: BTreeSet::new(),
        };
        Model { worlds: vec![world], ..Model::nothing(before) }
    }

    /// Creates a model for a device on which no store was found.
    fn nothing(before: &Model) -> Model {
        Model { next: before.next, device_grown: before.device_grown, ..Model::new(before.rules) }
    }

    /// Returns the value of a blob's units that were never written. The blob may be one just being made.
    fn blank_of(&self, tag: Tag) -> Value {
        if let Some(blob) = self.worlds.iter().find_map(|world| world.blobs.get(&tag)) {
            return blob.units.blank;
        }
        let made = self.pending.values().find_map(|pending| match pending.op {
            Op::Create { tag: new, waived, .. } if new == tag => Some(if waived { ANYTHING } else { ZERO }),
            Op::Snapshot { tag: from, new } | Op::Clone { tag: from, new } if new == tag => {
                Some(self.blank_of(from))
            }
            _ => None,
        });
        made.unwrap_or(ZERO)
    }

    /// Returns the most likely store.
    pub fn now(&self) -> &World {
        &self.worlds[0]
    }

    /// Returns the pending operations that change metadata.
    pub fn open(&self) -> Vec<Open> {
        let all = self.pending.iter().filter(|(_, pending)| pending.op.is_change());
        all.map(|(begun, pending)| (*begun, pending.op.clone())).collect()
    }

    /// Takes the outcome that the model does not allow.
    pub fn take_impossible(&mut self) -> Option<String> {
        self.impossible.take()
    }

    /// True if a blob may be gone, is being deleted, or may not exist yet.
    pub fn may_be_absent(&self, tag: Tag) -> bool {
        let going = |op: &Op| *op == Op::Delete { tag } || op.new_blob() == Some(tag) || *op == Op::Destroy;
        self.worlds.iter().any(|world| !world.blobs.contains_key(&tag))
            || self.pending.values().any(|pending| going(&pending.op))
    }

    /// True if the data that a blob reads has not changed since then and no pending operation changes it.
    pub fn is_same_since(&self, tag: Tag, time: Time) -> bool {
        let moves = |op: &Op| match op {
            Op::SetParent { tag: moved, .. } => self.now().readers(*moved).contains(&tag),
            Op::Replace { tag: replaced, .. } => *replaced == tag,
            _ => false,
        };
        self.reshaped.get(&tag).is_none_or(|at| *at < time)
            && !self.pending.values().any(|pending| moves(&pending.op))
    }

    /// Applies one event.
    pub fn apply(&mut self, event: &Event) {
        let time = self.time;
        match event {
            Event::Begin(op) => self.begin(time, op),
            Event::End(begun, outcome) => {
                if let Some(pending) = self.pending.remove(begun) {
                    self.end(*begun, &pending, *outcome);
                }
            }
            Event::Found(seen) => {
                let found = match seen {
                    Some(seen) => Model::found(seen, self),
                    None => Model::nothing(self),
                };
                *self = Model { time, ..found };
            }
        }
        self.time += 1;
    }

    /// A flush that began then has succeeded.
    fn settle(&mut self, begun: Time) {
        let pending = &self.pending;
        // A snapshot that is being taken may hold what was there before all that was written meanwhile.
        let is_copied = |tag: Tag| {
            let copies = |op: &Op| matches!(op, Op::Snapshot { tag: copied, .. } if *copied == tag);
            pending.values().any(|one| copies(&one.op))
        };
        let replaced_since = |tag: Tag| {
            let replaces = |op: &Op| matches!(op, Op::Replace { tag: replaced, .. } if *replaced == tag);
            pending.iter().find(|(_, one)| replaces(&one.op)).map_or(NEVER, |(begun, _)| *begun)
        };
        for (tag, blob) in self.worlds.iter_mut().flat_map(World::blobs_mut) {
            if blob.reads == 0 && !is_copied(tag) {
                blob.units.settle(begun, replaced_since(tag));
            }
        }
    }

    /// Whether an operation is under way that changes what unmap means for some blob.
    fn is_shape_changing(&self) -> bool {
        self.pending.values().any(|pending| {
            matches!(
                pending.op,
                Op::Snapshot { .. }
                    | Op::Inflate { .. }
                    | Op::Decouple { .. }
                    | Op::SetParent { .. }
                    | Op::Resize { .. }
                    | Op::Replace { .. }
                    | Op::Delete { .. }
            )
        })
    }

    fn begin(&mut self, time: Time, op: &Op) {
        let steady = !self.is_shape_changing();
        if let Some(tag) = op.blob() {
            let blobs = self.worlds.iter_mut().filter_map(|world| world.blob_mut(tag));
            blobs.for_each(|blob| blob.begin(time, op, self.rules));
        }
        self.next.0 = self.next.0.max(op.new_blob().map_or(0, |new| new + 1));
        match op {
            Op::Write { count, value, .. } | Op::Replace { count, value, .. } => {
                self.next.1 = self.next.1.max(value + *count as Value)
            }
            Op::Grow | Op::Load { grow: true } | Op::Reload { grow: true } => self.device_grown = true,
            _ => {}
        }
        self.pending.insert(time, Pending { op: op.clone(), steady });
    }

    /// Applies the end of an operation that began at `begun`.
    fn end(&mut self, begun: Time, pending: &Pending, outcome: Outcome) {
        let (now, op) = (self.time, &pending.op);
        let done = matches!(outcome, Outcome::Done(_));
        if let Op::Flush { .. } = op
            && done
        {
            self.settle(begun);
        }
        if let Some(tag) = op.blob() {
            let same = self.reshaped.get(&tag).is_none_or(|at| *at < begun);
            let steady = pending.steady && !self.is_shape_changing() && same;
            let blobs = self.worlds.iter_mut().filter_map(|world| world.blob_mut(tag));
            blobs.for_each(|blob| blob.end(begun, now, op, (done, steady), self.rules));
        }
        match outcome {
            Outcome::Done(id) if op.is_change() => {
                let before = std::mem::take(&mut self.worlds);
                self.worlds = self.happened(before, (begun, op), id);
            }
            Outcome::Refused => {
                let without = |world: &World| !world.ahead.contains(&begun);
                match self.worlds.iter().any(without) {
                    true => self.worlds.retain(without),
                    false => {
                        self.impossible =
                            Some(format!("{op:?}, begun at {begun}, was refused, and must have happened"));
                    }
                }
            }
            Outcome::Done(_) => {}
        }
    }

    /// Returns the worlds after an operation has succeeded, before or after each of the pending operations on
    /// the same blobs.
    fn happened(
        &mut self,
        before: Vec<World>,
        (begun, op): (Time, &Op),
        id: Option<spindle_blob::BlobId>,
    ) -> Vec<World> {
        let mut worlds = Vec::new();
        for world in &before {
            let related = self.related(world, op);
            let changed = related.iter().map(|(_, op)| op).chain([op]).flat_map(|op| world.reshaped(op));
            self.reshaped.extend(changed.map(|tag| (tag, self.time)));
            if world.ahead.contains(&begun) {
                let mut world = world.clone();
                world.ahead.remove(&begun);
                world.name(op, id);
                world.join(&mut worlds);
                continue;
            }
            let _ = world.explore(&related, self.rules, &mut |world| {
                let after = world.after(begun, op, id, self.rules);
                after.into_iter().for_each(|world| world.join(&mut worlds));
                ControlFlow::<()>::Continue(())
            });
        }
        if worlds.is_empty() {
            self.impossible = Some(format!("{op:?}, begun at {begun}, ended well, and cannot have happened"));
            return before;
        }
        worlds
    }

    /// Returns the pending operations whose order relative to this one may matter.
    fn related(&self, world: &World, op: &Op) -> Vec<Open> {
        let mut rest = self.open();
        let mut family = world.family(op);
        let mut related = Vec::new();
        loop {
            let meets = |(_, other): &mut Open| {
                op.is_about_all()
                    || other.is_about_all()
                    || matches!((op, &*other), (Op::SetSuper { .. }, Op::SetSuper { .. }))
                    || matches!((op, &*other), (Op::SetType { .. }, Op::SetType { .. }))
                    || !world.family(other).is_disjoint(&family)
            };
            let found: Vec<Open> = rest.extract_if(.., meets).collect();
            if found.is_empty() {
                related.sort_by_key(|(begun, _)| *begun);
                return related;
            }
            found.iter().for_each(|(_, other)| family.extend(world.family(other)));
            related.extend(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_blob::{BlobId, BsType};

    use super::*;
    use crate::op::{Above, Xattrs};
    use crate::seen::SeenBlob;

    #[test]
    fn a_blob_that_waives_zeroes_may_hold_anything_also_if_a_crash_cut_off_its_making() {
        let rules = Rules { per_cluster: 8, unmap_reads_zero: true, clusters: (9, 9) };
        let mut model = Model::new(rules);
        let (clusters, xattrs) = (1, Xattrs::new());
        let made = Op::Create { tag: 1, clusters, thin: false, table: true, waived: true, xattrs };
        model.apply(&Event::Begin(made));
        let blob = SeenBlob {
            id: BlobId::from_page(spindle_format::PageIdx(0)),
            clusters,
            thin: false,
            read_only: false,
            parent: None,
            clones: BTreeSet::new(),
            allocated: clusters,
            xattrs: Xattrs::new(),
            units: BTreeMap::new(),
        };
        let seen = Seen { blobs: [(1, blob)].into(), super_blob: None, bs_type: BsType::NONE, clusters: 9 };
        model.apply(&Event::Found(Some(Box::new(seen))));
        assert!(model.now().blobs[&1].units.allows(3, ANYTHING));
    }

    /// A model with a blob 1 under snapshot 3 under snapshot 2.
    fn chain() -> Model {
        let mut model = Model::new(Rules { per_cluster: 8, unmap_reads_zero: true, clusters: (9, 9) });
        let xattrs = Xattrs::new();
        for op in [
            Op::Init { clusters: 9 },
            Op::Create { tag: 1, clusters: 2, thin: true, table: true, waived: false, xattrs },
            Op::Snapshot { tag: 1, new: 2 },
            Op::Snapshot { tag: 1, new: 3 },
        ] {
            run(&mut model, &[(op, true)]);
        }
        model
    }

    /// Applies operations that begin in this order and end in this order, done or refused.
    fn run(model: &mut Model, ops: &[(Op, bool)]) {
        let begun = model.time;
        ops.iter().for_each(|(op, _)| model.apply(&Event::Begin(op.clone())));
        for (at, (_, done)) in (begun..).zip(ops) {
            let outcome = if *done { Outcome::Done(None) } else { Outcome::Refused };
            model.apply(&Event::End(at, outcome));
        }
    }

    fn parents(model: &Model) -> Vec<Option<Above>> {
        let mut parents: Vec<_> = model.worlds.iter().map(|world| world.blobs[&1].parent).collect();
        parents.sort_by_key(|parent| parent.is_some());
        parents
    }

    #[test]
    fn operations_on_one_chain_may_have_come_in_either_order() {
        let mut model = chain();
        run(&mut model, &[(Op::Decouple { tag: 1 }, true), (Op::Delete { tag: 3 }, true)]);
        // If decoupled from 3, it reads through 2; if decoupled after 3 was deleted, through nothing.
        assert_eq!(parents(&model), [None, Some(Above::Blob(2))]);
        assert!(model.worlds.iter().all(|world| world.ahead.is_empty()));
        assert_eq!(model.take_impossible(), None);
    }

    #[test]
    fn what_was_refused_has_not_happened_and_what_ended_well_must_have_been_possible() {
        let mut model = chain();
        run(&mut model, &[(Op::Decouple { tag: 1 }, true), (Op::Delete { tag: 3 }, false)]);
        assert_eq!(parents(&model), [Some(Above::Blob(2))]);
        run(&mut model, &[(Op::Delete { tag: 1 }, true), (Op::Snapshot { tag: 1, new: 4 }, true)]);
        assert_eq!(model.take_impossible(), None, "the snapshot may have come first");
        assert!(model.worlds.iter().all(|world| world.blobs.contains_key(&4)));
        run(&mut model, &[(Op::Snapshot { tag: 1, new: 5 }, true)]);
        assert!(model.take_impossible().is_some(), "its blob was gone before it began");
    }

    /// A write of a value that is durable by the end, while an operation on its blob goes on.
    fn write_durably(model: &mut Model, value: Value) {
        for op in [Op::Write { tag: 1, unit: 0, count: 1, value }, Op::Flush { tag: 1 }] {
            run(model, &[(op, true)]);
        }
    }

    #[test]
    fn what_is_durable_before_a_snapshot_or_replacement_ends_may_have_come_before_or_after_it() {
        let during = |op: Op| {
            let mut model = chain();
            write_durably(&mut model, 4);
            let begun = model.time;
            model.apply(&Event::Begin(op));
            write_durably(&mut model, 5);
            model.apply(&Event::End(begun, Outcome::Done(None)));
            model
        };
        let snapshot = during(Op::Snapshot { tag: 1, new: 9 });
        assert_eq!(snapshot.now().blobs[&9].units.possible(0), [4, 5]);
        let replaced = during(Op::Replace { tag: 1, unit: 0, count: 1, value: 20 });
        assert_eq!(replaced.now().blobs[&1].units.possible(0), [20, 5]);
    }

    #[test]
    fn at_a_crash_every_operation_under_way_counts_however_many_there_are() {
        let mut model = Model::new(Rules { per_cluster: 8, unmap_reads_zero: true, clusters: (9, 9) });
        run(&mut model, &[(Op::Init { clusters: 9 }, true)]);
        (0..=MOST_OPEN as u8).for_each(|_| model.apply(&Event::Begin(Op::Grow)));
        model.apply(&Event::Begin(Op::SetType { bs_type: BsType::LVOLSTORE }));
        let seen = Seen { blobs: BTreeMap::new(), super_blob: None, bs_type: BsType::LVOLSTORE, clusters: 9 };
        assert_eq!(crate::verdict::judge(&model, Ok(&seen)), Ok(()));
    }

    #[test]
    fn operations_that_do_not_meet_make_one_world() {
        let mut model = chain();
        let create = |tag| {
            let xattrs = Xattrs::new();
            Op::Create { tag, clusters: 2, thin: true, table: true, waived: false, xattrs }
        };
        run(&mut model, &[(create(7), true), (create(8), true), (Op::Resize { tag: 1, clusters: 1 }, true)]);
        assert_eq!(model.worlds.len(), 1);
    }
}
