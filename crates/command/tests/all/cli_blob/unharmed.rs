//! Stores with damage: no command takes away what could be read before, what is damaged is named, and stays so.

use super::check::{
    ALPHA, BETA, GAMMA, SNAPSHOT, change_mask, change_super, codes, extent_page, load, rewrite,
};
use super::support::{HELLO, Image, change_page, on, page_of, unpack};
use super::writing::{blobs, contents, done, id, store};
use spindle_format::metadata::internal;
use spindle_format::{BlobId, Flags, MaskKind, chain};

/// What can be read of a store: every blob that is listed and can be exported.
fn readable(image: &Image) -> Vec<(String, Vec<u8>)> {
    let ids = blobs(image).into_iter().map(|blob| format!("{:#x}", blob["id"].as_u64().unwrap()));
    let exported = ids.filter_map(|id| {
        let ended = on(image, "export", &[&id, "-"]);
        (ended.code == 0).then_some((id, ended.out))
    });
    exported.collect()
}

/// Commands that write: to a blob, or to a new one.
fn writing_commands<'a>(blob: &'a str, data: &'a str) -> [(&'static str, Vec<&'a str>); 5] {
    [
        ("create", vec!["--clusters", "1"]),
        ("import", vec!["--create", "--name", "new", data]),
        ("snapshot", vec![blob, "--name", "new"]),
        ("xattr", vec![blob, "set", "key", "value"]),
        ("resize", vec![blob, "5M"]),
    ]
}

/// Runs commands that write, each on the store as it is, and holds them to it that all is still there.
#[track_caller]
fn nothing_is_lost_by_writing(damaged: &[u8]) {
    let before = readable(&Image::new(damaged));
    let data = Image::new(&[7; 4096]);
    let data = data.path().to_str().unwrap();
    let first = before.first().map_or("none", |(id, _)| id).to_owned();
    for (verb, arguments) in writing_commands(&first, data) {
        let image = Image::new(damaged);
        let found = codes(&image, &[]);
        let code = on(&image, verb, &arguments).code;
        for (id, bytes) in &before {
            let after = contents(&image, id);
            let longer_is_fine = verb == "resize" && *id == first;
            let same = after == *bytes || longer_is_fine && after.starts_with(bytes);
            assert!(same, "{verb} ({code}): {id} holds something else");
        }
        let left = codes(&image, &[]);
        let lost = |code: &String| code != "torn-leftover" && !left.contains(code);
        let damage: Vec<&String> = found.iter().filter(|code| lost(code)).collect();
        assert!(damage.is_empty(), "{verb} ({code}): {damage:?} is not found any more, {left:?} is");
    }
}

/// Damage stays named however often a repair is tried, and the store what it was.
#[track_caller]
fn stays_found(damaged: &[u8], code: &str) {
    let image = Image::new(damaged);
    let before = readable(&image);
    let state = |image: &Image| on(image, "info", &["--json"]).json()["clean"].clone();
    let was = state(&image);
    assert!(codes(&image, &[]).iter().any(|found| found == code), "{code}: {:?}", codes(&image, &[]));
    let left = codes(&image, &["--repair"]);
    assert!(left.iter().any(|found| found == code), "{code} is hidden by a repair: {left:?}");
    assert_eq!(codes(&image, &[]), left);
    assert_eq!(state(&image), was, "the store is as clean as it was");
    let repaired = image.sha256();
    assert_eq!(codes(&image, &["--repair"]), left);
    assert_eq!(image.sha256(), repaired, "a second repair changes nothing");
    assert_eq!(readable(&image), before);
}

/// The deletion of a snapshot was cut off, and then its clone's root was lost.
fn marker_without_its_blob() -> Vec<u8> {
    let mut bytes = unpack("cut/delete-run-length-2");
    page_of(&mut bytes, 0).fill(0);
    bytes
}

#[test]
fn a_new_blob_is_never_taken_for_one_that_an_unfinished_operation_names() {
    let damaged = marker_without_its_blob();
    nothing_is_lost_by_writing(&damaged);
    let image = Image::new(&damaged);
    let before = readable(&image);
    assert_eq!(codes(&image, &[]), ["unresolved-marker"]);
    assert_eq!(on(&image, "create", &["--clusters", "1"]).code, 1);
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
    // Nothing names it any more.
    assert_eq!(id(&image, "create", &["--clusters", "1"]), "0x100000000");
    assert_eq!(contents(&image, &before[0].0), before[0].1);
}

#[test]
fn every_blob_that_reads_through_a_damaged_one_is_named() {
    let image = Image::new(&HELLO);
    // Between alpha and the snapshot.
    let between = id(&image, "snapshot", &["0x100000000", "--name", "between"]);
    let mut bytes = std::fs::read(image.path()).unwrap();
    page_of(&mut bytes, 9)[200] ^= 1;
    let image = Image::new(&bytes);
    let found: serde_json::Value = serde_json::from_slice(&on(&image, "check", &["--json"]).out).unwrap();
    let orphans: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["code"] == "orphaned-clone")
        .map(|one| one["what"].as_str().unwrap())
        .collect();
    for blob in ["0x100000000", &between, "0x10000000b"] {
        assert!(orphans.iter().any(|what| what.contains(blob)), "{blob}: {orphans:?}");
        on(&image, "export", &[blob, "-"]).fails(1, &["0x100000009"]);
    }
    assert_eq!(orphans.len(), 3, "{orphans:?}");
}

#[test]
fn a_clone_of_a_damaged_blob_is_not_overwritten_in_place() {
    let mut bytes = HELLO.clone();
    page_of(&mut bytes, 9)[200] ^= 1;
    let image = Image::new(&bytes);
    let data = Image::new(&[7; 4096]);
    let ended = on(&image, "import", &["--in-place", "0x100000000", data.path().to_str().unwrap()]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    let said =
        "0x100000000 reads through blob 0x100000009, which is missing or damaged: run spindle blob check";
    assert!(ended.err.contains(said), "{}", ended.err);
    assert!(!ended.err.contains("import it again"), "{}", ended.err);
    assert!(std::fs::read(image.path()).unwrap() == bytes);
}

#[test]
fn a_blob_that_masks_older_than_the_metadata_lack_is_there_after_any_command_and_a_repair() {
    let data = Image::new(&[7; 4096]);
    let data = data.path().to_str().unwrap();
    let image = Image::new(&HELLO);
    done(&image, "import", &["--create", "--name", "newest", data]);
    let (new, held) = (std::fs::read(image.path()).unwrap(), contents(&image, "newest"));
    let kinds = [MaskKind::UsedPages, MaskKind::UsedClusters, MaskKind::UsedBlobIds];
    let geometry = load(&HELLO).geometry;
    // Each set of them is that of the last stop but one.
    for stale in 1..1_u8 << kinds.len() {
        let mut bytes = new.clone();
        for (_, kind) in kinds.into_iter().enumerate().filter(|(bit, _)| stale >> bit & 1 == 1) {
            let (offset, len) = geometry.bytes_of(geometry.mask(kind));
            let mask = offset as usize..(offset + len) as usize;
            bytes[mask.clone()].copy_from_slice(&HELLO[mask]);
        }
        let before = readable(&Image::new(&bytes));
        for (verb, arguments) in writing_commands("0x100000005", data) {
            let image = Image::new(&bytes);
            let code = on(&image, verb, &arguments).code;
            for (id, bytes) in before.iter().filter(|(id, _)| verb != "resize" || id != "0x100000005") {
                assert_eq!(&contents(&image, id), bytes, "masks {stale:#b}, {verb} ({code}): {id}");
            }
            codes(&image, &["--repair"]);
            assert_eq!(contents(&image, "newest"), held, "masks {stale:#b}, {verb} ({code})");
        }
    }
}

#[test]
fn a_snapshot_with_an_unresolved_marker_keeps_its_clones_until_it_is_repaired() {
    let (clone, snapshot) = ("0x100000000", "0x100000009");
    for marker in [internal::SNAPSHOT_IN_PROGRESS, internal::SNAPSHOT_PENDING_REMOVAL] {
        let mut bytes = HELLO.clone();
        rewrite(&mut bytes, SNAPSHOT, &[], |meta| {
            meta.set_internal(marker, &BETA.to_le_bytes()).unwrap();
        });
        nothing_is_lost_by_writing(&bytes);
        for verb in ["inflate", "decouple", "delete"] {
            let image = Image::new(&bytes);
            let before = readable(&image);
            assert_eq!(codes(&image, &[]), ["unresolved-marker"]);
            on(&image, verb, &[clone]).fails(1, &[clone, "check --repair"]);
            assert_eq!(readable(&image), before, "{verb}");
            assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
            done(&image, verb, &[clone]);
            let kept = readable(&image).into_iter().find(|(id, _)| id == snapshot);
            assert_eq!(kept.as_ref(), before.iter().find(|(id, _)| id == snapshot), "{verb}");
            assert!(kept.is_some());
        }
    }
}

#[test]
fn a_snapshot_whose_marker_other_damage_keeps_a_load_from_removing_keeps_its_clones() {
    let (clone, snapshot) = ("0x100000000", "0x100000009");
    let whole = Image::new(&HELLO);
    let another = id(&whole, "snapshot", &["0x10000000b"]);
    let mut bytes = std::fs::read(whole.path()).unwrap();
    rewrite(&mut bytes, SNAPSHOT, &[], |meta| {
        meta.set_internal(internal::SNAPSHOT_PENDING_REMOVAL, &ALPHA.to_le_bytes()).unwrap();
    });
    change_super(&mut bytes, |block| block.clean = false);
    // With a blob that cannot be read, no page counts as free.
    page_of(&mut bytes, 2)[200] ^= 1;
    nothing_is_lost_by_writing(&bytes);
    let image = Image::new(&bytes);
    let before = readable(&image);
    assert!([clone, snapshot].iter().all(|id| before.iter().any(|(known, _)| known == id)));
    let ended = on(&image, "set-parent", &[clone, &another]);
    assert!(
        ended.code == 1 && ended.err.contains("marker") && ended.err.contains("check --repair"),
        "{}",
        ended.err
    );
    assert_eq!(readable(&image), before);
    assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000002"]), [] as [&str; 0]);
    assert_eq!(readable(&image), before);
    done(&image, "set-parent", &[clone, &another]);
    let kept = readable(&image).into_iter().find(|(id, _)| id == snapshot);
    assert_eq!(kept.as_ref(), before.iter().find(|(id, _)| id == snapshot));
}

#[test]
fn every_command_on_blobs_whose_parents_form_a_circle_ends() {
    let with_parents = |parents: &[(u64, u64)]| {
        let mut bytes = HELLO.clone();
        for &(clone, parent) in parents {
            rewrite(&mut bytes, clone, &[], |meta| {
                meta.flags.invalid |= Flags::THIN;
                meta.set_internal(internal::SNAPSHOT, &parent.to_le_bytes()).unwrap();
            });
        }
        bytes
    };
    let circles: [&[(u64, u64)]; 4] = [
        &[(ALPHA, ALPHA)],
        &[(ALPHA, SNAPSHOT), (SNAPSHOT, ALPHA)],
        &[(ALPHA, GAMMA), (GAMMA, SNAPSHOT), (SNAPSHOT, ALPHA)],
        &[(ALPHA, GAMMA), (GAMMA, SNAPSHOT), (SNAPSHOT, GAMMA)],
    ];
    let data = Image::new(&[7; 4096]);
    let data = data.path().to_str().unwrap();
    for parents in circles {
        let bytes = with_parents(parents);
        assert!(codes(&Image::new(&bytes), &[]).contains(&"parent-circle".to_owned()), "{parents:?}");
        nothing_is_lost_by_writing(&bytes);
        for &(id, _) in parents {
            let id = format!("{id:#x}");
            for verb in ["inflate", "decouple", "delete"] {
                let image = Image::new(&bytes);
                let first = on(&image, verb, &[&id]).code;
                let then: Vec<_> =
                    ["inflate", "decouple", "delete"].map(|verb| on(&image, verb, &[&id]).code).into();
                assert!(
                    first <= 4 && then.iter().all(|&code| code <= 4),
                    "{verb} of {id}: {first}, {then:?}"
                );
            }
            let image = Image::new(&bytes);
            on(&image, "import", &[&id, data]);
            on(&image, "resize", &[&id, "1G"]);
            on(&image, "snapshot", &[&id, "--name", "new"]);
            readable(&image);
        }
    }
}

/// Beta is smaller by a cluster, cut off half done.
fn shrink_half(bytes: &mut [u8]) {
    change_super(bytes, |block| block.clean = false);
    // Shrinking writes the shorter extent page first.
    let beta = BlobId::from_raw(BETA);
    let page = extent_page(bytes, BETA);
    let mut clusters = load(bytes).blob(beta).unwrap().metadata.map.leaf(0).unwrap().clusters.to_vec();
    clusters.pop();
    page_of(bytes, page).copy_from_slice(chain::extent_page(beta, 0, &clusters).bytes());
}

#[test]
fn a_torn_super_block_is_restored_before_the_image_becomes_longer() {
    let mut bytes = HELLO.clone();
    change_super(&mut bytes, |block| block.clean = false);
    // The values from before that write, and the checksum from after it.
    bytes[..512].copy_from_slice(&HELLO[..512]);
    let image = Image::new(&bytes);
    assert_eq!(codes(&image, &[]), ["torn-super-block"]);
    on(&image, "grow", &["--size", "128M"]).fails(1, &["torn", "check --repair"]);
    assert_eq!(std::fs::read(image.path()).unwrap(), bytes);
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
    done(&image, "grow", &["--size", "128M"]);
    assert_eq!(codes(&image, &[]), [] as [&str; 0]);
    assert_eq!(contents(&image, "0x100000002"), contents(&Image::new(&HELLO), "0x100000002"));
}

#[test]
fn a_resize_that_waited_for_a_marker_is_finished_by_the_repair_that_removes_the_marker() {
    let mut bytes = HELLO.clone();
    rewrite(&mut bytes, SNAPSHOT, &[], |meta| {
        meta.set_internal(internal::SNAPSHOT_PENDING_REMOVAL, &ALPHA.to_le_bytes()).unwrap();
    });
    shrink_half(&mut bytes);
    page_of(&mut bytes, 0)[200] ^= 1;
    let image = Image::new(&bytes);
    let found = codes(&image, &[]);
    assert!(
        ["root-crc", "unresolved-marker", "half-done-resize"]
            .iter()
            .all(|code| found.iter().any(|one| one == code)),
        "{found:?}"
    );
    assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000000"]), [] as [&str; 0]);
    assert_eq!(codes(&image, &[]), [] as [&str; 0]);
    let held = contents(&Image::new(&HELLO), "0x100000002");
    let left = contents(&image, "0x100000002");
    assert!(!left.is_empty() && held.starts_with(&left));
}

/// A resize was cut off in a store without a free metadata page.
fn unfinished_resize() -> Vec<u8> {
    let mut bytes = HELLO.clone();
    let store = load(&bytes);
    let free: Vec<u32> = (0..store.geometry.md_pages()).filter(|&page| !store.used_pages.get(page)).collect();
    rewrite(&mut bytes, GAMMA, &free, |meta| {
        for page in &free {
            meta.xattrs.set(format!("page {page}").as_bytes(), &[b'x'; 3000]).unwrap();
        }
    });
    shrink_half(&mut bytes);
    bytes
}

#[test]
fn a_store_with_a_resize_that_cannot_be_finished_is_not_marked_as_left_in_order() {
    let damaged = unfinished_resize();
    let image = Image::new(&damaged);
    let before = readable(&image);
    assert!(before.iter().any(|(id, _)| *id == format!("{BETA:#x}")), "{before:?}");
    assert_eq!(codes(&image, &[]), ["half-done-resize"]);
    assert_eq!(codes(&image, &["--repair"]), ["half-done-resize"]);
    assert_eq!(codes(&image, &[]), ["half-done-resize"]);
    assert_eq!(readable(&image), before);
    nothing_is_lost_by_writing(&damaged);
    // It needs a page for a moment.
    done(&image, "rm", &[&format!("{GAMMA:#x}")]);
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
    let is_gamma = |(id, _): &(String, Vec<u8>)| *id == format!("{GAMMA:#x}");
    let others: Vec<_> = before.into_iter().filter(|blob| !is_gamma(blob)).collect();
    assert_eq!(readable(&image), others);
}

#[test]
fn no_new_blob_gets_an_id_that_anything_names() {
    // Page 6 is the lowest that is free.
    let named: u64 = 0x1_0000_0006;
    let value = named.to_le_bytes();
    /// Has an image name a blob, given in little endian.
    type Name = fn(&mut [u8], [u8; 8]);
    let names: [Name; 4] = [
        |bytes, value| {
            rewrite(bytes, 0x1_0000_0009, &[], |meta| {
                meta.set_internal(internal::SNAPSHOT_PENDING_REMOVAL, &value).unwrap();
            });
        },
        |bytes, value| {
            rewrite(bytes, 0x1_0000_0000, &[], |meta| {
                meta.set_internal(internal::SNAPSHOT, &value).unwrap();
            });
        },
        // In a blob that cannot be read: its extent page is damaged.
        |bytes, value| {
            rewrite(bytes, 0x1_0000_0002, &[], |meta| {
                meta.flags.invalid |= Flags::THIN;
                meta.set_internal(internal::SNAPSHOT, &value).unwrap();
            });
            let page = extent_page(bytes, 0x1_0000_0002);
            page_of(bytes, page)[200] ^= 1;
        },
        |bytes, value| {
            change_super(bytes, |block| {
                block.super_blob = Some(BlobId::from_raw(u64::from_le_bytes(value)));
            });
        },
    ];
    assert_eq!(id(&Image::new(&HELLO), "create", &["--clusters", "1"]), "0x100000006");
    for (nth, name) in names.into_iter().enumerate() {
        let mut bytes = HELLO.clone();
        name(&mut bytes, value);
        let image = Image::new(&bytes);
        assert_ne!(id(&image, "create", &["--clusters", "1"]), "0x100000006", "name {nth}");
        nothing_is_lost_by_writing(&bytes);
    }
}

#[test]
fn pages_that_a_damaged_blob_names_are_not_given_out() {
    let mut bytes = HELLO.clone();
    let page = extent_page(&bytes, 0x1_0000_0002);
    page_of(&mut bytes, page)[200] ^= 1;
    change_mask(&mut bytes, MaskKind::UsedPages, |bits| assert!(bits.clear(page as u32)));
    let image = Image::new(&bytes);
    for _ in 0..6 {
        assert_ne!(id(&image, "create", &["--clusters", "1"]), format!("{:#x}", 0x1_0000_0000 + page));
    }
    assert_eq!(page_of(&mut std::fs::read(image.path()).unwrap(), page), page_of(&mut bytes, page));
}

#[test]
fn a_repair_that_leaves_damage_keeps_the_finding_and_the_state_of_the_store() {
    let pending = |bytes: &mut [u8]| {
        rewrite(bytes, 0x1_0000_0009, &[], |meta| {
            meta.flags.data_read_only = 0;
            meta.set_internal(internal::SNAPSHOT_IN_PROGRESS, &0x1_0000_0000_u64.to_le_bytes()).unwrap();
        });
    };
    type Damage = fn(&mut [u8]);
    let damages: [(&str, Damage); 5] = [
        ("root-foreign", |bytes| change_page(bytes, 5, |page| page[0] = 7)),
        ("root-missing", |bytes| page_of(bytes, 5).fill(0)),
        ("root-crc", |bytes| page_of(bytes, 5)[100] ^= 1),
        ("blob-contents", |bytes| change_page(bytes, 5, |page| page[17] = 0xff)),
        ("chain-sequence", |bytes| change_page(bytes, 5, |page| page[8] = 1)),
    ];
    for (code, damage) in damages {
        let mut bytes = HELLO.clone();
        damage(&mut bytes);
        stays_found(&bytes, code);
        nothing_is_lost_by_writing(&bytes);
        // With something beside it that can be finished.
        pending(&mut bytes);
        stays_found(&bytes, code);
        // With masks of which one lacks what is in use.
        change_mask(&mut bytes, MaskKind::UsedClusters, |bits| assert!(bits.clear(9)));
        stays_found(&bytes, code);
        let image = Image::new(&bytes);
        assert_eq!(codes(&image, &["--repair"]), [code]);
        assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000005"]), [] as [&str; 0]);
    }
}

#[test]
fn one_damaged_blob_that_is_given_up_leaves_the_other_named() {
    let mut bytes = HELLO.clone();
    change_page(&mut bytes, 5, |page| page[0] = 7);
    page_of(&mut bytes, 2)[100] ^= 1;
    let image = Image::new(&bytes);
    assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000005"]), ["root-crc"]);
    assert_eq!(on(&image, "info", &["--json"]).json()["clean"], true);
    assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000002"]), [] as [&str; 0]);
    super::writing::in_order(&image);
}

#[test]
fn an_extent_page_that_is_shorter_than_its_blob_is_damage_in_a_store_left_in_order() {
    let mut bytes = HELLO.clone();
    let page = extent_page(&bytes, 0x1_0000_0002);
    change_page(&mut bytes, page, |page| {
        let length = u32::from_le_bytes(page[17..21].try_into().unwrap()) as usize;
        page[16 + 5 + length - 4..][..4].fill(0);
        page[17..21].copy_from_slice(&(length as u32 - 4).to_le_bytes());
    });
    assert_eq!(codes(&Image::new(&bytes), &[]), ["extent-contents"]);
    stays_found(&bytes, "extent-contents");
    nothing_is_lost_by_writing(&bytes);
    // Also where its masks are of no use.
    bytes[4096] ^= 0xff;
    stays_found(&bytes, "extent-contents");
    nothing_is_lost_by_writing(&bytes);
}

#[test]
fn a_root_of_a_dirty_store_that_does_not_say_so_any_more_stays_named() {
    let whole = unpack("steps/6-clone");
    for damage in [
        |page: &mut [u8]| page[0] ^= 1,
        |page: &mut [u8]| page[8] ^= 1,
        |page: &mut [u8]| page.fill(0x5a),
        |page: &mut [u8]| page[..4092].fill(0),
    ] {
        let mut bytes = whole.clone();
        change_page(&mut bytes, 0, damage);
        let found = codes(&Image::new(&bytes), &[]);
        stays_found(&bytes, &found[0]);
        nothing_is_lost_by_writing(&bytes);
        let image = Image::new(&bytes);
        assert_eq!(codes(&image, &["--repair", "--give-up", "0x100000000"]), [] as [&str; 0]);
    }
}

#[test]
fn roots_of_a_dirty_store_that_changed_places_are_both_named() {
    let mut bytes = unpack("steps/6-clone");
    let (a, b) = (page_of(&mut bytes, 0).to_vec(), page_of(&mut bytes, 5).to_vec());
    page_of(&mut bytes, 0).copy_from_slice(&b);
    page_of(&mut bytes, 5).copy_from_slice(&a);
    assert_eq!(codes(&Image::new(&bytes), &[]), ["root-foreign", "root-foreign"]);
    stays_found(&bytes, "root-foreign");
}

#[test]
fn nothing_is_allocated_or_freed_while_the_mask_of_blob_ids_lacks_a_blob() {
    let mut bytes = HELLO.clone();
    // Eta is a clone of the snapshot, as alpha is.
    change_mask(&mut bytes, MaskKind::UsedBlobIds, |bits| assert!(bits.clear(0xb)));
    let image = Image::new(&bytes);
    assert_eq!(codes(&image, &[]), ["unlisted-blob"]);
    for (verb, rest) in [("rm", ["0x100000009"].as_slice()), ("create", &["--clusters", "1"])] {
        let refused = on(&image, verb, rest);
        assert!(
            refused.code == 1 && refused.err.contains("missing in the mask of blob ids"),
            "{}",
            refused.err
        );
    }
    nothing_is_lost_by_writing(&bytes);
    assert_eq!(codes(&image, &["--repair"]), [] as [&str; 0]);
    let whole = Image::new(&HELLO);
    assert_eq!(contents(&image, "0x10000000b"), contents(&whole, "0x10000000b"));
}

#[test]
fn a_snapshot_that_a_damaged_blob_names_is_not_deleted() {
    let mut bytes = HELLO.clone();
    // Alpha; eta is its other clone.
    let page = extent_page(&bytes, 0x1_0000_0000);
    page_of(&mut bytes, page)[200] ^= 1;
    let image = Image::new(&bytes);
    let before = image.sha256();
    let refused = on(&image, "rm", &["0x100000009"]);
    assert!(refused.code == 1 && refused.err.contains("a damaged blob reads through it"), "{}", refused.err);
    on(&image, "check", &["--repair", "--give-up", "0x100000009", "--give-up", "0x10000000b"])
        .fails(1, &["0x100000009", "0x100000000", "reads through it"]);
    assert_eq!(image.sha256(), before);
}

#[test]
fn a_blob_without_clusters_and_without_a_table_becomes_what_its_flags_say() {
    let image = store(8);
    let made = id(&image, "create", &["--clusters", "0", "--thin"]);
    let mut bytes = std::fs::read(image.path()).unwrap();
    // As SPDK leaves it where a table without clusters does not fit.
    change_page(&mut bytes, 0, |page| page[45..].fill(0));
    change_page(&mut bytes, 0, |page| page[4088..4092].fill(0xff));
    let image = Image::new(&bytes);
    assert_eq!(codes(&image, &[]), [] as [&str; 0]);
    done(&image, "resize", &[&made, "3M"]);
    assert_eq!(codes(&image, &[]), [] as [&str; 0], "flags and map belong together");
    done(&image, "resize", &[&made, "0", "--shrink"]);
    assert_eq!(codes(&image, &[]), [] as [&str; 0]);
}
