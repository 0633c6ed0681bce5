//! Where a blob's clusters are read: in the blob, or in the nearest parent that has them. What a reader found
//! in the parents it notes in the blob's leaves. Any thread, without waiting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blob::{Backing, BlobShared};
use super::external::ExternalSnapshot;
use crate::map::{Entry, LEAF};
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

    /// False if nothing above this blob has any of the clusters in the leaf around `index`: all read zeroes there,
    /// whatever the blob owns.
    pub(crate) fn has_leaf_above(&self, index: u64) -> bool {
        let first = index / LEAF * LEAF;
        let mut backing = locked(&self.backing).clone();
        loop {
            let blob = match backing {
                Backing::Zeroes => return false,
                Backing::External(snapshot) => return snapshot.clusters(self.cluster_size) > first,
                Backing::Missing(_) => return true,
                Backing::Blob(blob) => blob,
            };
            if first >= blob.clusters.load(Ordering::Acquire) {
                return false;
            }
            if blob.leaves.own_leaf(index).is_some() {
                return true;
            }
            let next = locked(&blob.backing).clone();
            backing = next;
        }
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
