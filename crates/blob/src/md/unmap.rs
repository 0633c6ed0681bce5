//! Frees whole clusters of a thin blob.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blob_state::BlobState;
use super::metadata::Md;
use super::turns::Turns;
use crate::error::BlobError;
use crate::map::{Entry, LEAF, by_leaf};
use crate::ordering::Point;
use crate::shared::BlobShared;
use crate::space::PlaceClaim;
use crate::waiting::join_all;

impl Md {
    /// Takes these clusters from an open thin blob without parent; they read zero from now on and are free when
    /// this resolves. False if writes are kept out, or the blob has got a parent meanwhile: look up again.
    pub(crate) async fn unmap(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        first: u64,
        count: u64,
    ) -> Result<bool, BlobError> {
        let beside = blob.unmaps.replace(blob.unmaps.get() + 1) > 0;
        let done = self.unmap_beside(blob, (first, count), beside).await;
        blob.unmaps.set(blob.unmaps.get() - 1);
        done
    }

    /// The same; `beside` other unmaps of the blob are under way, and may have taken clusters that are
    /// missing.
    async fn unmap_beside(
        self: &Rc<Md>,
        blob: &Rc<BlobState>,
        (first, count): (u64, u64),
        beside: bool,
    ) -> Result<bool, BlobError> {
        self.check_allocation()?;
        let shared = self.shared_of(blob).await;
        let (mut own, mut turns) = (Vec::new(), Turns::default());
        for leaf in by_leaf(first..first + count) {
            turns.spend(1).await;
            if shared.leaves.own_leaf(leaf.start).is_some() {
                turns.spend(LEAF as u32).await;
                own.extend(leaf.filter(|&index| matches!(shared.leaves.get(index), Entry::Own(_))));
            }
        }
        let (mut freed, mut failed) = (Vec::new(), None);
        let again = Cell::new(false);
        for some in own.chunks(LEAF as usize) {
            // Claimed in ascending order, before any of them changes: so unmaps that overlap never wait for each
            // other in a circle.
            let mut claims = Vec::new();
            for &index in some {
                match self.claim_mapped(blob, &shared, index, &again).await {
                    Ok(claimed) => claims.extend(claimed),
                    Err(error) => failed = Some(error),
                }
            }
            let unmapped = claims.iter().map(|(_, claim)| self.commit(blob, claim.index, None));
            let unmapped = join_all(unmapped).await;
            for (claimed, done) in claims.into_iter().zip(unmapped) {
                match done {
                    Ok(()) => freed.push(claimed),
                    Err(error) => failed = Some(error),
                }
            }
        }
        if !freed.is_empty() {
            self.flush_for(&[Point::UnmapBeforeFree]).await?;
            if self.options.order.keeps(Point::ReadersBeforeFree) {
                self.quiesce_below(blob).await;
            }
            // Claimed until they are free: an unload waits for that, so no mask says that they are in use.
            let (clusters, _claims): (Vec<u32>, Vec<PlaceClaim>) = freed.into_iter().unzip();
            self.release_clusters(clusters, blob.clear_method()).await;
        } else if beside || !own.is_empty() {
            // Unmaps by other tasks are durable when this returns, or this fails as they do.
            self.flush_for(&[Point::UnmapBeforeFree]).await?;
        }
        failed.map_or(Ok(!again.get()), Err)
    }

    /// Claims a place of the map that names a cluster; `None` if it does not by then.
    async fn claim_mapped(
        &self,
        blob: &BlobState,
        shared: &Arc<BlobShared>,
        index: u64,
        again: &Cell<bool>,
    ) -> Result<Option<(u32, PlaceClaim)>, BlobError> {
        let claim = loop {
            match shared.claim(index).await {
                Some(claim) => break claim,
                None if shared.is_frozen() => {
                    again.set(true);
                    return Ok(None);
                }
                None => {}
            }
        };
        if blob.flags().data_locked() {
            return Err(BlobError::ReadOnly { blob: blob.id });
        }
        if blob.parent().is_some() || !blob.flags().thin() {
            again.set(true);
            return Ok(None);
        }
        // If the blob was deleted meanwhile it has no size, but still says where its clusters were.
        if index >= shared.clusters.load(Ordering::Acquire) {
            return Ok(None);
        }
        let Entry::Own(cluster) = shared.leaves.get(index) else { return Ok(None) };
        Ok(Some((cluster, claim)))
    }
}
