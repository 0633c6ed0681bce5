//! `check`, `check --repair` and `undo`: each kind of damage in an image that SPDK wrote.

use super::support::{HELLO, Image, change_page, on, page_of, unpack};
use super::writing::{contents, in_order};
use serde_json::Value;
use spindle_format::metadata::internal;
use spindle_format::{
    Bitmap, BlobId, BlobMetadata, ByteRange, Flags, Loader, MaskKind, PageIdx, Store, SuperBlock, chain, mask,
};
use std::fs;

/// Blobs of the small fixture. Alpha and eta are clones of the snapshot.
pub const ALPHA: u64 = 0x1_0000_0000;
pub const BETA: u64 = 0x1_0000_0002;
pub const GAMMA: u64 = 0x1_0000_0004;
const DELTA: u64 = 0x1_0000_0005;
pub const SNAPSHOT: u64 = 0x1_0000_0009;
const ETA: u64 = 0x1_0000_000b;

/// A page that nothing uses.
const FREE: u32 = 6;

pub fn load(bytes: &[u8]) -> Store {
    let mut loader = Loader::new(bytes.len() as u64, Default::default());
    while let Some(range) = loader.next_read() {
        let ByteRange { offset, len } = range;
        loader.supply(range, &bytes[offset as usize..][..len]);
    }
    loader.finish().unwrap()
}

/// Changes what a blob says of itself; its chain goes on in these pages.
pub fn rewrite(bytes: &mut [u8], id: u64, more: &[u32], change: impl FnOnce(&mut BlobMetadata)) {
    let store = load(bytes);
    let blob = store.blob(BlobId::from_raw(id)).unwrap();
    let mut meta = blob.metadata.clone();
    change(&mut meta);
    let mut pages = chain::to_pages(blob.id, &meta);
    let at: Vec<PageIdx> = blob.chain.iter().copied().chain(more.iter().map(|&page| PageIdx(page))).collect();
    chain::link(&mut pages, &at);
    at.iter().zip(&pages).for_each(|(&at, page)| page.write(at, &store.geometry).apply(bytes));
}

/// Gives gamma a chain of two pages.
fn long_chain(bytes: &mut [u8]) {
    rewrite(bytes, GAMMA, &[FREE], |meta| meta.xattrs.set(b"long", &[b'x'; 3000]).unwrap());
    change_mask(bytes, MaskKind::UsedPages, |bits| assert!(bits.set(FREE)));
}

pub fn change_mask(bytes: &mut [u8], kind: MaskKind, change: impl FnOnce(&mut Bitmap)) {
    let store = load(bytes);
    let masks = store.disk_masks.unwrap();
    let mut bits = match kind {
        MaskKind::UsedPages => masks.used_pages,
        MaskKind::UsedClusters => masks.used_clusters,
        MaskKind::UsedBlobIds => masks.used_blob_ids,
    };
    change(&mut bits);
    // It is small: one write.
    mask::write(kind, 0, &bits, &store.geometry).apply(bytes);
}

pub fn change_super(bytes: &mut [u8], change: impl FnOnce(&mut SuperBlock)) {
    let store = load(bytes);
    let mut block = store.super_block;
    change(&mut block);
    block.write(&store.geometry).apply(bytes);
}

/// Where the metadata page of a blob's first clusters lies.
pub fn extent_page(bytes: &[u8], id: u64) -> usize {
    let store = load(bytes);
    let page = store.blob(BlobId::from_raw(id)).unwrap().metadata.map.extent_pages().next().unwrap().1;
    page.0 as usize
}

/// The findings of a check, by their codes.
pub fn codes(image: &Image, arguments: &[&str]) -> Vec<String> {
    let ended = on(image, "check", &[arguments, &["--json"]].concat());
    let found: Value = serde_json::from_slice(&ended.out).unwrap_or_else(|_| panic!("{}", ended.err));
    let found = found.as_array().unwrap();
    let bad = found.iter().any(|one| one["severity"] != "pending");
    assert_eq!(ended.code, if bad { 4 } else { 0 }, "{found:?} {}", ended.err);
    for one in found {
        for said in ["what", "meaning", "remedy"] {
            assert!(one[said].as_str().unwrap().len() > 10, "{one}");
        }
    }
    found.iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
}

/// Damage that a repair takes away: it is found, mended, and nothing else is; and that can be taken back.
#[track_caller]
fn is_mended(code: &str, damage: impl FnOnce(&mut [u8])) {
    let mut bytes = HELLO.clone();
    damage(&mut bytes);
    let image = Image::new(&bytes);
    let damaged = image.sha256();
    assert!(codes(&image, &[]).iter().any(|found| found == code), "{code}: {:?}", codes(&image, &[]));
    assert_eq!(image.sha256(), damaged, "{code}: a check writes nothing");
    let before = contents(&image, "theta");
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0], "{code} is repaired");
    assert_eq!(codes(&image, &[]), [] as [&str; 0], "{code} stays mended");
    in_order(&image);
    assert_eq!(contents(&image, "theta"), before);
    take_back(&image, &damaged);
}

/// Damage that may hide anything: reported, and left as it is.
#[track_caller]
fn is_left(code: &str, damage: impl FnOnce(&mut [u8])) {
    let mut bytes = HELLO.clone();
    damage(&mut bytes);
    let image = Image::new(&bytes);
    let damaged = image.sha256();
    let found = codes(&image, &[]);
    assert!(found.iter().any(|found| found == code), "{code}: {found:?}");
    assert_eq!(codes(&image, &["--repair"]), found, "{code} is left");
    assert_eq!(image.sha256(), damaged, "{code}: nothing is written");
    assert!(!image.beside("store.img.undo").exists());
}

#[track_caller]
fn take_back(image: &Image, damaged: &str) {
    let undo = image.beside("store.img.undo");
    let ended = on(image, "undo", &[undo.to_str().unwrap()]);
    assert_eq!((ended.code, image.sha256().as_str()), (0, damaged), "{}", ended.err);
}

#[test]
fn nothing_is_found_on_what_spdk_left_in_order() {
    for name in ["hello", "lvs", "many", "steps/7-unloaded"] {
        let image = Image::fixture(name);
        let ended = on(&image, "check", &[]);
        assert_eq!((ended.code, ended.text(), ended.err.as_str()), (0, "", ""), "{name}");
    }
}

#[test]
fn a_store_that_was_not_left_in_order_is_recovered_by_a_repair() {
    let image = Image::new(&unpack("dirty"));
    let dirty = image.sha256();
    let ended = on(&image, "check", &[]);
    assert_eq!((ended.code, ended.text()), (0, ""));
    assert!(ended.err.contains("not unloaded cleanly"), "{}", ended.err);
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
    in_order(&image);
    take_back(&image, &dirty);
}

#[test]
fn masks_that_are_wrong_are_rewritten() {
    is_mended("leaked-clusters", |bytes| {
        change_mask(bytes, MaskKind::UsedClusters, |bits| assert!(bits.set(40)));
    });
    is_mended("leaked-pages", |bytes| change_mask(bytes, MaskKind::UsedPages, |bits| assert!(bits.set(40))));
    is_mended("unmarked-clusters", |bytes| {
        change_mask(bytes, MaskKind::UsedClusters, |bits| assert!(bits.clear(9)));
    });
    is_mended("unmarked-pages", |bytes| {
        change_mask(bytes, MaskKind::UsedPages, |bits| assert!(bits.clear(1)))
    });
    is_mended("unlisted-blob", |bytes| {
        change_mask(bytes, MaskKind::UsedBlobIds, |bits| assert!(bits.clear(5)));
    });
    is_mended("mask-unusable", |bytes| bytes[4096] ^= 0xff);
}

#[test]
fn what_a_blob_says_wrongly_of_itself_is_put_right() {
    is_mended("writable-parent", |bytes| {
        rewrite(bytes, SNAPSHOT, &[], |meta| meta.flags.data_read_only &= !Flags::READ_ONLY);
    });
    // The flags follow 5 bytes of their descriptor, the first.
    is_mended("map-flag", |bytes| change_page(bytes, 2, |page| page[16 + 5] &= !(Flags::EXTENT_TABLE as u8)));
    is_mended("dead-link", |bytes| {
        rewrite(bytes, DELTA, &[], |meta| {
            meta.set_internal(internal::SNAPSHOT, &SNAPSHOT.to_le_bytes()).unwrap();
        });
    });
    is_mended("missing-super-blob", |bytes| {
        change_super(bytes, |block| block.super_blob = Some(BlobId::from_raw(0x1_0000_0030)));
    });
    is_mended("unresolved-marker", |bytes| {
        rewrite(bytes, SNAPSHOT, &[], |meta| {
            meta.set_internal(internal::SNAPSHOT_PENDING_REMOVAL, &0x1_0000_0030_u64.to_le_bytes()).unwrap();
        });
    });
}

#[test]
fn a_blob_with_a_chain_of_two_pages_is_rewritten_into_free_ones() {
    is_mended("dead-link", |bytes| {
        long_chain(bytes);
        rewrite(bytes, GAMMA, &[], |meta| {
            meta.set_internal(internal::SNAPSHOT, &SNAPSHOT.to_le_bytes()).unwrap();
        });
    });
}

#[test]
fn half_done_operations_are_finished_by_a_repair() {
    is_mended("half-made-snapshot", |bytes| {
        rewrite(bytes, SNAPSHOT, &[], |meta| {
            meta.flags.data_read_only = 0;
            meta.set_internal(internal::SNAPSHOT_IN_PROGRESS, &ALPHA.to_le_bytes()).unwrap();
        });
        rewrite(bytes, ETA, &[], |meta| {
            meta.remove_internal(internal::SNAPSHOT);
        });
    });
}

#[test]
fn two_owners_are_named_and_left() {
    is_left("shared-cluster", |bytes| {
        let page = extent_page(bytes, BETA);
        // Beta's third cluster is delta's first now.
        change_page(bytes, page, |page| page[16 + 9 + 8..][..4].copy_from_slice(&8_u32.to_le_bytes()));
    });
    is_left("shared-page", |bytes| {
        let page = extent_page(bytes, BETA) as u32;
        rewrite(bytes, ALPHA, &[], |meta| meta.map.set_extent_page(0, PageIdx(page)));
    });
}

#[test]
fn every_way_in_which_a_root_or_chain_can_be_broken_has_its_name() {
    is_left("root-crc", |bytes| page_of(bytes, 5)[100] ^= 1);
    is_left("root-missing", |bytes| page_of(bytes, 5).fill(0));
    is_left("root-foreign", |bytes| change_page(bytes, 5, |page| page[0] = 7));
    is_left("blob-contents", |bytes| change_page(bytes, 5, |page| page[17] = 0xff));
    let chain = |change: fn(&mut [u8])| {
        move |bytes: &mut [u8]| {
            long_chain(bytes);
            change(bytes);
        }
    };
    is_left("chain-crc", chain(|bytes| page_of(bytes, FREE as usize)[99] ^= 1));
    is_left("chain-broken", chain(|bytes| page_of(bytes, FREE as usize).fill(0)));
    is_left("chain-foreign-page", chain(|bytes| change_page(bytes, FREE as usize, |page| page[0] ^= 1)));
    is_left("chain-sequence", chain(|bytes| change_page(bytes, FREE as usize, |page| page[8] = 9)));
    let next = |page: usize, to: u32| {
        move |bytes: &mut [u8]| {
            long_chain(bytes);
            change_page(bytes, page, |page| page[4088..4092].copy_from_slice(&to.to_le_bytes()));
        }
    };
    is_left("chain-out-of-range", next(4, 5000));
    is_left("chain-loop", next(FREE as usize, 4));
}

#[test]
fn every_way_in_which_a_map_can_be_broken_has_its_name() {
    is_left("extent-crc", |bytes| {
        let page = extent_page(bytes, BETA);
        page_of(bytes, page)[200] ^= 1;
    });
    is_left("extent-missing", |bytes| {
        let page = extent_page(bytes, BETA);
        page_of(bytes, page).fill(0);
    });
    is_left("extent-contents", |bytes| {
        let page = extent_page(bytes, BETA);
        change_page(bytes, page, |page| page[16] = 1);
    });
}

#[test]
fn links_that_lead_nowhere_or_in_circles_are_named_and_left() {
    is_left("orphaned-clone", |bytes| {
        rewrite(bytes, ALPHA, &[], |meta| {
            meta.set_internal(internal::SNAPSHOT, &0x1_0000_0030_u64.to_le_bytes()).unwrap();
        });
    });
    is_left("unknown-descriptor", |bytes| {
        change_page(bytes, 5, |page| {
            let end = page[16..4088].iter().rposition(|&byte| byte != 0).unwrap() + 17 + 8;
            page[end] = 0;
            // Behind delta's run-length list, which ends in the length of its last run.
            let list =
                page.windows(5).position(|bytes| bytes[0] == 1 && bytes[1..5] == [8, 0, 0, 0]).unwrap();
            page[list + 13..list + 18].copy_from_slice(&[99, 0, 0, 0, 0]);
        });
    });
    let mut bytes = HELLO.clone();
    for (clone, parent) in [(ALPHA, ETA), (ETA, ALPHA)] {
        rewrite(&mut bytes, clone, &[], |meta| {
            meta.set_internal(internal::SNAPSHOT, &parent.to_le_bytes()).unwrap();
        });
    }
    assert!(codes(&Image::new(&bytes), &[]).contains(&"parent-circle".to_owned()));
}

#[test]
fn a_damaged_blob_that_is_given_up_frees_what_it_held() {
    let mut bytes = HELLO.clone();
    page_of(&mut bytes, 5)[100] ^= 1;
    let image = Image::new(&bytes);
    let damaged = image.sha256();
    let free = |image: &Image| on(image, "info", &["--json"]).json()["free_clusters"].as_u64().unwrap();
    let before = free(&image);
    assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000005"]), [] as [&str; 0]);
    in_order(&image);
    assert_eq!(free(&image), before + 3);
    take_back(&image, &damaged);

    on(&image, "check", &["--repair", "--give-up", "0x100000009"])
        .fails(1, &["0x100000009", "reads through it"]);
    on(&image, "check", &["--repair", "--give-up", "0x100000030"])
        .fails(1, &["0x100000030", "not in the store"]);
    assert_eq!(image.sha256(), damaged);
}

#[test]
fn a_check_says_what_it_found_what_that_means_and_what_a_repair_would_do() {
    let mut bytes = HELLO.clone();
    change_mask(&mut bytes, MaskKind::UsedClusters, |bits| assert!(bits.set(40)));
    let image = Image::new(&bytes);
    let ended = on(&image, "check", &[]);
    assert_eq!(ended.code, 4);
    for word in ["leaked-clusters", "40", "means", "repair", "1 finding"] {
        assert!(ended.text().contains(word), "{word:?} is missing in: {}", ended.text());
    }
    assert!(ended.err.contains("store.img has 1 finding"), "{}", ended.err);
    on(&Image::new(&[7; 1 << 20]), "check", &[]).fails(1, &["super block at byte 0"]);
}

#[test]
fn an_undo_refuses_an_image_that_was_changed_since_and_a_file_that_is_none() {
    let mut bytes = HELLO.clone();
    change_mask(&mut bytes, MaskKind::UsedClusters, |bits| assert!(bits.set(40)));
    let image = Image::new(&bytes);
    let damaged = image.sha256();
    let undo = image.beside("kept");
    let undo = undo.to_str().unwrap();
    assert_eq!(codes(&image, &["--repair", "--undo", undo]), [] as [&str; 0]);
    assert_eq!(on(&image, "check", &["--repair", "--undo", undo]).code, 0, "nothing to keep");
    assert_eq!(on(&image, "resize", &["beta", "9M"]).code, 0);
    on(&image, "undo", &[undo]).fails(1, &["store.img", "changed", "--force"]);
    let forced = on(&image, "undo", &[undo, "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
    fs::write(image.beside("kept"), b"SPINDLE UNDO 1\n\0").unwrap();
    on(&image, "undo", &[undo]).fails(1, &["kept", "not an undo file"]);
    // Without end: looked at, not read.
    on(&image, "undo", &["/dev/zero"]).fails(1, &["/dev/zero", "not an undo file"]);
    let large = image.beside("large");
    std::fs::File::create(&large).unwrap().set_len(1 << 43).unwrap();
    on(&image, "undo", &[large.to_str().unwrap()]).fails(1, &["large", "not an undo file"]);

    // What an undo that was cut off left is no change.
    fs::write(image.path(), &bytes).unwrap();
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
    let half = [&bytes[..4096], &fs::read(image.path()).unwrap()[4096..]].concat();
    fs::write(image.path(), half).unwrap();
    take_back(&image, &damaged);
}

#[test]
fn giving_up_a_blob_clears_no_page_that_another_blob_names() {
    let mut bytes = HELLO.clone();
    long_chain(&mut bytes);
    change_mask(&mut bytes, MaskKind::UsedBlobIds, |bits| assert!(bits.set(FREE)));
    let image = Image::new(&bytes);
    let found = codes(&image, &[]);
    assert!(!found.is_empty(), "there is a page of gamma's chain where a blob's root should be");
    assert_eq!(on(&image, "check", &["--repair", "--give-up", "0x100000006"]).code, 0);
    assert_eq!(codes(&image, &[]), [] as [&str; 0]);
    let store = load(&fs::read(image.path()).unwrap());
    let gamma = store.blob(BlobId::from_raw(GAMMA)).unwrap();
    assert_eq!(gamma.metadata.xattrs.get(b"long").map(<[u8]>::len), Some(3000));
}
