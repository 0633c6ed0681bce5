//! The blobs of a store as its metadata thread knows them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_format::metadata::internal;
use spindle_format::{BlobId, BlobMetadata, ClearMethod, Flags, PageIdx, Parent};

use super::Md;
use super::commit::Commits;
use crate::error::BlobError;
use crate::shared::{Back, BlobShared, locked};

/// A blob: what its metadata says, where that lies, and who uses it.
pub(crate) struct BlobState {
    pub(crate) id: BlobId,
    /// What is on disk, and xattrs that were set since the last sync.
    pub(crate) meta: RefCell<BlobMetadata>,
    /// Whether there are such xattrs.
    pub(crate) unsynced: Cell<bool>,
    /// The pages of the chain, root first.
    pub(crate) chain: RefCell<Vec<PageIdx>>,
    /// Blobs whose parent it is.
    pub(crate) clones: RefCell<Vec<BlobId>>,
    /// Handles that are open.
    pub(crate) opened: Cell<usize>,
    /// How clusters that it gives back are cleared while it is open, if not by its own method.
    pub(crate) cleared_by: Cell<Option<ClearMethod>>,
    /// An operation that wants the blob to itself.
    pub(crate) held: Cell<bool>,
    /// What all threads see of it, while it or a clone of it is open.
    pub(crate) shared: RefCell<Option<Arc<BlobShared>>>,
    /// Changes of its map under way.
    pub(crate) commits: Commits,
}

impl BlobState {
    pub(crate) fn new(id: BlobId, meta: BlobMetadata, chain: Vec<PageIdx>) -> BlobState {
        BlobState {
            id,
            meta: RefCell::new(meta),
            unsynced: Cell::new(false),
            chain: RefCell::new(chain),
            clones: RefCell::default(),
            opened: Cell::new(0),
            cleared_by: Cell::new(None),
            held: Cell::new(false),
            shared: RefCell::new(None),
            commits: Commits::default(),
        }
    }

    /// What it reads where it has nothing itself.
    pub(crate) fn parent(&self) -> Option<Parent> {
        parent_of(&self.meta.borrow())
    }

    pub(crate) fn flags(&self) -> Flags {
        self.meta.borrow().flags
    }

    /// How clusters that it gives back are cleared.
    pub(crate) fn clear_method(&self) -> ClearMethod {
        self.cleared_by.get().unwrap_or_else(|| self.flags().clear_method())
    }

    pub(crate) fn check_metadata(&self) -> Result<(), BlobError> {
        let locked = self.flags().metadata_locked();
        if locked { Err(BlobError::MetadataReadOnly { blob: self.id }) } else { Ok(()) }
    }

    /// The same for operations on snapshots too: only what a newer version locked stays locked.
    pub(crate) fn check_known(&self) -> Result<(), BlobError> {
        let mut flags = self.flags();
        flags.data_read_only &= !Flags::READ_ONLY;
        if flags.metadata_locked() { Err(BlobError::MetadataReadOnly { blob: self.id }) } else { Ok(()) }
    }

    /// Makes what other threads see of it agree with the metadata, but for the map.
    pub(crate) fn publish_flags(&self) {
        if let Some(shared) = &*self.shared.borrow() {
            let meta = self.meta.borrow();
            shared.thin.store(meta.flags.thin(), Ordering::Release);
            shared.read_only.store(meta.flags.data_locked(), Ordering::Release);
            shared.clusters.store(meta.map.num_clusters(), Ordering::Release);
        }
    }

    /// Makes the leaves that other threads see agree with the map, entry by entry.
    pub(crate) fn publish_map(&self) {
        if let Some(shared) = &*self.shared.borrow() {
            let meta = self.meta.borrow();
            for run in meta.map.runs() {
                for at in 0..run.length {
                    shared.leaves.set(run.start + u64::from(at), Some(run.cluster.0 + at));
                }
            }
        }
    }
}

/// What a blob with this metadata reads where it has nothing itself.
pub(crate) fn parent_of(meta: &BlobMetadata) -> Option<Parent> {
    if let Some(parent) = meta.internal_id(internal::SNAPSHOT) {
        return Some(Parent::Snapshot(parent));
    }
    let id = meta.internal.get(internal::EXTERNAL_SNAPSHOT_ID)?;
    meta.flags.external_snapshot().then(|| Parent::External(id.to_vec()))
}

impl Md {
    /// A blob that can be read.
    pub(crate) fn blob(&self, id: BlobId) -> Result<Rc<BlobState>, BlobError> {
        if let Some(blob) = self.blobs.borrow().get(&id) {
            return Ok(blob.clone());
        }
        match self.damaged.get(&id) {
            Some(why) => Err(BlobError::Damaged { blob: id, why: why.clone() }),
            None => Err(BlobError::NoSuchBlob { blob: id }),
        }
    }

    /// What all threads see of a blob; made, with its parents, on first use.
    pub(crate) fn shared_of(&self, blob: &Rc<BlobState>) -> Arc<BlobShared> {
        self.shared_below(blob, self.blobs.borrow().len())
    }

    fn shared_below(&self, blob: &Rc<BlobState>, depth: usize) -> Arc<BlobShared> {
        let found = blob.shared.borrow().clone();
        if let Some(shared) = found {
            return shared;
        }
        let back = self.back_of(blob, depth);
        let shared = Arc::new(BlobShared::new(blob.id, self.shared.clone(), back));
        *blob.shared.borrow_mut() = Some(shared.clone());
        blob.publish_flags();
        blob.publish_map();
        shared
    }

    /// What stands behind a blob now. No deeper than there are blobs: parents of a hostile store may form a
    /// circle.
    fn back_of(&self, blob: &BlobState, depth: usize) -> Back {
        match blob.parent() {
            None => Back::Zeroes,
            Some(Parent::External(id)) => match self.options.external.as_ref().and_then(|find| find(&id)) {
                Some(device) => Back::External(device),
                None => Back::Missing(id.escape_ascii().to_string().into()),
            },
            Some(Parent::Snapshot(parent)) => match (self.blob(parent), depth.checked_sub(1)) {
                (Ok(parent), Some(depth)) => Back::Blob(self.shared_below(&parent, depth)),
                _ => Back::Missing(parent.to_string().into()),
            },
        }
    }

    /// Has an open blob look for what stands behind it again.
    pub(crate) fn publish_back(&self, blob: &Rc<BlobState>) {
        let shared = blob.shared.borrow().clone();
        if let Some(shared) = shared {
            let back = self.back_of(blob, self.blobs.borrow().len());
            *locked(&shared.back) = back;
        }
    }

    /// Forgets what readers noted down about parents, anywhere in the store, so that nobody will look at a
    /// cluster by an old note when this is over, and no I/O that did is under way.
    pub(crate) async fn forget_inherited(&self) {
        // A reader may be between its walk up the old chain and its note: once every thread has come by, it
        // is not, and the second look finds what it wrote.
        self.forget_notes();
        self.quiesce().await;
        self.forget_notes();
        self.quiesce().await;
    }

    fn forget_notes(&self) {
        for blob in self.blobs.borrow().values() {
            if let Some(shared) = &*blob.shared.borrow() {
                shared.leaves.forget_inherited();
            }
        }
    }

    /// Drops what threads see of blobs that nobody has open, nor any clone of theirs.
    pub(crate) fn drop_unused(&self, blob: &BlobState) {
        if blob.opened.get() > 0 || blob.held.get() {
            return;
        }
        // Clones hold it by their way back.
        let only_ours = blob.shared.borrow().as_ref().is_some_and(|shared| Arc::strong_count(shared) == 1);
        if only_ours {
            *blob.shared.borrow_mut() = None;
            if let Some(Parent::Snapshot(parent)) = blob.parent()
                && let Ok(parent) = self.blob(parent)
            {
                self.drop_unused(&parent);
            }
        }
    }

    /// Every blob id that a clone names as its parent, there or not.
    pub(crate) fn names_parent(&self, page: u32) -> bool {
        let id = BlobId::from_page(PageIdx(page));
        let blobs = self.blobs.borrow();
        blobs.values().any(|blob| blob.parent() == Some(Parent::Snapshot(id)))
    }
}
