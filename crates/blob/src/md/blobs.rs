//! The blobs of a store as its metadata thread knows them.

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
use crate::shared::{Back, BlobShared, locked};

/// A blob: what its metadata says, where that lies, and who uses it.
pub(crate) struct BlobState {
    pub(crate) id: BlobId,
    /// What is on disk, and xattrs that were set since the last sync.
    pub(crate) meta: RefCell<BlobMetadata>,
    /// How often xattrs were set, and how many of these changes are durable.
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
    /// How clusters that it gives back are cleared while it is open, if not by its own method.
    pub(crate) cleared_by: Cell<Option<ClearMethod>>,
    /// An operation that wants the blob to itself.
    pub(crate) held: Cell<bool>,
    /// Unmaps of its clusters that are under way.
    pub(crate) unmaps: Cell<usize>,
    /// It is being deleted, or is a snapshot that is not finished: nobody is let in.
    pub(crate) passing: Cell<bool>,
    /// What all threads see of it, while it or a clone of it is open.
    shared: RefCell<Weak<BlobShared>>,
    /// Whether all of its map is in there, so that threads may look.
    whole: Cell<bool>,
    /// Changes of its map under way.
    pub(crate) commits: Commits,
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
        }
    }

    /// What all threads see of it, if anybody looks or is just going to.
    pub(crate) fn shared(&self) -> Option<Arc<BlobShared>> {
        self.shared.borrow().upgrade()
    }

    /// The same, if all of its map is in there.
    fn shown(&self) -> Option<Arc<BlobShared>> {
        self.shared().filter(|_| self.whole.get())
    }

    /// From now on threads see this of it, which says where its clusters are, or does not yet.
    pub(crate) fn show(&self, shared: &Arc<BlobShared>, whole: bool) {
        *self.shared.borrow_mut() = Arc::downgrade(shared);
        self.whole.set(whole);
        self.publish_flags();
    }

    /// Whether xattrs were set that are not durable yet.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.edits.get() != self.synced.get()
    }

    /// What it reads where it has nothing itself.
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

    /// An error if nobody may begin to use it.
    pub(crate) fn check_stays(&self) -> Result<(), BlobError> {
        if self.passing.get() { Err(busy(self.id)) } else { Ok(()) }
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
        if let Some(shared) = self.shared() {
            let meta = self.meta.borrow();
            shared.thin.store(meta.flags.thin(), Ordering::Release);
            shared.read_only.store(meta.flags.data_locked(), Ordering::Release);
            shared.clusters.store(meta.map.num_clusters(), Ordering::Release);
        }
    }

    /// Makes the leaves that other threads see agree with the map, which is kept there from now on. Nobody else
    /// changes the map meanwhile.
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

    /// Disk says now that these clusters of it lie there, or nowhere: so do the map and what other threads see.
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

    /// Nobody looks at it any more: the map is made as small as it can be, unless somebody looks again meanwhile.
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
    /// A blob that can be read.
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

    /// The blob that threads see as this one. An error if it is gone: its id may have a new owner.
    pub(crate) fn state_of(&self, shared: &Arc<BlobShared>) -> Result<Rc<BlobState>, BlobError> {
        let state = self.blob(shared.id)?;
        match state.shared() {
            Some(now) if Arc::ptr_eq(&now, shared) => Ok(state),
            _ => Err(BlobError::NoSuchBlob { blob: shared.id }),
        }
    }

    /// No thread sees this blob any more.
    pub(crate) fn unseen(&self, id: BlobId) {
        if let Ok(blob) = self.blob(id)
            && !blob.meta.borrow().map.leaves().is_empty()
        {
            drop(spindle_reactor::spawn_local(async move { blob.fold().await }));
        }
    }

    /// What all threads see of a blob; made, with its parents, if nobody looked before. That may take a while, in
    /// which the blob may be deleted.
    pub(crate) async fn shared_of(&self, blob: &Rc<BlobState>) -> Arc<BlobShared> {
        if let Some(shared) = blob.shown() {
            return shared;
        }
        // One at a time: who comes here while a map is being shown finds all of it.
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
                    // Parents of a hostile store may form a circle.
                    Ok(parent) if !ids.contains(&id) => next = parent,
                    _ => break Back::Missing(id.to_string().into()),
                },
            }
        };
        while let Some(blob) = unseen.pop() {
            let shared = Arc::new(BlobShared::new(blob.id, self.shared.clone(), back));
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

    /// What stands behind a blob now.
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

    /// Whether something above a blob in its chain is missing: of an open one as its readers find it.
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

    /// Has an open blob look for what stands behind it again: its parent is another. When this is over nobody
    /// will look at a cluster by what was found in the old parents, and no I/O that did is under way.
    pub(crate) async fn rechain(&self, blob: &Rc<BlobState>) {
        let back = match blob.shared() {
            Some(_) => self.back_of(blob).await,
            None => Back::Zeroes,
        };
        self.rechain_to(blob, back).await;
    }

    /// The same, to what is known to stand behind it.
    pub(crate) async fn rechain_to(&self, blob: &Rc<BlobState>, back: Back) {
        self.shared.arena.chains_change();
        // The old one goes when it is unlocked: it may be the last to hold a whole chain.
        let old = blob.shared().map(|shared| std::mem::replace(&mut *locked(&shared.back), back));
        self.forget_inherited(blob).await;
        self.shared.arena.chains_settled();
        if let Some(Back::External(outside)) = old {
            drop(outside);
            // Lanes have been told to close it before this comes by.
            self.quiesce_below(blob).await;
        }
    }

    /// Forgets what readers of a blob, and of all below it, noted down about parents, so that nobody will
    /// look at a cluster by an old note when this is over, and no I/O that did is under way.
    pub(crate) async fn forget_inherited(&self, blob: &Rc<BlobState>) {
        // A reader may be between its walk up the old chain and its note: once every thread has come by, it
        // is not, and the second look finds what it wrote.
        for _ in 0..2 {
            self.forget_notes(blob).await;
            self.quiesce_below(blob).await;
        }
    }

    /// Parents before their clones, so that what is forgotten is not found there again.
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
            // Parents of a hostile store may form a circle.
            let clones = clones.iter().filter(|&&clone| seen.insert(clone));
            below.extend(clones.filter_map(|&clone| self.blob(clone).ok()));
        }
    }
}
