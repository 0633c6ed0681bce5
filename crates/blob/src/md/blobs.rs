//! The blobs of a store, on its metadata thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use spindle_block::Device;
use spindle_format::cluster_map::Leaf;
use spindle_format::{BlobId, BlobMetadata, ClearMethod, ClusterIdx, Entries, Flags, PageIdx, Parent};

use super::Md;
use super::commit::Commits;
use super::create::busy;
use super::turns::Turns;
use crate::error::BlobError;
use crate::leaves::LEAF;
use crate::outside::Outside;
use crate::shared::{Back, BlobShared, Tied, locked};

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
    whole: Cell<bool>,
    /// Changes of its map under way.
    pub(crate) commits: Commits,
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
            commits: Commits::default(),
            tied: None,
        }
    }

    /// The view of all threads, if one exists or is being made.
    pub(crate) fn shared(&self) -> Option<Arc<BlobShared>> {
        self.shared.borrow().upgrade()
    }

    /// The view of all threads, if it holds the whole map.
    fn shown(&self) -> Option<Arc<BlobShared>> {
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
        if self.passing.get() { Err(busy(self.id)) } else { Ok(()) }
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
    async fn fold(&self) {
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

impl Md {
    /// A readable blob.
    pub(crate) fn blob(&self, id: BlobId) -> Result<Rc<BlobState>, BlobError> {
        if let Some(blob) = self.blobs.borrow().get(&id) {
            return Ok(blob.clone());
        }
        if let Some(why) = self.damaged.get(&id) {
            return Err(BlobError::Damaged { blob: id, why: why.clone() });
        }
        Err(match id.root_page() {
            Some(page) if self.unreadable.contains(&page) => {
                let why = format!("the device could not read metadata page {page}").into();
                BlobError::Damaged { blob: id, why }
            }
            _ => BlobError::NoSuchBlob { blob: id },
        })
    }

    /// The blob behind a view. An error if it is gone: its id may have a new owner.
    pub(crate) fn state_of(&self, shared: &Arc<BlobShared>) -> Result<Rc<BlobState>, BlobError> {
        let state = self.blob(shared.id)?;
        match state.shared() {
            Some(now) if Arc::ptr_eq(&now, shared) => Ok(state),
            _ => Err(BlobError::NoSuchBlob { blob: shared.id }),
        }
    }

    /// Handles the drop of a blob's view.
    pub(crate) fn unseen(&self, id: BlobId) {
        if let Ok(blob) = self.blob(id)
            && !blob.meta.borrow().map.leaves().is_empty()
        {
            drop(spindle_reactor::spawn_local(async move { blob.fold().await }));
        }
    }

    /// The view of a blob for all threads; made, with its parents', if there was none. That may take a while,
    /// in which the blob may be deleted.
    pub(crate) async fn shared_of(&self, blob: &Rc<BlobState>) -> Arc<BlobShared> {
        if let Some(shared) = blob.shown() {
            return shared;
        }
        // One at a time: a second caller waits until the whole map is shown.
        let _showing = self.showing.lock().await;
        let (mut unseen, mut ids, mut next) = (Vec::new(), BTreeSet::new(), blob.clone());
        let mut back = loop {
            if let Some(shared) = next.shown() {
                break Back::Blob(shared);
            }
            let parent = next.parent();
            ids.insert(next.id);
            unseen.push(next);
            match parent {
                None => break Back::Zeroes,
                Some(Parent::External(id)) => break self.external(&id),
                Some(Parent::Snapshot(id)) => match self.blob(id) {
                    // Parents in a hostile store may form a circle.
                    Ok(parent) if !ids.contains(&id) => next = parent,
                    _ => break Back::Missing(id.to_string().into()),
                },
            }
        };
        while let Some(blob) = unseen.pop() {
            let mut shared = BlobShared::new(blob.id, self.shared.clone(), back);
            shared.tied = blob.tied;
            let shared = Arc::new(shared);
            blob.show(&shared, false);
            blob.publish_map().await;
            blob.whole.set(true);
            back = Back::Blob(shared);
        }
        match back {
            Back::Blob(shared) => shared,
            _ => unreachable!("the blob itself has been seen, or has just been shown"),
        }
    }

    /// What is behind a blob now.
    async fn back_of(&self, blob: &BlobState) -> Back {
        match blob.parent() {
            None => Back::Zeroes,
            Some(Parent::External(id)) => self.external(&id),
            Some(Parent::Snapshot(id)) => match self.blob(id) {
                Ok(parent) => Back::Blob(self.shared_of(&parent).await),
                Err(_) => Back::Missing(id.to_string().into()),
            },
        }
    }

    fn external(&self, id: &[u8]) -> Back {
        match self.find_external(id) {
            Some(device) => Back::External(Outside::new(device)),
            None => Back::Missing(id.escape_ascii().to_string().into()),
        }
    }

    /// The device behind an external snapshot, if it is there.
    pub(crate) fn find_external(&self, id: &[u8]) -> Option<Arc<dyn Device>> {
        self.options.external.as_ref().and_then(|find| find(id))
    }

    /// True if something above a blob in its chain is missing: for an open blob, as its readers find it.
    pub(crate) fn is_degraded(&self, blob: &Rc<BlobState>) -> bool {
        let (mut at, mut seen) = (blob.clone(), BTreeSet::new());
        loop {
            if let Some(shared) = at.shared() {
                return shared.is_degraded();
            }
            match at.parent() {
                None => return false,
                Some(Parent::External(id)) => return self.find_external(&id).is_none(),
                Some(Parent::Snapshot(id)) => match self.blob(id) {
                    Ok(parent) if seen.insert(id) => at = parent,
                    _ => return true,
                },
            }
        }
    }

    /// Updates an open blob after its parent has changed. When this is over, no thread will look at a cluster
    /// by notes about the old parents, and no I/O that did is under way.
    pub(crate) async fn rechain(&self, blob: &Rc<BlobState>) {
        let back = match blob.shared() {
            Some(_) => self.back_of(blob).await,
            None => Back::Zeroes,
        };
        self.rechain_to(blob, back).await;
    }

    /// The same, with the new parent already known.
    pub(crate) async fn rechain_to(&self, blob: &Rc<BlobState>, back: Back) {
        self.shared.arena.chains_change();
        // The old one is dropped outside the lock: it may be the last reference to a whole chain.
        let old = blob.shared().map(|shared| std::mem::replace(&mut *locked(&shared.back), back));
        self.forget_inherited(blob).await;
        self.shared.arena.chains_settled();
        if let Some(Back::External(outside)) = old {
            drop(outside);
            // Lanes have been told to close it before this waits for them.
            self.quiesce_below(blob).await;
        }
    }

    /// Clears the notes about parents of a blob's readers, and of all blobs below it. When this is over, no
    /// thread will look at a cluster by an old note, and no I/O that did is under way.
    pub(crate) async fn forget_inherited(&self, blob: &Rc<BlobState>) {
        // A reader may be between its walk up the old chain and its note. Once every thread has passed, it is
        // not, and the second pass finds the note.
        for _ in 0..2 {
            self.forget_notes(blob).await;
            self.quiesce_below(blob).await;
        }
    }

    /// Parents before their clones, so that a cleared note is not found there again.
    async fn forget_notes(&self, blob: &Rc<BlobState>) {
        let mut below = vec![blob.clone()];
        let mut turns = Turns::default();
        let mut seen = BTreeSet::from([blob.id]);
        while let Some(blob) = below.pop() {
            if let Some(shared) = blob.shared() {
                for slot in shared.leaves.slots() {
                    shared.leaves.forget_inherited(slot);
                    turns.spend(16).await;
                }
            }
            turns.spend(1).await;
            let clones = blob.clones.borrow();
            // Parents in a hostile store may form a circle.
            let clones = clones.iter().filter(|&&clone| seen.insert(clone));
            below.extend(clones.filter_map(|&clone| self.blob(clone).ok()));
        }
    }
}
