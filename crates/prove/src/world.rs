//! A store as plain maps, after a known set of operations in a known order.
//!
//! An operation on metadata happens at one moment between its beginning and its end. The model has one world
//! for each order with a different result. A crash shows one of them, after any subset of the pending
//! operations.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use spindle_blob::{BlobId, BsType};

use crate::external;
use crate::kept::{Blob, Versions};
use crate::model::Rules;
use crate::op::{Above, Op, Tag, Xattrs};
use crate::units::{ANYTHING, Time, Units, ZERO};

/// A pending operation on metadata, and the event at which it began.
pub type Open = (Time, Op);

/// The contents of a store after one possible order of its operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Blobs by tag.
    pub blobs: BTreeMap<Tag, Arc<Blob>>,
    /// The super blob.
    pub super_blob: Option<Tag>,
    /// The type of the store.
    pub bs_type: BsType,
    /// True if there is no store.
    pub absent: bool,
    /// Number of clusters for data.
    pub clusters: u64,
    /// Operations that have happened and have not ended yet.
    pub ahead: BTreeSet<Time>,
}

impl World {
    /// Creates a world without a store.
    pub fn nothing() -> World {
        World {
            blobs: BTreeMap::new(),
            super_blob: None,
            bs_type: BsType::NONE,
            absent: true,
            clusters: 0,
            ahead: BTreeSet::new(),
        }
    }

    /// Returns the clones of a blob.
    pub fn clones(&self, tag: Tag) -> Vec<Tag> {
        let parent = Some(Above::Blob(tag));
        self.blobs.iter().filter(|(_, blob)| blob.parent == parent).map(|(tag, _)| *tag).collect()
    }

    /// Returns a blob and all blobs that read through it.
    pub fn readers(&self, tag: Tag) -> Vec<Tag> {
        let mut all = vec![tag];
        let mut next = 0;
        while let Some(tag) = all.get(next) {
            all.extend(self.clones(*tag));
            next += 1;
        }
        all
    }

    /// Returns a blob for a change.
    pub fn blob_mut(&mut self, tag: Tag) -> Option<&mut Blob> {
        self.blobs.get_mut(&tag).map(Arc::make_mut)
    }

    /// All blobs by their tags, to be changed.
    pub fn blobs_mut(&mut self) -> impl Iterator<Item = (Tag, &mut Blob)> {
        self.blobs.iter_mut().map(|(tag, blob)| (*tag, Arc::make_mut(blob)))
    }

    /// Visits this world, and then every world that results if some of the open operations happen, in any
    /// order.
    pub fn explore(
        &self,
        open: &[Open],
        rules: Rules,
        visit: &mut dyn FnMut(&World) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        visit(self)?;
        for (begun, op) in open.iter().filter(|(begun, _)| !self.ahead.contains(begun)) {
            if let Some(mut next) = self.after(*begun, op, None, rules) {
                next.ahead.insert(*begun);
                next.explore(open, rules, visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Returns the tags of the blobs that an operation concerns, and of all blobs in a chain with them.
    pub fn family(&self, op: &Op) -> BTreeSet<Tag> {
        let mut family = op.tags();
        loop {
            let before = family.len();
            for (tag, blob) in &self.blobs {
                let Some(Above::Blob(parent)) = blob.parent else { continue };
                if family.contains(tag) || family.contains(&parent) {
                    family.extend([*tag, parent]);
                }
            }
            if family.len() == before {
                return family;
            }
        }
    }

    /// Returns the blobs for which an operation changes the effect of unmap, or the data they read.
    pub fn reshaped(&self, op: &Op) -> Vec<Tag> {
        match op {
            Op::Snapshot { tag, .. }
            | Op::Decouple { tag }
            | Op::Inflate { tag }
            | Op::Resize { tag, .. }
            | Op::Replace { tag, .. }
            | Op::ReadOnly { tag } => vec![*tag],
            Op::SetParent { tag, .. } => self.readers(*tag),
            Op::Delete { tag } => self.clones(*tag),
            _ => Vec::new(),
        }
    }

    /// Sets the id of a new blob.
    pub fn name(&mut self, op: &Op, id: Option<BlobId>) {
        if let Some(blob) = op.new_blob().and_then(|tag| self.blob_mut(tag)) {
            blob.id = id;
        }
    }

    /// Returns the world after an operation that began at `begun`. `None` if it cannot happen in this world.
    pub fn after(&self, begun: Time, op: &Op, id: Option<BlobId>, rules: Rules) -> Option<World> {
        if !self.allows(op) {
            return None;
        }
        let mut after = self.clone();
        after.happen(begun, op, id, rules);
        Some(after)
    }

    /// True if an operation can succeed in this world.
    fn allows(&self, op: &Op) -> bool {
        let blob = |tag: &Tag| self.blobs.get(tag);
        match op {
            Op::Init { .. } => self.absent,
            // Loads after a crash: the contents are judged once they have been read.
            Op::Load { .. } => true,
            _ if self.absent => false,
            Op::Create { tag, .. } | Op::CloneExternal { tag, .. } => blob(tag).is_none(),
            Op::Snapshot { tag, .. } | Op::Resize { tag, .. } => {
                blob(tag).is_some_and(|blob| !blob.read_only)
            }
            Op::Replace { tag, .. } => {
                blob(tag).is_some_and(|blob| !blob.read_only) && self.clones(*tag).is_empty()
            }
            Op::Clone { tag, .. } => blob(tag).is_some_and(|blob| blob.read_only),
            Op::Decouple { tag } => blob(tag).is_some_and(|blob| blob.parent.is_some()),
            Op::Delete { tag } => blob(tag).is_some() && self.clones(*tag).len() < 2,
            Op::SetParent { tag, parent } => blob(tag).is_some_and(|child| {
                let fits = match parent {
                    Above::External(_) => true,
                    Above::Blob(above) => {
                        blob(above).is_some_and(|above| above.read_only && above.clusters == child.clusters)
                    }
                };
                child.thin && fits && child.parent != Some(*parent)
            }),
            Op::SetSuper { tag } => tag.as_ref().is_none_or(|tag| blob(tag).is_some()),
            Op::Inflate { tag } | Op::ReadOnly { tag } | Op::Sync { tag } | Op::Reopen { tag } => {
                blob(tag).is_some()
            }
            _ => true,
        }
    }

    fn happen(&mut self, begun: Time, op: &Op, id: Option<BlobId>, rules: Rules) {
        let per_cluster = rules.per_cluster;
        match op {
            Op::Create { tag, clusters, thin, waived, xattrs, .. } => {
                let blank = if *waived { ANYTHING } else { ZERO };
                let (thin, xattrs) = (*thin, Versions::known(xattrs.clone()));
                let units = Units::known([], blank);
                self.insert(*tag, Blob { thin, xattrs, ..Blob::new(id, *clusters, units) });
            }
            Op::Snapshot { tag, new } => self.snapshot(*tag, *new, id, begun),
            Op::Clone { tag, new } => self.clone_of(*tag, *new, id),
            Op::CloneExternal { tag, source, clusters } => {
                let units = external::units(*source, per_cluster);
                self.clone_external(*tag, *source, Blob::new(id, *clusters, units), per_cluster);
            }
            Op::Delete { tag } => self.delete(*tag),
            Op::SetParent { tag, parent } => self.set_parent(*tag, *parent, per_cluster),
            Op::Decouple { tag } => self.decouple(*tag),
            Op::Inflate { tag } => self.change(*tag, |blob| (blob.parent, blob.thin) = (None, false)),
            Op::Resize { tag, clusters } => self.change(*tag, |blob| {
                blob.clusters = *clusters;
                blob.units.truncate(clusters * per_cluster);
            }),
            Op::Replace { tag, unit, count, value } => {
                self.change(*tag, |blob| blob.replace(*unit, *count, *value, per_cluster, begun));
            }
            Op::ReadOnly { tag } => self.change(*tag, |blob| blob.read_only = true),
            Op::Sync { tag } | Op::Reopen { tag } => self.change(*tag, |blob| blob.xattrs.settle(begun)),
            Op::SetSuper { tag } => self.super_blob = *tag,
            Op::SetType { bs_type } => self.bs_type = *bs_type,
            Op::Grow | Op::Load { grow: true } => self.clusters = rules.clusters.1,
            Op::Init { clusters } => (self.absent, self.clusters) = (false, *clusters),
            Op::Destroy => *self = World { ahead: self.ahead.clone(), ..World::nothing() },
            Op::Reload { grow } => {
                if *grow {
                    self.clusters = rules.clusters.1;
                }
                self.blobs_mut().for_each(|(_, blob)| blob.xattrs.settle(begun));
            }
            _ => {}
        }
    }

    fn insert(&mut self, tag: Tag, blob: Blob) {
        self.blobs.insert(tag, Arc::new(blob));
    }

    fn change(&mut self, tag: Tag, change: impl FnOnce(&mut Blob)) {
        if let Some(blob) = self.blob_mut(tag) {
            change(blob);
        }
    }

    fn snapshot(&mut self, tag: Tag, new: Tag, id: Option<BlobId>, begun: Time) {
        let Some(original) = self.blob_mut(tag) else { return };
        let snapshot = Blob {
            id,
            read_only: true,
            xattrs: Versions::known(Xattrs::new()),
            units: original.units.snapshot(begun),
            reads: 0,
            ..original.clone()
        };
        (original.parent, original.thin) = (Some(Above::Blob(new)), true);
        self.insert(new, snapshot);
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
            ..Blob::clone(snapshot)
        };
        self.insert(new, clone);
    }

    /// Inserts a clone of an external snapshot, whose units it has.
    fn clone_external(&mut self, tag: Tag, source: u8, mut blob: Blob, per_cluster: u64) {
        blob.units.truncate(blob.clusters * per_cluster);
        self.insert(tag, Blob { parent: Some(Above::External(source)), thin: true, ..blob });
    }

    fn set_parent(&mut self, tag: Tag, parent: Above, per_cluster: u64) {
        let above = match parent {
            Above::Blob(parent) => self.blobs.get(&parent).map(|blob| blob.units.clone()),
            Above::External(source) => Some(external::units(source, per_cluster)),
        };
        let above = above.unwrap_or_default();
        self.change(tag, |blob| blob.parent = Some(parent));
        for tag in self.readers(tag) {
            self.change(tag, |blob| blob.units.join(&above, blob.clusters * per_cluster));
        }
    }

    fn decouple(&mut self, tag: Tag) {
        let above = self.blobs.get(&tag).and_then(|blob| blob.parent);
        let grandparent = match above {
            Some(Above::Blob(above)) => self.blobs.get(&above).and_then(|above| above.parent),
            _ => None,
        };
        self.change(tag, |blob| blob.parent = grandparent);
    }

    fn delete(&mut self, tag: Tag) {
        let Some(blob) = self.blobs.remove(&tag) else { return };
        for clone in self.clones(tag) {
            self.change(clone, |clone| clone.parent = blob.parent);
        }
        if self.super_blob == Some(tag) {
            self.super_blob = None;
        }
    }

    /// True if both are equal except in data and xattrs, including the operations still to end.
    fn is_alike(&self, other: &World) -> bool {
        let same = |one: &Arc<Blob>, other: &Arc<Blob>| Arc::ptr_eq(one, other) || one.is_alike(other);
        (self.super_blob, self.bs_type, self.absent, self.clusters)
            == (other.super_blob, other.bs_type, other.absent, other.clusters)
            && self.ahead == other.ahead
            && self.blobs.keys().eq(other.blobs.keys())
            && self.blobs.values().zip(other.blobs.values()).all(|(one, other)| same(one, other))
    }

    /// Adds a world to others. Merges it with one that differs in data and xattrs only; the result allows the
    /// contents of both.
    pub fn join(self, worlds: &mut Vec<World>) {
        match worlds.iter_mut().find(|world| world.is_alike(&self)) {
            None => worlds.push(self),
            Some(world) => {
                for (mine, other) in world.blobs.values_mut().zip(self.blobs.into_values()) {
                    if mine != &other {
                        Arc::make_mut(mine).join(&other);
                    }
                }
            }
        }
    }
}
