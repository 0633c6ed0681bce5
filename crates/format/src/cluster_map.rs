//! Which cluster of the device holds which cluster of a blob.
//!
//! Sparse: memory follows what the metadata pages really say, not the size of the blob, so that a hostile
//! size costs nothing.

use crate::ids::{ClusterIdx, PageIdx};

/// Clusters that one extent page describes.
pub const CLUSTERS_PER_EXTENT_PAGE: u32 = 512;

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

/// A run-length list: allocated runs in order of the blob.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunList {
    #[allow(dead_code)]
    num_clusters: u64,
    #[allow(dead_code)]
    runs: Vec<Run>,
}

/// A table of extent pages: only those that exist take memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtentTable {
    #[allow(dead_code)]
    num_clusters: u64,
    #[allow(dead_code)]
    leaves: Vec<Leaf>,
}

/// One extent page of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Which slot of the table: clusters `512 * slot ..` of the blob.
    pub slot: u32,
    /// The metadata page that holds it on disk; `None` if it has none yet.
    pub page: Option<PageIdx>,
    /// Clusters of the device, 0 for unallocated; at most 512, one for each cluster of the blob it covers.
    pub clusters: Box<[u32]>,
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
        todo!()
    }

    /// Clusters that are allocated.
    pub fn allocated(&self) -> u64 {
        todo!()
    }

    /// Where a cluster of the blob lies; `None` if it is not allocated or beyond the end.
    pub fn get(&self, _index: u64) -> Option<ClusterIdx> {
        todo!()
    }

    /// Says where a cluster of the blob lies. Beyond the end nothing happens.
    pub fn set(&mut self, _index: u64, _cluster: Option<ClusterIdx>) {
        todo!()
    }

    /// Changes the number of clusters; what is cut off is forgotten, what is added is unallocated.
    pub fn resize(&mut self, _clusters: u64) {
        todo!()
    }

    /// The allocated runs in order of the blob; neighbours that follow each other on the device are one run.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        std::iter::empty()
    }

    /// The allocated ranges of the blob (first cluster, number), wherever they lie on the device.
    pub fn allocated_ranges(&self) -> Vec<(u64, u64)> {
        todo!()
    }

    /// The extent pages: slot of the table and metadata page.
    pub fn extent_pages(&self) -> impl Iterator<Item = (u32, PageIdx)> + '_ {
        std::iter::empty()
    }
}
