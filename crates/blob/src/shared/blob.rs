//! The view that all threads have of an open blob.
//!
//! Shared by reference; written by the metadata thread only, except for entries that readers note in
//! [`Leaves`]. The locks here are held for a few instructions, never across an await, and never by reads and
//! writes of known clusters.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use spindle_block::{Claim, DeviceState};
use spindle_format::BlobId;
use spindle_reactor::{Thread, WaitList};

use super::external::ExternalSnapshot;
use super::store::{Notice, StoreShared};
use crate::error::BlobError;
use crate::map::{ClusterSize, Leaves};
use crate::space::{PlaceClaim, PlaceClaims};
use crate::waiting::locked;

/// Damage in the metadata of a store by which a blob would change with another one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tied {
    /// Both name a cluster or an extent page; itself if it names a cluster twice.
    Shares(BlobId),
    /// This clone reads through it, and it is not read-only.
    ReadBy(BlobId),
}

impl Tied {
    /// Why the data of this blob must not be changed.
    pub(crate) fn error(self, blob: BlobId) -> BlobError {
        match self {
            Tied::Shares(other) => BlobError::SharesClusters { blob, other },
            Tied::ReadBy(clone) => BlobError::WritableParent { blob, clone },
        }
    }
}

/// What a blob reads where it owns no cluster.
#[derive(Clone)]
pub(crate) enum Backing {
    /// Zeroes.
    Zeroes,
    /// What this snapshot reads.
    Blob(Arc<BlobShared>),
    /// The same offset of this device, zeroes beyond its end.
    External(Arc<ExternalSnapshot>),
    /// A parent that is missing; its name.
    Missing(Arc<str>),
}

impl Backing {
    pub(crate) fn is_zeroes(&self) -> bool {
        matches!(self, Backing::Zeroes)
    }
}

/// An open blob as all threads see it.
pub(crate) struct BlobShared {
    pub(crate) id: BlobId,
    /// Its name, for messages.
    pub(crate) name: String,
    /// Its lanes on all threads.
    pub(crate) lanes: DeviceState,
    /// The claims on it as a device.
    pub(crate) claim: Claim,
    pub(crate) store: Arc<StoreShared>,
    /// The store's, copied because every request needs it.
    pub(crate) cluster_size: ClusterSize,
    /// Size in clusters.
    pub(crate) clusters: AtomicU64,
    pub(crate) leaves: Leaves,
    pub(crate) thin: AtomicBool,
    /// Its data must not be changed.
    pub(crate) read_only: AtomicBool,
    /// What would change with it: it is read-only for that reason, whatever its flags.
    pub(crate) tied: Option<Tied>,
    pub(crate) backing: Mutex<Backing>,
    /// Places of the map that are being changed.
    pub(crate) claims: Arc<PlaceClaims>,
    /// The threads that do I/O to it.
    pub(crate) threads: Mutex<Vec<Thread>>,
    /// Number of operations that keep writes out.
    frozen: AtomicUsize,
    thawing: WaitList,
}

impl BlobShared {
    pub(crate) fn new(id: BlobId, store: Arc<StoreShared>, backing: Backing) -> BlobShared {
        BlobShared {
            id,
            name: format!("blob {id} of {}", store.name),
            lanes: DeviceState::new(),
            claim: Claim::default(),
            cluster_size: ClusterSize::new(store.cluster_size),
            clusters: AtomicU64::new(0),
            leaves: Leaves::new(store.arena.clone()),
            store,
            thin: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            tied: None,
            backing: Mutex::new(backing),
            claims: Arc::default(),
            threads: Mutex::default(),
            frozen: AtomicUsize::new(0),
            thawing: WaitList::default(),
        }
    }

    /// The byte of the device where a cluster begins.
    pub(crate) fn start_of(&self, cluster: u32) -> u64 {
        u64::from(cluster) * self.cluster_size.get()
    }

    /// An error if its data must not be changed.
    pub(crate) fn check_data(&self) -> Result<(), BlobError> {
        match (self.read_only.load(Ordering::Acquire), self.tied) {
            (false, _) => Ok(()),
            (true, None) => Err(BlobError::ReadOnly { blob: self.id }),
            (true, Some(tied)) => Err(tied.error(self.id)),
        }
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.clusters.load(Ordering::Acquire) * self.cluster_size.get()
    }

    /// The first byte at or after `offset` whose cluster the blob owns, or does not own.
    pub(crate) fn next(&self, offset: u64, own: bool) -> Option<u64> {
        let size = self.cluster_size.get();
        let found = self.leaves.find(offset / size, self.clusters.load(Ordering::Acquire), own)?;
        Some(offset.max(found * size))
    }

    /// True if it reads zero where it owns no cluster.
    pub(crate) fn is_without_parent(&self) -> bool {
        locked(&self.backing).is_zeroes()
    }

    /// Claims a place of the map. `None` if another task had claimed it (returned when that claim has ended),
    /// or if writes are kept out: look up again.
    pub(crate) async fn claim(&self, index: u64) -> Option<PlaceClaim> {
        self.claims.claim(index, || self.is_frozen()).await
    }

    /// True if writes are kept out now.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst) > 0
    }

    /// Keeps writes out. To wait for those under way: [`quiesce`](super::quiesce).
    pub(crate) fn freeze(&self) {
        self.frozen.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets writes in again, once for each [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        if self.frozen.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.thawing.wake_all();
        }
    }

    /// Waits until writes are let in.
    pub(crate) async fn thawed(&self) {
        self.thawing.until(|| (!self.is_frozen()).then_some(())).await;
    }

    /// The tasks and lanes that wait until writes are let in.
    pub(crate) fn thawing(&self) -> &WaitList {
        &self.thawing
    }
}

impl Drop for BlobShared {
    /// Drops the chain of parents link by link, since it may be as long as there are blobs. Notifies the
    /// metadata thread, which compacts the map.
    fn drop(&mut self) {
        self.store.tell(Notice::Unseen(self.id));
        let mut backing = std::mem::replace(&mut *locked(&self.backing), Backing::Zeroes);
        while let Backing::Blob(parent) = backing {
            let Some(parent) = Arc::into_inner(parent) else { return };
            backing = std::mem::replace(&mut *locked(&parent.backing), Backing::Zeroes);
        }
    }
}
