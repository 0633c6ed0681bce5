//! The layout of a store: cluster and page sizes, the regions, and the arithmetic between them.

use crate::error::{FormatError, Place, Problem};
use crate::ids::{ClusterIdx, PageIdx};
use crate::mask_kind::MaskKind;
use crate::super_block::SuperBlock;

/// The largest metadata page in bytes. SPDK makes them as large as a block of the device, at least 4096 bytes. Pages of this size are
/// read into memory whole, many at a time, so a number in an image must not choose freely.
pub const MAX_MD_PAGE_SIZE: u32 = 1 << 20;

/// A range of a store in metadata pages, counted from byte 0 of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Region {
    /// First page.
    pub start: u32,
    /// Number of pages.
    pub len: u32,
}

impl Region {
    /// One past the last page.
    pub fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.len)
    }
}

/// The checked layout of a store. Every region lies inside the store and none overlaps another, so that
/// the arithmetic below cannot overflow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    io_unit_size: u32,
    md_page_size: u32,
    cluster_size: u32,
    size: u64,
    total_clusters: u32,
    used_page_mask: Region,
    used_cluster_mask: Region,
    used_blobid_mask: Region,
    metadata: Region,
}

impl Geometry {
    /// The geometry in a super block, on a device of `device_bytes` bytes.
    ///
    /// # Errors
    /// Names the invalid field and its valid values.
    pub fn from_super(block: &SuperBlock, device_bytes: u64) -> Result<Geometry, FormatError> {
        let zero_means = |value: u32, default: u32| if value == 0 { default } else { value };
        let geometry = Geometry {
            io_unit_size: zero_means(block.io_unit_size, 4096),
            md_page_size: zero_means(block.md_page_size, 4096),
            cluster_size: block.cluster_size,
            size: if block.size == 0 { device_bytes } else { block.size },
            total_clusters: 0,
            used_page_mask: block.used_page_mask,
            used_cluster_mask: block.used_cluster_mask,
            used_blobid_mask: block.used_blobid_mask,
            metadata: block.metadata,
        };
        geometry.check_sizes(device_bytes)?;
        let total = geometry.size / u64::from(geometry.cluster_size);
        let total_clusters = u32::try_from(total).map_err(|_| {
            let expected = format!("at most {} clusters of {} bytes", u32::MAX, geometry.cluster_size);
            problem("size", geometry.size, expected)
        })?;
        let geometry = Geometry { total_clusters, ..geometry };
        geometry.check_regions()?;
        Ok(geometry)
    }

    /// Bytes of the smallest I/O, which is the block size with which the store was made.
    pub fn io_unit_size(&self) -> u32 {
        self.io_unit_size
    }

    /// Bytes of a metadata slot; only the first 4096 are used.
    pub fn md_page_size(&self) -> u32 {
        self.md_page_size
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u32 {
        self.cluster_size
    }

    /// Bytes of the store.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Clusters of the store, including those that hold metadata.
    pub fn total_clusters(&self) -> u32 {
        self.total_clusters
    }

    /// Clusters, from 0, that hold the super block, the masks and the metadata pages.
    pub fn metadata_clusters(&self) -> u32 {
        self.metadata.end().div_ceil(u64::from(self.pages_per_cluster())) as u32
    }

    /// Clusters that can hold data.
    pub fn data_clusters(&self) -> u32 {
        self.total_clusters - self.metadata_clusters()
    }

    /// Metadata slots in one cluster.
    pub fn pages_per_cluster(&self) -> u32 {
        self.cluster_size / self.md_page_size
    }

    /// Number of metadata pages; every [`PageIdx`] of the store is below it.
    pub fn md_pages(&self) -> u32 {
        self.metadata.len
    }

    /// The region of the metadata pages.
    pub fn metadata(&self) -> Region {
        self.metadata
    }

    /// The region of a mask.
    pub fn mask(&self, kind: MaskKind) -> Region {
        match kind {
            MaskKind::UsedPages => self.used_page_mask,
            MaskKind::UsedClusters => self.used_cluster_mask,
            MaskKind::UsedBlobIds => self.used_blobid_mask,
        }
    }

    /// Required number of bits of a mask.
    pub fn mask_bits(&self, kind: MaskKind) -> u32 {
        match kind {
            MaskKind::UsedClusters => self.total_clusters,
            MaskKind::UsedPages | MaskKind::UsedBlobIds => self.metadata.len,
        }
    }

    /// Byte where a region begins and its length in bytes.
    pub fn bytes_of(&self, region: Region) -> (u64, u64) {
        let page = u64::from(self.md_page_size);
        (u64::from(region.start) * page, u64::from(region.len) * page)
    }

    /// Byte of the image where a cluster begins.
    pub fn cluster_offset(&self, cluster: ClusterIdx) -> u64 {
        u64::from(cluster.0) * u64::from(self.cluster_size)
    }

    /// Byte of the image where a metadata page begins.
    pub fn page_offset(&self, page: PageIdx) -> u64 {
        (u64::from(self.metadata.start) + u64::from(page.0)) * u64::from(self.md_page_size)
    }

    /// The place of a metadata page, for errors.
    pub fn page_place(&self, index: PageIdx) -> Place {
        Place::Page { index, offset: self.page_offset(index) }
    }

    /// True if a cluster can hold data.
    pub fn is_data_cluster(&self, cluster: u32) -> bool {
        (self.metadata_clusters()..self.total_clusters).contains(&cluster)
    }

    /// The largest store, in bytes, for which the reserved space of the cluster mask is sufficient.
    pub fn max_growable_size(&self) -> u64 {
        let reserved = self.cluster_mask_reserve();
        let bits = (u64::from(reserved) * u64::from(self.md_page_size)).saturating_sub(5) * 8;
        bits.min(u64::from(u32::MAX)).saturating_mul(u64::from(self.cluster_size))
    }

    /// Pages from the start of the cluster mask to the next structure.
    pub fn cluster_mask_reserve(&self) -> u32 {
        let next = if self.used_blobid_mask.len > 0 { self.used_blobid_mask } else { self.metadata };
        next.start.saturating_sub(self.used_cluster_mask.start).max(self.used_cluster_mask.len)
    }

    fn check_sizes(&self, device_bytes: u64) -> Result<(), FormatError> {
        let page = self.md_page_size;
        if page < 4096 || !page.is_multiple_of(4096) {
            return Err(problem("md_page_size", page, "0 or a multiple of 4096"));
        }
        if page > MAX_MD_PAGE_SIZE {
            return Err(problem("md_page_size", page, format!("at most {MAX_MD_PAGE_SIZE}")));
        }
        let unit = self.io_unit_size;
        if unit < 512 || !unit.is_power_of_two() || unit > page {
            return Err(problem("io_unit_size", unit, format!("a power of two, 512 to {page}")));
        }
        if self.cluster_size < page || !self.cluster_size.is_multiple_of(4096) {
            let expected = format!("a multiple of 4096, at least {page}");
            return Err(problem("cluster_size", self.cluster_size, expected));
        }
        if self.size > device_bytes {
            let expected = format!(
                "at most {device_bytes:#x}, the bytes of the device: if it shrank, make it {} bytes long again, or load \
                 the store read-only for what is left of it",
                self.size
            );
            return Err(problem("size", self.size, expected));
        }
        Ok(())
    }

    fn check_regions(&self) -> Result<(), FormatError> {
        let limit = self.size / u64::from(self.md_page_size);
        let mut floor = 1;
        let ordered = [
            ("used_page_mask_start", self.used_page_mask, self.mask_pages(MaskKind::UsedPages)),
            ("used_cluster_mask_start", self.used_cluster_mask, self.mask_pages(MaskKind::UsedClusters)),
            ("used_blobid_mask_start", self.used_blobid_mask, self.mask_pages(MaskKind::UsedBlobIds)),
            ("md_start", self.metadata, 1),
        ];
        for (field, region, least) in ordered {
            let old_store = field == "used_blobid_mask_start" && region.len == 0;
            if old_store {
                continue;
            }
            if u64::from(region.start) < floor {
                return Err(problem(field, region.start, format!("at least page {floor}, where it is free")));
            }
            if u64::from(region.len) < least {
                return Err(problem(field, region.len, format!("a length of at least {least} pages")));
            }
            if region.end() > limit {
                let end = region.end();
                return Err(problem(field, region.start, format!("an end before page {limit}, not {end}")));
            }
            floor = region.end();
        }
        if self.metadata_clusters() > self.total_clusters {
            return Err(problem("md_len", self.metadata.len, "metadata that ends inside the last cluster"));
        }
        Ok(())
    }

    fn mask_pages(&self, kind: MaskKind) -> u64 {
        mask_pages(self.mask_bits(kind), self.md_page_size)
    }
}

/// Metadata pages for a mask of `bits` bits.
pub(crate) fn mask_pages(bits: u32, md_page_size: u32) -> u64 {
    (5 + u64::from(bits).div_ceil(8)).div_ceil(u64::from(md_page_size))
}

fn problem(field: &'static str, found: impl Into<u64>, expected: impl Into<String>) -> FormatError {
    Problem::field(field, found, expected).at(Place::SuperBlock)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]
mod tests {
    use super::*;
    use crate::init::{DeviceShape, InitOptions, plan};
    use proptest::prelude::*;

    const SIZE: u64 = 64 << 20;

    fn healthy() -> SuperBlock {
        let device = DeviceShape { size: SIZE, block_size: 512, physical_block_size: 512 };
        plan(&device, &InitOptions::default()).unwrap().super_block
    }

    #[test]
    fn old_stores_mean_4096_and_the_whole_device_by_zero() {
        let mut old = healthy();
        (old.size, old.io_unit_size, old.md_page_size, old.version) = (0, 0, 0, 1);
        old.used_blobid_mask = Region::default();
        let geometry = Geometry::from_super(&old, SIZE).unwrap();
        assert_eq!((geometry.size(), geometry.io_unit_size(), geometry.md_page_size()), (SIZE, 4096, 4096));
    }

    #[test]
    fn a_device_that_shrank_is_named() {
        let error = Geometry::from_super(&healthy(), SIZE - 512).unwrap_err().to_string();
        assert!(error.starts_with("super block at byte 0: size is 0x4000000, expected at most"), "{error}");
    }

    proptest! {
        #[test]
        fn any_numbers_give_an_error_or_a_geometry_whose_arithmetic_holds(
            picks in proptest::collection::vec((0_usize..12, prop_oneof![0_u32..100, any::<u32>()]), 1..4),
            size in prop_oneof![Just(SIZE), any::<u64>()],
            device in prop_oneof![Just(SIZE), any::<u64>()],
        ) {
            let mut block = SuperBlock { size, ..healthy() };
            for (field, value) in picks {
                *match field {
                    0 => &mut block.cluster_size,
                    1 => &mut block.io_unit_size,
                    2 => &mut block.md_page_size,
                    3 => &mut block.used_page_mask.start,
                    4 => &mut block.used_page_mask.len,
                    5 => &mut block.used_cluster_mask.start,
                    6 => &mut block.used_cluster_mask.len,
                    7 => &mut block.used_blobid_mask.start,
                    8 => &mut block.used_blobid_mask.len,
                    9 => &mut block.metadata.start,
                    10 => &mut block.metadata.len,
                    _ => &mut block.version,
                } = value;
            }
            if let Ok(geometry) = Geometry::from_super(&block, device) {
                prop_assert!(geometry.size() <= device);
                let end = geometry.page_offset(PageIdx(geometry.md_pages()));
                prop_assert!(end <= geometry.size());
                prop_assert!(geometry.data_clusters() <= geometry.total_clusters());
                prop_assert!(geometry.max_growable_size() > 0);
            }
        }
    }
}
