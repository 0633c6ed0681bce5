//! The disk, the store and the workload's preferences that a seed leads to.

use spindle_blob::LayoutOptions;
use spindle_blob::{ClearData, MdPages};
use spindle_engine::sim::{DiskOptions, Image, Rng, UnmapReads};
use spindle_format::{Geometry, init};

use crate::scenario::Scenario;

/// All choices of a seed that are made before its first operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Bytes of a cluster.
    pub cluster: u32,
    /// Clusters of the disk.
    pub clusters: u64,
    /// Clusters of the disk that its device gains when it grows.
    pub growth: u64,
    /// Bytes of a block, which is also the io unit.
    pub block: u32,
    /// Bytes that a crash never tears.
    pub atomic_unit: u32,
    /// Metadata pages.
    pub md_pages: MdPages,
    /// Smallest size of a metadata page in bytes.
    pub md_page_size: u32,
    /// The content of an unmapped block; `None` if the disk cannot unmap.
    pub discard: Option<UnmapReads>,
    /// How the data area is cleared when the store is made.
    pub clear: ClearData,
    /// True if requests take time on their way and back, and a flush covers only writes completed when it was
    /// sent. Otherwise operations take effect when they complete.
    pub slow: bool,
    /// Number of tasks that change metadata.
    pub changers: u32,
    /// True if a blob is closed only when it has no I/O in progress.
    pub patient: bool,
    /// True if the device fails operations in some runs; not for scenarios that test something else.
    pub failing: bool,
    /// The preferences of the workload.
    pub scenario: Scenario,
}

impl Profile {
    /// The profile of a seed.
    pub fn of(seed: u64, scenario: Option<Scenario>) -> Profile {
        let mut rng = Rng::new(seed ^ 0x7072_6f66);
        let mut pick = |n: usize| rng.below(n);
        // Some seeds have hardly any metadata pages, and none of them kept back.
        let short_of_pages = scenario.is_none() && seed % 6 == 5;
        let failing = scenario.is_none_or(|scenario| scenario == Scenario::FailedFlushes);
        let scenario = scenario.unwrap_or_else(|| Scenario::pick(pick(Scenario::PARTS)));
        // Half of all seeds tear at 512 bytes, half at 4096; blocks are never larger than that.
        let atomic_unit = if seed.is_multiple_of(2) { 512 } else { 4096 };
        let atomic_unit = scenario.atomic_unit().unwrap_or(atomic_unit);
        let block = if atomic_unit == 4096 && pick(2) == 0 { 4096 } else { 512 };
        let cluster = [4096, 4096, 8192, 16384][pick(4)];
        // Some seeds have metadata pages as large as a cluster.
        let md_page_size = if pick(8) == 0 { cluster } else { 4096 };
        let pages = [20, 28, 40][pick(3)];
        let pages = if short_of_pages { 7 } else { pages };
        let growth = [0, 3, 11][pick(3)];
        let metadata = u64::from(4 + pages) * u64::from(md_page_size);
        let clusters = metadata.div_ceil(u64::from(cluster)) + [20, 32, 48][pick(3)] + growth;
        // Hundreds of pages only if the device does not grow: a larger device would have more.
        let md_pages = match growth == 0 && pick(2) == 0 {
            true => MdPages::PerHundredClusters((u64::from(pages) * 100 / clusters) as u32),
            false => MdPages::Count(pages),
        };
        let discard = [Some(UnmapReads::Zero), Some(UnmapReads::Zero), Some(UnmapReads::Garbage), None];
        let discard = discard[pick(4)];
        let clear = [ClearData::Unmap, ClearData::WriteZeroes, ClearData::None][pick(3)];
        let slow = pick(2) == 0 || scenario.slow();
        let changers = [1, 1, 2, 3][pick(4)];
        let patient = pick(4) > 0;
        Profile {
            cluster,
            clusters,
            growth,
            block,
            atomic_unit,
            md_pages,
            md_page_size,
            discard,
            clear,
            slow,
            changers,
            patient,
            failing,
            scenario,
        }
    }

    /// Options for the disk.
    pub fn disk(&self, seed: u64) -> DiskOptions {
        DiskOptions {
            block: self.block,
            atomic_unit: self.atomic_unit,
            discard: self.discard,
            seed,
            ..DiskOptions::new(self.clusters * u64::from(self.cluster))
        }
    }

    /// Bytes of the device before it grows.
    pub fn device_bytes(&self) -> u64 {
        (self.clusters - self.growth) * u64::from(self.cluster)
    }

    /// The geometry of a store on the device before it grows.
    pub fn geometry(&self) -> Geometry {
        let (size, block_size) = (self.device_bytes(), self.block);
        let shape = init::DeviceShape { size, block_size, physical_block_size: block_size };
        init::plan(&shape, &self.layout()).expect("every profile leaves room for its metadata").geometry
    }

    /// Clusters for data in a store on the device before it grows.
    pub fn data_clusters(&self) -> u64 {
        let geometry = self.geometry();
        u64::from(geometry.total_clusters() - geometry.metadata_clusters())
    }

    /// The layout of the store.
    pub fn layout(&self) -> LayoutOptions {
        LayoutOptions {
            cluster_size: self.cluster,
            md_pages: self.md_pages,
            clear: self.clear,
            md_page_size: self.md_page_size,
            ..LayoutOptions::default()
        }
    }

    /// A disk with old contents: no store, and no value that the workload writes.
    pub fn used_disk(&self) -> Image {
        let size = self.clusters * u64::from(self.cluster);
        let mut image = Image::zeroed(size);
        let junk = vec![0x5a; self.cluster as usize];
        (0..self.clusters).for_each(|at| image.write(at * u64::from(self.cluster), &junk));
        image
    }

    /// The atomic unit that the store is told of: for a file only the block size.
    pub fn known_atomic_unit(&self) -> u32 {
        if self.slow { self.block } else { self.atomic_unit }
    }

    /// Io units of a cluster.
    pub fn per_cluster(&self) -> u64 {
        u64::from(self.cluster / self.block)
    }
}
