//! Finds blobs, and makes and updates the view that all threads have of one.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::Device;
use spindle_format::{BlobId, Parent};

use super::blob_state::BlobState;
use super::metadata::Md;
use super::parent::external_name;
use super::turns::Turns;
use crate::error::BlobError;
use crate::shared::{Backing, BlobShared, ExternalSnapshot};

impl Md {
    /// A readable blob.
    pub(crate) fn blob(&self, id: BlobId) -> Result<Rc<BlobState>, BlobError> {
        if let Some(blob) = self.blobs.borrow().get(&id) {
            return Ok(blob.clone());
        }
        if let Some(why) = self.found.damaged.get(&id) {
            return Err(BlobError::Damaged { blob: id, why: why.clone() });
        }
        Err(match id.root_page() {
            Some(page) if self.found.unreadable.contains(&page) => {
                let why = format!("the device could not read metadata page {page}").into();
                BlobError::Damaged { blob: id, why }
            }
            _ => BlobError::NoSuchBlob { blob: id },
        })
    }

    /// The blob of a view. An error if it is gone: its id may have a new owner.
    pub(crate) fn state_of(&self, shared: &Arc<BlobShared>) -> Result<Rc<BlobState>, BlobError> {
        let state = self.blob(shared.id)?;
        match state.shared() {
            Some(now) if Arc::ptr_eq(&now, shared) => Ok(state),
            _ => Err(BlobError::NoSuchBlob { blob: shared.id }),
        }
    }

    /// Handles the drop of a blob's view.
    pub(super) fn unseen(&self, id: BlobId) {
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
        let mut backing = loop {
            if let Some(shared) = next.shown() {
                break Backing::Blob(shared);
            }
            let parent = next.parent();
            ids.insert(next.id);
            unseen.push(next);
            match parent {
                None => break Backing::Zeroes,
                Some(Parent::External(id)) => break self.external(&id),
                Some(Parent::Snapshot(id)) => match self.blob(id) {
                    // Parents in a hostile store may form a circle.
                    Ok(parent) if !ids.contains(&id) => next = parent,
                    _ => break Backing::Missing(id.to_string().into()),
                },
            }
        };
        while let Some(blob) = unseen.pop() {
            let mut shared = BlobShared::new(blob.id, self.shared.clone(), backing);
            shared.tied = blob.tied;
            let shared = Arc::new(shared);
            blob.show(&shared, false);
            blob.publish_map().await;
            blob.whole.set(true);
            backing = Backing::Blob(shared);
        }
        match backing {
            Backing::Blob(shared) => shared,
            _ => unreachable!("the blob itself has been seen, or has just been shown"),
        }
    }

    /// What a blob reads now where it owns no cluster.
    async fn backing_of(&self, blob: &BlobState) -> Backing {
        match blob.parent() {
            None => Backing::Zeroes,
            Some(Parent::External(id)) => self.external(&id),
            Some(Parent::Snapshot(id)) => match self.blob(id) {
                Ok(parent) => Backing::Blob(self.shared_of(&parent).await),
                Err(_) => Backing::Missing(id.to_string().into()),
            },
        }
    }

    fn external(&self, id: &[u8]) -> Backing {
        let id_text = external_name(id);
        let Some(device) = self.find_external(id) else { return Backing::Missing(id_text.into()) };
        match ExternalSnapshot::claim(device, &self.shared.name) {
            Ok(snapshot) => Backing::External(snapshot),
            Err(error) => Backing::Missing(format!("{id_text} ({error})").into()),
        }
    }

    /// The device of an external snapshot, if it is there.
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

    /// Updates an open blob after its parent has changed. When this resolves, no thread will use a note about the
    /// old parents, and no I/O that did is under way.
    pub(crate) async fn rechain(&self, blob: &Rc<BlobState>) {
        let backing = match blob.shared() {
            Some(_) => self.backing_of(blob).await,
            None => Backing::Zeroes,
        };
        self.rechain_to(blob, backing).await;
    }

    /// The same, with the new parent already known.
    pub(crate) async fn rechain_to(&self, blob: &Rc<BlobState>, backing: Backing) {
        self.shared.arena.chains_change();
        // The old one is dropped outside the lock: it may be the last reference to a whole chain.
        let old = blob.shared().map(|shared| shared.read_through(backing));
        self.forget_inherited(blob).await;
        self.shared.arena.chains_settled();
        if let Some(Backing::External(snapshot)) = old {
            drop(snapshot);
            // Lanes have been told to close it before this waits for them.
            self.quiesce_below(blob).await;
        }
    }

    /// Clears the notes about parents of a blob's readers, and of all blobs below it. When this resolves, no thread
    /// will use an old note, and no I/O that did is under way.
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
                    // A blob of absurd size has many slots that say nothing.
                    let steps = if slot.load(Ordering::Acquire) == 0 { 1 } else { 16 };
                    shared.leaves.forget_inherited(slot);
                    turns.spend(steps).await;
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
