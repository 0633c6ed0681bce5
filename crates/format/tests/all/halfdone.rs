//! What SPDK's snapshot operations leave behind when they are cut off after any of their writes.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support;

use spindle_format::check::{Finding, check};
use spindle_format::metadata::internal;
use spindle_format::page::Page;
use spindle_format::repair::{PageCopy, RepairReason, SectorSums};
use spindle_format::resolve::{Source, resolve};
use spindle_format::super_block::BsType;
use spindle_format::{BlobId, BlobMetadata, Flags, LoadOptions, PageIdx, Parent, Store, SuperBlock, chain};
use std::collections::BTreeMap;
use support::Image;
use support::builder::Builder;

/// A store with one thin blob that has one cluster.
struct Life {
    store: Builder,
    blob: BlobId,
    data: BlobMetadata,
}

fn begin(table: bool) -> Life {
    let mut store = Builder::new();
    let blob = store.new_blob();
    let mut data = BlobMetadata::new_thin();
    if !table {
        data.map = spindle_format::ClusterMap::new_rle();
        data.flags.invalid &= !Flags::EXTENT_TABLE;
    }
    data.map.resize(20);
    store.allocate(&mut data, 2);
    store.write_extents(blob, &mut data);
    store.write_root(blob, &data);
    Life { store, blob, data }
}

fn mark(blob: &mut BlobMetadata, name: &[u8], id: BlobId) {
    blob.set_internal(name, &id.raw().to_le_bytes()).unwrap();
}

/// Which cluster of the device every cluster of every blob is read from.
fn contents(store: &Store) -> BTreeMap<(u64, u64), Option<u32>> {
    let of_blob = |id: BlobId| {
        let clusters = store.blob(id).unwrap().metadata.map.num_clusters();
        (0..clusters).map(move |index| match resolve(store, id, index).unwrap() {
            Source::Cluster { cluster, .. } => ((id.raw(), index), Some(cluster.0)),
            _ => ((id.raw(), index), None),
        })
    };
    store.blobs.keys().copied().flat_map(of_blob).collect()
}

fn reasons(store: &Store) -> Vec<RepairReason> {
    store.repairs.iter().map(|repair| repair.reason.clone()).collect()
}

/// Carries out the repairs, cut off after every write, and after each cut expects the same contents from a
/// new load; in the end nothing is left to do.
fn repairs_hold_at_every_cut(image: &Image) -> Store {
    let store = image.load().unwrap();
    let expected = contents(&store);
    let changes: Vec<_> = store.repairs.iter().flat_map(|repair| &repair.changes).collect();
    assert!(!changes.is_empty());
    let mut image = image.clone();
    for (cut, change) in changes.iter().enumerate() {
        image.apply(change);
        let again = image.load().unwrap();
        assert_eq!(contents(&again), expected, "after write {cut}: {change:?}");
        assert_eq!(again.free_clusters(), store.free_clusters(), "after write {cut}");
    }
    let after = image.load().unwrap();
    assert_eq!(check(&after), []);
    assert_eq!(after.blobs, store.blobs);
    assert_eq!(after.used_pages, store.used_pages);
    after
}

/// The snapshot's root with its marker but nothing in it yet; with its clusters; and the original emptied.
fn creation(table: bool) -> (Life, BlobId, [Image; 3]) {
    let mut life = begin(table);
    let snapshot = life.store.new_blob();
    let mut empty = life.data.clone();
    empty.map.clear();
    mark(&mut empty, internal::SNAPSHOT_IN_PROGRESS, life.blob);
    life.store.write_root(snapshot, &empty);
    let first = life.store.image.clone();
    let mut full = life.data.clone();
    mark(&mut full, internal::SNAPSHOT_IN_PROGRESS, life.blob);
    // As SPDK writes it: the flags are the original's, which had no internal xattr.
    full.flags.invalid &= !Flags::INTERNAL_XATTR;
    life.store.write_root(snapshot, &full);
    let second = life.store.image.clone();
    let mut original = life.data.clone();
    original.map.clear();
    mark(&mut original, internal::SNAPSHOT, snapshot);
    life.store.write_root(life.blob, &original);
    let third = life.store.image.clone();
    (life, snapshot, [first, second, third])
}

#[test]
fn a_snapshot_the_original_does_not_name_yet_is_dropped() {
    for table in [true, false] {
        let (life, snapshot, [first, second, _]) = creation(table);
        for image in [first, second] {
            let store = image.load().unwrap();
            let dropped = RepairReason::DropUnfinishedSnapshot { snapshot, original: life.blob };
            assert_eq!(reasons(&store), [dropped]);
            assert_eq!(store.blobs.keys().copied().collect::<Vec<_>>(), [life.blob]);
            assert_eq!(store.free_clusters(), 62, "only the original's cluster and the metadata are in use");
            let after = repairs_hold_at_every_cut(&image);
            assert_eq!(after.blob(life.blob).unwrap().metadata, life.data);
        }
    }
}

#[test]
fn a_snapshot_the_original_names_is_finished() {
    for table in [true, false] {
        let (life, snapshot, [.., third]) = creation(table);
        let store = third.load().unwrap();
        assert_eq!(reasons(&store), [RepairReason::FinishSnapshot { snapshot, original: life.blob }]);
        let after = repairs_hold_at_every_cut(&third);
        let finished = after.blob(snapshot).unwrap();
        assert!(finished.metadata.flags.read_only() && finished.metadata.internal.is_empty());
        assert_eq!(finished.clones, [life.blob]);
    }
}

/// A snapshot and its clone with a cluster each; then the marker; the clone's page with both clusters; the
/// clone's root without its parent.
fn deletion(table: bool) -> (BlobId, BlobId, [Image; 3]) {
    let Life { mut store, blob: clone, data } = begin(table);
    let snapshot = store.new_blob();
    let mut above = data.clone();
    above.flags.data_read_only |= Flags::READ_ONLY;
    store.write_root(snapshot, &above);
    let mut below = data.clone();
    below.map.clear();
    mark(&mut below, internal::SNAPSHOT, snapshot);
    store.allocate(&mut below, 5);
    store.write_extents(clone, &mut below);
    store.write_root(clone, &below);

    mark(&mut above, internal::SNAPSHOT_PENDING_REMOVAL, clone);
    store.write_root(snapshot, &above);
    let first = store.image.clone();
    below.map.set(2, data.map.get(2));
    store.write_extents(clone, &mut below);
    let second = store.image.clone();
    below.remove_internal(internal::SNAPSHOT);
    store.write_root(clone, &below);
    (snapshot, clone, [first, second, store.image])
}

#[test]
fn a_deletion_cut_off_before_the_clone_let_go_keeps_the_snapshot_and_shares_nothing() {
    for table in [true, false] {
        let (snapshot, clone, [first, second, _]) = deletion(table);
        for (image, copied) in [(first, false), (second, table)] {
            let store = image.load().unwrap();
            let found = reasons(&store);
            assert_eq!(found.last(), Some(&RepairReason::KeepSnapshot { snapshot, clone }));
            assert_eq!(found.len(), 1 + usize::from(copied));
            assert_eq!(store.blob(clone).unwrap().metadata.map.get(2), None);
            assert_eq!(store.allocation_blocked, None);
            repairs_hold_at_every_cut(&image);
        }
    }
}

#[test]
fn a_deletion_cut_off_after_the_clone_let_go_is_finished() {
    for table in [true, false] {
        let (snapshot, clone, [.., third]) = deletion(table);
        let store = third.load().unwrap();
        assert_eq!(reasons(&store), [RepairReason::FinishSnapshotRemoval { snapshot, clone }]);
        assert_eq!(store.blob(snapshot), None);
        assert_eq!(store.free_clusters(), 61);
        repairs_hold_at_every_cut(&third);
    }
}

#[test]
fn a_cluster_that_spdk_left_shared_after_its_own_recovery_stays_with_the_snapshot() {
    let (snapshot, clone, [_, second, _]) = deletion(true);
    // SPDK's loader takes the marker off and does not see that the clone names the snapshot's cluster.
    let mut image = second.clone();
    let loaded = second.load().unwrap();
    let mut pages = chain::to_pages(snapshot, &loaded.blob(snapshot).unwrap().metadata);
    chain::link(&mut pages, &[snapshot.root_page().unwrap()]);
    image.write(loaded.geometry.page_offset(snapshot.root_page().unwrap()), pages[0].bytes());
    let store = image.load().unwrap();
    assert!(
        matches!(&reasons(&store)[..], [RepairReason::UnshareClusters { clone: found, .. }] if *found == clone)
    );
    repairs_hold_at_every_cut(&image);
}

#[test]
fn a_marker_whose_blob_is_gone_is_left_alone_and_reported() {
    let (life, snapshot, [_, second, _]) = creation(true);
    let mut image = second;
    let root = life.blob.root_page().unwrap();
    image.zero(life.store.plan.geometry.page_offset(root), 4096);
    let store = image.load().unwrap();
    assert!(store.blob(snapshot).is_some());
    assert!(matches!(&check(&store)[..], [Finding::HalfDone(half)] if half.other == life.blob));
}

#[test]
fn two_blobs_with_one_cluster_block_allocation_and_are_both_named() {
    let Life { mut store, blob, data } = begin(false);
    let thief = store.new_blob();
    store.write_root(thief, &data);
    let loaded = store.image.load().unwrap();
    assert!(loaded.allocation_blocked.is_some());
    let findings = check(&loaded);
    assert!(
        matches!(&findings[..], [Finding::SharedCluster { owners, .. }] if *owners == [(blob, 2), (thief, 2)]),
        "{findings:?}"
    );
}

fn torn(image: &Image, offset: u64, new: &[u8], sectors: u32) -> Image {
    let mut image = image.clone();
    for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
        let at = sector as usize * 512;
        image.write(offset + at as u64, &new[at..at + 512]);
    }
    image
}

fn sums(image: &Image, offset: u64) -> SectorSums {
    SectorSums::of(Page::view(&image.read(offset, 4096)).unwrap())
}

#[test]
fn a_torn_root_or_extent_page_is_restored_from_its_copy() {
    let Life { store, blob, mut data } = begin(true);
    let geometry = store.plan.geometry.clone();
    let extents = data.map.extent_pages().next().unwrap().1;
    data.xattrs.set(b"long", &[7; 3000]).unwrap();
    let mut roots = chain::to_pages(blob, &data);
    chain::link(&mut roots, &[blob.root_page().unwrap()]);
    let mut clusters = [0; 20];
    clusters[4..16].iter_mut().zip(9..).for_each(|(cluster, value)| *cluster = value);
    let extent = chain::extent_page(blob, 0, &clusters);
    for (target, page) in [(blob.root_page().unwrap(), roots[0].clone()), (extents, extent)] {
        let spare = PageIdx(40);
        let mut image = store.image.clone();
        let copy = PageCopy::new(target, page.clone(), sums(&image, geometry.page_offset(target))).to_pages();
        image.write(geometry.page_offset(spare), copy.copy.bytes());
        for sectors in 0..256 {
            let image = torn(&image, geometry.page_offset(target), page.bytes(), sectors);
            let loaded = image.load().unwrap();
            assert_eq!(loaded.damaged, [], "sectors {sectors:#b} of page {target}");
            assert_eq!(loaded.allocation_blocked, None);
            let last = loaded.repairs.last().unwrap();
            assert_eq!(last.reason, RepairReason::ForgetCopy { copy: spare, page: target });
            if sectors % 32 == 1 {
                repairs_hold_at_every_cut(&image);
            }
        }
    }
}

/// The ways to tear a page that leave something else than the old or the new.
fn tears(image: &Image, offset: u64, new: &[u8]) -> Vec<(u32, Image)> {
    let torn = (1..255).map(|sectors| (sectors, torn(image, offset, new, sectors)));
    let in_two = |torn: &Image| !Page::view(&torn.read(offset, 4096)).unwrap().crc_ok();
    let torn: Vec<(u32, Image)> = torn.filter(|(_, torn)| in_two(torn)).collect();
    assert!(torn.len() > 60);
    torn
}

/// A root that is rewritten: what it holds, and what it held before. `full` leaves no room for checksums.
fn rewritten_root(full: bool) -> (Life, Page, Page) {
    let life = begin(true);
    let root = |change: &dyn Fn(&mut BlobMetadata)| {
        let mut data = life.data.clone();
        change(&mut data);
        let mut pages = chain::to_pages(life.blob, &data);
        chain::link(&mut pages, &[life.blob.root_page().unwrap()]);
        assert_eq!(pages.len(), 1);
        pages.remove(0)
    };
    let mut long = 3000;
    while full && {
        let mut data = life.data.clone();
        data.xattrs.set(b"long", &vec![8; long + 1]).unwrap();
        chain::to_pages(life.blob, &data).len() == 1
    } {
        long += 1;
    }
    let old = root(&|_| {});
    let new = root(&|data| data.xattrs.set(b"long", &vec![8; long]).unwrap());
    (life, new, old)
}

#[test]
fn a_copy_without_room_has_its_checksums_in_a_second_page_and_says_nothing_without_it() {
    let (Life { store, blob, .. }, new, old) = rewritten_root(true);
    let root = blob.root_page().unwrap();
    let geometry = &store.plan.geometry;
    let pages = PageCopy::new(root, new.clone(), SectorSums::of(&old)).to_pages();
    assert!(pages.needs_another());
    let (copy, beside) = (PageIdx(40), PageIdx(41));
    let mut without = store.image.clone();
    without.write(geometry.page_offset(copy), pages.copy.bytes());
    let mut with = without.clone();
    with.write(geometry.page_offset(beside), pages.sums_for(copy).unwrap().bytes());
    let offset = geometry.page_offset(root);
    for (sectors, torn) in tears(&with, offset, new.bytes()) {
        let loaded = torn.load().unwrap();
        assert_eq!(loaded.damaged, [], "sectors {sectors:#b}");
        let first = &loaded.repairs[0].reason;
        assert_eq!(*first, RepairReason::RestorePage { page: root, copy });
    }
    for (sectors, torn) in tears(&without, offset, new.bytes()) {
        let loaded = torn.load().unwrap();
        assert_eq!(loaded.damaged[0].id, blob, "sectors {sectors:#b}");
        assert_eq!(loaded.repairs, [], "what may help stays");
    }
    repairs_hold_at_every_cut(&torn(&with, offset, new.bytes(), 0b0101_0101));
}

#[test]
fn an_old_copy_does_not_restore_a_page_that_another_write_tore() {
    // SPDK, which knows no copies, has written the root twice since; the second write was torn.
    for full in [false, true] {
        let (Life { store, blob, mut data }, copied, before) = rewritten_root(full);
        let root = blob.root_page().unwrap();
        let geometry = &store.plan.geometry;
        let pages = PageCopy::new(root, copied, SectorSums::of(&before)).to_pages();
        let mut image = store.image.clone();
        image.write(geometry.page_offset(PageIdx(40)), pages.copy.bytes());
        if let Some(sums) = pages.sums_for(PageIdx(40)) {
            image.write(geometry.page_offset(PageIdx(41)), sums.bytes());
        }
        let mut versions = (0..2).map(|version| {
            data.xattrs.set(b"later", &[version; 3200]).unwrap();
            let mut pages = chain::to_pages(blob, &data);
            chain::link(&mut pages, &[root]);
            pages.remove(0)
        });
        let offset = geometry.page_offset(root);
        image.write(offset, versions.next().unwrap().bytes());
        let last = versions.next().unwrap();
        for (sectors, torn) in tears(&image, offset, last.bytes()) {
            let loaded = torn.load().unwrap();
            assert_eq!(loaded.damaged[0].id, blob, "sectors {sectors:#b}");
            assert_eq!(loaded.repairs, []);
        }
        // Whole it is what counts, and the copy goes.
        let loaded = image.load().unwrap();
        assert_eq!(loaded.damaged, []);
        assert_eq!(reasons(&loaded), [RepairReason::ForgetCopy { copy: PageIdx(40), page: root }]);
    }
}

#[test]
fn a_copy_without_checksums_counts_where_the_sector_with_the_crc_is_the_copys() {
    let (Life { store, blob, .. }, new, _) = rewritten_root(false);
    let root = blob.root_page().unwrap();
    let geometry = &store.plan.geometry;
    let bare = PageCopy { target: root, page: new.clone(), before: None };
    let mut image = store.image.clone();
    image.write(geometry.page_offset(PageIdx(40)), bare.to_pages().copy.bytes());
    for (sectors, torn) in tears(&image, geometry.page_offset(root), new.bytes()) {
        let loaded = torn.load().unwrap();
        assert_eq!(loaded.damaged.is_empty(), sectors & 0b1000_0000 != 0, "sectors {sectors:#b}");
    }
}

#[test]
fn no_copy_is_looked_for_in_a_store_that_was_left_in_order() {
    let (Life { mut store, blob, .. }, new, old) = rewritten_root(false);
    let root = blob.root_page().unwrap();
    let geometry = store.plan.geometry.clone();
    let pages = PageCopy::new(root, new.clone(), SectorSums::of(&old)).to_pages();
    store.image.write(geometry.page_offset(PageIdx(40)), pages.copy.bytes());
    let super_block = store.plan.super_block.clone();
    store.unload(&super_block);
    let torn = torn(&store.image, geometry.page_offset(root), new.bytes(), 0b0000_1111);
    for force_recover in [false, true] {
        let loaded = torn.load_with(LoadOptions { force_recover, ..LoadOptions::default() }).unwrap();
        assert_eq!(loaded.damaged[0].id, blob);
        assert_eq!(loaded.repairs, []);
    }
}

#[test]
fn a_torn_root_without_a_copy_is_set_aside_and_allocation_waits() {
    let Life { store, blob, mut data } = begin(true);
    data.xattrs.set(b"long", &[7; 3000]).unwrap();
    let mut roots = chain::to_pages(blob, &data);
    chain::link(&mut roots, &[blob.root_page().unwrap()]);
    let offset = store.plan.geometry.page_offset(blob.root_page().unwrap());
    let image = torn(&store.image, offset, roots[0].bytes(), 0b0000_1111);
    let loaded = image.load().unwrap();
    assert_eq!(loaded.damaged[0].id, blob);
    let text = loaded.damaged[0].errors[0].to_string();
    assert!(text.starts_with("metadata page 0 at byte 16384: crc is 0x"), "{text}");
    assert_eq!(loaded.allocation_blocked.unwrap().blobs, [blob]);
}

#[test]
fn a_super_block_torn_by_any_of_its_rewrites_is_resolved_and_never_taken_for_clean() {
    let Life { store, blob, .. } = begin(true);
    let old = store.plan.super_block.clone();
    let rewrites = [
        SuperBlock { clean: true, ..old.clone() },
        SuperBlock { super_blob: Some(blob), ..old.clone() },
        SuperBlock { super_blob: Some(blob), clean: true, ..old.clone() },
        SuperBlock { bs_type: BsType::NONE, ..old.clone() },
    ];
    for new in rewrites {
        for (before, after) in [(&old, &new), (&new, &old)] {
            let mut image = store.image.clone();
            image.write(0, &before.to_bytes());
            for sectors in [0b0000_0001, 0b1000_0000, 0b0111_1111, 0b1111_1110] {
                let image = torn(&image, 0, &after.to_bytes(), sectors);
                let loaded = image.load().unwrap();
                assert!(!loaded.was_clean() && loaded.recovered);
                assert!([old.super_blob, new.super_blob].contains(&loaded.super_block.super_blob));
                assert_eq!(reasons(&loaded), [RepairReason::TornSuperBlock]);
                repairs_hold_at_every_cut(&image);
            }
        }
    }
}

#[test]
fn a_super_block_torn_on_the_way_from_one_unknown_type_to_another_is_one_of_the_two() {
    let Life { store, .. } = begin(true);
    let types = [BsType(*b"SOMEBODY'S OWN\0\0"), BsType(*b"ANOTHER'S OWN\0\0\0")];
    for clean in [false, true] {
        let old = SuperBlock { bs_type: types[0], clean, ..store.plan.super_block.clone() };
        let new = SuperBlock { bs_type: types[1], ..old.clone() };
        let marked = SuperBlock { clean: !clean, ..new.clone() };
        let mut image = store.image.clone();
        image.write(0, &old.to_bytes());
        let changes = old.change_to(&new, 512, &store.plan.geometry);
        for change in changes.into_iter().chain([marked.write(&store.plan.geometry)]) {
            let mut after = image.clone();
            after.apply(&change);
            for sectors in [0b0000_0001, 0b1000_0000, 0b0111_1111, 0b1111_1110] {
                let torn_once = torn(&image, 0, &after.read(0, 4096), sectors);
                let loaded = torn_once.load().unwrap();
                assert!(types.contains(&loaded.super_block.bs_type));
                let is_torn = loaded.repairs.iter().any(|one| one.reason == RepairReason::TornSuperBlock);
                if !is_torn {
                    // All that differs is in the other sector.
                    continue;
                }
                assert!(!loaded.was_clean() && loaded.recovered);
                repairs_hold_at_every_cut(&torn_once);
                // The repair can be torn, too.
                for sectors in [0b0000_0001, 0b1000_0000] {
                    let repaired = torn(&torn_once, 0, &loaded.super_block.to_bytes(), sectors);
                    assert_eq!(repaired.load().unwrap().super_block, loaded.super_block);
                }
                // The note speaks for what it names only.
                let mut rotten = torn_once.clone();
                rotten.write(60, &[0x55]);
                rotten.load().unwrap_err();
            }
            image = after;
        }
    }
}

#[test]
fn a_super_block_that_no_rewrite_explains_is_refused_with_both_crcs() {
    let mut image = begin(true).store.image;
    // Two values at once: the super blob and the type.
    image.write(20, &1u64.to_le_bytes());
    image.write(60, &[0x55]);
    let text = image.load().unwrap_err().to_string();
    assert!(text.starts_with("super block at byte 0: crc is 0x"), "{text}");
}

#[test]
fn an_interrupted_resize_leaves_the_smaller_size() {
    let Life { store, blob, data } = begin(true);
    let extents = data.map.extent_pages().next().unwrap().1;
    let offset = store.plan.geometry.page_offset(extents);
    // Shrinking: SPDK writes the shorter extent page before the root that says so.
    let mut shrunk = store.image.clone();
    shrunk.write(offset, chain::extent_page(blob, 0, &[0, 0, 1, 0]).bytes());
    let loaded = shrunk.load().unwrap();
    assert_eq!(reasons(&loaded), [RepairReason::FinishResize { blob, clusters: 4 }]);
    assert_eq!(repairs_hold_at_every_cut(&shrunk).blob(blob).unwrap().metadata.map.num_clusters(), 4);
    // To nothing: SPDK refuses the whole store for the page that is left.
    let mut emptied = store.image.clone();
    emptied.write(offset, chain::extent_page(blob, 0, &[]).bytes());
    let loaded = emptied.load().unwrap();
    assert_eq!(reasons(&loaded), [RepairReason::FinishResize { blob, clusters: 0 }]);
    let after = repairs_hold_at_every_cut(&emptied);
    assert_eq!(after.blob(blob).unwrap().metadata.map.extent_pages().next(), None);
    // Growing: the longer page holds more than the root says.
    let mut grown = store.image.clone();
    let mut longer = [0; 60];
    (longer[2], longer[50]) = (1, 9);
    grown.write(offset, chain::extent_page(blob, 0, &longer).bytes());
    let loaded = grown.load().unwrap();
    assert_eq!(loaded.blob(blob).unwrap().metadata, data);
    assert_eq!(reasons(&loaded), [RepairReason::FinishResize { blob, clusters: 20 }]);
    repairs_hold_at_every_cut(&grown);
}

#[test]
fn a_parent_is_what_the_flags_say_whatever_xattrs_spdk_left() {
    // In a clone whose snapshot it deleted, if that was a clone of an external snapshot.
    let Life { mut store, blob, mut data } = begin(true);
    data.flags.invalid |= Flags::EXTERNAL_SNAPSHOT;
    data.set_internal(internal::EXTERNAL_SNAPSHOT_ID, b"elsewhere").unwrap();
    mark(&mut data, internal::SNAPSHOT, BlobId::from_page(PageIdx(3)));
    store.write_root(blob, &data);
    let loaded = store.image.load().unwrap();
    assert_eq!(check(&loaded), []);
    assert_eq!(loaded.blob(blob).unwrap().parent, Some(Parent::External(b"elsewhere".to_vec())));
    // In a read-only clone of an external snapshot that it inflated.
    let Life { mut store, blob, mut data } = begin(true);
    data.map.resize(3);
    (0..2).for_each(|index| store.allocate(&mut data, index));
    data.flags.invalid &= !Flags::THIN;
    data.set_internal(internal::EXTERNAL_SNAPSHOT_ID, b"elsewhere").unwrap();
    store.write_extents(blob, &mut data);
    store.write_root(blob, &data);
    let loaded = store.image.load().unwrap();
    assert_eq!(check(&loaded), []);
    assert_eq!(loaded.blob(blob).unwrap().parent, None);
}

#[test]
fn an_extent_page_longer_than_its_blob_is_cut_also_in_a_clean_store() {
    // SPDK leaves one where a snapshot was deleted whose clone is smaller. It does not open the blob then: what
    // the page names beyond the blob's end is free.
    let Life { mut store, blob, data } = begin(true);
    let page = data.map.extent_pages().next().unwrap().1;
    let offset = store.plan.geometry.page_offset(page);
    let mut longer = [0; 21];
    (longer[2], longer[20]) = (1, 9);
    store.image.write(offset, chain::extent_page(blob, 0, &longer).bytes());
    let super_block = store.plan.super_block.clone();
    store.unload(&super_block);
    let loaded = store.image.load().unwrap();
    assert!(loaded.was_clean());
    assert_eq!(
        reasons(&loaded),
        [RepairReason::MarkDirty, RepairReason::CutExtentPage { blob, clusters: 20 }]
    );
    repairs_hold_at_every_cut(&store.image);
    for change in loaded.repairs.iter().flat_map(|repair| &repair.changes) {
        store.image.apply(change);
    }
    assert_eq!(store.image.read(offset, 4096), chain::extent_page(blob, 0, &longer[..20]).bytes());
}
