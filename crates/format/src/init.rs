//! Creates stores: the layout that SPDK would choose for a device, and the writes for it.

use crate::change::Change;
use crate::geometry::{Geometry, MAX_MD_PAGE_SIZE, Region, mask_pages};
use crate::super_block::{BsType, SuperBlock, VERSION};

/// Layouts tried to find the smallest with room for data.
const LAYOUTS_TRIED: u32 = 1 << 12;

/// The device for a new store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceShape {
    /// Bytes of the device.
    pub size: u64,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// Bytes of a physical block, a multiple of the logical block; the same if not known.
    pub physical_block_size: u32,
}

/// The number of metadata pages of a new store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MdPages {
    /// One for every cluster of the device, SPDK's default.
    #[default]
    OnePerCluster,
    /// This many for every hundred clusters (the lvolstore option).
    PerHundredClusters(u32),
    /// This many in all.
    Count(u32),
}

/// What to do with the area after the metadata when a store is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClearData {
    /// Unmapped, SPDK's default.
    #[default]
    Unmap,
    /// Zeroed.
    WriteZeroes,
    /// Left as it is.
    None,
}

/// Options of a new store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitOptions {
    /// Bytes of a cluster; 1 MiB by default.
    pub cluster_size: u32,
    /// Metadata pages; one per cluster by default.
    pub md_pages: MdPages,
    /// What to do with the data area.
    pub clear: ClearData,
    /// The store's type; zeroes by default.
    pub bs_type: BsType,
    /// The minimum size of a metadata slot in bytes, a multiple of 4096; the physical block size is another
    /// lower bound.
    pub md_page_size: u32,
}

impl Default for InitOptions {
    fn default() -> Self {
        InitOptions {
            cluster_size: 1 << 20,
            md_pages: MdPages::default(),
            clear: ClearData::default(),
            bs_type: BsType::default(),
            md_page_size: 0,
        }
    }
}

/// Why a store cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InitError {
    /// An option has an invalid value.
    #[error("{option} is {value}: it must be {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// The valid values.
        expected: String,
    },
    /// The device is too small.
    #[error(
        "the device has {size} bytes, a store with these options needs at least {needed}: choose a larger device, fewer metadata pages, or clusters of another size"
    )]
    TooSmall {
        /// Bytes of the device.
        size: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// A store with these options has no room for data, on however large a device.
    #[error("the metadata would take all of any device: choose fewer metadata pages, or larger clusters")]
    AllMetadata,
}

/// The result of planning a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitPlan {
    /// The layout.
    pub geometry: Geometry,
    /// The super block, not clean.
    pub super_block: SuperBlock,
    /// The writes, in order: zero the metadata, clear the data area, flush, write the super block, flush. The
    /// masks stay zero until the first unload.
    pub changes: Vec<Change>,
}

/// Chooses the layout of a new store on a device as SPDK does. As in SPDK, the metadata may take all of it:
/// such a store has blobs with xattrs and no data.
///
/// # Errors
/// An option is invalid, or the device is too small.
pub fn plan(device: &DeviceShape, options: &InitOptions) -> Result<InitPlan, InitError> {
    let md_page_size = md_page_size(device, options);
    check_options(device, options, md_page_size)?;
    let cluster_size = u64::from(options.cluster_size);
    if device.size < cluster_size {
        return Err(too_small(device, options));
    }
    let total_clusters = u32::try_from(device.size / cluster_size).map_err(|_| InitError::Option {
        option: "cluster_size",
        value: cluster_size,
        expected: format!("larger: the device has more than {} such clusters", u32::MAX),
    })?;
    let super_block = lay_out(device, options, md_page_size, total_clusters);
    if metadata_clusters(&super_block) > u64::from(total_clusters) {
        return Err(too_small(device, options));
    }
    let geometry = Geometry::from_super(&super_block, device.size).map_err(|_| too_small(device, options))?;
    let metadata_end = super_block.metadata.end() * u64::from(md_page_size);
    let changes = changes(device, options, super_block.write(&geometry), metadata_end);
    Ok(InitPlan { geometry, super_block, changes })
}

/// The error that a device is too small for a store with room for data, with the required size. [`plan`] must
/// have found no other error in the options.
pub fn too_small(device: &DeviceShape, options: &InitOptions) -> InitError {
    let md_page_size = md_page_size(device, options);
    let mut clusters = 1;
    // A larger store has more metadata. If this does not converge, metadata takes nearly all of the store, or
    // more.
    for _ in 0..LAYOUTS_TRIED {
        let layout = lay_out(device, options, md_page_size, clusters);
        match u32::try_from(metadata_clusters(&layout) + 1) {
            Ok(needed) if needed <= clusters => {
                let needed = u64::from(clusters) * u64::from(options.cluster_size);
                return InitError::TooSmall { size: device.size, needed };
            }
            Ok(needed) => clusters = needed,
            Err(_) => break,
        }
    }
    InitError::AllMetadata
}

fn md_page_size(device: &DeviceShape, options: &InitOptions) -> u32 {
    device.physical_block_size.max(4096).max(options.md_page_size)
}

/// Clusters, from 0, that hold metadata.
fn metadata_clusters(super_block: &SuperBlock) -> u64 {
    let end = super_block.metadata.end() * u64::from(super_block.md_page_size);
    end.div_ceil(super_block.cluster_size.into())
}

fn check_options(device: &DeviceShape, options: &InitOptions, md_page: u32) -> Result<(), InitError> {
    let refuse = |option, value: u32, expected: String| {
        Err(InitError::Option { option, value: value.into(), expected })
    };
    let block = device.block_size;
    if block < 512 || !block.is_power_of_two() {
        return refuse("block_size", block, "a power of two of at least 512".into());
    }
    let physical = device.physical_block_size;
    if physical == 0 || !physical.is_multiple_of(block) {
        return refuse("physical_block_size", physical, format!("a multiple of the block size, {block}"));
    }
    if !options.md_page_size.is_multiple_of(4096) {
        return refuse("md_page_size", options.md_page_size, "0 or a multiple of 4096".into());
    }
    if !md_page.is_multiple_of(4096) || !md_page.is_multiple_of(block) {
        return refuse("md_page_size", md_page, format!("a multiple of 4096 and of the block size, {block}"));
    }
    if md_page > MAX_MD_PAGE_SIZE {
        return refuse("md_page_size", md_page, format!("at most {MAX_MD_PAGE_SIZE}"));
    }
    let cluster = options.cluster_size;
    if cluster == 0 || !cluster.is_multiple_of(md_page) {
        return refuse("cluster_size", cluster, format!("a multiple of the metadata page size, {md_page}"));
    }
    match options.md_pages {
        MdPages::Count(0) => refuse("num_md_pages", 0, "at least 1".into()),
        MdPages::PerHundredClusters(0) => refuse("num_md_pages_per_cluster_ratio", 0, "at least 1".into()),
        _ => Ok(()),
    }
}

fn lay_out(
    device: &DeviceShape,
    options: &InitOptions,
    md_page_size: u32,
    total_clusters: u32,
) -> SuperBlock {
    let md_len = match options.md_pages {
        MdPages::OnePerCluster => total_clusters,
        MdPages::Count(count) => count,
        // At least one: a ratio of 1 on a store of 50 clusters would otherwise give no page at all.
        MdPages::PerHundredClusters(ratio) => {
            let pages = u64::from(ratio) * u64::from(total_clusters) / 100;
            u32::try_from(pages).unwrap_or(u32::MAX).max(1)
        }
    };
    let page_mask = mask_pages(md_len, md_page_size) as u32;
    let cluster_mask = mask_pages(total_clusters, md_page_size) as u32;
    // Room for as many clusters as there are metadata pages, so that the store can grow.
    let cluster_mask_reserve = cluster_mask.max(page_mask);
    let cluster_mask_start = 1 + page_mask;
    let blobid_mask_start = cluster_mask_start + cluster_mask_reserve;
    SuperBlock {
        version: VERSION,
        clean: false,
        super_blob: None,
        cluster_size: options.cluster_size,
        used_page_mask: Region { start: 1, len: page_mask },
        used_cluster_mask: Region { start: cluster_mask_start, len: cluster_mask },
        used_blobid_mask: Region { start: blobid_mask_start, len: page_mask },
        metadata: Region { start: blobid_mask_start + page_mask, len: md_len },
        bs_type: options.bs_type,
        size: device.size / u64::from(device.block_size) * u64::from(device.block_size),
        io_unit_size: device.block_size,
        md_page_size,
    }
}

fn changes(
    device: &DeviceShape,
    options: &InitOptions,
    super_block: Change,
    metadata_end: u64,
) -> Vec<Change> {
    let data_len = device.size.saturating_sub(metadata_end);
    let mut changes = vec![Change::Zero { offset: 0, len: metadata_end }];
    match options.clear {
        _ if data_len == 0 => {}
        ClearData::Unmap => changes.push(Change::Unmap { offset: metadata_end, len: data_len }),
        ClearData::WriteZeroes => changes.push(Change::Zero { offset: metadata_end, len: data_len }),
        ClearData::None => {}
    }
    changes.extend([Change::Flush, super_block, Change::Flush]);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::MaskKind;
    use proptest::prelude::*;

    fn device(size: u64) -> DeviceShape {
        DeviceShape { size, block_size: 4096, physical_block_size: 4096 }
    }

    #[test]
    fn the_layouts_are_those_that_spdk_chooses() {
        let options = InitOptions { cluster_size: 4 << 20, ..InitOptions::default() };
        let small = plan(&device(128 << 20), &options).unwrap().geometry;
        assert_eq!(small.metadata(), Region { start: 4, len: 32 });
        assert_eq!((small.metadata_clusters(), small.data_clusters()), (1, 31));
        let large = plan(&device(1 << 40), &options).unwrap().geometry;
        assert_eq!(large.mask(MaskKind::UsedBlobIds), Region { start: 19, len: 9 });
        assert_eq!(large.metadata(), Region { start: 28, len: 262_144 });
        assert_eq!(large.metadata_clusters(), 257);
        let pages = DeviceShape { physical_block_size: 16384, ..device(64 << 20) };
        let big_pages = plan(&pages, &InitOptions::default()).unwrap();
        assert_eq!(big_pages.super_block.md_page_size, 16384);
        assert_eq!(big_pages.geometry.metadata().start, 4);
        assert_eq!(big_pages.geometry.page_offset(crate::PageIdx(1)), 5 * 16384);
    }

    #[test]
    fn a_device_too_small_for_its_metadata_is_refused_with_what_it_needs() {
        let options = InitOptions { md_pages: MdPages::Count(1 << 20), ..InitOptions::default() };
        let error = plan(&device(64 << 20), &options).unwrap_err();
        assert!(matches!(error, InitError::TooSmall { size: 0x400_0000, .. }), "{error}");
        assert!(plan(&device(1 << 19), &InitOptions::default()).is_err());
    }

    #[test]
    fn the_least_size_has_room_for_data_and_a_cluster_less_has_not() {
        for (cluster_size, md_pages) in [
            (4 << 20, MdPages::OnePerCluster),
            (8192, MdPages::OnePerCluster),
            (64 << 10, MdPages::Count(1_000_000)),
            (8192, MdPages::PerHundredClusters(150)),
        ] {
            let options = InitOptions { cluster_size, md_pages, ..InitOptions::default() };
            let InitError::TooSmall { needed, .. } = too_small(&device(0), &options) else {
                panic!("{options:?} fit a device")
            };
            assert!(plan(&device(needed), &options).unwrap().geometry.data_clusters() > 0, "{options:?}");
            let less = plan(&device(needed - u64::from(cluster_size)), &options);
            assert!(less.ok().is_none_or(|plan| plan.geometry.data_clusters() == 0), "{options:?}");
        }
    }

    #[test]
    fn options_by_which_metadata_takes_all_of_any_device_are_told_so() {
        for md_pages in [MdPages::OnePerCluster, MdPages::PerHundredClusters(300)] {
            let options = InitOptions { cluster_size: 4096, md_pages, ..InitOptions::default() };
            assert_eq!(too_small(&device(0), &options), InitError::AllMetadata);
            assert_eq!(plan(&device(1 << 30), &options).unwrap_err(), InitError::AllMetadata);
        }
    }

    #[test]
    fn a_metadata_page_that_the_format_does_not_know_is_refused_also_below_the_least() {
        for md_page_size in [512, 2048, 5000] {
            let error = plan(&device(64 << 20), &InitOptions { md_page_size, ..InitOptions::default() });
            assert!(error.unwrap_err().to_string().contains("a multiple of 4096"), "{md_page_size}");
        }
    }

    proptest! {
        #[test]
        fn options_never_panic_and_what_is_planned_can_be_loaded(
            size in prop_oneof![0_u64..1 << 30, any::<u64>()],
            block in prop_oneof![Just(512_u32), Just(4096), any::<u32>()],
            physical in prop_oneof![Just(4096_u32), Just(16384), any::<u32>()],
            cluster_size in prop_oneof![Just(1_u32 << 20), (1_u32..64).prop_map(|n| n * 4096), any::<u32>()],
            md_pages in prop_oneof![
                Just(MdPages::OnePerCluster),
                any::<u32>().prop_map(MdPages::PerHundredClusters),
                any::<u32>().prop_map(MdPages::Count),
            ],
            md_page_size in prop_oneof![Just(0_u32), Just(8192), any::<u32>()],
        ) {
            let device = DeviceShape { size, block_size: block, physical_block_size: physical };
            let options = InitOptions { cluster_size, md_pages, md_page_size, ..InitOptions::default() };
            let planned = plan(&device, &options);
            if !matches!(planned, Err(InitError::Option { .. })) {
                too_small(&device, &options);
            }
            if let Ok(plan) = planned {
                let parsed = SuperBlock::parse(&plan.super_block.to_bytes()).unwrap();
                prop_assert_eq!(&parsed, &plan.super_block);
                prop_assert_eq!(Geometry::from_super(&parsed, size).unwrap(), plan.geometry);
            }
        }
    }
}
