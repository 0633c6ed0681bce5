//! Stores that are right but unusual, and clean stores whose masks are wrong.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support;

use spindle_format::check::{Finding, Span, check};
use spindle_format::init::{DeviceShape, InitOptions, plan};
use spindle_format::{
    Bitmap, BlobId, BlobMetadata, Change, Geometry, LoadOptions, MaskKind, PageIdx, Region, SuperBlock,
    chain, grow, mask, unload,
};
use support::Image;
use support::builder::{Builder, SIZE};

/// A store with a thick blob of three clusters, and its id.
fn one_blob() -> (Builder, BlobId) {
    let mut store = Builder::new();
    let id = store.new_blob();
    let mut blob = BlobMetadata::new_thick();
    blob.map.resize(3);
    (0..3).for_each(|index| store.allocate(&mut blob, index));
    store.write_extents(id, &mut blob);
    store.write_root(id, &blob);
    (store, id)
}

fn unloaded(store: &Builder) -> Image {
    let mut store = store.clone();
    let super_block = store.plan.super_block.clone();
    store.unload(&super_block);
    store.image
}

#[test]
fn metadata_pages_larger_than_4096_bytes_count_with_their_first_4096() {
    let device = DeviceShape { size: SIZE, block_size: 4096, physical_block_size: 16384 };
    let plan = plan(&device, &InitOptions::default()).unwrap();
    let geometry = &plan.geometry;
    let mut image = Image::zeroed(SIZE);
    plan.changes.iter().for_each(|change| image.apply(change));
    let id = BlobId::from_page(PageIdx(0));
    let mut blob = BlobMetadata::new_thin();
    blob.map.resize(1);
    blob.xattrs.set(b"a", &[1; 3000]).unwrap();
    blob.xattrs.set(b"b", &[2; 3000]).unwrap();
    let at = [PageIdx(0), PageIdx(9)];
    let mut pages = chain::to_pages(id, &blob);
    chain::link(&mut pages, &at);
    for (page, index) in pages.iter().zip(at) {
        image.write(geometry.page_offset(index), page.bytes());
        // As SPDK leaves it: whatever followed in its buffer.
        image.write(geometry.page_offset(index) + 4096, &[0xEE; 4096]);
    }
    let store = image.load().unwrap();
    assert_eq!(store.blob(id).unwrap().metadata, blob);
    let in_use = unload::InUse {
        pages: &store.used_pages,
        blob_ids: &store.used_blob_ids,
        clusters: &store.used_clusters,
    };
    unload::changes(&plan.super_block, geometry, in_use).iter().for_each(|change| image.apply(change));
    let clean = image.load().unwrap();
    assert!(!clean.recovered);
    assert_eq!(clean.blobs, store.blobs);
    assert_eq!(check(&clean), []);
}

#[test]
fn stores_older_than_version_3_are_recovered_though_they_say_clean() {
    for version in [1, 2] {
        let (mut store, id) = one_blob();
        let old = SuperBlock {
            version,
            clean: true,
            used_blobid_mask: Region::default(),
            size: 0,
            io_unit_size: 0,
            md_page_size: 0,
            ..store.plan.super_block.clone()
        };
        store.image.write(0, &old.to_bytes());
        let loaded = store.image.load().unwrap();
        assert!(loaded.recovered);
        assert_eq!(loaded.geometry.size(), SIZE);
        assert_eq!(loaded.geometry.io_unit_size(), 4096);
        assert_eq!(loaded.blobs.keys().copied().collect::<Vec<_>>(), [id]);
        assert_eq!(loaded.free_clusters(), 60);
    }
}

#[test]
fn a_store_of_another_type_or_version_is_refused_by_name() {
    let (store, _) = one_blob();
    let wanted = spindle_format::super_block::BsType(*b"HELLO_PEER_BLOB\0");
    let options = LoadOptions { bs_type: Some(wanted), ..LoadOptions::default() };
    let error = store.image.load_with(options).unwrap_err().to_string();
    assert!(error.contains("LVOLSTORE") && error.contains("HELLO_PEER_BLOB"), "{error}");
    let mut image = store.image.clone();
    image.write(0, &SuperBlock { version: 4, ..store.plan.super_block.clone() }.to_bytes());
    let error = image.load().unwrap_err().to_string();
    assert_eq!(error, "super block at byte 0: version is 0x4, expected 1, 2 or 3");
}

#[test]
fn a_grown_device_gives_a_larger_store_up_to_the_room_of_its_mask() {
    let (mut store, id) = one_blob();
    let geometry = &store.plan.geometry;
    assert_eq!(grow::plan(&store.plan.super_block, geometry, SIZE), Ok(None));
    assert!(grow::plan(&store.plan.super_block, geometry, SIZE - 4096).is_err());
    let max = geometry.max_growable_size();
    assert_eq!(max, 34_317_795_328, "what SPDK says of a store with one page of mask");
    assert!(grow::plan(&store.plan.super_block, geometry, max + (1 << 20)).is_err());
    for size in [SIZE + (5 << 20) + 4096, max] {
        let (grown, larger) = grow::plan(&store.plan.super_block, geometry, size).unwrap().unwrap();
        assert_eq!(u64::from(larger.total_clusters()), size >> 20);
        store.image.len = size;
        store.image.write(0, &grown.to_bytes());
        let loaded = store.image.load().unwrap();
        assert_eq!(loaded.geometry, larger);
        assert!(loaded.blob(id).is_some());
    }
}

fn with_mask(image: &Image, geometry: &Geometry, kind: MaskKind, change: impl FnOnce(&mut Bitmap)) -> Image {
    let mut image = image.clone();
    let (offset, len) = geometry.bytes_of(geometry.mask(kind));
    let mut bits = mask::parse(kind, &image.read(offset, len as usize), geometry).unwrap();
    change(&mut bits);
    let write: Change = mask::write(kind, 0, &bits, geometry);
    image.apply(&write);
    image
}

#[test]
fn wrong_masks_of_a_clean_store_are_found_and_what_is_in_use_stays_so() {
    let (store, id) = one_blob();
    let (image, geometry) = (unloaded(&store), &store.plan.geometry);
    assert_eq!(check(&image.load().unwrap()), []);
    let set = |bit| move |bits: &mut Bitmap| assert!(bits.set(bit));
    let clear = |bit| move |bits: &mut Bitmap| assert!(bits.clear(bit));

    let leaked = with_mask(&image, geometry, MaskKind::UsedClusters, set(40)).load().unwrap();
    let span = |first| vec![Span { first, count: 1 }];
    assert_eq!(check(&leaked), [Finding::LeakedClusters { clusters: span(40) }]);
    assert_eq!(leaked.free_clusters(), 59);

    let leaked = with_mask(&image, geometry, MaskKind::UsedPages, set(30)).load().unwrap();
    assert_eq!(check(&leaked), [Finding::LeakedPages { pages: span(30) }]);

    for (kind, bit) in [(MaskKind::UsedClusters, 2), (MaskKind::UsedPages, 1)] {
        let missing = with_mask(&image, geometry, kind, clear(bit)).load().unwrap();
        let (offset, _) = geometry.bytes_of(geometry.mask(kind));
        assert_eq!(check(&missing), [Finding::UnmarkedInMask { kind, offset, bits: span(bit) }]);
        assert!(missing.used_clusters.get(2) && missing.used_pages.get(1));
        assert!(missing.blob(id).is_some(), "a page that no mask names is read too");
    }

    let unlisted = with_mask(&image, geometry, MaskKind::UsedBlobIds, clear(0)).load().unwrap();
    assert!(check(&unlisted).contains(&Finding::UnlistedBlob { blob: id }));
}

#[test]
fn a_mask_that_cannot_be_one_is_reported_and_the_metadata_is_read_instead() {
    let (store, id) = one_blob();
    let mut image = unloaded(&store);
    image.write(2 * 4096, &[9]);
    let loaded = image.load().unwrap();
    assert!(loaded.was_clean() && loaded.recovered && loaded.blob(id).is_some());
    let text = check(&loaded)[0].to_string();
    assert_eq!(text, "used clusters mask at byte 8192: type is 0x9, expected 1");
    // A mask that is longer than the store is what a failed growth leaves: it is cut.
    let mut image = unloaded(&store);
    image.write(2 * 4096 + 1, &100_u32.to_le_bytes());
    assert_eq!(check(&image.load().unwrap()), []);
}

#[test]
fn a_read_that_fails_damages_only_what_lies_there() {
    let (store, _) = one_blob();
    let image = unloaded(&store);
    let mut loader = spindle_format::Loader::new(image.len, LoadOptions::default());
    let root = store.plan.geometry.page_offset(PageIdx(0));
    while let Some(range) = loader.next_read() {
        match range.offset == root {
            true => loader.read_failed(range),
            false => loader.supply(range, &image.read(range.offset, range.len)),
        }
    }
    let loaded = loader.finish().unwrap();
    assert_eq!(loaded.damaged.len(), 1);
    assert!(loaded.damaged[0].errors[0].to_string().ends_with("could not be read from the device"));
    assert_eq!(loaded.allocation_blocked, None, "the masks of a clean store say what is in use");
}
