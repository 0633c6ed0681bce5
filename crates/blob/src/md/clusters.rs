//! Free clusters: handed to threads for their new writes, taken for thick blobs, given back.

use std::rc::Rc;
use std::sync::Arc;

use spindle_format::ClearMethod;

use super::metadata::Md;
use super::turns::Turns;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::shared::BlobShared;
use crate::space::{Fill, Fresh, Reserve};
use crate::waiting::locked;

impl Md {
    /// A free cluster for a thread with an empty reserve, and more for that reserve. Recalls the reserves of
    /// other threads before it reports a lack of space.
    pub(crate) async fn take_fresh(self: &Rc<Md>, reserve: &Reserve) -> Result<Fresh, BlobError> {
        self.check_allocation()?;
        let mut taken = self.space.borrow_mut().take_for_write();
        if taken.is_none() {
            self.recall().await;
            taken = self.space.borrow_mut().take_for_write();
        }
        let fresh = taken.ok_or_else(|| self.no_space(1))?;
        if fresh.zero.is_none() {
            self.keep_ready();
        }
        self.top_up(reserve);
        self.space_changed();
        Ok(fresh)
    }

    /// Fills a thread's reserve with clusters that need not be zeroed, while there are plenty.
    pub(crate) fn top_up(self: &Rc<Md>, reserve: &Reserve) {
        if self.check_allocation().is_err() {
            return;
        }
        self.ahead.asked.set(self.ahead.asked.get() + 1);
        let members = locked(&self.shared.members).len();
        let mut space = self.space.borrow_mut();
        // Leaves enough for other threads.
        let most = space.free_clusters() as usize / (4 * members).max(1);
        let wants = if most == 0 { 0 } else { reserve.wants().min(most) };
        reserve.put(std::iter::from_fn(|| space.take_zero()).take(wants));
        let short = space.is_short_of_zero();
        drop(space);
        if short {
            self.keep_ready();
        }
        self.space_changed();
    }

    /// Takes back the reserves of all threads.
    pub(crate) async fn recall(&self) {
        // Clusters that are being zeroed come back when that ends.
        let _idle = self.ahead.lock.lock().await;
        for member in locked(&self.shared.members).iter() {
            self.take_back(&member.reserve);
        }
    }

    /// Takes back the reserve of a thread that has exited or left the store.
    pub(crate) fn member_left(&self, reserve: &Arc<Reserve>) {
        locked(&self.shared.members).retain(|member| !Arc::ptr_eq(&member.reserve, reserve));
        self.take_back(reserve);
        self.space_changed();
    }

    fn take_back(&self, reserve: &Reserve) {
        let mut space = self.space.borrow_mut();
        for fresh in reserve.recall() {
            space.free_cluster(fresh.cluster, fresh.zero);
            if fresh.written {
                space.note_written_ahead(fresh.cluster);
            }
        }
    }

    /// Free clusters, including those in threads' reserves.
    pub(crate) fn free_clusters(&self) -> u64 {
        let members = locked(&self.shared.members);
        let in_hand: usize = members.iter().map(|member| member.reserve.len()).sum();
        u64::from(self.space.borrow().free_clusters()) + in_hand as u64
    }

    /// Tells watches that clusters were taken or given back.
    pub(crate) fn space_changed(&self) {
        self.watches.look(|| self.free_clusters());
    }

    /// Names a filled cluster in the map on disk and shows it to readers.
    pub(crate) async fn map(
        self: &Rc<Md>,
        blob: &Arc<BlobShared>,
        index: u64,
        cluster: u32,
        fill: Fill,
    ) -> Result<(), BlobError> {
        self.check_allocation()?;
        let state = self.state_of(blob)?;
        self.commit(&state, index, Some((cluster, fill))).await
    }

    /// Takes clusters for a thick blob and zeroes those that may hold data, unless the blob's clear method
    /// waives it. `taken` lists what was taken, also after an error.
    pub(crate) async fn take_clusters(
        &self,
        count: u64,
        method: ClearMethod,
        taken: &mut Vec<u32>,
    ) -> Result<(), BlobError> {
        // The lowest first, and every free one.
        self.recall().await;
        if u64::from(self.space.borrow().free_clusters()) < count {
            return Err(self.no_space(count));
        }
        let zeroed = method != ClearMethod::None && self.options.order.keeps(Point::ZeroNewCluster);
        let mut dirty = Vec::new();
        let mut turns = Turns::default();
        for _ in 0..count {
            let mut next = self.space.borrow_mut().take_lowest();
            if next.is_none() {
                // Threads may have refilled their reserves meanwhile.
                self.recall().await;
                next = self.space.borrow_mut().take_lowest();
            }
            let fresh = next.ok_or_else(|| self.no_space(count))?;
            turns.spend(1).await;
            taken.push(fresh.cluster);
            if fresh.zero.is_none() && zeroed {
                dirty.push(fresh.cluster);
            }
        }
        // Watches are notified when the clusters are known to be used.
        for (offset, len) in self.byte_ranges(dirty) {
            self.local.write_zeroes(offset, len).await?;
        }
        Ok(())
    }

    /// Gives back clusters taken for an operation that failed, and the host's space that zeroes in them take.
    pub(crate) async fn release_unused(&self, clusters: Vec<u32>) {
        self.release_clusters(clusters, ClearMethod::Default).await;
    }

    /// Gives back clusters that no map names, cleared by the method of the blob that had them.
    pub(crate) async fn release_clusters(&self, mut clusters: Vec<u32>, method: ClearMethod) {
        clusters.sort_unstable();
        let since = self.clear_clusters(&clusters, method).await;
        let mut turns = Turns::default();
        for some in clusters.chunks(256) {
            {
                let mut space = self.space.borrow_mut();
                some.iter().for_each(|&cluster| space.free_cluster(cluster, since));
            }
            turns.spend(some.len() as u32).await;
        }
        self.space_changed();
    }

    /// Clears clusters that no blob or reserve has. If they read zero now, returns the number of flushes that had
    /// begun by then.
    pub(super) async fn clear_clusters(&self, clusters: &[u32], method: ClearMethod) -> Option<u64> {
        let mut zero = true;
        for (offset, len) in self.byte_ranges(clusters.iter().copied()) {
            let cleared = match method {
                ClearMethod::None => false,
                ClearMethod::WriteZeroes => self.local.write_zeroes(offset, len).await.is_ok(),
                ClearMethod::Default | ClearMethod::Unmap => {
                    let done = self.local.unmap(offset, len).await.unwrap_or(false);
                    done && self.local.channel().geometry().unmap_reads_zero()
                }
            };
            // Best effort: the next owner zeroes what is not known to be zero.
            zero &= cleared;
        }
        zero.then(|| self.flushes.begun())
    }

    /// Byte ranges of clusters, neighbours joined.
    pub(crate) fn byte_ranges(&self, clusters: impl IntoIterator<Item = u32>) -> Vec<(u64, u64)> {
        let size = u64::from(self.shared.cluster_size);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for cluster in clusters {
            let offset = u64::from(cluster) * size;
            match ranges.last_mut() {
                Some((start, len)) if *start + *len == offset => *len += size,
                _ => ranges.push((offset, size)),
            }
        }
        ranges
    }
}
