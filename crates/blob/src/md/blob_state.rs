//! A blob on the metadata thread: its metadata, the pages that hold it, and its users.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use spindle_format::cluster_map::Leaf;
use spindle_format::{BlobId, BlobMetadata, ClearMethod, ClusterIdx, Entries, Flags, PageIdx, Parent};

use super::changes::Changes;
use super::turns::Turns;
use crate::error::BlobError;
use crate::map::LEAF;
use crate::shared::{BlobShared, Tied};

/// A blob: its metadata, the pages that hold it, and its users.
pub(crate) struct BlobState {
    pub(crate) id: BlobId,
    /// The metadata on disk, plus xattrs set since the last sync.
    pub(crate) meta: RefCell<BlobMetadata>,
    /// Number of xattr changes, and how many of these are durable.
    pub(crate) edits: Cell<u64>,
    pub(crate) synced: Cell<u64>,
    /// The pages of the chain, root first.
    pub(crate) chain: RefCell<Vec<PageIdx>>,
    /// Blobs whose parent it is.
    pub(crate) clones: RefCell<Vec<BlobId>>,
    /// Handles that are open.
    pub(crate) opened: Cell<usize>,
    /// How often it was opened.
    pub(crate) openings: Cell<u64>,
    /// The clear method while it is open, if it differs from its own.
    pub(crate) cleared_by: Cell<Option<ClearMethod>>,
    /// Set by an operation that needs the blob exclusively.
    pub(crate) held: Cell<bool>,
    /// Number of unmaps of its clusters under way.
    pub(crate) unmaps: Cell<usize>,
    /// Set while it is being deleted, or is an unfinished snapshot: it cannot be opened.
    pub(crate) passing: Cell<bool>,
    /// The view of all threads, while it or a clone of it is open.
    shared: RefCell<Weak<BlobShared>>,
    /// Set once that view holds the whole map, so that threads may look.
    pub(super) whole: Cell<bool>,
    /// Changes of its map under way.
    pub(crate) changes: Changes,
    /// What would change with its data, found when the store was loaded.
    pub(crate) tied: Option<Tied>,
}

impl BlobState {
    pub(crate) fn new(id: BlobId, meta: BlobMetadata, chain: Vec<PageIdx>) -> BlobState {
        BlobState {
            id,
            meta: RefCell::new(meta),
            edits: Cell::new(0),
            synced: Cell::new(0),
            chain: RefCell::new(chain),
            clones: RefCell::default(),
            opened: Cell::new(0),
            openings: Cell::new(0),
            cleared_by: Cell::new(None),
            held: Cell::new(false),
            unmaps: Cell::new(0),
            passing: Cell::new(false),
            shared: RefCell::default(),
            whole: Cell::new(false),
            changes: Changes::default(),
            tied: None,
        }
    }

    /// The view of all threads, if one exists or is being made.
    pub(crate) fn shared(&self) -> Option<Arc<BlobShared>> {
        self.shared.borrow().upgrade()
    }

    /// The view of all threads, if it holds the whole map.
    pub(super) fn shown(&self) -> Option<Arc<BlobShared>> {
        self.shared().filter(|_| self.whole.get())
    }

    /// Sets the view of all threads, and whether it holds the whole map already.
    pub(crate) fn show(&self, shared: &Arc<BlobShared>, whole: bool) {
        *self.shared.borrow_mut() = Arc::downgrade(shared);
        self.whole.set(whole);
        self.publish_flags();
    }

    /// True if xattrs were set that are not durable yet.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.edits.get() != self.synced.get()
    }

    /// The parent that it reads where it has no cluster.
    pub(crate) fn parent(&self) -> Option<Parent> {
        self.meta.borrow().parent()
    }

    pub(crate) fn flags(&self) -> Flags {
        self.meta.borrow().flags
    }

    /// How clusters that it gives back are cleared.
    pub(crate) fn clear_method(&self) -> ClearMethod {
        self.cleared_by.get().unwrap_or_else(|| self.flags().clear_method())
    }

    /// An error if no new use of it may begin.
    pub(crate) fn check_stays(&self) -> Result<(), BlobError> {
        if self.passing.get() { Err(BlobError::busy(self.id)) } else { Ok(()) }
    }

    pub(crate) fn check_metadata(&self) -> Result<(), BlobError> {
        let locked = self.flags().metadata_locked();
        if locked { Err(BlobError::MetadataReadOnly { blob: self.id }) } else { Ok(()) }
    }

    /// The same for operations that also work on snapshots: only a lock by a newer version refuses.
    pub(crate) fn check_known(&self) -> Result<(), BlobError> {
        let mut flags = self.flags();
        flags.data_read_only &= !Flags::READ_ONLY;
        if flags.metadata_locked() { Err(BlobError::MetadataReadOnly { blob: self.id }) } else { Ok(()) }
    }

    /// Brings the view of all threads in line with the metadata, except for the map.
    pub(crate) fn publish_flags(&self) {
        if let Some(shared) = self.shared() {
            let meta = self.meta.borrow();
            shared.thin.store(meta.flags.thin(), Ordering::Release);
            let read_only = meta.flags.data_locked() || self.tied.is_some();
            shared.read_only.store(read_only, Ordering::Release);
            shared.clusters.store(meta.map.num_clusters(), Ordering::Release);
        }
    }

    /// Brings the leaves that other threads see in line with the map, which lives there from now on. No other
    /// task changes the map meanwhile.
    pub(crate) async fn publish_map(&self) {
        let Some(shared) = self.shared() else { return };
        let slots: Vec<u32> = self.meta.borrow().map.leaves().iter().map(|leaf| leaf.slot).collect();
        let mut turns = Turns::default();
        for slot in slots {
            let shown = |leaf: &Leaf| shared.leaves.show(slot, &leaf.clusters);
            let kept = self.meta.borrow().map.leaf(slot).and_then(shown);
            kept.into_iter().for_each(|kept| self.meta.borrow_mut().map.keep(slot, kept));
            turns.spend(64).await;
        }
    }

    /// Notes clusters that the disk now maps, or no longer maps, in the map and in the view of all threads.
    pub(crate) fn remap(&self, changes: impl IntoIterator<Item = (u64, Option<u32>)>) {
        let shared = self.shared();
        let mut meta = self.meta.borrow_mut();
        for (index, cluster) in changes {
            let (slot, at) = ((index / LEAF) as u32, (index % LEAF) as usize);
            if let (Some(shared), Some(leaf)) = (&shared, meta.map.leaf(slot))
                && shared.leaves.keeps(slot, &leaf.clusters)
                && at < leaf.clusters.len()
            {
                shared.leaves.set(index, cluster);
                continue;
            }
            meta.map.set(index, cluster.map(ClusterIdx));
            let shown = |leaf: &Leaf| shared.as_ref()?.leaves.show(slot, &leaf.clusters);
            if let Some(kept) = meta.map.leaf(slot).and_then(shown) {
                meta.map.keep(slot, kept);
            }
        }
    }

    /// Compacts the map after the last view was dropped, unless a new one appears meanwhile.
    pub(super) async fn fold(&self) {
        let is_kept = |leaf: &&Leaf| leaf.clusters.keeper().is_some();
        let kept: Vec<u32> =
            self.meta.borrow().map.leaves().iter().filter(is_kept).map(|leaf| leaf.slot).collect();
        let mut turns = Turns::default();
        for slot in kept {
            if self.shared().is_some() {
                return;
            }
            let small = {
                let meta = self.meta.borrow();
                let leaf = meta.map.leaf(slot).filter(is_kept);
                leaf.map(|leaf| Entries::from(leaf.clusters.to_vec().as_slice()))
            };
            small.into_iter().for_each(|small| self.meta.borrow_mut().map.keep(slot, small));
            turns.spend(64).await;
        }
    }
}
