//! Damage is told from what a crash leaves, and what SPDK asks of an lvolstore is known.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support::Image;
use crate::support::builder::Builder;
use spindle_format::check::{Cause, Finding, LvolFault, Medium, Severity, check, examine, mend};
use spindle_format::metadata::internal;
use spindle_format::page::Page;
use spindle_format::repair::{PageCopy, RepairReason, SectorSums};
use spindle_format::{BlobId, BlobMetadata, MaskKind, PageIdx, chain};
use std::collections::BTreeSet;

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

/// Flips a bit of a page, and corrects its CRC if it should be accepted.
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

#[test]
fn a_page_that_is_empty_but_for_a_few_bytes_where_no_tear_leaves_any_is_named() {
    let (mut store, id, _) = one_blob();
    for (page, byte) in
        [0, 30].into_iter().flat_map(|page| [0, 7, 8, 12, 53, 300, 511].map(|byte| (page, byte)))
    {
        let offset = page_offset(&store, page);
        let whole = store.image.read(offset, 4096);
        let mut bytes = [0; 4096];
        bytes[byte] = 0xff;
        store.image.write(offset, &bytes);
        let loaded = store.image.load().unwrap();
        let named: Vec<BlobId> = loaded.damaged.iter().map(|blob| blob.id).collect();
        assert_eq!(named, [BlobId::from_page(PageIdx(page))], "byte {byte} of page {page}");
        assert_eq!(loaded.blob(id).is_some(), page != 0);
        store.image.write(offset, &whole);
    }
}

/// Anything that a program may have put into a page that no blob names any more, or none names yet.
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
fn no_tear_of_a_page_that_nothing_names_is_taken_for_damage() {
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
    // In use, and without another owner.
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

/// Repairs a store, twice: the second time there is nothing to do, and unless damage is left nothing is found.
#[track_caller]
fn is_repaired_at_once(mut image: Image, what: &str) {
    let mended = mend(&image, &BTreeSet::new()).unwrap();
    mended.changes.iter().for_each(|change| image.apply(change));
    let left = examine(&image).unwrap().findings;
    assert_eq!(left, mended.after, "{what}: a check finds what the repair says that it leaves");
    let pending = |finding: &Finding| finding.severity() == Severity::Pending;
    assert!(left.is_empty() || !left.iter().all(pending), "{what}: the repair leaves {left:?} to a load");
    let again = mend(&image, &BTreeSet::new()).unwrap();
    let mut twice = image.clone();
    again.changes.iter().for_each(|change| twice.apply(change));
    assert_eq!(twice.first_difference(&image), None, "{what}: a second repair changes something");
}

#[test]
fn a_repair_does_what_only_another_repair_makes_possible() {
    // While the extent page goes on beyond its blob, what lies there may be data: only when the page is cut, the masks
    // say what is leaked.
    let whole = Image::fixture("cut/small-clone");
    let store = whole.load().unwrap();
    assert!(!store.repairs.is_empty(), "an extent page must be cut");
    let geometry = store.geometry;
    for kind in MaskKind::IN_WRITE_ORDER {
        let (start, _) = geometry.bytes_of(geometry.mask(kind));
        for bit in 0..u64::from(geometry.mask_bits(kind)) {
            let mut image = whole.clone();
            let at = start + spindle_format::mask::HEADER_SIZE as u64 + bit / 8;
            let byte = image.read(at, 1)[0] ^ 1 << (bit % 8);
            image.write(at, &[byte]);
            is_repaired_at_once(image, &format!("bit {bit} of the mask of {kind}"));
        }
    }
}

#[test]
fn a_repair_finishes_all_that_was_cut_off_when_it_has_given_up_to_resolve_one_thing() {
    let names = [internal::SNAPSHOT_IN_PROGRESS, internal::SNAPSHOT_PENDING_REMOVAL];
    let cut = (1..=5)
        .flat_map(|nth| [format!("cut/delete-snapshot-{nth}"), format!("cut/delete-run-length-{nth}")]);
    let cut = cut.chain(["cut/snapshot-clone-2", "cut/snapshot-clone-3", "cut/shrink-1"].map(str::to_owned));
    let mut tried = 0;
    for name in cut {
        let whole = Image::fixture(&name);
        let store = whole.load().unwrap();
        let missing = BlobId::from_page(PageIdx(store.geometry.md_pages() - 1)).raw().to_le_bytes();
        for (blob, marker) in store.blobs.values().flat_map(|blob| names.map(|marker| (blob, marker))) {
            let mut metadata = blob.metadata.clone();
            metadata.set_internal(marker, &missing).unwrap();
            let mut pages = chain::to_pages(blob.id, &metadata);
            // What else is cut off must be as it was.
            if pages.len() > 1 || names.iter().any(|name| blob.metadata.internal.get(name).is_some()) {
                continue;
            }
            chain::link(&mut pages, &blob.chain[..1]);
            let mut image = whole.clone();
            image.apply(&pages[0].write(blob.chain[0], &store.geometry));
            is_repaired_at_once(image, &format!("{name}, a marker in blob {}", blob.id));
            tried += 1;
        }
    }
    assert!(tried > 20, "only {tried} blobs could be marked");
}

#[test]
fn a_page_that_only_the_chain_on_disk_names_is_not_cleared_when_the_blob_that_it_looks_like_is_given_up() {
    // A resize to nothing was cut off: the blob has no extent page any more but on disk, and that page looks like the
    // damaged root of another.
    let mut image = Image::fixture("cut/shrink-to-nothing-1");
    let store = image.load().unwrap();
    let (blob, page) = (BlobId::from_page(PageIdx(0)), PageIdx(1));
    assert_eq!(store.blob(blob).unwrap().metadata.map.num_clusters(), 0);
    let offset = store.geometry.page_offset(page);
    let mut bytes = image.read(offset, 4096);
    bytes[..8].copy_from_slice(&BlobId::from_page(page).raw().to_le_bytes());
    let mut foreign = Page::view(&bytes).unwrap().clone();
    foreign.seal();
    image.write(offset, foreign.bytes());
    let found = examine(&image).unwrap();
    assert_eq!(found.store.damaged[0].id, BlobId::from_page(page));
    assert!(found.store.blob(blob).is_some());
    let mended = mend(&image, &BTreeSet::from([BlobId::from_page(page)])).unwrap();
    mended.changes.iter().for_each(|change| image.apply(change));
    let left = examine(&image).unwrap();
    assert!(left.store.blob(blob).is_some(), "{:?}", left.findings);
    assert_eq!(left.findings, mended.after);
}

#[test]
fn a_page_that_looks_like_a_copy_and_that_a_blob_names_is_not_cleared() {
    let (mut store, id, blob) = one_blob();
    let page = blob.map.extent_pages().next().unwrap().1;
    let (other, target) = (store.new_blob(), PageIdx(20));
    let elsewhere = chain::extent_page(other, 0, &[1, 2, 3]);
    let before = SectorSums::of(&chain::extent_page(other, 0, &[7]));
    let copy = PageCopy::new(target, elsewhere.clone(), before).to_pages().copy;
    store.image.write(page_offset(&store, page.0), copy.bytes());
    let mut torn = elsewhere.bytes().to_vec();
    torn[20] ^= 0xff;
    // The copy says nothing of the page that it is of, or that is empty.
    for held in [torn, vec![0; 4096]] {
        store.image.write(page_offset(&store, target.0), &held);
        let loaded = store.image.load().unwrap();
        let readable = loaded.blob(id).is_some();
        assert!(readable || loaded.damaged.iter().any(|damaged| damaged.id == id));
        let mut repaired = store.image.clone();
        let mended = mend(&store.image, &BTreeSet::new()).unwrap();
        mended.changes.iter().for_each(|change| repaired.apply(change));
        assert_eq!(repaired.load().unwrap().blob(id).is_some(), readable, "{:?}", mended.after);
        assert_eq!(repaired.read(page_offset(&store, page.0), 4096), copy.bytes());
        is_repaired_at_once(store.image.clone(), "a copy in a page that is named");
    }
}

#[test]
fn an_extent_page_of_two_blobs_keeps_anything_from_being_allocated() {
    let mut store = Builder::new();
    let ids = [(); 2].map(|()| store.new_blob());
    let mut blob = BlobMetadata::new_thin();
    blob.map.resize(3);
    blob.map.set(1, Some(spindle_format::ClusterIdx(9)));
    assert!(store.clusters.set(9));
    store.write_extents(ids[0], &mut blob);
    // No cluster is named there any more, but both blobs would get what is allocated next.
    blob.map.set(1, None);
    store.write_extents(ids[0], &mut blob);
    ids.iter().for_each(|id| store.write_root(*id, &blob));
    for clean in [false, true] {
        if clean {
            let super_block = store.plan.super_block.clone();
            store.unload(&super_block);
        }
        let loaded = store.image.load().unwrap();
        let page = blob.map.extent_pages().next().unwrap().1;
        assert_eq!(loaded.allocation_blocked.clone().unwrap().extent_pages, [page]);
        let shared = spindle_format::sharing::blobs(&loaded);
        assert_eq!(shared.into_iter().collect::<Vec<_>>(), [(ids[0], ids[1]), (ids[1], ids[0])]);
        let found = check(&loaded);
        assert!(found.iter().any(|finding| matches!(finding, Finding::SharedPage { .. })), "{found:?}");
        is_repaired_at_once(store.image.clone(), "two owners of a page");
    }
}

#[test]
fn what_keeps_spdk_from_opening_an_lvolstore_is_found() {
    let uuid = *b"11111111-2222-4333-8444-555555555555\0";
    let mut other = uuid;
    other[0] = b'a';
    let longest = [&[b'v'; 63][..], b"\0"].concat();
    let store = |change: &dyn Fn(&mut Option<BlobId>, &mut Vec<BlobMetadata>)| {
        let mut store = Builder::new();
        let ids = [(); 3].map(|()| store.new_blob());
        let mut blobs: Vec<BlobMetadata> = [&b"lvs0\0"[..], &longest[..], b"w\0"]
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
    let same = |_: &mut _, blobs: &mut Vec<BlobMetadata>| set(&mut blobs[2], b"name", &longest);
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
