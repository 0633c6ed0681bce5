//! Stores that no fixture has, made here byte by byte.

use super::support::{FIRST_ID, HELLO, Image, on};
use serde_json::json;
use spindle_format::page::{DESCRIPTORS_OFFSET, Page};
use spindle_format::super_block::BsType;
use spindle_format::{BlobId, Region, SuperBlock};

const CLUSTER: usize = 1 << 20;

/// A dirty store of 16 clusters whose metadata slots have 16 KiB, as SPDK makes them on a disk with physical
/// blocks of 16 KiB; it has one blob, at page 3, whose two clusters are 9 and 5 of the device.
fn large_slots() -> Vec<u8> {
    let region = |start, len| Region { start, len };
    let block = SuperBlock {
        version: 3,
        clean: false,
        super_blob: None,
        cluster_size: CLUSTER as u32,
        used_page_mask: region(1, 1),
        used_cluster_mask: region(2, 1),
        used_blobid_mask: region(3, 1),
        metadata: region(4, 32),
        bs_type: BsType::default(),
        size: 16 * CLUSTER as u64,
        io_unit_size: 512,
        md_page_size: 16384,
    };
    let mut page = Page::new(BlobId::from_raw(FIRST_ID + 3), 0);
    let flags = [&[3, 24, 0, 0, 0][..], &[0; 24]].concat();
    let runs = [9_u32, 1, 5, 1].map(u32::to_le_bytes).concat();
    let descriptors = [&flags[..], &[1, 16, 0, 0, 0], &runs].concat();
    page.descriptor_bytes_mut()[..descriptors.len()].copy_from_slice(&descriptors);
    page.seal();
    let mut image = vec![0; 16 * CLUSTER];
    image[..4096].copy_from_slice(&block.to_bytes());
    let at = (4 + 3) * 16384;
    image[at..at + 4096].copy_from_slice(page.bytes());
    // Whatever SPDK leaves behind the first 4096 bytes of a slot must not matter.
    image[at + 4096..at + 8192].fill(0xEE);
    image[9 * CLUSTER..10 * CLUSTER].fill(0x99);
    image[5 * CLUSTER..6 * CLUSTER].fill(0x55);
    image
}

#[test]
fn metadata_slots_larger_than_a_page_are_found_where_they_lie() {
    let image = Image::new(&large_slots());
    let listed = on(&image, "ls", &["--json"]).json();
    assert_eq!(listed[0]["id"], json!(FIRST_ID + 3));
    assert_eq!(listed[0]["name"], json!(null));
    assert_eq!(listed[0]["allocated_clusters"], 2);
    let exported = on(&image, "export", &["0x100000003", "-"]).out;
    assert_eq!(exported.len(), 2 * CLUSTER);
    assert!(exported[..CLUSTER].iter().all(|&byte| byte == 0x99), "in the order of the blob");
    assert!(exported[CLUSTER..].iter().all(|&byte| byte == 0x55));
    let dump = on(&image, "dump", &[]);
    let at = (4 + 3) * 16384;
    assert!(dump.text().contains(&format!("metadata page 3 at byte {at}: root of blob 0x100000003")));
    assert!(dump.text().contains(&format!("  byte {}: flags", at + DESCRIPTORS_OFFSET)));
    assert!(dump.text().contains("clusters 9, 5"), "{}", dump.text());
    assert!(on(&image, "info", &[]).text().contains("16 KiB each"));
}

#[test]
fn masks_that_make_no_sense_are_named_and_the_store_is_read_without_them() {
    let whole = Image::new(&HELLO);
    let mut bytes = HELLO.clone();
    // The used-clusters mask of the small fixture begins at its third page: another type.
    bytes[2 * 4096] = 7;
    let image = Image::new(&bytes);
    let info = on(&image, "info", &["--json"]).json();
    assert_eq!((&info["clean"], &info["recovered"]), (&json!(true), &json!(true)));
    let error = info["mask_errors"][0].as_str().unwrap();
    assert!(error.contains("used clusters mask at byte 8192") && error.contains("type"), "{error}");
    assert!(on(&image, "info", &[]).text().contains("Masks that cannot be used"));
    assert!(on(&image, "dump", &[]).text().contains("used clusters mask at byte 8192: type is 0x7"));
    assert_eq!(on(&image, "ls", &["--json"]).json(), on(&whole, "ls", &["--json"]).json());
    assert_eq!(info["free_clusters"], on(&whole, "info", &["--json"]).json()["free_clusters"]);
}
