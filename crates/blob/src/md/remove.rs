//! Deletes blobs, and snapshots through which one clone reads.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use spindle_format::metadata::internal;
use spindle_format::page::Page;
use spindle_format::{Bitmap, BlobId, BlobMetadata, ClusterIdx, PageIdx, Parent};

use super::blob_state::BlobState;
use super::freeze::Frozen;
use super::links::{set_id, set_parent};
use super::metadata::Md;
use super::persist::Persist;
use super::turns::Turns;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::waiting::TaskGuard;

impl Md {
    /// Deletes a blob that is not open. Operations that change its clones meanwhile end first; then it is
    /// checked again.
    pub(crate) async fn remove(self: &Rc<Md>, id: BlobId) -> Result<(), BlobError> {
        self.check_allocation()?;
        let blob = self.blob(id)?;
        if self.found.named_by_damaged.contains(&id) {
            let why = "a damaged blob reads through it: give that up first, with spindle blob check --repair --give-up";
            return Err(BlobError::Refused { blob: id, why });
        }
        loop {
            let clones = blob.clones.borrow().clone();
            let removed = match clones.as_slice() {
                [] => self.remove_alone(&blob).await?,
                [clone] => self.merge_into(&blob, &self.blob(*clone)?).await?,
                _ => self.has_one_clone_at_most(&blob).await.map(|()| false)?,
            };
            if removed {
                return Ok(());
            }
        }
    }

    /// Waits for operations that are adding or removing clones; an error if there is more than one clone
    /// then.
    async fn has_one_clone_at_most(&self, blob: &Rc<BlobState>) -> Result<(), BlobError> {
        let _guard = self.exclusive_on(blob).await?;
        match blob.clones.borrow().len() {
            0 | 1 => Ok(()),
            _ => Err(BlobError::Busy {
                blob: blob.id,
                by: "more than one clone reads through it: delete or inflate them",
            }),
        }
    }

    /// Deletes a blob without clones; false if it has some once no other operation works on it.
    async fn remove_alone(self: &Rc<Md>, blob: &Rc<BlobState>) -> Result<bool, BlobError> {
        let _alone = self.alone_with(blob).await?;
        check_unused(blob)?;
        if !blob.clones.borrow().is_empty() {
            return Ok(false);
        }
        self.check_leaves_parent(blob)?;
        blob.passing.set(true);
        let erased = self.erase(blob, &Bitmap::new(0), &BTreeSet::new()).await;
        blob.passing.set(false);
        erased.map(|()| true)
    }

    /// Waits until requests that outlive the blob's handles have ended, and for [`Md::lock`].
    async fn alone_with(&self, blob: &Rc<BlobState>) -> Result<(Option<Frozen>, TaskGuard<'_>), BlobError> {
        loop {
            let frozen = self.freeze_if_seen(blob).await;
            let guard = self.exclusive_on(blob).await?;
            // It may have been opened while this waited.
            if frozen.is_some() || blob.shared().is_none() {
                return Ok((frozen, guard));
            }
        }
    }

    /// Removes a blob from the disk and frees what it had, except for what another blob has now. Called under
    /// [`Md::lock`]. The deletion has succeeded when the root is durably gone: a crash after that leaves pages and
    /// clusters that nothing names. These are cleared in the background.
    async fn erase(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        kept_clusters: &Bitmap,
        kept_pages: &BTreeSet<PageIdx>,
    ) -> Result<(), BlobError> {
        self.mark_dirty().await?;
        self.forget_super_blob(blob.id).await?;
        let mut pages = blob.chain.borrow().clone();
        let root = pages.remove(0);
        self.clear_root(root).await?;
        self.used_blob_ids.borrow_mut().clear(root.0);
        self.blobs.borrow_mut().remove(&blob.id);
        // A write that waited to be let in finds a blob without clusters.
        blob.shared().into_iter().for_each(|shared| shared.clusters.store(0, Ordering::Release));
        if let Some(Parent::Snapshot(parent)) = blob.parent()
            && let Ok(parent) = self.blob(parent)
        {
            parent.clones.borrow_mut().retain(|&clone| clone != blob.id);
        }
        let meta = blob.meta.borrow().clone();
        pages.extend(meta.map.extent_pages().map(|(_, page)| page).filter(|page| !kept_pages.contains(page)));
        self.leave_pages(root, pages);
        if self.options.order.keeps(Point::ReadersBeforeFree) {
            self.quiesce_below(blob).await;
        }
        let clusters = clusters_of(&meta).filter(|&cluster| !kept_clusters.get(cluster));
        self.free_behind(clusters, blob.clear_method()).await;
        self.clear_behind();
        Ok(())
    }

    /// Clears a root durably, which is also what the acknowledgement of a deletion rests on. A half-cleared root
    /// would look like a damaged blob, so where a crash can tear it, only the sector that makes it a root goes
    /// now, and the rest in the background. Its copy goes at the same time: it would restore the root.
    async fn clear_root(&self, root: PageIdx) -> Result<(), BlobError> {
        if !self.tears_pages() {
            self.clear_pages([root]).await?;
            return self.flush_for(&[Point::RootBeforeRest]).await;
        }
        let rewritten = self.copies.borrow().rewritten.get(&root).copied();
        if rewritten.is_some_and(|begun| !self.flushes.covers(begun)) {
            self.flush_for(&[Point::PlaceBeforeForget]).await?;
        }
        // Copies that are just being cleared are gone when the flush below begins.
        drop(self.clearing_copies.lock().await);
        let copies = self.take_copies(&[root]);
        self.clear_pages(copies.iter().copied()).await?;
        let change = Page::clear_last_sector(root, &self.geometry.borrow());
        self.apply(&change).await.inspect_err(|error| self.poison(error))?;
        self.flush_for(&[Point::RootBeforeRest]).await?;
        self.space.borrow_mut().free_pages_again(copies);
        Ok(())
    }

    /// Stops a blob from being the super blob, durably, before it is deleted: no super block ever names a
    /// deleted blob.
    async fn forget_super_blob(&self, id: BlobId) -> Result<(), BlobError> {
        if self.super_block.borrow().super_blob != Some(id) {
            return Ok(());
        }
        self.mark_dirty().await?;
        self.write_super_blob(None).await?;
        self.flush_for(&[Point::RootBeforeRest]).await
    }

    /// Removes an unfinished snapshot: everything in it is the original's.
    pub(crate) async fn erase_unfinished(self: &Rc<Md>, snapshot: &Rc<BlobState>) -> Result<(), BlobError> {
        let meta = snapshot.meta.borrow().clone();
        let pages = meta.map.extent_pages().map(|(_, page)| page).collect();
        self.erase(snapshot, &self.clusters_in(&meta).await, &pages).await
    }

    /// Deletes a snapshot with one clone, which takes over what it still reads there, in one write of its
    /// root; until then its map on disk does not change. False if that is no longer its only clone once no
    /// other operation works on them.
    async fn merge_into(
        self: &Rc<Md>,
        snapshot: &Rc<BlobState>,
        clone: &Rc<BlobState>,
    ) -> Result<bool, BlobError> {
        check_unused(snapshot)?;
        let _frozen = self.freeze(clone).await;
        let _guard = self.exclusive_on(snapshot).await?;
        check_unused(snapshot)?;
        // By then its id may be that of another clone.
        if *snapshot.clones.borrow() != [clone.id] || !self.is_there(clone) {
            return Ok(false);
        }
        // It is being inflated or decoupled, which takes as long as there is data.
        if clone.held.get() {
            return Err(BlobError::busy(clone.id));
        }
        snapshot.passing.set(true);
        clone.held.set(true);
        let merged = self.merge_held(snapshot, clone).await;
        clone.held.set(false);
        // What the clone has taken over changes with it. If the snapshot could not be erased, nothing reads
        // that data through the snapshot any more.
        let taken_over = clone.parent() != Some(Parent::Snapshot(snapshot.id));
        snapshot.passing.set(merged.is_err() && taken_over);
        merged.map(|()| true)
    }

    /// The same under [`Md::lock`], when no other operation can begin on either.
    async fn merge_held(
        self: &Rc<Md>,
        snapshot: &Rc<BlobState>,
        clone: &Rc<BlobState>,
    ) -> Result<(), BlobError> {
        let mut taken = Vec::new();
        let is_super = self.super_block.borrow().super_blob == Some(snapshot.id);
        let result = self.hand_over(snapshot, clone, &mut taken).await;
        if let Err(error) = result {
            if self.check_writable().is_ok() {
                self.release_unused(taken).await;
                let undone = self.unmark(snapshot, is_super).await;
                // Half undone: only a load can repair it.
                undone.inspect_err(|error| self.poison(error))?;
            }
            return Err(error);
        }
        self.replace_clone(snapshot.parent().as_ref(), snapshot.id, Some(clone.id));
        clone.publish_map().await;
        self.rechain(clone).await;
        let meta = clone.meta.borrow().clone();
        let clusters = self.clusters_in(&meta).await;
        let pages = meta.map.extent_pages().map(|(_, page)| page).collect();
        self.erase(snapshot, &clusters, &pages).await
    }

    /// Writes everything up to the clone's root, which gives it what it read in the snapshot. `taken` lists the
    /// further clusters that it got.
    async fn hand_over(
        self: &Rc<Md>,
        snapshot: &Rc<BlobState>,
        clone: &Rc<BlobState>,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        let step = |after| Persist { urgent: true, after: vec![after], ..Persist::default() };
        let (meta, mut slots) = self.merged(snapshot, clone, taken).await?;
        // Refused before anything is written.
        self.merges_in_place(clone, &meta, &slots)?;
        let mut marked = snapshot.meta.borrow().clone();
        set_id(&mut marked, internal::SNAPSHOT_PENDING_REMOVAL, clone.id);
        self.persist(snapshot, marked, step(Point::MarkBeforeClone)).await?;
        self.forget_super_blob(snapshot.id).await?;
        let in_place = self.merges_in_place(clone, &meta, &slots)?;
        if in_place {
            self.merge_in_place(clone, &meta, &mut slots).await?;
        }
        let write = async || {
            let how = Persist { slots: slots.clone(), fills: true, ..step(Point::CloneBeforeUnmark) };
            self.persist(clone, meta.clone(), how).await
        };
        let written = self.once_pages_are_back(write).await;
        // With some of it done, only a load can undo it.
        written.inspect_err(|error| {
            if in_place {
                self.poison(error)
            }
        })
    }

    /// Keeps a snapshot whose deletion failed: durably undoes what was done to it before its clone's root.
    async fn unmark(&self, snapshot: &BlobState, is_super: bool) -> Result<(), BlobError> {
        if is_super && self.super_block.borrow().super_blob.is_none() {
            self.write_super_blob(Some(snapshot.id)).await?;
            self.flush_for(&[Point::DurableBeforeAck]).await?;
        }
        let mut unmarked = snapshot.meta.borrow().clone();
        if unmarked.remove_internal(internal::SNAPSHOT_PENDING_REMOVAL).is_some() {
            let how = || Persist { urgent: true, ..Persist::default() };
            self.once_pages_are_back(async || self.persist(snapshot, unmarked.clone(), how()).await).await?;
        }
        Ok(())
    }

    /// The clusters that a map names.
    async fn clusters_in(&self, meta: &BlobMetadata) -> Bitmap {
        let mut clusters = Bitmap::new(self.geometry.borrow().total_clusters());
        let mut turns = Turns::default();
        for run in meta.map.runs() {
            for cluster in run.clusters() {
                clusters.set(cluster);
                turns.spend(1).await;
            }
        }
        clusters
    }

    /// The clone's metadata once it has taken over what it reads in the snapshot, and the slots of its table
    /// that change. Slots that only the snapshot has keep their page.
    async fn merged(
        self: &Rc<Md>,
        snapshot: &Rc<BlobState>,
        clone: &Rc<BlobState>,
        taken: &mut Vec<u32>,
    ) -> Result<(BlobMetadata, BTreeSet<u32>), BlobError> {
        let below = snapshot.meta.borrow().clone();
        let before = clone.meta.borrow().clone();
        let mut meta = before.clone();
        let (mut slots, mut turns) = (BTreeSet::new(), Turns::default());
        for (index, cluster) in below.map.allocated_from(0) {
            if index < meta.map.num_clusters() && before.map.get(index).is_none() {
                meta.map.set(index, Some(cluster));
                slots.insert((index / crate::map::LEAF) as u32);
            }
            turns.spend(1).await;
        }
        self.pin_zeroes(snapshot, &mut meta, &mut slots, taken).await?;
        for leaf in below.map.leaves() {
            let same = meta.map.leaf(leaf.slot).is_some_and(|now| now.clusters == leaf.clusters);
            let absent = before.map.leaf(leaf.slot).is_none();
            turns.spend(crate::map::LEAF as u32).await;
            if let Some(page) = leaf.page
                && same
                && absent
            {
                meta.map.set_extent_page(leaf.slot, page);
                slots.remove(&leaf.slot);
            }
        }
        let parent = below.parent();
        set_parent(&mut meta, parent.as_ref());
        Ok((meta, slots))
    }

    /// A clone longer than its parent reads zeroes beyond the parent's end. If it is about to read through to
    /// a grandparent with data there, it gets clusters of zeroes first.
    pub(crate) async fn pin_zeroes(
        self: &Rc<Md>,
        parent: &Rc<BlobState>,
        meta: &mut BlobMetadata,
        slots: &mut BTreeSet<u32>,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        let end = parent.meta.borrow().map.num_clusters();
        let shared = self.shared_of(parent).await;
        let beyond = end..meta.map.num_clusters();
        let holes = self.visible_above(&shared, beyond, |index| meta.map.get(index).is_none()).await;
        self.pin(&holes, meta, slots, taken).await
    }

    /// Gives these places of a map clusters of zeroes.
    pub(crate) async fn pin(
        &self,
        holes: &[u64],
        meta: &mut BlobMetadata,
        slots: &mut BTreeSet<u32>,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        // Zeroed with every clear method: what is hidden here must stay hidden.
        let method = spindle_format::ClearMethod::Default;
        self.take_clusters(holes.len() as u64, method, taken).await?;
        for (&index, &cluster) in holes.iter().zip(taken.iter()) {
            meta.map.set(index, Some(ClusterIdx(cluster)));
            slots.insert((index / crate::map::LEAF) as u32);
        }
        Ok(())
    }

    /// Replaces one clone by another, or by none, in the parent's list.
    pub(crate) fn replace_clone(&self, parent: Option<&Parent>, old: BlobId, new: Option<BlobId>) {
        if let Some(Parent::Snapshot(parent)) = parent
            && let Ok(parent) = self.blob(*parent)
        {
            let mut clones = parent.clones.borrow_mut();
            clones.retain(|&clone| clone != old);
            clones.extend(new);
        }
    }
}

/// An error if a blob is open, or is being inflated or decoupled.
fn check_unused(blob: &BlobState) -> Result<(), BlobError> {
    if blob.opened.get() > 0 {
        return Err(BlobError::Busy { blob: blob.id, by: "it is open: close it" });
    }
    if blob.held.get() { Err(BlobError::busy(blob.id)) } else { Ok(()) }
}

/// Every cluster that a map names.
pub(crate) fn clusters_of(meta: &BlobMetadata) -> impl Iterator<Item = u32> + '_ {
    meta.map.runs().flat_map(|run| run.clusters())
}
