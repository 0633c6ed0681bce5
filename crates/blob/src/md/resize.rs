//! Grows and shrinks blobs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use spindle_format::{BlobMetadata, ClusterIdx};

use super::blob_state::BlobState;
use super::metadata::Md;
use super::persist::Persist;
use super::turns::Turns;
use crate::error::BlobError;
use crate::map::{LEAF, by_leaf};
use crate::ordering::Point;
use crate::shared::{BlobShared, Source};

impl Md {
    /// Changes the size of an open blob, on disk too.
    pub(crate) async fn resize(self: &Rc<Md>, blob: &Rc<BlobState>, clusters: u64) -> Result<(), BlobError> {
        self.check_allocation()?;
        if clusters > spindle_format::cluster_map::MAX_CLUSTERS {
            let why = format!("a blob has at most 2^32 - 1 clusters, not {clusters}");
            return Err(BlobError::Option { option: "clusters", why });
        }
        let _frozen = self.freeze(blob).await;
        let _guard = self.exclusive_on(blob).await?;
        blob.check_metadata()?;
        // Its clones would become shorter, or longer, with it.
        if let Some(tied) = blob.tied {
            return Err(tied.error(blob.id));
        }
        let old = blob.meta.borrow().map.num_clusters();
        match clusters {
            _ if clusters == old => Ok(()),
            _ if clusters > old => self.grow_blob(blob, old, clusters).await,
            _ => self.shrink_blob(blob, clusters).await,
        }
    }

    async fn grow_blob(self: &Rc<Md>, blob: &Rc<BlobState>, old: u64, new: u64) -> Result<(), BlobError> {
        let mut meta = blob.meta.borrow().clone();
        meta.map.resize(new);
        let mut slots = BTreeSet::new();
        if !old.is_multiple_of(LEAF) {
            slots.insert((old / LEAF) as u32);
        }
        let mut taken = Vec::new();
        let grown = self.fill_growth(blob, old, &mut meta, &mut slots, &mut taken).await;
        let result = match grown {
            Ok(()) => self.persist(blob, meta, Persist { slots, fills: true, ..Persist::default() }).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            if self.check_writable().is_ok() {
                self.release_unused(taken).await;
            }
            return Err(error);
        }
        self.space_changed();
        // A shared leaf was right for the old size only: a snapshot taken since may end at the old end.
        self.forget_inherited(blob).await;
        // The map before the size: readers stop at the old end.
        blob.publish_map().await;
        blob.publish_flags();
        self.say_resized(blob).await;
        Ok(())
    }

    async fn fill_growth(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        old: u64,
        meta: &mut BlobMetadata,
        slots: &mut BTreeSet<u32>,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        let new = meta.map.num_clusters();
        if !meta.flags.thin() {
            self.take_clusters(new - old, meta.flags.clear_method(), taken).await?;
            let mut turns = Turns::default();
            for (index, &cluster) in (old..new).zip(taken.iter()) {
                meta.map.set(index, Some(ClusterIdx(cluster)));
                turns.spend(1).await;
            }
            return Ok(());
        }
        // The new part reads zero, even where a parent has data that was beyond the old end.
        let shared = self.shared_of(blob).await;
        let holes = self.visible_above(&shared, old..new, |_| true).await;
        self.pin(&holes, meta, slots, taken).await
    }

    /// Those of these clusters that a blob does not read as zeroes in its parents, and that `counts` wants to know of:
    /// all, or more than are free.
    pub(crate) async fn visible_above(
        &self,
        blob: &BlobShared,
        clusters: Range<u64>,
        counts: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let is_visible = |index| match blob.source_above(index) {
            Source::Zeroes => false,
            Source::External(snapshot) => index < snapshot.clusters(blob.cluster_size),
            Source::Cluster { .. } | Source::Missing(_) => true,
        };
        let (mut found, mut turns) = (Vec::new(), Turns::default());
        for part in blob.parts_above(clusters).into_iter().flat_map(by_leaf) {
            turns.spend(LEAF as u32).await;
            found.extend(part.filter(|&index| counts(index) && is_visible(index)));
            if found.len() as u64 > self.free_clusters() {
                break;
            }
        }
        found
    }

    /// Tells the lanes and channels of an open blob its new size, which its geometry already has.
    async fn say_resized(&self, blob: &BlobState) {
        if let Some(shared) = blob.shared() {
            shared.lanes.resized().await;
        }
    }

    async fn shrink_blob(self: &Rc<Md>, blob: &Rc<BlobState>, new: u64) -> Result<(), BlobError> {
        let mut meta = blob.meta.borrow().clone();
        let mut turns = Turns::default();
        let cut = turns.collect(meta.map.allocated_from(new)).await;
        meta.map.resize(new);
        let last = (!new.is_multiple_of(LEAF)).then_some((new / LEAF) as u32);
        let how = Persist { slots: last.into_iter().collect(), urgent: true, ..Persist::default() };
        let how = Persist { after: vec![Point::DurableBeforeAck, Point::UnmapBeforeFree], ..how };
        self.persist(blob, meta, how).await?;
        let shared = self.shared_of(blob).await;
        shared.clusters.store(new, Ordering::Release);
        self.say_resized(blob).await;
        for &(index, _) in &cut {
            shared.leaves.set(index, None);
            turns.spend(1).await;
        }
        blob.publish_map().await;
        // Notes about parents beyond the end would be seen again if the blob grew again.
        self.forget_inherited(blob).await;
        let freed = cut.into_iter().map(|(_, cluster)| cluster.0).collect();
        if self.options.order.keeps(Point::ReadersBeforeFree) {
            self.quiesce_below(blob).await;
        }
        self.release_clusters(freed, blob.clear_method()).await;
        Ok(())
    }
}
