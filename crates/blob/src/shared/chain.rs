//! Where a blob's clusters are read: in the blob, or in the nearest parent that has them. What a reader found
//! in the parents it notes in the blob's leaves. Any thread, without waiting.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blob::{Backing, BlobShared};
use super::external::ExternalSnapshot;
use crate::map::{Entry, LEAF, by_leaf};
use crate::waiting::locked;

/// Where to read a cluster.
pub(crate) enum Source {
    /// In this cluster of the device; the blob's own if `own`.
    Cluster { cluster: u32, own: bool },
    /// In no device: zeroes.
    Zeroes,
    /// At the same offset of this device.
    External(Arc<ExternalSnapshot>),
    /// In a parent that is missing.
    Missing(Arc<str>),
}

impl BlobShared {
    /// Where to read a cluster. Look up and send in one poll, see [`super::device`].
    pub(crate) fn source(&self, index: u64) -> Source {
        match self.leaves.get(index) {
            Entry::Own(cluster) => Source::Cluster { cluster, own: true },
            Entry::Inherited(Some(cluster)) => Source::Cluster { cluster, own: false },
            Entry::Inherited(None) => Source::Zeroes,
            Entry::Unknown => self.walk(index),
        }
    }

    /// Where the parents of this blob have a cluster, even if the blob owns one.
    pub(crate) fn source_above(&self, index: u64) -> Source {
        let mut backing = locked(&self.backing).clone();
        loop {
            let blob = match backing {
                Backing::Zeroes => return Source::Zeroes,
                Backing::External(snapshot) => return Source::External(snapshot),
                Backing::Missing(what) => return Source::Missing(what),
                Backing::Blob(blob) => blob,
            };
            if index >= blob.clusters.load(Ordering::Acquire) {
                return Source::Zeroes;
            }
            match blob.leaves.get(index) {
                Entry::Own(cluster) | Entry::Inherited(Some(cluster)) => {
                    return Source::Cluster { cluster, own: false };
                }
                Entry::Inherited(None) => return Source::Zeroes,
                Entry::Unknown => {}
            }
            let next = locked(&blob.backing).clone();
            backing = next;
        }
    }

    /// The parts of these clusters, in order, that something above this blob may have, whatever the blob owns:
    /// elsewhere all read zeroes there. What it takes depends on the leaves of the parents, not on the size.
    pub(crate) fn parts_above(&self, clusters: Range<u64>) -> Vec<Range<u64>> {
        let Range { start, mut end } = clusters;
        let mut leaves = BTreeSet::new();
        let mut backing = locked(&self.backing).clone();
        // Where the chain ends outside the store, it may have everything up to here.
        let outside = loop {
            let blob = match backing {
                Backing::Zeroes => break start,
                Backing::External(snapshot) => break snapshot.clusters(self.cluster_size).min(end),
                Backing::Missing(_) => break end,
                Backing::Blob(blob) => blob,
            };
            // A parent shows of the blobs above it only as much as its own length.
            end = end.min(blob.clusters.load(Ordering::Acquire));
            leaves.extend(blob.leaves.own_parts(start..end).map(|part| part.start / LEAF));
            let next = locked(&blob.backing).clone();
            backing = next;
        };
        let outside = start..outside.max(start);
        let inside = leaves.into_iter().map(|leaf| leaf * LEAF);
        let inside = inside.map(|first| first.max(outside.end)..(first + LEAF).min(clusters.end));
        std::iter::once(outside.clone()).chain(inside).filter(|part| !part.is_empty()).collect()
    }

    /// The first part of these clusters, at most a leaf of them, in which the blob or something above it may have
    /// anything: all before it read zeroes. What it takes depends on the leaves there are, not on the size.
    pub(crate) fn first_part(&self, clusters: Range<u64>) -> Option<Range<u64>> {
        let Range { start, mut end } = clusters;
        let mut first = self.leaves.own_parts(start..end).next();
        let mut backing = locked(&self.backing).clone();
        loop {
            let found = match &backing {
                Backing::Zeroes => None,
                Backing::External(snapshot) => {
                    by_leaf(start..end.min(snapshot.clusters(self.cluster_size))).next()
                }
                Backing::Missing(_) => by_leaf(start..end).next(),
                Backing::Blob(blob) => {
                    // A parent shows of the blobs above it only as much as its own length.
                    end = end.min(blob.clusters.load(Ordering::Acquire));
                    blob.leaves.own_parts(start..end).next()
                }
            };
            let both = [first, found].into_iter().flatten();
            first = both.min_by_key(|part| (part.start, Reverse(part.end)));
            let Backing::Blob(blob) = backing else { return first };
            backing = locked(&blob.backing).clone();
        }
    }

    /// Has the blob read through `backing` from now on; returns what it read through before. Called on the metadata
    /// thread.
    ///
    /// Invariant: every chain ends. One that leads back to the blob, as only a hostile store has it, ends below the blob
    /// as if the parent were missing.
    pub(crate) fn read_through(&self, backing: Backing) -> Backing {
        let backing = match &backing {
            Backing::Blob(parent) if self.is_in_chain_of(parent) => {
                Backing::Missing(parent.id.to_string().into())
            }
            _ => backing,
        };
        std::mem::replace(&mut *locked(&self.backing), backing)
    }

    fn is_in_chain_of(&self, parent: &Arc<BlobShared>) -> bool {
        let mut at = parent.clone();
        while !std::ptr::eq(&*at, self) {
            let Backing::Blob(next) = locked(&at.backing).clone() else { return false };
            at = next;
        }
        true
    }

    fn walk(&self, index: u64) -> Source {
        if self.leaves.own_leaf(index).is_none()
            && let Some(elsewhere) = self.find_leaf(index)
        {
            return elsewhere;
        }
        match self.leaves.get(index) {
            Entry::Inherited(Some(cluster)) => return Source::Cluster { cluster, own: false },
            Entry::Inherited(None) => return Source::Zeroes,
            // Mapped just now, or not yet in the nearest leaf.
            Entry::Own(_) | Entry::Unknown => {}
        }
        let found = self.source_above(index);
        match found {
            Source::Cluster { cluster, .. } => self.leaves.note(index, Some(cluster)),
            Source::Zeroes => self.leaves.note(index, None),
            Source::External(_) | Source::Missing(_) => {}
        }
        found
    }

    /// Shares the leaf of the nearest parent that has one where this blob has none. If none has one and the
    /// chain ends outside the store, returns that place to read the cluster.
    fn find_leaf(&self, index: u64) -> Option<Source> {
        let end = (index / LEAF + 1) * LEAF;
        // A parent shows of the blobs above it only as much as its own length.
        let mut seen = end;
        let mut backing = locked(&self.backing).clone();
        loop {
            let blob = match backing {
                Backing::Zeroes => {
                    self.leaves.share_zeroes(index);
                    return None;
                }
                Backing::External(snapshot) if index < seen => {
                    return Some(Source::External(snapshot));
                }
                Backing::Missing(what) if index < seen => return Some(Source::Missing(what)),
                Backing::External(_) | Backing::Missing(_) => return Some(Source::Zeroes),
                Backing::Blob(blob) => blob,
            };
            let size = blob.clusters.load(Ordering::Acquire).min(end);
            if let Some(leaf) = blob.leaves.own_leaf(index) {
                if seen >= size {
                    self.leaves.share(index, leaf);
                }
                return None;
            }
            seen = seen.min(size);
            let next = locked(&blob.backing).clone();
            backing = next;
        }
    }

    /// True if something above it in its chain is missing.
    pub(crate) fn is_degraded(&self) -> bool {
        let mut backing = locked(&self.backing).clone();
        loop {
            let next = match &backing {
                Backing::Zeroes | Backing::External(_) => return false,
                Backing::Missing(_) => return true,
                Backing::Blob(parent) => locked(&parent.backing).clone(),
            };
            backing = next;
        }
    }
}
