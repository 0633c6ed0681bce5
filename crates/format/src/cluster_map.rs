//! Which cluster of the device holds which cluster of a blob.
//!
//! Sparse: memory follows what the metadata pages really say, not the size of the blob, so that a hostile
//! size costs nothing. Leaves are shared where blobs share an extent page.

use crate::ids::{ClusterIdx, PageIdx};
use std::sync::Arc;

/// Clusters that one extent page describes.
pub const CLUSTERS_PER_EXTENT_PAGE: u32 = 512;

/// The most clusters a blob can have: extent pages count them in 32 bits.
pub const MAX_CLUSTERS: u64 = u32::MAX as u64;

/// The map of a blob's clusters, in the shape it has on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterMap {
    /// A run-length list in the chain itself.
    Rle(RunList),
    /// A table of extent pages.
    Table(ExtentTable),
}

/// A run of clusters that lie one after the other on the device.
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

    /// Where cluster `index` of the blob lies, if it is in this run.
    fn at(&self, index: u64) -> Option<ClusterIdx> {
        let inside = (self.start..self.end()).contains(&index);
        inside.then(|| ClusterIdx(self.cluster.0 + (index - self.start) as u32))
    }
}

/// A run-length list: allocated runs in order of the blob.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunList {
    num_clusters: u64,
    runs: Vec<Run>,
}

/// A table of extent pages: only those that exist take memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtentTable {
    num_clusters: u64,
    leaves: Vec<Leaf>,
}

/// One extent page of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Which slot of the table: clusters `512 * slot ..` of the blob.
    pub slot: u32,
    /// The metadata page that holds it on disk; `None` if it has none yet.
    pub page: Option<PageIdx>,
    /// Clusters of the device, 0 for unallocated; at most 512. Entries beyond the end of the blob do not
    /// count, missing ones are unallocated.
    pub clusters: Arc<[u32]>,
}

impl Leaf {
    /// First cluster of the blob that this leaf describes.
    pub fn first_cluster(&self) -> u64 {
        u64::from(self.slot) * u64::from(CLUSTERS_PER_EXTENT_PAGE)
    }
}

impl ClusterMap {
    /// An extent table of a blob of no size.
    pub fn new_table() -> ClusterMap {
        ClusterMap::Table(ExtentTable::default())
    }

    /// A run-length list of a blob of no size.
    pub fn new_rle() -> ClusterMap {
        ClusterMap::Rle(RunList::default())
    }

    /// Clusters of the blob, allocated or not.
    pub fn num_clusters(&self) -> u64 {
        match self {
            ClusterMap::Rle(list) => list.num_clusters,
            ClusterMap::Table(table) => table.num_clusters,
        }
    }

    /// Clusters that are allocated.
    pub fn allocated(&self) -> u64 {
        self.runs().map(|run| u64::from(run.length)).sum()
    }

    /// Where a cluster of the blob lies; `None` if it is not allocated or beyond the end.
    pub fn get(&self, index: u64) -> Option<ClusterIdx> {
        match self {
            ClusterMap::Rle(list) => list.get(index),
            ClusterMap::Table(table) => table.get(index),
        }
    }

    /// Says where a cluster of the blob lies. Beyond the end nothing happens.
    pub fn set(&mut self, index: u64, cluster: Option<ClusterIdx>) {
        if index >= self.num_clusters() {
            return;
        }
        match self {
            ClusterMap::Rle(list) => list.set(index, cluster),
            ClusterMap::Table(table) => table.set(index, cluster),
        }
    }

    /// Changes the number of clusters; what is cut off is forgotten (extent pages with nothing left too),
    /// what is added is unallocated. At most [`MAX_CLUSTERS`].
    pub fn resize(&mut self, clusters: u64) {
        let clusters = clusters.min(MAX_CLUSTERS);
        match self {
            ClusterMap::Rle(list) => list.resize(clusters),
            ClusterMap::Table(table) => table.resize(clusters),
        }
    }

    /// The allocated runs in order of the blob; neighbours that follow each other on the device are one run.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let (runs, leaves, end) = match self {
            ClusterMap::Rle(list) => (list.runs.as_slice(), [].as_slice(), 0),
            ClusterMap::Table(table) => ([].as_slice(), table.leaves.as_slice(), table.num_clusters),
        };
        let mut pieces = runs.iter().copied().chain(leaves.iter().flat_map(move |leaf| singles(leaf, end)));
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

    /// The allocated ranges of the blob (first cluster, number), wherever they lie on the device.
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

    /// The leaves of an extent table; none for a run-length list.
    pub fn leaves(&self) -> &[Leaf] {
        match self {
            ClusterMap::Rle(_) => &[],
            ClusterMap::Table(table) => &table.leaves,
        }
    }

    /// The extent pages on disk: slot of the table and metadata page.
    pub fn extent_pages(&self) -> impl Iterator<Item = (u32, PageIdx)> + '_ {
        self.leaves().iter().filter_map(|leaf| Some((leaf.slot, leaf.page?)))
    }

    /// Says which metadata page holds a slot of the table, which must exist.
    pub fn set_extent_page(&mut self, slot: u32, page: PageIdx) {
        if let ClusterMap::Table(table) = self
            && let Ok(at) = table.leaves.binary_search_by_key(&slot, |leaf| leaf.slot)
        {
            table.leaves[at].page = Some(page);
        }
    }

    /// Forgets an extent page and all it says; the size stays.
    pub fn drop_slot(&mut self, slot: u32) {
        if let ClusterMap::Table(table) = self {
            table.leaves.retain(|leaf| leaf.slot != slot);
        }
    }

    /// Forgets every allocation (and extent page); the size stays.
    pub fn clear(&mut self) {
        match self {
            ClusterMap::Rle(list) => list.runs.clear(),
            ClusterMap::Table(table) => table.leaves.clear(),
        }
    }
}

fn follows(run: &Run, next: &Run) -> bool {
    run.end() == next.start
        && u64::from(run.cluster.0) + u64::from(run.length) == u64::from(next.cluster.0)
        && run.length.checked_add(next.length).is_some()
}

fn singles(leaf: &Leaf, end: u64) -> impl Iterator<Item = Run> + '_ {
    let first = leaf.first_cluster();
    let entries = leaf.clusters.iter().enumerate().map(move |(at, &cluster)| (first + at as u64, cluster));
    let live = entries.take_while(move |&(start, _)| start < end).filter(|&(_, cluster)| cluster != 0);
    live.map(|(start, cluster)| Run { start, cluster: ClusterIdx(cluster), length: 1 })
}

impl RunList {
    /// Clusters of the blob so far.
    pub fn num_clusters(&self) -> u64 {
        self.num_clusters
    }

    /// Adds a run at the end; `None` is unallocated.
    pub(crate) fn push(&mut self, cluster: Option<ClusterIdx>, length: u32) {
        if let Some(cluster) = cluster
            && length > 0
        {
            let run = Run { start: self.num_clusters, cluster, length };
            self.runs.push(run);
            self.merge(self.runs.len() - 1);
        }
        self.num_clusters += u64::from(length);
    }

    fn get(&self, index: u64) -> Option<ClusterIdx> {
        let at = self.runs.partition_point(|run| run.end() <= index);
        self.runs.get(at)?.at(index)
    }

    fn set(&mut self, index: u64, cluster: Option<ClusterIdx>) {
        let at = self.runs.partition_point(|run| run.end() <= index);
        let mut pieces = Vec::with_capacity(3);
        let mut replaced = at..at;
        if let Some(run) = self.runs.get(at).copied()
            && run.start <= index
        {
            replaced.end += 1;
            let before = (index - run.start) as u32;
            let after = run.length - before - 1;
            if before > 0 {
                pieces.push(Run { length: before, ..run });
            }
            pieces.extend(cluster.map(|cluster| Run { start: index, cluster, length: 1 }));
            if after > 0 {
                let cluster = ClusterIdx(run.cluster.0 + before + 1);
                pieces.push(Run { start: index + 1, cluster, length: after });
            }
        } else {
            pieces.extend(cluster.map(|cluster| Run { start: index, cluster, length: 1 }));
        }
        let touched = replaced.start..replaced.start + pieces.len() + 1;
        self.runs.splice(replaced, pieces);
        for at in touched.rev() {
            self.merge(at);
        }
    }

    /// Joins a run with the one before it if both follow each other, so that equal maps are equal lists.
    fn merge(&mut self, at: usize) {
        if let Some(before) = at.checked_sub(1)
            && let (Some(&first), Some(&second)) = (self.runs.get(before), self.runs.get(at))
            && follows(&first, &second)
        {
            self.runs[before].length += second.length;
            self.runs.remove(at);
        }
    }

    fn resize(&mut self, clusters: u64) {
        self.num_clusters = clusters;
        self.runs.retain_mut(|run| {
            run.length = u64::from(run.length).min(clusters.saturating_sub(run.start)) as u32;
            run.length > 0
        });
    }
}

impl ExtentTable {
    /// A table of a blob of so many clusters whose extent pages are added with [`ExtentTable::push`].
    pub(crate) fn with_clusters(num_clusters: u64) -> ExtentTable {
        ExtentTable { num_clusters, leaves: Vec::new() }
    }

    /// Adds an extent page behind the ones that are there.
    pub(crate) fn push(&mut self, leaf: Leaf) {
        debug_assert!(self.leaves.last().is_none_or(|last| last.slot < leaf.slot));
        self.leaves.push(leaf);
    }

    /// Slots of the table: extent pages it would have if none were missing.
    pub fn slots(&self) -> u64 {
        self.num_clusters.div_ceil(u64::from(CLUSTERS_PER_EXTENT_PAGE))
    }

    fn get(&self, index: u64) -> Option<ClusterIdx> {
        if index >= self.num_clusters {
            return None;
        }
        let (slot, entry) = split(index);
        let at = self.leaves.binary_search_by_key(&slot, |leaf| leaf.slot).ok()?;
        let cluster = *self.leaves[at].clusters.get(entry)?;
        (cluster != 0).then_some(ClusterIdx(cluster))
    }

    fn set(&mut self, index: u64, cluster: Option<ClusterIdx>) {
        let (slot, entry) = split(index);
        let raw = cluster.map_or(0, |cluster| cluster.0);
        let at = match self.leaves.binary_search_by_key(&slot, |leaf| leaf.slot) {
            Ok(at) => at,
            Err(_) if raw == 0 => return,
            Err(at) => {
                self.leaves.insert(at, Leaf { slot, page: None, clusters: Arc::from([]) });
                at
            }
        };
        let leaf = &mut self.leaves[at];
        let wanted = (self.num_clusters - leaf.first_cluster()).min(u64::from(CLUSTERS_PER_EXTENT_PAGE));
        if leaf.clusters.len() != wanted as usize {
            let mut clusters = leaf.clusters.to_vec();
            clusters.resize(wanted as usize, 0);
            leaf.clusters = clusters.into();
        }
        if let Some(place) = Arc::make_mut(&mut leaf.clusters).get_mut(entry) {
            *place = raw;
        }
    }

    fn resize(&mut self, clusters: u64) {
        self.num_clusters = clusters;
        self.leaves.retain_mut(|leaf| {
            let left = clusters.saturating_sub(leaf.first_cluster());
            let len = left.min(u64::from(CLUSTERS_PER_EXTENT_PAGE)) as usize;
            if len != leaf.clusters.len() {
                let mut entries = leaf.clusters.to_vec();
                entries.resize(len, 0);
                leaf.clusters = entries.into();
            }
            len > 0
        });
    }
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
