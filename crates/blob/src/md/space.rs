//! Which clusters and metadata pages are free. Owned by the store's metadata; does no I/O.

use std::collections::BTreeSet;

use spindle_format::{Bitmap, Geometry, PageIdx};

/// What is in use.
pub(crate) struct Space {
    pub(crate) clusters: Bitmap,
    pub(crate) pages: Bitmap,
    /// Free clusters that are known to read zero: cleared since the store was loaded.
    known_zero: BTreeSet<u32>,
    /// Every cluster from this one on reads zero unless it was used: the store was made on this device.
    zero_from: Option<u32>,
    /// Clusters given out since, where `zero_from` does not hold any more.
    touched: Bitmap,
    /// Pages kept back for what gives space back.
    reserve: u32,
}

impl Space {
    pub(crate) fn new(geometry: &Geometry, clusters: Bitmap, pages: Bitmap, all_zero: bool) -> Space {
        Space {
            touched: Bitmap::new(clusters.len()),
            reserve: (geometry.md_pages() / 8).min(16),
            zero_from: all_zero.then(|| geometry.metadata_clusters()),
            known_zero: BTreeSet::new(),
            clusters,
            pages,
        }
    }

    pub(crate) fn free_clusters(&self) -> u32 {
        self.clusters.len() - self.clusters.count()
    }

    /// Free pages, those kept back counted only for an `urgent` asker.
    pub(crate) fn free_pages(&self, urgent: bool) -> u32 {
        let free = self.pages.len() - self.pages.count();
        if urgent { free } else { free.saturating_sub(self.reserve) }
    }

    /// Takes the lowest free cluster, and says whether it is known to read zero.
    pub(crate) fn take_cluster(&mut self) -> Option<(u32, bool)> {
        let cluster = self.clusters.first_clear(0)?;
        self.clusters.set(cluster);
        let untouched = self.zero_from.is_some_and(|from| cluster >= from) && !self.touched.get(cluster);
        self.touched.set(cluster);
        Some((cluster, self.known_zero.remove(&cluster) || untouched))
    }

    /// Gives a cluster back.
    pub(crate) fn free_cluster(&mut self, cluster: u32, zero: bool) {
        self.clusters.clear(cluster);
        if zero {
            self.known_zero.insert(cluster);
        }
    }

    /// Takes the lowest free page at or after `from`; an `urgent` asker may have one kept back.
    pub(crate) fn take_page(&mut self, from: u32, urgent: bool) -> Option<PageIdx> {
        self.take_page_unless(from, urgent, |_| false)
    }

    /// The same, passing over some.
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

    /// The store has become larger; what is new holds anything.
    pub(crate) fn grow(&mut self, clusters: u32) {
        let before = self.clusters.len();
        self.clusters.grow(clusters);
        self.touched.grow(clusters);
        (before..clusters).for_each(|cluster| {
            self.touched.set(cluster);
        });
    }
}
