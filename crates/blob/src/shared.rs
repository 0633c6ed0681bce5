//! The view that all threads have of a store and of its open blobs.
//!
//! Shared by reference; written by the metadata thread only, except for entries that readers note in
//! [`Leaves`]. The locks here are held for a few instructions, never across an await, and never by reads and
//! writes of known clusters.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use spindle_block::{Claim, DeviceState};
use spindle_format::BlobId;
use spindle_reactor::Thread;

use crate::arena::Arena;
use crate::claims::Claims;
use crate::cluster_size::ClusterSize;
use crate::error::BlobError;
use crate::flushing::Flushing;
use crate::leaves::{Entry, LEAF, Leaves};
use crate::local::Local;
use crate::md::Md;
use crate::ordering::{Order, Point};
use crate::outside::Outside;
use crate::reserve::Reserve;
use crate::store_device::StoreDevice;

/// A store as all threads see it.
pub(crate) struct StoreShared {
    /// Its name, that of its device.
    pub(crate) name: Arc<str>,
    /// Its device.
    pub(crate) device: Arc<StoreDevice>,
    /// The thread that called init or load and does all metadata work.
    pub(crate) md: Thread,
    /// Bytes of a cluster.
    pub(crate) cluster_size: u32,
    /// Bytes of the smallest I/O.
    pub(crate) io_unit: u32,
    /// The leaves of its blobs' maps.
    pub(crate) arena: Arc<Arena>,
    /// Which ordering points are kept.
    pub(crate) order: Order,
    /// Set if nothing may be written.
    pub(crate) read_only: bool,
    /// Set when the store was left.
    pub(crate) unloaded: AtomicBool,
    /// Set when the last handle was dropped: the store is about to be left.
    pub(crate) abandoned: AtomicBool,
    /// The flushes that are under way.
    pub(crate) flushing: Flushing,
    /// The failed metadata write, or flush, after which nothing may be changed.
    pub(crate) poison: OnceLock<Arc<str>>,
    /// The threads that allocate clusters, each with its own access to the device.
    pub(crate) members: Mutex<Vec<Member>>,
}

/// A thread that allocates clusters for a store's blobs.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) thread: Thread,
    /// Its reserve of clusters.
    pub(crate) reserve: Arc<Reserve>,
}

/// A thread is a member until this is dropped, which its exit does.
pub(crate) struct Membership {
    store: Arc<StoreShared>,
    pub(crate) reserve: Arc<Reserve>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let (store, reserve) = (self.store.clone(), self.reserve.clone());
        // Its reserve counts as free while it is on the list.
        let _ = self.store.md.send_msg(move || {
            if let Ok(md) = Md::of(&store) {
                md.member_left(&reserve);
            }
        });
    }
}

impl StoreShared {
    /// This thread's access to the device, made and registered on first use.
    pub(crate) fn local(self: &Arc<StoreShared>) -> Result<Rc<Local>, BlobError> {
        if let Some(local) = self.device.known() {
            return Ok(local);
        }
        let reserve = Arc::<Reserve>::default();
        {
            // An unload takes the list, after which no thread can add itself.
            let mut members = locked(&self.members);
            if self.unloaded.load(Ordering::Acquire) {
                return Err(self.gone());
            }
            members.extend(Thread::current().map(|thread| Member { thread, reserve: reserve.clone() }));
        }
        let membership = Membership { store: self.clone(), reserve };
        self.device.local(membership).map_err(|source| self.open_error(source))
    }

    pub(crate) fn open_error(&self, source: spindle_block::OpenError) -> BlobError {
        BlobError::Open { store: self.name.clone(), source: Arc::new(source) }
    }

    /// Makes everything written before durable. A failure, also of another flush that overlaps this one,
    /// poisons the store. Must not be dropped before its end.
    pub(crate) async fn flush(&self, local: &Local) -> Result<(), BlobError> {
        let number = self.flushing.begin();
        let flushed = local.channel().flush().await.map_err(BlobError::from);
        let flushed = flushed.inspect_err(|error| self.poison(error));
        let begun = self.flushing.end(number);
        flushed?;
        if !self.order.keeps(Point::FailedFlushLasts) {
            return Ok(());
        }
        self.flushing.settled(begun).await;
        self.check_poison()
    }

    /// Refuses all changes from now on: the contents of the disk are unknown.
    pub(crate) fn poison(&self, cause: &BlobError) {
        self.poison.get_or_init(|| cause.to_string().into());
    }

    /// An error if the contents of the disk are unknown.
    pub(crate) fn check_poison(&self) -> Result<(), BlobError> {
        match self.poison.get() {
            Some(cause) => Err(BlobError::Poisoned { store: self.name.clone(), cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// The error of a task that panicked: its state in memory is unknown, so nothing may be changed.
    pub(crate) fn panicked(&self, how: &dyn std::fmt::Display) -> BlobError {
        let cause: Arc<str> = format!("an operation ended without a result: {how}").into();
        let cause = self.poison.get_or_init(|| cause).clone();
        BlobError::Poisoned { store: self.name.clone(), cause }
    }

    /// Poisons the store if it is dropped while a panic unwinds.
    pub(crate) fn poison_by_panic(self: &Arc<StoreShared>) -> PoisonByPanic {
        PoisonByPanic(self.clone())
    }

    /// True if the store was left.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    pub(crate) fn gone(&self) -> BlobError {
        BlobError::Unloaded { store: self.name.clone() }
    }
}

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

/// See [`StoreShared::poison_by_panic`].
pub(crate) struct PoisonByPanic(Arc<StoreShared>);

impl Drop for PoisonByPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.panicked(&"it panicked"));
        }
    }
}

/// What a blob reads where it owns no cluster.
#[derive(Clone)]
pub(crate) enum Back {
    /// Zeroes.
    Zeroes,
    /// What this snapshot reads.
    Blob(Arc<BlobShared>),
    /// The same offset of this device, zeroes beyond its end.
    External(Arc<Outside>),
    /// A parent that is missing; its name.
    Missing(Arc<str>),
}

impl Back {
    pub(crate) fn is_zeroes(&self) -> bool {
        matches!(self, Back::Zeroes)
    }
}

/// Where to read a cluster.
pub(crate) enum Source {
    /// In this cluster of the device; the blob's own if `own`.
    Cluster { cluster: u32, own: bool },
    /// Nowhere: zeroes.
    Zeroes,
    /// At the same offset of this device.
    External(Arc<Outside>),
    /// In a parent that is missing.
    Missing(Arc<str>),
}

/// An open blob as all threads see it.
pub(crate) struct BlobShared {
    pub(crate) id: BlobId,
    /// Its name, for people.
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
    /// What would change with it: why it is read-only, whatever its flags say.
    pub(crate) tied: Option<Tied>,
    pub(crate) back: Mutex<Back>,
    /// Places of the map that are being changed.
    pub(crate) claims: Claims,
    /// The threads that do I/O to it.
    pub(crate) threads: Mutex<Vec<Thread>>,
    /// Number of operations that keep writes out.
    frozen: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
}

impl BlobShared {
    pub(crate) fn new(id: BlobId, store: Arc<StoreShared>, back: Back) -> BlobShared {
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
            back: Mutex::new(back),
            claims: Claims::default(),
            threads: Mutex::default(),
            frozen: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }
    }

    /// The byte of the device where a cluster begins.
    pub(crate) fn start_of(&self, cluster: u32) -> u64 {
        u64::from(cluster) * self.cluster_size.bytes()
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
        self.clusters.load(Ordering::Acquire) * self.cluster_size.bytes()
    }

    /// The first byte at or behind `offset` whose cluster the blob owns, or does not own.
    pub(crate) fn next(&self, offset: u64, own: bool) -> Option<u64> {
        let size = self.cluster_size.bytes();
        let found = self.leaves.find(offset / size, self.clusters.load(Ordering::Acquire), own)?;
        Some(offset.max(found * size))
    }

    /// Where to read a cluster. Look up and send in one poll, see [`crate::store_device`].
    pub(crate) fn source(&self, index: u64) -> Source {
        match self.leaves.get(index) {
            Entry::Own(cluster) => Source::Cluster { cluster, own: true },
            Entry::Inherited(Some(cluster)) => Source::Cluster { cluster, own: false },
            Entry::Inherited(None) => Source::Zeroes,
            Entry::Unknown => self.walk(index),
        }
    }

    /// Where the parents of this blob have a cluster, whatever the blob owns.
    pub(crate) fn source_above(&self, index: u64) -> Source {
        let mut back = locked(&self.back).clone();
        loop {
            let blob = match back {
                Back::Zeroes => return Source::Zeroes,
                Back::External(outside) => return Source::External(outside),
                Back::Missing(what) => return Source::Missing(what),
                Back::Blob(blob) => blob,
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
            let next = locked(&blob.back).clone();
            back = next;
        }
    }

    fn walk(&self, index: u64) -> Source {
        if self.leaves.own_leaf(index).is_none()
            && let Some(outside) = self.find_leaf(index)
        {
            return outside;
        }
        match self.leaves.get(index) {
            Entry::Inherited(Some(cluster)) => return Source::Cluster { cluster, own: false },
            Entry::Inherited(None) => return Source::Zeroes,
            // Mapped just now, or the nearest leaf does not say it yet.
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
        let mut back = locked(&self.back).clone();
        loop {
            let blob = match back {
                Back::Zeroes => {
                    self.leaves.share_zeroes(index);
                    return None;
                }
                Back::External(outside) if index < seen => {
                    return Some(Source::External(outside));
                }
                Back::Missing(what) if index < seen => return Some(Source::Missing(what)),
                Back::External(_) | Back::Missing(_) => return Some(Source::Zeroes),
                Back::Blob(blob) => blob,
            };
            let size = blob.clusters.load(Ordering::Acquire).min(end);
            if let Some(leaf) = blob.leaves.own_leaf(index) {
                if seen >= size {
                    self.leaves.share(index, leaf);
                }
                return None;
            }
            seen = seen.min(size);
            let next = locked(&blob.back).clone();
            back = next;
        }
    }

    /// True if something above it in its chain is missing.
    pub(crate) fn is_degraded(&self) -> bool {
        let mut back = locked(&self.back).clone();
        loop {
            let next = match &back {
                Back::Zeroes | Back::External(_) => return false,
                Back::Missing(_) => return true,
                Back::Blob(parent) => locked(&parent.back).clone(),
            };
            back = next;
        }
    }

    /// True if it reads zero where it owns no cluster.
    pub(crate) fn is_without_parent(&self) -> bool {
        locked(&self.back).is_zeroes()
    }

    /// True if writes are kept out now.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst) > 0
    }

    /// Keeps writes out. To wait for those under way: [`quiesce`](crate::blob_local::quiesce).
    pub(crate) fn freeze(&self) {
        self.frozen.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets writes in again, once for each [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        if self.frozen.fetch_sub(1, Ordering::SeqCst) == 1 {
            let waiting = std::mem::take(&mut *locked(&self.waiting));
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until writes are let in.
    pub(crate) async fn thawed(&self) {
        poll_fn(|cx| {
            if !self.is_frozen() {
                return Poll::Ready(());
            }
            if self.is_frozen_yet(cx.waker()) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// True if writes are still kept out; then the waker is called when they are let in.
    pub(crate) fn is_frozen_yet(&self, waker: &Waker) -> bool {
        let mut waiting = locked(&self.waiting);
        // Checked under the lock: a thaw changes the count first and takes the lock then.
        let frozen = self.is_frozen();
        if frozen && !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        frozen
    }
}

impl Drop for BlobShared {
    /// Drops the chain of parents link by link, since it may be as long as there are blobs. Notifies the
    /// metadata thread, which compacts the map.
    fn drop(&mut self) {
        let (store, id) = (self.store.clone(), self.id);
        // A thread that is gone has no maps.
        let _ = self.store.md.send_msg(move || {
            if let Ok(md) = Md::of(&store) {
                md.unseen(id);
            }
        });
        let mut back = std::mem::replace(&mut *locked(&self.back), Back::Zeroes);
        while let Back::Blob(parent) = back {
            let Some(parent) = Arc::into_inner(parent) else { return };
            back = std::mem::replace(&mut *locked(&parent.back), Back::Zeroes);
        }
    }
}

/// Locks a mutex, ignoring poison: no holder leaves its data half changed.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
