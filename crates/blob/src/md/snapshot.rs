//! Takes snapshots, and detaches a blob from its parents.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_format::metadata::internal;
use spindle_format::{BlobId, Flags, Parent, Xattrs};

use super::create::{busy, set_parent};
use super::persist::Persist;
use super::remove::set_id;
use super::turns::Turns;
use super::{BlobState, Md};
use crate::allocate::{Allocated, Payload, allocate};
use crate::blob_local::BlobLocal;
use crate::error::BlobError;
use crate::leaves::Entry;
use crate::ordering::Point;
use crate::shared::{Back, BlobShared, locked};
use crate::sync::join_all;

/// Clusters copied in parallel.
const COPIES: usize = 8;

impl Md {
    /// Takes a snapshot: a new read-only blob gets everything that the blob has; the blob then reads through
    /// it.
    pub(crate) async fn snapshot(
        self: &Rc<Md>,
        id: BlobId,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<BlobId, BlobError> {
        self.check_allocation()?;
        let original = self.blob(id)?;
        let mut named = Xattrs::new();
        for (name, value) in xattrs {
            named.set(name, value).map_err(|source| BlobError::Xattr { blob: id, source })?;
        }
        let _frozen = self.freeze(&original).await;
        let _guard = self.exclusive_on(&original).await?;
        original.check_metadata()?;
        if original.held.get() {
            return Err(busy(id));
        }
        let snapshot = self.snapshot_marked(&original, named).await?;
        // Once the original reads through the snapshot there is no way back, so the pages of the last step
        // are reserved first.
        let aside = self.set_aside(snapshot.chain.borrow().len());
        let done = match &aside {
            Ok(_) => self.read_through(&original, &snapshot).await,
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = done {
            self.give_back(aside.unwrap_or_default());
            if self.check_writable().is_ok() {
                self.erase_unfinished(&snapshot).await?;
            }
            return Err(error);
        }
        self.give_back(aside.unwrap_or_default());
        snapshot.passing.set(false);
        let mut done = snapshot.meta.borrow().clone();
        done.remove_internal(internal::SNAPSHOT_IN_PROGRESS);
        let last = Persist { urgent: true, ..Persist::default() };
        // The state on disk is unknown: only a load can tell now.
        self.persist(&snapshot, done, last).await.inspect_err(|error| self.poison(error))?;
        Ok(snapshot.id)
    }

    /// Writes the snapshot with everything the original has and the mark that it is unfinished.
    async fn snapshot_marked(
        &self,
        original: &Rc<BlobState>,
        named: Xattrs,
    ) -> Result<Rc<BlobState>, BlobError> {
        let mut meta = original.meta.borrow().clone();
        meta.xattrs = named;
        meta.flags.data_read_only |= Flags::READ_ONLY;
        set_id(&mut meta, internal::SNAPSHOT_IN_PROGRESS, original.id);
        let snapshot = self.write_new(meta, Point::MarkBeforeClone).await?;
        snapshot.passing.set(true);
        Ok(snapshot)
    }

    /// Writes the original without clusters, with the snapshot as its parent.
    async fn read_through(
        &self,
        original: &Rc<BlobState>,
        snapshot: &Rc<BlobState>,
    ) -> Result<(), BlobError> {
        let before = original.meta.borrow().clone();
        let parent = original.parent();
        let mut meta = before.clone();
        meta.map.clear();
        meta.flags.invalid |= Flags::THIN;
        set_parent(&mut meta, Some(&Parent::Snapshot(snapshot.id)));
        let moved = before.map.extent_pages().map(|(_, page)| page).collect();
        let how = Persist { keep: moved, after: vec![Point::CloneBeforeUnmark], ..Persist::default() };
        self.persist(original, meta, how).await?;
        self.replace_clone(parent.as_ref(), original.id, Some(snapshot.id));
        snapshot.clones.borrow_mut().push(original.id);
        self.publish_snapshot(original, snapshot).await;
        Ok(())
    }

    /// Shows readers of the original its snapshot behind it. They find the same clusters at any moment.
    async fn publish_snapshot(&self, original: &Rc<BlobState>, snapshot: &Rc<BlobState>) {
        let shared = self.shared_of(original).await;
        match snapshot.shared() {
            None => {
                let back = locked(&shared.back).clone();
                let below = Arc::new(BlobShared::new(snapshot.id, self.shared.clone(), back));
                below.leaves.adopt(&shared.leaves);
                snapshot.show(&below, true);
                *locked(&shared.back) = Back::Blob(below);
                shared.leaves.share_all();
            }
            // It was opened meanwhile: it has leaves already.
            Some(below) => {
                *locked(&shared.back) = Back::Blob(below);
                shared.leaves.forget_own();
            }
        }
        original.publish_flags();
        snapshot.publish_map().await;
    }

    /// Gives a blob clusters of its own for all that it reads in its parents (`inflate`: for all that it does
    /// not own), so that it no longer needs its parent (`inflate`: has no parent).
    pub(crate) async fn detach(self: &Rc<Md>, blob: &Rc<BlobState>, inflate: bool) -> Result<(), BlobError> {
        self.check_allocation()?;
        blob.check_stays()?;
        blob.check_known()?;
        if blob.parent().is_none() && !inflate {
            return Err(BlobError::Refused { blob: blob.id, why: "it has no parent to be decoupled from" });
        }
        if !blob.flags().thin() {
            return Ok(());
        }
        if blob.held.replace(true) {
            return Err(busy(blob.id));
        }
        let result = self.detach_held(blob, inflate).await;
        blob.held.set(false);
        result
    }

    async fn detach_held(self: &Rc<Md>, blob: &Rc<BlobState>, inflate: bool) -> Result<(), BlobError> {
        let shared = self.shared_of(blob).await;
        let here = BlobLocal::of(&shared).ok_or_else(|| self.shared.gone())?;
        let (openings, before) = (blob.openings.get(), blob.opened.get());
        let mut copied = Vec::new();
        let detached = self.copy_and_detach(blob, inflate, (&shared, &here), &mut copied).await;
        // The copies cannot have been written to: they go back.
        if detached.is_err() && before == 0 && blob.openings.get() == openings {
            self.undo_copies(blob, &shared, copied).await;
        }
        detached
    }

    /// Takes back clusters that were copied for an operation that failed; the blob reads them in its parent
    /// as before. Those that cannot be taken back stay with it.
    async fn undo_copies(self: &Rc<Md>, blob: &Rc<BlobState>, shared: &Arc<BlobShared>, copied: Vec<u64>) {
        if self.check_allocation().is_err() {
            return;
        }
        let mut freed = Vec::new();
        for index in copied {
            let Some(claim) = shared.claim(index).await else { continue };
            let Entry::Own(cluster) = shared.leaves.get(index) else { continue };
            if self.commit(blob, index, None).await.is_err() {
                break;
            }
            freed.push((cluster, claim));
        }
        if freed.is_empty() || self.flush_for(&[Point::UnmapBeforeFree]).await.is_err() {
            return;
        }
        if self.options.order.keeps(Point::ReadersBeforeFree) {
            self.quiesce_below(blob).await;
        }
        let (clusters, _claims): (Vec<u32>, Vec<_>) = freed.into_iter().unzip();
        self.release_unused(clusters).await;
    }

    async fn copy_and_detach(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        inflate: bool,
        (shared, here): (&Arc<BlobShared>, &BlobLocal),
        copied: &mut Vec<u64>,
    ) -> Result<(), BlobError> {
        loop {
            let wanted = wanted(shared, inflate, self.free_clusters()).await;
            if wanted.len() as u64 > self.free_clusters() {
                return Err(self.no_space(wanted.len() as u64));
            }
            for some in wanted.chunks(COPIES) {
                let done = join_all(some.iter().map(|&index| copy_up(shared, here, index))).await;
                let made = some.iter().zip(&done).filter(|(_, done)| matches!(done, Ok(true)));
                copied.extend(made.map(|(&index, _)| index));
                done.into_iter().collect::<Result<Vec<bool>, BlobError>>()?;
            }
            // Meanwhile clusters may have been unmapped, the blob may have grown, or its parent may have got
            // more.
            if self.change_parent(blob, inflate).await? {
                return Ok(());
            }
        }
    }

    /// False if the blob still lacks clusters.
    async fn change_parent(self: &Rc<Md>, blob: &Rc<BlobState>, inflate: bool) -> Result<bool, BlobError> {
        let _frozen = self.freeze(blob).await;
        let _guard = self.exclusive_on(blob).await?;
        let shared = self.shared_of(blob).await;
        if !wanted(&shared, inflate, 0).await.is_empty() {
            return Ok(false);
        }
        let old = blob.parent();
        let mut meta = blob.meta.borrow().clone();
        let (mut slots, mut taken) = (BTreeSet::new(), Vec::new());
        let parent = match &old {
            Some(Parent::Snapshot(parent)) => Some(self.blob(*parent)?),
            _ => None,
        };
        let new = match &parent {
            Some(parent) if !inflate => parent.parent(),
            _ => None,
        };
        let pinned = match &parent {
            Some(parent) if !inflate => self.pin_zeroes(parent, &mut meta, &mut slots, &mut taken).await,
            _ => Ok(()),
        };
        set_parent(&mut meta, new.as_ref());
        if inflate {
            meta.flags.invalid &= !Flags::THIN;
        }
        let how = Persist { slots, fills: true, ..Persist::default() };
        let done = match pinned {
            Ok(()) => self.persist(blob, meta, how).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            if self.check_writable().is_ok() {
                self.release_unused(taken).await;
            }
            return Err(error);
        }
        self.space_changed();
        self.replace_clone(old.as_ref(), blob.id, None);
        if let Some(Parent::Snapshot(new)) = new
            && let Ok(new) = self.blob(new)
        {
            new.clones.borrow_mut().push(blob.id);
        }
        blob.publish_map().await;
        blob.publish_flags();
        self.rechain(blob).await;
        Ok(true)
    }
}

/// Gives a blob a cluster of its own that reads as before; returns whether it needed one.
async fn copy_up(shared: &Arc<BlobShared>, here: &BlobLocal, index: u64) -> Result<bool, BlobError> {
    loop {
        shared.thawed().await;
        let cut_off = index >= shared.clusters.load(Ordering::Acquire);
        if cut_off || matches!(shared.leaves.get(index), Entry::Own(_)) {
            return Ok(false);
        }
        if let Allocated::Done = allocate(shared, here, index, Payload::Nothing).await.0? {
            return Ok(true);
        }
    }
}

/// The clusters that a blob does not own and needs to be independent of its parent (`inflate`: of all
/// parents): all, or one more than `most`.
async fn wanted(shared: &BlobShared, inflate: bool, most: u64) -> Vec<u64> {
    let needs = |index: &u64| {
        if let Entry::Own(_) = shared.leaves.get(*index) {
            return false;
        }
        match &*locked(&shared.back) {
            _ if inflate => true,
            Back::Zeroes => false,
            Back::Blob(parent) => {
                let inside = *index < parent.clusters.load(Ordering::Acquire);
                inside && matches!(parent.leaves.get(*index), Entry::Own(_))
            }
            Back::External(_) | Back::Missing(_) => true,
        }
    };
    let (mut wanted, mut turns) = (Vec::new(), Turns::default());
    for index in 0..shared.clusters.load(Ordering::Acquire) {
        wanted.extend(Some(index).filter(needs));
        if wanted.len() as u64 > most {
            break;
        }
        turns.spend(1).await;
    }
    wanted
}
