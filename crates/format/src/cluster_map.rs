//! The map from a blob's clusters to clusters of the device.
//!
//! Sparse: memory depends on what the metadata pages contain, not on the size of the blob, so that a hostile
//! size costs nothing. A run-length list and a table of extent pages differ on disk; in memory both are
//! leaves of 512 clusters, each as small as its [`Entries`] can be.

use crate::entries::{Entries, Piece};
use crate::ids::{ClusterIdx, PageIdx};

/// Clusters that one extent page describes.
pub const CLUSTERS_PER_EXTENT_PAGE: u32 = 512;

/// The most clusters a blob can have: extent pages count them in 32 bits.
pub const MAX_CLUSTERS: u64 = u32::MAX as u64;

/// The map of a blob's clusters.
#[derive(Clone, Debug)]
pub struct ClusterMap {
    /// True for a table of extent pages on disk; false for a run-length list in the chain itself.
    table: bool,
    num_clusters: u64,
    leaves: Vec<Leaf>,
}

/// A run of clusters that follow each other on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First cluster of the blob.
    pub start: u64,
    /// First cluster of the device.
    pub cluster: ClusterIdx,
    /// Number of clusters.
    pub length: u32,
}

impl Run {
    /// One past the last cluster of the blob.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }

    /// The clusters of the device.
    pub fn clusters(&self) -> std::ops::Range<u32> {
        self.cluster.0..self.cluster.0 + self.length
    }
}

/// 512 clusters of a blob: what one extent page of a table describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Which slot of the table: clusters `512 * slot ..` of the blob.
    pub slot: u32,
    /// The metadata page that holds it on disk; `None` if it has none yet, or never will.
    pub page: Option<PageIdx>,
    /// Clusters of the device. Entries beyond the end of the blob are ignored, missing ones are unallocated.
    pub clusters: Entries,
}

impl Leaf {
    /// First cluster of the blob that this leaf describes.
    pub fn first_cluster(&self) -> u64 {
        u64::from(self.slot) * u64::from(CLUSTERS_PER_EXTENT_PAGE)
    }

    /// Its allocated clusters below `end` as runs.
    fn runs(&self, end: u64) -> impl Iterator<Item = Run> + '_ {
        let first = self.first_cluster();
        let left = end.saturating_sub(first).min(u64::from(CLUSTERS_PER_EXTENT_PAGE)) as usize;
        let live = move |Piece { at, length, cluster }: Piece| {
            let length = usize::from(length).min(left.saturating_sub(usize::from(at)));
            let run =
                Run { start: first + u64::from(at), cluster: ClusterIdx(cluster), length: length as u32 };
            (length > 0).then_some(run)
        };
        self.clusters.pieces().map_while(live)
    }
}

impl ClusterMap {
    /// An extent table for a blob of size 0.
    pub fn new_table() -> ClusterMap {
        ClusterMap::table_of(0, 0)
    }

    /// A run-length list for a blob of size 0.
    pub fn new_rle() -> ClusterMap {
        ClusterMap { table: false, num_clusters: 0, leaves: Vec::new() }
    }

    /// A table for a blob of `num_clusters` clusters; its `pages` extent pages are added with
    /// [`ClusterMap::push_leaf`].
    pub(crate) fn table_of(num_clusters: u64, pages: usize) -> ClusterMap {
        ClusterMap { table: true, num_clusters, leaves: Vec::with_capacity(pages) }
    }

    /// Appends an extent page.
    pub(crate) fn push_leaf(&mut self, leaf: Leaf) {
        debug_assert!(self.leaves.last().is_none_or(|last| last.slot < leaf.slot));
        self.leaves.push(leaf);
    }

    /// Appends clusters that follow each other on the device; `None` is unallocated. The total must stay
    /// within [`MAX_CLUSTERS`].
    pub(crate) fn push_run(&mut self, cluster: Option<ClusterIdx>, length: u32) {
        let start = self.num_clusters;
        self.num_clusters += u64::from(length);
        let Some(ClusterIdx(cluster)) = cluster else { return };
        let mut done = 0;
        while done < length {
            let (slot, entry) = split(start + u64::from(done));
            let now = (length - done).min(CLUSTERS_PER_EXTENT_PAGE - entry as u32);
            self.push_entries(slot, entry, now as usize, cluster + done);
            done += now;
        }
    }

    fn push_entries(&mut self, slot: u32, entry: usize, length: usize, cluster: u32) {
        match self.leaves.last_mut() {
            Some(last) if last.slot == slot => {
                let entries = entry..entry + length;
                entries.zip(cluster..).for_each(|(at, cluster)| last.clusters.set(at, cluster));
                return;
            }
            Some(done) => done.clusters.compact(),
            None => {}
        }
        let len = CLUSTERS_PER_EXTENT_PAGE as usize;
        self.leaves.push(Leaf { slot, page: None, clusters: Entries::run(len, entry, length, cluster) });
    }

    /// Whether it is a table of extent pages on disk.
    pub fn is_table(&self) -> bool {
        self.table
    }

    /// Clusters of the blob, allocated or not.
    pub fn num_clusters(&self) -> u64 {
        self.num_clusters
    }

    /// Slots of a table: extent pages it would have if none were missing.
    pub fn slots(&self) -> u64 {
        self.num_clusters.div_ceil(u64::from(CLUSTERS_PER_EXTENT_PAGE))
    }

    /// Clusters that are allocated.
    pub fn allocated(&self) -> u64 {
        self.leaf_runs().map(|run| u64::from(run.length)).sum()
    }

    /// Where a cluster of the blob lies; `None` if it is not allocated or beyond the end.
    pub fn get(&self, index: u64) -> Option<ClusterIdx> {
        if index >= self.num_clusters {
            return None;
        }
        let (slot, entry) = split(index);
        let cluster = self.leaf(slot)?.clusters.get(entry);
        (cluster != 0).then_some(ClusterIdx(cluster))
    }

    /// Sets where a cluster of the blob lies. No effect beyond the end.
    pub fn set(&mut self, index: u64, cluster: Option<ClusterIdx>) {
        if index >= self.num_clusters {
            return;
        }
        let (slot, entry) = split(index);
        let raw = cluster.map_or(0, |cluster| cluster.0);
        let at = match self.place(slot) {
            Ok(at) => at,
            Err(_) if raw == 0 => return,
            Err(at) => {
                self.leaves.insert(at, Leaf { slot, page: None, clusters: Entries::default() });
                at
            }
        };
        let leaf = &mut self.leaves[at];
        let wanted = (self.num_clusters - leaf.first_cluster()).min(u64::from(CLUSTERS_PER_EXTENT_PAGE));
        leaf.clusters.resize(wanted as usize);
        leaf.clusters.set(entry, raw);
    }

    /// Changes the number of clusters; removed ones are dropped (also extent pages with nothing left), added
    /// ones are unallocated. At most [`MAX_CLUSTERS`].
    pub fn resize(&mut self, clusters: u64) {
        let clusters = clusters.min(MAX_CLUSTERS);
        self.num_clusters = clusters;
        // Only a leaf across the old or the new end changes its length.
        self.leaves.retain_mut(|leaf| {
            let left = clusters.saturating_sub(leaf.first_cluster());
            let len = left.min(u64::from(CLUSTERS_PER_EXTENT_PAGE)) as usize;
            if len > 0 {
                leaf.clusters.resize(len);
            }
            len > 0
        });
    }

    /// Stores entries that were set one by one in as little memory as possible.
    pub fn compact(&mut self) {
        self.leaves.iter_mut().for_each(|leaf| leaf.clusters.compact());
    }

    /// The allocated runs in order of the blob; adjacent runs that continue on the device are joined.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut pieces = self.leaf_runs();
        let mut held: Option<Run> = None;
        std::iter::from_fn(move || {
            for piece in pieces.by_ref() {
                match &mut held {
                    Some(run) if follows(run, &piece) => run.length += piece.length,
                    held => {
                        if let Some(done) = held.replace(piece) {
                            return Some(done);
                        }
                    }
                }
            }
            held.take()
        })
    }

    fn leaf_runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.leaves.iter().flat_map(|leaf| leaf.runs(self.num_clusters))
    }

    /// The allocated clusters from cluster `first` of the blob on, each with its cluster of the device.
    pub fn allocated_from(&self, first: u64) -> impl Iterator<Item = (u64, ClusterIdx)> + '_ {
        let behind = self
            .leaves
            .partition_point(|leaf| leaf.first_cluster() + u64::from(CLUSTERS_PER_EXTENT_PAGE) <= first);
        let runs = self.leaves[behind..].iter().flat_map(|leaf| leaf.runs(self.num_clusters));
        let all = runs.flat_map(|run| (run.start..).zip(run.clusters().map(ClusterIdx)));
        all.skip_while(move |&(index, _)| index < first)
    }

    /// The allocated ranges of the blob (first cluster, number), independent of their place on the device.
    pub fn allocated_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for run in self.runs() {
            match ranges.last_mut() {
                Some((start, length)) if *start + *length == run.start => *length += u64::from(run.length),
                _ => ranges.push((run.start, u64::from(run.length))),
            }
        }
        ranges
    }

    /// Its leaves that exist, in order.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The leaf in a slot, if it exists.
    pub fn leaf(&self, slot: u32) -> Option<&Leaf> {
        self.place(slot).ok().map(|at| &self.leaves[at])
    }

    /// Replaces the storage of a slot's entries, which must exist, by one with equal entries.
    pub fn keep(&mut self, slot: u32, clusters: Entries) {
        if let Ok(at) = self.place(slot) {
            self.leaves[at].clusters = clusters;
        }
    }

    fn place(&self, slot: u32) -> Result<usize, usize> {
        self.leaves.binary_search_by_key(&slot, |leaf| leaf.slot)
    }

    /// The extent pages on disk: slot of the table and metadata page.
    pub fn extent_pages(&self) -> impl Iterator<Item = (u32, PageIdx)> + '_ {
        self.leaves.iter().filter_map(|leaf| Some((leaf.slot, leaf.page?)))
    }

    /// Sets the metadata page of a slot of a table, which must exist.
    pub fn set_extent_page(&mut self, slot: u32, page: PageIdx) {
        if self.table
            && let Ok(at) = self.place(slot)
        {
            self.leaves[at].page = Some(page);
        }
    }

    /// Removes an extent page with its entries; the size stays.
    pub fn drop_slot(&mut self, slot: u32) {
        self.leaves.retain(|leaf| leaf.slot != slot);
    }

    /// Removes every allocation and extent page; the size stays.
    pub fn clear(&mut self) {
        self.leaves.clear();
    }
}

impl PartialEq for ClusterMap {
    /// Run-length lists are equal if their entries are, tables if their pages are too.
    fn eq(&self, other: &ClusterMap) -> bool {
        let alike = self.table == other.table && self.num_clusters == other.num_clusters;
        alike && if self.table { self.leaves == other.leaves } else { self.runs().eq(other.runs()) }
    }
}

impl Eq for ClusterMap {}

fn follows(run: &Run, next: &Run) -> bool {
    run.end() == next.start
        && u64::from(run.cluster.0) + u64::from(run.length) == u64::from(next.cluster.0)
        && run.length.checked_add(next.length).is_some()
}

fn split(index: u64) -> (u32, usize) {
    let per_page = u64::from(CLUSTERS_PER_EXTENT_PAGE);
    ((index / per_page) as u32, (index % per_page) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Act {
        Set(u64, Option<u32>),
        Resize(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let set = (0_u64..1200, proptest::option::weighted(0.7, 1_u32..50)).prop_map(|(i, c)| Act::Set(i, c));
        proptest::collection::vec(prop_oneof![9 => set, 1 => (0_u64..1200).prop_map(Act::Resize)], 1..60)
    }

    proptest! {
        #[test]
        fn both_shapes_answer_like_a_plain_map(size in 0_u64..1200, acts in acts()) {
            for mut map in [ClusterMap::new_rle(), ClusterMap::new_table()] {
                map.resize(size);
                let (mut model, mut len) = (BTreeMap::new(), size);
                for act in &acts {
                    match *act {
                        Act::Set(index, cluster) => {
                            map.set(index, cluster.map(ClusterIdx));
                            if index < len {
                                model.remove(&index);
                                model.extend(cluster.map(|cluster| (index, cluster)));
                            }
                        }
                        Act::Resize(to) => {
                            map.resize(to);
                            model.retain(|&index, _| index < to);
                            len = to;
                        }
                    }
                }
                prop_assert_eq!(map.num_clusters(), len);
                prop_assert_eq!(map.allocated(), model.len() as u64);
                for index in 0..1200 {
                    prop_assert_eq!(map.get(index).map(|cluster| cluster.0), model.get(&index).copied());
                }
                let spread: BTreeMap<u64, u32> = map
                    .runs()
                    .flat_map(|run| (0..run.length).map(move |i| (run.start + u64::from(i), run.cluster.0 + i)))
                    .collect();
                prop_assert_eq!(spread, model);
            }
        }
    }
}
