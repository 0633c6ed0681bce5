//! Inflates and decouples blobs: copies what a blob reads in its parents into its own clusters, by the same path as
//! writes, and then changes the parent. Runs on the metadata thread.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_format::{Flags, Parent};

use super::new_cluster::{Allocated, Payload, allocate};
use crate::error::BlobError;
use crate::map::{Entry, LEAF, Leaves, by_leaf};
use crate::md::{BlobState, Md, Persist, Turns, set_parent};
use crate::ordering::Point;
use crate::shared::{Backing, BlobLocal, BlobShared};
use crate::waiting::{join_all, locked};

/// Clusters copied in parallel.
const COPIES: usize = 8;

impl Md {
    /// Allocates and fills the clusters that a blob reads in its parents (`inflate`: all that it does not own), so
    /// that it no longer needs its parent (`inflate`: has no parent). Ends early once it does not go on; what was
    /// copied by then stays.
    pub(crate) async fn detach(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        inflate: bool,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), BlobError> {
        self.check_allocation()?;
        blob.check_stays()?;
        blob.check_known()?;
        if blob.parent().is_none() && !inflate {
            return Err(BlobError::Refused { blob: blob.id, why: "it has no parent to be decoupled from" });
        }
        if !blob.flags().thin() {
            return Ok(());
        }
        self.check_leaves_parent(blob)?;
        if blob.held.replace(true) {
            return Err(BlobError::busy(blob.id));
        }
        let result = self.detach_held(blob, inflate, goes_on).await;
        blob.held.set(false);
        result
    }

    async fn detach_held(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        inflate: bool,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), BlobError> {
        let shared = self.shared_of(blob).await;
        let here = BlobLocal::of(&shared).ok_or_else(|| self.shared.gone())?;
        let (openings, before) = (blob.openings.get(), blob.opened.get());
        let mut copied = Vec::new();
        let detached = self.copy_and_detach(blob, (inflate, goes_on), (&shared, &here), &mut copied).await;
        let failed = matches!(&detached, Err(error) if !matches!(error, BlobError::Stopped { .. }));
        // The copies cannot have been written to: they go back.
        if failed && before == 0 && blob.openings.get() == openings {
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
        (inflate, goes_on): (bool, &dyn Fn() -> bool),
        (shared, here): (&Arc<BlobShared>, &BlobLocal),
        copied: &mut Vec<u64>,
    ) -> Result<(), BlobError> {
        loop {
            let missing = {
                let map = &blob.meta.borrow().map;
                map.num_clusters() - map.allocated()
            };
            if inflate && missing > self.free_clusters() {
                return Err(self.no_space(missing));
            }
            let wanted = wanted(shared, inflate, self.free_clusters()).await;
            if wanted.len() as u64 > self.free_clusters() {
                return Err(self.no_space(wanted.len() as u64));
            }
            for some in wanted.chunks(COPIES) {
                if !goes_on() {
                    return Err(BlobError::Stopped { blob: blob.id });
                }
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
/// parents): all, or more than `most`.
async fn wanted(shared: &BlobShared, inflate: bool, most: u64) -> Vec<u64> {
    let all = 0..shared.clusters.load(Ordering::Acquire);
    let backing = locked(&shared.backing).clone();
    let (parts, parent) = match &backing {
        _ if inflate => (vec![all], None),
        Backing::Zeroes => (vec![], None),
        Backing::Blob(parent) => {
            let end = all.end.min(parent.clusters.load(Ordering::Acquire));
            // Its leaves, as the size may be absurd.
            (parent.leaves.own_parts(0..end).collect(), Some(parent))
        }
        Backing::External(snapshot) => {
            let its = 0..all.end.min(snapshot.clusters(shared.cluster_size));
            (vec![its], None)
        }
        Backing::Missing(_) => (vec![all], None),
    };
    let is_own = |leaves: &Leaves, index| matches!(leaves.get(index), Entry::Own(_));
    let has = |index| parent.is_none_or(|parent| is_own(&parent.leaves, index));
    let (mut wanted, mut turns) = (Vec::new(), Turns::default());
    for part in parts.into_iter().flat_map(by_leaf) {
        turns.spend(LEAF as u32).await;
        wanted.extend(part.filter(|&index| !is_own(&shared.leaves, index) && has(index)));
        if wanted.len() as u64 > most {
            break;
        }
    }
    wanted
}
