//! The free clusters and metadata pages of a store. Owned by its `Md`; does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use spindle_format::{Bitmap, Geometry, PageIdx};

use super::reserve::Fresh;
use super::stale::{Clearing, Stale};

/// Free clusters searched for those that have to be zeroed.
const FARTHEST: u32 = 1024;

/// What is in use.
pub(crate) struct Space {
    pub(crate) clusters: Bitmap,
    pub(crate) pages: Bitmap,
    /// No cluster below this one is free.
    lowest: u32,
    /// Free clusters that were cleared since the load, each with the number of flushes that had begun by
    /// then.
    cleared: BTreeMap<u32, u64>,
    /// If set, every cluster from this one on reads zero unless it was used: the store was created on this
    /// device.
    zero_from: Option<u32>,
    /// Clusters given out since, for which `zero_from` no longer holds.
    touched: Bitmap,
    /// No cluster below this one, from `zero_from` on, is missing there.
    untouched: u32,
    /// The number of cleared clusters below which more are wanted.
    enough_cleared: usize,
    /// Cleared clusters into which zeroes were written ahead.
    written_ahead: BTreeSet<u32>,
    /// Free clusters that must be cleared.
    stale: Stale,
    /// Pages reserved for operations that free space.
    reserve: u32,
}

impl Space {
    pub(crate) fn new(geometry: &Geometry, clusters: Bitmap, pages: Bitmap, all_zero: bool) -> Space {
        Space {
            touched: Bitmap::new(clusters.len()),
            untouched: 0,
            reserve: (geometry.md_pages() / 8).min(16),
            zero_from: all_zero.then(|| geometry.metadata_clusters()),
            cleared: BTreeMap::new(),
            written_ahead: BTreeSet::new(),
            stale: Stale::default(),
            lowest: 0,
            enough_cleared: 0,
            clusters,
            pages,
        }
    }

    /// Number of free clusters, with those that are being cleared in the background.
    pub(crate) fn free_clusters(&self) -> u32 {
        self.clusters.len() - self.clusters.count() + self.stale.in_work()
    }

    /// Frees clusters whose contents must still be cleared, in the background.
    pub(crate) fn free_stale(&mut self, clusters: impl IntoIterator<Item = u32>, how: Clearing) {
        for cluster in clusters {
            self.free_cluster(cluster, None);
            self.stale.add(cluster, self.clusters.len(), how);
        }
    }

    /// Notes that a cluster may hold data, if it is free and not known to read zero.
    pub(crate) fn note_held(&mut self, cluster: u32) {
        if cluster < self.clusters.len() && !self.clusters.get(cluster) && !self.is_zero(cluster) {
            self.stale.add(cluster, self.clusters.len(), Clearing::Unmap);
        }
    }

    /// Takes at most `most` of the clusters that must be cleared; [`Self::free_cleared`] gives them back.
    pub(crate) fn take_stale(&mut self, most: usize) -> Option<(Clearing, Vec<u32>)> {
        let (how, some) = self.stale.some(most)?;
        for &cluster in &some {
            self.take(cluster);
        }
        Some((how, some))
    }

    /// Gives back what [`Self::take_stale`] gave; `zero` as for [`Self::free_cluster`].
    pub(crate) fn free_cleared(&mut self, clusters: &[u32], zero: Option<u64>) {
        for &cluster in clusters {
            self.free_cluster(cluster, zero);
        }
        self.stale.done(clusters.len() as u32);
    }

    /// Number of clusters that must be cleared, or are being cleared.
    pub(crate) fn stale_clusters(&self) -> u32 {
        self.stale.count()
    }

    /// Forgets the clusters that would be cleared by an unmap.
    pub(crate) fn forget_unmaps(&mut self) {
        self.stale.forget_unmaps();
    }

    /// Number of free pages; reserved ones count only for an `urgent` caller.
    pub(crate) fn free_pages(&self, urgent: bool) -> u32 {
        let free = self.pages.len() - self.pages.count();
        if urgent { free } else { free.saturating_sub(self.reserve) }
    }

    /// Takes the lowest free cluster.
    pub(crate) fn take_lowest(&mut self) -> Option<Fresh> {
        let cluster = self.lowest()?;
        Some(self.take(cluster))
    }

    /// Takes a free cluster for a write: the lowest, unless only another one is known to read zero.
    pub(crate) fn take_for_write(&mut self) -> Option<Fresh> {
        self.take_zero().or_else(|| self.take_lowest())
    }

    /// Takes a free cluster that is known to read zero: the lowest, or the lowest cleared one, or, while some wait
    /// to be cleared, one that was never used.
    pub(crate) fn take_zero(&mut self) -> Option<Fresh> {
        let lowest = self.lowest()?;
        if self.is_zero(lowest) {
            return Some(self.take(lowest));
        }
        let cleared = self.cleared.first_key_value().map(|(&cluster, _)| cluster);
        let cluster = cleared.or_else(|| self.lowest_untouched())?;
        Some(self.take(cluster))
    }

    /// The lowest cluster that was never used, while others wait to be cleared; otherwise those are used again
    /// first.
    fn lowest_untouched(&mut self) -> Option<u32> {
        let from = self.zero_from.filter(|_| self.stale.count() > 0)?;
        let found = self.touched.first_clear(self.untouched.max(from));
        self.untouched = found.unwrap_or(self.touched.len());
        found
    }

    /// Takes the lowest free clusters that are not known to read zero, up to `count`; searches a bounded
    /// range.
    pub(crate) fn take_dirty(&mut self, count: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        let mut at = self.lowest();
        for _ in 0..FARTHEST {
            let Some(cluster) = at.filter(|_| taken.len() < count) else { break };
            if !self.is_zero(cluster) {
                self.take(cluster);
                taken.push(cluster);
            }
            at = self.clusters.first_clear(cluster + 1);
        }
        taken
    }

    /// Notes that zeroes were written ahead into a free cluster.
    pub(crate) fn note_written_ahead(&mut self, cluster: u32) {
        self.written_ahead.insert(cluster);
    }

    /// True if there are such clusters.
    pub(crate) fn has_written_ahead(&self) -> bool {
        !self.written_ahead.is_empty()
    }

    /// Takes those that are still free.
    pub(crate) fn take_written_ahead(&mut self) -> Vec<u32> {
        let clusters: Vec<u32> = std::mem::take(&mut self.written_ahead).into_iter().collect();
        for &cluster in &clusters {
            self.take(cluster);
        }
        clusters
    }

    /// Number of cleared free clusters.
    pub(crate) fn ready(&self) -> usize {
        self.cleared.len()
    }

    /// Sets the number of cleared clusters below which more are wanted.
    pub(crate) fn want_zero(&mut self, enough: usize) {
        self.enough_cleared = enough;
    }

    /// True if too few clusters are known to read zero.
    pub(crate) fn is_short_of_zero(&self) -> bool {
        self.cleared.len() < self.enough_cleared
    }

    fn lowest(&mut self) -> Option<u32> {
        let found = self.clusters.first_clear(self.lowest);
        self.lowest = found.unwrap_or(self.clusters.len());
        found
    }

    fn is_untouched(&self, cluster: u32) -> bool {
        self.zero_from.is_some_and(|from| cluster >= from) && !self.touched.get(cluster)
    }

    fn is_zero(&self, cluster: u32) -> bool {
        self.cleared.contains_key(&cluster) || self.is_untouched(cluster)
    }

    fn take(&mut self, cluster: u32) -> Fresh {
        // What was cleared at creation is durable since the first flush.
        let untouched = self.is_untouched(cluster).then_some(0);
        let zero = self.cleared.remove(&cluster).or(untouched);
        let written = self.written_ahead.remove(&cluster);
        self.stale.forget(cluster);
        self.clusters.set(cluster);
        self.touched.set(cluster);
        Fresh { cluster, zero, written }
    }

    /// Forgets all knowledge of zeroes.
    pub(crate) fn forget_zero(&mut self) {
        self.zero_from = None;
        self.cleared.clear();
        self.written_ahead.clear();
    }

    /// Frees a cluster; `zero` is the number of flushes that had begun when it was cleared, if it was.
    pub(crate) fn free_cluster(&mut self, cluster: u32, zero: Option<u64>) {
        self.clusters.clear(cluster);
        self.lowest = self.lowest.min(cluster);
        if let Some(since) = zero {
            self.cleared.insert(cluster, since);
        }
    }

    /// Takes the lowest free page at or after `from`, skipping some; an `urgent` caller may get a reserved one.
    pub(crate) fn take_page_unless(
        &mut self,
        from: u32,
        urgent: bool,
        skip: impl Fn(u32) -> bool,
    ) -> Option<PageIdx> {
        if self.free_pages(urgent) == 0 {
            return None;
        }
        let mut at = self.pages.first_clear(from)?;
        while skip(at) {
            at = self.pages.first_clear(at + 1)?;
        }
        self.pages.set(at);
        Some(PageIdx(at))
    }

    /// Gives pages back.
    pub(crate) fn free_pages_again(&mut self, pages: impl IntoIterator<Item = PageIdx>) {
        pages.into_iter().for_each(|page| {
            self.pages.clear(page.0);
        });
    }

    /// Adds clusters to the store; their contents are unknown.
    pub(crate) fn grow(&mut self, clusters: u32) {
        let before = self.clusters.len();
        self.clusters.grow(clusters);
        self.touched.grow(clusters);
        (before..clusters).for_each(|cluster| {
            self.touched.set(cluster);
        });
    }
}
