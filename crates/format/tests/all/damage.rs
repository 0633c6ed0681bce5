//! Damage is told from what a crash leaves, and what SPDK asks of an lvolstore is known.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support::Image;
use crate::support::builder::Builder;
use spindle_format::check::{Cause, Finding, LvolFault, Medium, check, examine};
use spindle_format::page::Page;
use spindle_format::repair::{PageCopy, RepairReason, SectorSums};
use spindle_format::{BlobId, BlobMetadata, PageIdx, chain};

impl Medium for Image {
    fn bytes(&self) -> u64 {
        self.len
    }

    fn block_size(&self) -> u32 {
        512
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.read_into(offset, into);
        true
    }
}

/// A store with a thick blob of three clusters, and its id.
fn one_blob() -> (Builder, BlobId, BlobMetadata) {
    let mut store = Builder::new();
    let id = store.new_blob();
    let mut blob = BlobMetadata::new_thick();
    blob.map.resize(3);
    (0..3).for_each(|index| store.allocate(&mut blob, index));
    store.write_extents(id, &mut blob);
    store.write_root(id, &blob);
    (store, id, blob)
}

fn page_offset(store: &Builder, page: u32) -> u64 {
    store.plan.geometry.page_offset(PageIdx(page))
}

/// Flips a bit of a page, and puts its CRC right if it is to be believed.
fn flip(store: &mut Builder, page: u32, bit: usize, sealed: bool) {
    let offset = page_offset(store, page);
    let mut bytes = store.image.read(offset, 4096);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let mut changed = Page::view(&bytes).unwrap().clone();
    if sealed {
        changed.seal();
    }
    store.image.write(offset, changed.bytes());
}

#[test]
fn a_root_whose_header_was_hit_is_named_and_so_is_that_it_was_there_before() {
    for unloaded_before in [false, true] {
        let (mut store, id, _) = one_blob();
        let super_block = store.plan.super_block.clone();
        if unloaded_before {
            store.unload(&super_block);
            store.image.write(0, &super_block.to_bytes());
        }
        let offset = page_offset(&store, 0);
        let whole = store.image.read(offset, 4096);
        for (bit, sealed) in (0..96).flat_map(|bit| [(bit, false), (bit, true)]) {
            store.image.write(offset, &whole);
            flip(&mut store, 0, bit, sealed);
            let loaded = store.image.load().unwrap();
            assert_eq!(loaded.damaged.len(), 1, "bit {bit}, sealed {sealed}");
            assert_eq!(loaded.damaged[0].id, id);
            assert_eq!(loaded.allocation_blocked.clone().unwrap().blobs, [id]);
            let Finding::DamagedBlob { cause, .. } = &check(&loaded)[0] else { panic!("no damage") };
            let expected = match (sealed, bit) {
                (false, _) => Cause::RootCrc,
                (true, 0..64) => Cause::RootForeign,
                (true, _) => Cause::ChainSequence,
            };
            assert_eq!(*cause, expected, "bit {bit}, sealed {sealed}");
            let said = loaded.damaged[0].errors.iter().any(|error| error.to_string().contains("had a blob"));
            // A page that still says that it is a root needs no mask to say so.
            assert!(!said || unloaded_before);
            if unloaded_before {
                assert!(said, "bit {bit}, sealed {sealed}: {:?}", loaded.damaged[0].errors);
            }
        }
    }
}

/// All that a program may have put into a page that nobody names any more, or nobody names yet.
fn contents_of_free_pages(at: PageIdx) -> Vec<Page> {
    let other = BlobId::from_page(PageIdx(50));
    let extents = chain::extent_page(other, 512, &(1..400).collect::<Vec<u32>>());
    let mut long = BlobMetadata::new_thin();
    for name in [b"a", b"b"] {
        long.xattrs.set(name, &[7; 3500]).unwrap();
    }
    let mut pages = chain::to_pages(other, &long);
    let places: Vec<PageIdx> = [50, at.0, 51].into_iter().take(pages.len()).map(PageIdx).collect();
    chain::link(&mut pages, &places);
    let old = SectorSums::of(&extents);
    let root = pages[0].clone();
    let mut full = root.clone();
    full.descriptor_bytes_mut().fill(9);
    full.seal();
    let copies = [root, full].map(|page| PageCopy::new(PageIdx(52), page, old).to_pages());
    let sums = copies.iter().filter_map(|copy| copy.sums_for(PageIdx(53))).collect::<Vec<Page>>();
    assert_eq!(sums.len(), 1);
    let nothing = Page::view(&[0; 4096]).unwrap().clone();
    [nothing, extents, pages.swap_remove(1)]
        .into_iter()
        .chain(copies.map(|copy| copy.copy))
        .chain(sums)
        .collect()
}

#[test]
fn no_tear_of_a_page_that_nobody_names_is_taken_for_damage() {
    let (mut store, ..) = one_blob();
    let at = PageIdx(30);
    let offset = page_offset(&store, at.0);
    let all = contents_of_free_pages(at);
    for old in &all {
        for new in &all {
            for sectors in 0..256_u32 {
                let mut bytes = *old.bytes();
                for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
                    let range = sector * 512..(sector + 1) * 512;
                    bytes[range.clone()].copy_from_slice(&new.bytes()[range]);
                }
                store.image.write(offset, &bytes);
                let loaded = store.image.load().unwrap();
                let wrong: Vec<Finding> =
                    check(&loaded).into_iter().filter(|one| !matches!(one, Finding::Pending(_))).collect();
                assert_eq!(wrong, [], "sectors {sectors:#b} of {new:?} over {old:?}");
                assert_eq!(loaded.allocation_blocked, None);
            }
        }
    }
}

#[test]
fn an_extent_page_that_goes_on_with_clusters_in_use_shows_that_its_root_is_old() {
    let (mut store, id, blob) = one_blob();
    let page = blob.map.extent_pages().next().unwrap().1;
    let longer = [1, 2, 3, 9];
    store.image.write(page_offset(&store, page.0), chain::extent_page(id, 0, &longer).bytes());
    let super_block = store.plan.super_block.clone();
    let free = {
        let mut store = store.clone();
        store.unload(&super_block);
        store.image
    };
    let loaded = free.load().unwrap();
    assert_eq!(loaded.damaged, []);
    let cut = RepairReason::CutExtentPage { blob: id, clusters: 3 };
    assert!(loaded.repairs.iter().any(|repair| repair.reason == cut));
    // In use, and nobody else's.
    assert!(store.clusters.set(9));
    store.unload(&super_block);
    let loaded = store.image.load().unwrap();
    let [Finding::DamagedBlob { blob, cause: Cause::ExtentContents, .. }] = &check(&loaded)[..] else {
        panic!("{:?}", check(&loaded));
    };
    assert_eq!(*blob, id);
    assert_eq!(loaded.repairs, []);
    // Not left in order it is a growth that was cut off.
    store.image.write(0, &super_block.to_bytes());
    let loaded = store.image.load().unwrap();
    assert_eq!(loaded.damaged, []);
    let finish = RepairReason::FinishResize { blob: id, clusters: 3 };
    assert!(loaded.repairs.iter().any(|repair| repair.reason == finish));
}

#[test]
fn what_keeps_spdk_from_opening_an_lvolstore_is_found() {
    let uuid = *b"11111111-2222-4333-8444-555555555555\0";
    let mut other = uuid;
    other[0] = b'a';
    let store = |change: &dyn Fn(&mut Option<BlobId>, &mut Vec<BlobMetadata>)| {
        let mut store = Builder::new();
        let ids = [(); 3].map(|()| store.new_blob());
        let mut blobs: Vec<BlobMetadata> = [&b"lvs0\0"[..], &[b'v'; 64][..], b"w\0"]
            .into_iter()
            .zip([uuid, uuid, other])
            .map(|(name, uuid)| {
                let mut blob = BlobMetadata::new_thin();
                blob.xattrs.set(b"name", name).unwrap();
                blob.xattrs.set(b"uuid", &uuid).unwrap();
                blob
            })
            .collect();
        blobs[1].map.resize(3);
        let mut super_blob = Some(ids[0]);
        change(&mut super_blob, &mut blobs);
        ids.iter().zip(&blobs).for_each(|(id, blob)| store.write_root(*id, blob));
        let super_block = spindle_format::SuperBlock { super_blob, ..store.plan.super_block.clone() };
        store.unload(&super_block);
        examine(&store.image).unwrap().findings
    };
    let ids = [0, 1, 2].map(|page| BlobId::from_page(PageIdx(page)));
    let found = |fault| vec![Finding::Lvolstore(fault)];
    let set = |blob: &mut BlobMetadata, name: &[u8], value: &[u8]| blob.xattrs.set(name, value).unwrap();
    assert_eq!(store(&|_, _| {}), []);
    assert_eq!(store(&|_, blobs| set(&mut blobs[1], b"uuid", &uuid.to_ascii_uppercase())), []);
    assert_eq!(store(&|super_blob, _| *super_blob = None)[0], Finding::Lvolstore(LvolFault::NoSuperBlob));
    for wrong in [&uuid[..36], b"zzz", b"", &[b'1'; 37], b"1111111111111-2222-4333-8444-5555555\0"] {
        assert_eq!(
            store(&|_, blobs| set(&mut blobs[0], b"uuid", wrong)),
            found(LvolFault::StoreUuid(ids[0]))
        );
        assert_eq!(
            store(&|_, blobs| set(&mut blobs[1], b"uuid", wrong)),
            found(LvolFault::VolumeUuid(ids[1]))
        );
    }
    let no_uuid = |_: &mut _, blobs: &mut Vec<BlobMetadata>| drop(blobs[0].xattrs.remove(b"uuid"));
    assert_eq!(store(&no_uuid), found(LvolFault::StoreUuid(ids[0])));
    let long = [b'n'; 65];
    assert_eq!(store(&|_, blobs| set(&mut blobs[0], b"name", &long)), found(LvolFault::StoreName(ids[0])));
    assert_eq!(store(&|_, blobs| set(&mut blobs[2], b"name", &long)), found(LvolFault::VolumeName(ids[2])));
    let no_name = |_: &mut _, blobs: &mut Vec<BlobMetadata>| drop(blobs[2].xattrs.remove(b"name"));
    assert_eq!(store(&no_name), found(LvolFault::VolumeName(ids[2])));
    let same = |_: &mut _, blobs: &mut Vec<BlobMetadata>| set(&mut blobs[2], b"name", &[b'v'; 64]);
    assert_eq!(store(&same), found(LvolFault::SameName(ids[1], ids[2])));
    assert_eq!(
        store(&|_, blobs| set(&mut blobs[2], b"uuid", &uuid)),
        found(LvolFault::SameUuid(ids[1], ids[2]))
    );
    // A volume in the super blob's place: the store has its name, and the super blob becomes a volume.
    let swapped = store(&|super_blob, _| *super_blob = Some(ids[1]));
    assert_eq!(swapped, found(LvolFault::SuperBlobIsVolume(ids[1])));
    // The type alone makes no lvolstore.
    let bare = store(&|super_blob, blobs| {
        *super_blob = None;
        blobs.iter_mut().for_each(|blob| drop(blob.xattrs.remove(b"uuid")));
    });
    assert_eq!(bare, []);
}
