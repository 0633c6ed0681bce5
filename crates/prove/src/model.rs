//! A store as plain maps: what it must show now, and what it may show after a crash.
//!
//! The model follows the history event by event. Data is kept per io unit as everything that a crash may
//! leave there; metadata is as after the operations that have ended, and an operation under way may have
//! happened or not.

use std::collections::BTreeMap;

use spindle_blob::{BlobId, BsType};
use spindle_engine::sim::UnmapReads;

use crate::external;
use crate::op::{Above, Event, Op, Outcome, Tag, Xattrs};
use crate::profile::Profile;
use crate::seen::Seen;
use crate::units::{ANYTHING, GARBAGE, Time, Units, Value, ZERO};

/// A value of which an older one may be on the disk still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions<T> {
    /// Oldest first; the last is what holds now.
    list: Vec<(Time, T)>,
}

impl<T: PartialEq + Clone> Versions<T> {
    /// One, durable.
    pub fn known(value: T) -> Versions<T> {
        Versions { list: vec![(0, value)] }
    }

    /// What holds now.
    pub fn now(&self) -> &T {
        &self.list[self.list.len() - 1].1
    }

    /// Whether a crash may leave this.
    pub fn allows(&self, value: &T) -> bool {
        self.list.iter().any(|(_, known)| known == value)
    }

    fn push(&mut self, time: Time, value: T) {
        self.list.push((time, value));
    }

    /// Nothing that held before that time matters.
    fn begin_again(&mut self, time: Time, value: T) {
        self.list.retain(|(at, _)| *at > time);
        self.list.insert(0, (time, value));
    }

    /// What was to hold from that time on never did.
    fn withdraw(&mut self, time: Time) {
        self.list.retain(|(at, _)| *at != time || time == 0);
    }

    /// This does not hold any more.
    fn forget(&mut self, value: &T) {
        if self.list.iter().any(|(_, known)| known != value) {
            self.list.retain(|(_, known)| known != value);
        }
    }

    /// What held at that time is durable.
    fn settle(&mut self, time: Time) {
        let older = self.list.iter().filter(|(at, _)| *at <= time).count();
        self.list.drain(..older.saturating_sub(1));
    }
}

/// A blob of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its id, once known.
    pub id: Option<BlobId>,
    /// Its size in clusters.
    pub clusters: u64,
    /// Whether it is thin.
    pub thin: bool,
    /// Whether its data cannot be written.
    pub read_only: bool,
    /// Its parent.
    pub parent: Option<Above>,
    /// Its xattrs but for the tag.
    pub xattrs: Versions<Xattrs>,
    /// Its data.
    pub units: Units,
    /// Reads that are under way: while there are, nothing is forgotten.
    reads: u32,
    /// Counts changes of what unmap means for it.
    pub shape: u32,
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What.
    pub op: Op,
    /// Shape of its blob when it began; none if that was changing.
    shape: Option<u32>,
}

/// What does not change while a store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Io units of a cluster.
    pub per_cluster: u64,
    /// Whether unmapped blocks read zero.
    pub unmap_reads_zero: bool,
    /// Clusters for data, before the device has grown and after that.
    pub clusters: (u64, u64),
}

impl Rules {
    /// The rules of a profile.
    pub fn of(profile: &Profile) -> Rules {
        let clusters = profile.data_clusters();
        Rules {
            per_cluster: profile.per_cluster(),
            unmap_reads_zero: profile.discard == Some(UnmapReads::Zero),
            clusters: (clusters, clusters + profile.growth),
        }
    }
}

/// The model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What never changes.
    pub rules: Rules,
    /// Blobs by tag.
    pub blobs: BTreeMap<Tag, Blob>,
    /// The super blob.
    pub super_blob: Versions<Option<Tag>>,
    /// Whose store it is.
    pub bs_type: Versions<BsType>,
    /// Whether there is no store.
    pub absent: bool,
    /// Clusters for data that the store has.
    pub clusters: Versions<u64>,
    /// Whether the device has grown.
    pub device_grown: bool,
    /// Operations under way by the event at which they began.
    pub pending: BTreeMap<Time, Pending>,
    /// The number of the next event.
    pub time: Time,
    /// The next tag and the next value that nothing has had.
    pub next: (Tag, Value),
}

impl Model {
    /// A device without a store.
    pub fn new(rules: Rules) -> Model {
        Model {
            rules,
            blobs: BTreeMap::new(),
            super_blob: Versions::known(None),
            bs_type: Versions::known(BsType::NONE),
            absent: true,
            clusters: Versions::known(0),
            device_grown: false,
            pending: BTreeMap::new(),
            time: 1,
            next: (1, 1),
        }
    }

    /// What was found, as a model in which everything is known.
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
            (*tag, blob)
        };
        let blobs = seen.blobs.iter().map(blob).collect();
        let super_blob = Versions::known(seen.super_blob);
        let clusters = Versions::known(seen.clusters);
        let bs_type = Versions::known(seen.bs_type);
        Model { blobs, super_blob, bs_type, clusters, absent: false, ..Model::nothing(before) }
    }

    /// What is known when no store was found.
    fn nothing(before: &Model) -> Model {
        Model { next: before.next, device_grown: before.device_grown, ..Model::new(before.rules) }
    }

    /// What a blob's units hold that were never written; it may be one that is just being made.
    fn blank_of(&self, tag: Tag) -> Value {
        if let Some(blob) = self.blobs.get(&tag) {
            return blob.units.blank;
        }
        let made = self.pending.values().find_map(|pending| match pending.op {
            Op::Create { tag: new, waived, .. } if new == tag => Some(if waived { ANYTHING } else { ZERO }),
            Op::Snapshot { tag: from, new } | Op::Clone { tag: from, new } if new == tag => {
                Some(self.blobs.get(&from).map_or(ZERO, |from| from.units.blank))
            }
            _ => None,
        });
        made.unwrap_or(ZERO)
    }

    /// Follows one event.
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

    /// The clones of a blob.
    pub fn clones(&self, tag: Tag) -> Vec<Tag> {
        self.blobs
            .iter()
            .filter(|(_, blob)| blob.parent == Some(Above::Blob(tag)))
            .map(|(tag, _)| *tag)
            .collect()
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
                    | Op::Delete { .. }
            )
        })
    }

    fn begin(&mut self, time: Time, op: &Op) {
        let (mut shape, changing) = (None, self.is_shape_changing());
        if let Some(tag) = op.blob()
            && let Some(blob) = self.blobs.get_mut(&tag)
        {
            shape = Some(blob.shape).filter(|_| !changing);
            blob.begin(time, op, self.rules);
        }
        match op {
            Op::Create { tag: new, .. }
            | Op::Snapshot { new, .. }
            | Op::Clone { new, .. }
            | Op::CloneExternal { tag: new, .. } => {
                self.next.0 = self.next.0.max(new + 1);
            }
            Op::Write { count, value, .. } => self.next.1 = self.next.1.max(value + *count as Value),
            Op::SetSuper { tag } => self.super_blob.push(time, *tag),
            Op::SetType { bs_type } => self.bs_type.push(time, *bs_type),
            Op::Grow | Op::Load { grow: true } | Op::Reload { grow: true } => {
                self.device_grown = true;
                self.clusters.push(time, self.rules.clusters.1);
            }
            // A super blob that is deleted stops being one first.
            Op::Delete { tag } if *self.super_blob.now() == Some(*tag) => self.super_blob.push(time, None),
            _ => {}
        }
        self.pending.insert(time, Pending { op: op.clone(), shape });
    }

    /// What holds when an operation that began at `begun` has ended.
    fn end(&mut self, begun: Time, pending: &Pending, outcome: Outcome) {
        let now = self.time;
        let done = matches!(outcome, Outcome::Done(_));
        let per_cluster = self.rules.per_cluster;
        if let Op::Flush { .. } = pending.op
            && done
        {
            self.blobs.values_mut().filter(|blob| blob.reads == 0).for_each(|blob| blob.units.settle(begun));
        }
        if let Some(tag) = pending.op.blob()
            && pending.op.is_data()
        {
            let (rules, changing) = (self.rules, self.is_shape_changing());
            // One that finds a cluster already being unmapped does not wait until that is durable.
            let unmapping = |one: &Pending| matches!(one.op, Op::Unmap { tag: other, .. } if other == tag);
            let changing = changing || self.pending.values().any(unmapping);
            if let Some(blob) = self.blobs.get_mut(&tag) {
                let steady = !changing && pending.shape == Some(blob.shape);
                blob.end(begun, now, &pending.op, (done, steady), rules);
            }
        }
        if let (true, Outcome::Done(id)) = (done, outcome) {
            self.happened(begun, &pending.op, id, per_cluster);
        } else {
            self.super_blob.withdraw(begun);
            self.bs_type.withdraw(begun);
            self.clusters.withdraw(begun);
            let blob = pending.op.blob().and_then(|tag| self.blobs.get_mut(&tag));
            blob.into_iter().for_each(|blob| blob.xattrs.withdraw(begun));
        }
    }

    /// An operation on metadata that began at `begun` has happened.
    pub fn happened(&mut self, begun: Time, op: &Op, id: Option<BlobId>, per_cluster: u64) {
        let now = self.time;
        match op {
            Op::Create { tag, clusters, thin, waived, xattrs, .. } => {
                let blank = if *waived { ANYTHING } else { ZERO };
                let (thin, xattrs) = (*thin, Versions::known(xattrs.clone()));
                let units = Units::known([], blank);
                self.blobs.insert(*tag, Blob { thin, xattrs, ..Blob::new(id, *clusters, units) });
            }
            Op::Snapshot { tag, new } => self.snapshot(*tag, *new, id, begun),
            Op::Clone { tag, new } => self.clone_of(*tag, *new, id),
            Op::CloneExternal { tag, source, clusters } => {
                let mut units = external::units(*source, per_cluster);
                units.truncate(clusters * per_cluster);
                let parent = Some(Above::External(*source));
                self.blobs.insert(*tag, Blob { parent, thin: true, ..Blob::new(id, *clusters, units) });
            }
            Op::Delete { tag } => self.delete(*tag),
            Op::SetParent { tag, parent } => {
                let above = match parent {
                    Above::Blob(parent) => self.blobs.get(parent).map(|blob| blob.units.clone()),
                    Above::External(source) => Some(external::units(*source, per_cluster)),
                };
                let above = above.unwrap_or_default();
                self.change(*tag, |blob| {
                    blob.parent = Some(*parent);
                    blob.units.join(&above, blob.clusters * per_cluster);
                });
            }
            Op::Decouple { tag } => {
                let above = self.blobs.get(tag).and_then(|blob| blob.parent);
                let grandparent = match above {
                    Some(Above::Blob(above)) => self.blobs.get(&above).and_then(|above| above.parent),
                    _ => None,
                };
                self.change(*tag, |blob| blob.parent = grandparent);
            }
            Op::Inflate { tag } => self.change(*tag, |blob| (blob.parent, blob.thin) = (None, false)),
            Op::Resize { tag, clusters } => self.change(*tag, |blob| {
                blob.clusters = *clusters;
                blob.units.truncate(clusters * per_cluster);
            }),
            Op::ReadOnly { tag } => self.change(*tag, |blob| blob.read_only = true),
            Op::Sync { tag } | Op::Reopen { tag } => {
                self.blobs.get_mut(tag).into_iter().for_each(|blob| blob.xattrs.settle(begun));
            }
            Op::SetSuper { .. } => self.super_blob.settle(begun),
            Op::SetType { .. } => self.bs_type.settle(begun),
            Op::Grow | Op::Load { grow: true } => self.clusters.settle(begun),
            Op::Init { clusters } => {
                self.clusters.begin_again(begun, *clusters);
                self.absent = false;
            }
            Op::Destroy => {
                self.blobs.clear();
                self.super_blob = Versions::known(None);
                self.bs_type = Versions::known(BsType::NONE);
                self.absent = true;
            }
            Op::Reload { .. } => {
                self.super_blob.settle(now);
                self.bs_type.settle(now);
                if let Op::Reload { grow: true } = op {
                    self.clusters.settle(now);
                }
                self.blobs.values_mut().for_each(|blob| blob.xattrs.settle(begun));
            }
            _ => {}
        }
    }

    fn change(&mut self, tag: Tag, change: impl FnOnce(&mut Blob)) {
        if let Some(blob) = self.blobs.get_mut(&tag) {
            change(blob);
            blob.shape += 1;
        }
    }

    fn snapshot(&mut self, tag: Tag, new: Tag, id: Option<BlobId>, begun: Time) {
        let Some(original) = self.blobs.get_mut(&tag) else { return };
        let snapshot = Blob {
            id,
            read_only: true,
            xattrs: Versions::known(Xattrs::new()),
            units: original.units.snapshot(begun),
            reads: 0,
            ..original.clone()
        };
        original.parent = Some(Above::Blob(new));
        original.thin = true;
        original.shape += 1;
        self.blobs.insert(new, snapshot);
    }

    fn clone_of(&mut self, tag: Tag, new: Tag, id: Option<BlobId>) {
        let Some(snapshot) = self.blobs.get(&tag) else { return };
        let clone = Blob {
            id,
            read_only: false,
            thin: true,
            parent: Some(Above::Blob(tag)),
            xattrs: Versions::known(Xattrs::new()),
            reads: 0,
            ..snapshot.clone()
        };
        self.blobs.insert(new, clone);
    }

    fn delete(&mut self, tag: Tag) {
        let Some(blob) = self.blobs.remove(&tag) else { return };
        for clone in self.clones(tag) {
            self.change(clone, |clone| clone.parent = blob.parent);
        }
        self.super_blob.forget(&Some(tag));
    }
}

impl Blob {
    /// A thick blob without xattrs.
    fn new(id: Option<BlobId>, clusters: u64, units: Units) -> Blob {
        let xattrs = Versions::known(Xattrs::new());
        let (thin, read_only, parent) = (false, false, None);
        Blob { id, clusters, thin, read_only, parent, xattrs, units, reads: 0, shape: 0 }
    }

    fn begin(&mut self, time: Time, op: &Op, rules: Rules) {
        match op {
            Op::Write { unit, count, value, .. } => {
                (0..*count).for_each(|at| self.units.begin(unit + at, value + at as Value, time));
            }
            Op::Zeroes { unit, count, .. } => {
                (0..*count).for_each(|at| self.units.begin(unit + at, ZERO, time));
            }
            Op::Unmap { unit, count, .. } => (0..*count).for_each(|at| {
                self.units.begin(unit + at, ZERO, time);
                if !rules.unmap_reads_zero {
                    self.units.begin(unit + at, GARBAGE, time);
                }
            }),
            Op::Read { .. } => self.reads += 1,
            Op::SetXattr { name, value, .. } => {
                let mut all = self.xattrs.now().clone();
                all.insert(*name, value.clone());
                self.xattrs.push(time, all);
            }
            Op::RemoveXattr { name, .. } => {
                let mut all = self.xattrs.now().clone();
                all.remove(name);
                self.xattrs.push(time, all);
            }
            _ => {}
        }
    }

    fn end(&mut self, begun: Time, now: Time, op: &Op, (done, steady): (bool, bool), rules: Rules) {
        let per_cluster = rules.per_cluster;
        match op {
            Op::Write { unit, count, value, .. } => {
                (0..*count).for_each(|at| {
                    self.units.end(unit + at, value + at as Value, begun, now, done);
                });
            }
            Op::Zeroes { unit, count, .. } => {
                (0..*count).for_each(|at| self.units.end(unit + at, ZERO, begun, now, done));
            }
            Op::Unmap { unit, count, .. } => {
                // Whole clusters of a thin blob without parent are freed, durably; where the blob's shape
                // has changed meanwhile, nobody can tell.
                let steady = done && steady;
                let frees = steady && self.thin && self.parent.is_none();
                let (first, end) =
                    (unit.div_ceil(per_cluster) * per_cluster, (unit + count) / per_cluster * per_cluster);
                for at in *unit..unit + count {
                    let freed = frees && (first..end).contains(&at);
                    let zero = freed || steady && rules.unmap_reads_zero && self.parent.is_none();
                    self.units.end(at, ZERO, begun, now, zero);
                    if !rules.unmap_reads_zero {
                        // A unit that is zero for certain is so after it was anything else.
                        let end = if freed { begun - 1 } else { now };
                        self.units.end(at, GARBAGE, begun, end, false);
                    }
                    if freed && self.reads == 0 {
                        self.units.durable(at, begun);
                    }
                }
            }
            Op::Read { .. } => self.reads -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            xattrs: Xattrs::new(),
            units: BTreeMap::new(),
        };
        let seen = Seen { blobs: [(1, blob)].into(), super_blob: None, bs_type: BsType::NONE, clusters: 9 };
        model.apply(&Event::Found(Some(Box::new(seen))));
        assert!(model.blobs[&1].units.allows(3, ANYTHING));
    }
}
