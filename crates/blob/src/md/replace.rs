//! Replaces all clusters of a blob by others, with one write of its root.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Mutex;

use spindle_format::ClusterIdx;

use super::blob_state::BlobState;
use super::draft::Draft;
use super::metadata::Md;
use super::persist::Persist;
use super::turns::Turns;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::waiting::locked;

/// A cluster taken for new contents.
pub(crate) struct Taken {
    pub(crate) cluster: u32,
    /// It is known to read zero.
    pub(crate) is_zero: bool,
}

impl Md {
    /// An error if the contents of a blob cannot be replaced.
    pub(crate) fn check_replaceable(&self, blob: &BlobState) -> Result<(), BlobError> {
        self.check_allocation()?;
        blob.check_stays()?;
        blob.check_metadata()?;
        if blob.flags().data_locked() {
            return Err(BlobError::ReadOnly { blob: blob.id });
        }
        if !blob.clones.borrow().is_empty() {
            let why = "clones read through it: write to a clone, or inflate its clones first";
            return Err(BlobError::Refused { blob: blob.id, why });
        }
        if blob.held.get() { Err(BlobError::busy(blob.id)) } else { Ok(()) }
    }

    /// Takes a cluster for new contents; nothing names it yet.
    pub(crate) async fn take_for_draft(
        self: &Rc<Md>,
        blob: &BlobState,
        index: u64,
        draft: &Mutex<Draft>,
    ) -> Result<Taken, BlobError> {
        self.check_allocation()?;
        let mut fresh = self.space.borrow_mut().take_for_write();
        if fresh.is_none() {
            self.recall().await;
            fresh = self.space.borrow_mut().take_for_write();
        }
        let fresh = fresh.ok_or_else(|| self.no_space(1))?;
        self.space_changed();
        // The flush that makes its zeroes durable happens before a map names it.
        let is_zero = fresh.zero.is_some();
        if !locked(draft).add(index, fresh.cluster) {
            self.space.borrow_mut().free_cluster(fresh.cluster, fresh.zero);
            return Err(BlobError::Closed { blob: blob.id });
        }
        Ok(Taken { cluster: fresh.cluster, is_zero })
    }

    /// Gives back clusters of new contents that are no longer wanted. No write to them is under way.
    pub(crate) fn drop_draft(self: &Rc<Md>, clusters: Vec<u32>) {
        if clusters.is_empty() || self.check_writable().is_err() {
            return;
        }
        let md = self.clone();
        drop(spindle_reactor::spawn_local(async move { md.release_draft(clusters).await }));
    }

    /// The same, waiting for its end. A store that is left meanwhile waits for it.
    pub(crate) async fn release_draft(&self, clusters: Vec<u32>) {
        let _guard = self.lock.lock().await;
        if self.check_writable().is_ok() {
            self.release_clusters(clusters, spindle_format::ClearMethod::Default).await;
        }
    }

    /// Makes these clusters, by their places, the only ones of an open blob; elsewhere it reads zeroes. The
    /// root is the commit: a crash leaves the old contents or the new ones.
    pub(crate) async fn replace(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        clusters: BTreeMap<u64, u32>,
    ) -> Result<(), BlobError> {
        let mut taken = clusters.values().copied().collect();
        let replaced = self.replaced(blob, &clusters, &mut taken).await;
        if replaced.is_err() && self.check_writable().is_ok() {
            self.release_draft(taken).await;
        }
        replaced
    }

    async fn replaced(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        clusters: &BTreeMap<u64, u32>,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        let _frozen = self.freeze(blob).await;
        let _guard = self.exclusive_on(blob).await?;
        self.check_replaceable(blob)?;
        let mut meta = blob.meta.borrow().clone();
        let size = meta.map.num_clusters();
        if clusters.last_key_value().is_some_and(|(&last, _)| last >= size) {
            let why = "it has become smaller than its new contents: begin again";
            return Err(BlobError::Refused { blob: blob.id, why });
        }
        let mut turns = Turns::default();
        let old: Vec<(u64, ClusterIdx)> = turns.collect(meta.map.allocated_from(0)).await;
        meta.map.clear();
        for (&index, &cluster) in clusters {
            meta.map.set(index, Some(ClusterIdx(cluster)));
            turns.spend(1).await;
        }
        let shared = self.shared_of(blob).await;
        let is_old = |index: &u64| !clusters.contains_key(index);
        let zeroes = match meta.flags.thin() {
            true => self.visible_above(&shared, 0..size, |index| is_old(&index)).await,
            // A thick blob has all its clusters, unless it is damaged: then there is no space for so many.
            false => {
                let most = self.free_clusters() as usize + 1;
                turns.collect((0..size).filter(is_old).take(most)).await
            }
        };
        let (mut slots, mut pinned) = (BTreeSet::new(), Vec::new());
        let filled = self.pin(&zeroes, &mut meta, &mut slots, &mut pinned).await;
        taken.extend(pinned);
        filled?;
        let after = vec![Point::DurableBeforeAck, Point::UnmapBeforeFree];
        // All pages of the map are new: none of the old ones stays.
        self.persist(blob, meta, Persist { fills: true, after, ..Persist::default() }).await?;
        for &(index, _) in &old {
            if blob.meta.borrow().map.get(index).is_none() {
                shared.leaves.set(index, None);
            }
            turns.spend(1).await;
        }
        blob.publish_map().await;
        if self.options.order.keeps(Point::ReadersBeforeFree) {
            self.quiesce_below(blob).await;
        }
        let freed = old.into_iter().map(|(_, cluster)| cluster.0).collect();
        self.release_clusters(freed, blob.clear_method()).await;
        Ok(())
    }
}
