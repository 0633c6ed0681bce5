//! Pages written and read back, and broken where SPDK breaks them.
#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use super::*;
use crate::cluster_map::{ClusterMap, Leaf};
use crate::geometry::Geometry;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::init::{DeviceShape, InitOptions, plan};
use crate::metadata::{BlobMetadata, Flags, Xattrs};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn geometry() -> Geometry {
    let device = DeviceShape { size: 8 * GIB, block_size: 512, physical_block_size: 512 };
    plan(&device, &InitOptions::default()).unwrap().geometry
}

fn xattrs(max: usize) -> impl Strategy<Value = Xattrs> {
    let value = prop_oneof![3 => 0_usize..40, 1 => 0_usize..4060];
    proptest::collection::vec((0_u8..200, value), 0..max).prop_map(|list| {
        let mut xattrs = Xattrs::new();
        for (name, len) in list {
            xattrs.set(&[b'a' + name % 26, b'0' + name / 26], &vec![name; len]).unwrap();
        }
        xattrs
    })
}

fn map() -> impl Strategy<Value = ClusterMap> {
    let sets = proptest::collection::vec((0_u64..600_000, 40_u32..8000), 0..700);
    (any::<bool>(), 0_u64..600_000, sets).prop_map(|(table, size, sets)| {
        let mut map = if table { ClusterMap::new_table() } else { ClusterMap::new_rle() };
        map.resize(size);
        for (index, cluster) in sets {
            map.set(index, Some(ClusterIdx(cluster)));
        }
        let slots: Vec<u32> = map.leaves().iter().map(|leaf| leaf.slot).collect();
        for slot in slots {
            map.set_extent_page(slot, PageIdx(1000 + slot));
        }
        map
    })
}

/// Reads a chain and its extent pages back the way a loader does.
fn decode(pages: &[crate::page::Page], at: &[PageIdx], original: &ClusterMap) -> BlobMetadata {
    let geometry = geometry();
    let mut decoder = ChainDecoder::new(&geometry);
    for (page, &index) in pages.iter().zip(at) {
        decoder.page(page, index).unwrap();
    }
    let parts = decoder.finish(geometry.page_place(at[0])).unwrap();
    let map = match parts.map {
        MapShape::Rle(list) => list,
        MapShape::Table { num_clusters, slots } => {
            let mut table = ClusterMap::table_of(num_clusters, slots.len());
            for ExtentSlot { slot, page } in slots {
                let leaf = original.leaves().iter().find(|leaf| leaf.slot == slot).unwrap();
                let raw = extent_page(BlobId::from_raw(0), slot * 512, &leaf.clusters.to_vec());
                let extent = decode_extent_page(&raw, page, &geometry).unwrap();
                assert_eq!(extent.start_cluster, slot * 512);
                table.push_leaf(Leaf { slot, page: Some(page), clusters: extent.clusters });
            }
            table
        }
    };
    BlobMetadata { flags: parts.flags, xattrs: parts.xattrs, internal: parts.internal, map }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_blob_is_the_same_after_its_pages_were_read_back(
        xattrs in xattrs(8), internal in xattrs(3), map in map(), clear in 0_u64..4,
    ) {
        let table = if map.is_table() { Flags::EXTENT_TABLE } else { 0 };
        let flags = Flags { invalid: Flags::THIN | table, data_read_only: 1, metadata_read_only: clear };
        let blob = BlobMetadata { flags, xattrs, internal, map };
        let id = BlobId::from_page(PageIdx(7));
        let mut pages = to_pages(id, &blob);
        let at: Vec<PageIdx> = (7..).take(pages.len()).map(PageIdx).collect();
        link(&mut pages, &at);
        for (sequence, page) in pages.iter().enumerate() {
            prop_assert!(page.crc_ok());
            prop_assert_eq!(page.id(), id);
            prop_assert_eq!(page.sequence() as usize, sequence);
            prop_assert_eq!(page.next(), at.get(sequence + 1).copied());
        }
        prop_assert_eq!(decode(&pages, &at, &blob.map), blob);
    }
}

#[test]
fn the_flag_says_what_kind_of_map_is_written_and_of_which_kind_an_empty_blob_is() {
    let at = [PageIdx(7)];
    for table in [false, true] {
        for said in [0, Flags::EXTENT_TABLE] {
            let mut blob = BlobMetadata::new_thin();
            blob.flags.invalid = Flags::THIN | said;
            blob.map = if table { ClusterMap::new_table() } else { ClusterMap::new_rle() };
            blob.map.resize(3);
            let mut pages = to_pages(BlobId::from_page(at[0]), &blob);
            link(&mut pages, &at);
            let read = decode(&pages, &at, &blob.map);
            assert_eq!((read.map.is_table(), read.flags.invalid & Flags::EXTENT_TABLE != 0), (table, table));
        }
        // No descriptor of a map, as SPDK leaves it where a table without clusters does not fit.
        let mut empty = BlobMetadata::new_thin();
        empty.map = ClusterMap::new_rle();
        let mut pages = to_pages(BlobId::from_page(at[0]), &empty);
        pages[0].descriptor_bytes_mut()[5] = if table { Flags::EXTENT_TABLE as u8 } else { 0 };
        assert_eq!(decode(&pages, &at, &empty.map).map.is_table(), table);
    }
}

#[test]
fn four_xattrs_of_3000_bytes_break_pages_where_spdk_breaks_them() {
    let mut blob = BlobMetadata::new_thick();
    for name in [b"x0", b"x1", b"x2", b"x3"] {
        blob.xattrs.set(name, &[1; 3000]).unwrap();
    }
    let pages = to_pages(BlobId::from_page(PageIdx(0)), &blob);
    let starts: Vec<[u8; 2]> =
        pages.iter().map(|page| [page.descriptor_bytes()[0], page.descriptor_bytes()[29]]).collect();
    assert_eq!(pages.len(), 4);
    assert_eq!(starts[0], [3, 2], "flags, then the first xattr");
    assert!(starts[1..].iter().all(|start| start[0] == 2), "one xattr at the head of every further page");
    assert_eq!(pages[3].descriptor_bytes()[9 + 3002], 5, "the extent table follows the last xattr");
}

#[test]
fn an_xattr_may_fill_a_page_and_not_one_byte_more() {
    let mut xattrs = Xattrs::new();
    assert!(xattrs.set(b"n", &[0; 4062]).is_ok());
    assert!(xattrs.set(b"n", &[0; 4063]).is_err());
}

#[test]
fn flags_that_follow_a_map_do_not_take_back_that_clusters_may_be_missing() {
    let geometry = geometry();
    let missing = |table: bool, last: Flags| {
        let mut blob = BlobMetadata::new_thin();
        blob.map = if table { ClusterMap::new_table() } else { ClusterMap::new_rle() };
        blob.map.resize(3);
        let mut page = to_pages(BlobId::from_page(PageIdx(7)), &blob).remove(0);
        // Both maps end with a number below 256, of four bytes.
        let end = page.descriptor_bytes().iter().rposition(|byte| *byte != 0).unwrap() + 4;
        let bytes = page.descriptor_bytes_mut();
        bytes[end..end + 5].copy_from_slice(&[3, 24, 0, 0, 0]);
        bytes[end + 5..end + 13].copy_from_slice(&last.invalid.to_le_bytes());
        let mut decoder = ChainDecoder::new(&geometry);
        decoder.page(&page, PageIdx(7)).map_err(|error| error.to_string())
    };
    for table in [false, true] {
        let thin = Flags { invalid: Flags::THIN, ..Flags::default() };
        assert_eq!(missing(table, thin), Ok(()));
        let refused = missing(table, Flags::default()).unwrap_err();
        assert!(refused.contains("clusters are missing, but the blob is not thin"), "{refused}");
    }
}
