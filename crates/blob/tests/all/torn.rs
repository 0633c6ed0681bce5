//! Deletions and inflations that are cut off, or meet other work: what the disk holds is a store in order.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::{Arc, Mutex};

use spindle_blob::{BlobOptions, Blobstore, BsType, LoadOptions};
use spindle_engine::sim::{Crash, Disk, DiskOptions, State};
use support::{Growing, check_image, fill, run_on, slow_device, small};

const UNIT: u64 = 64 << 10;

fn torn_disk(seed: u64) -> Disk {
    Disk::new(DiskOptions { seed, ..DiskOptions::new(8 << 20) })
}

/// Collects the disk before everything that changes it from now on.
fn watch(disk: &Disk) -> Arc<Mutex<Vec<State>>> {
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = states.clone();
    disk.observe(move |_, state| seen.lock().unwrap().push(state.clone()));
    states
}

fn crashes_leave_order(states: &Mutex<Vec<State>>) {
    for state in states.lock().unwrap().iter() {
        for _ in 0..40 {
            let mut choose = |n: usize| (spindle_reactor::random() % n as u64) as usize;
            check_image(&state.crash(Crash::Random, &mut choose));
        }
    }
}

#[test]
fn a_root_that_is_torn_while_its_blob_is_deleted_is_a_blob_or_none() {
    run_on("sim:1", async || {
        let disk = torn_disk(1);
        let store = Blobstore::init(slow_device(&disk, 1), small()).await.unwrap();
        // Its root is full, so that a crash can tear it in the middle.
        let options = BlobOptions::thin(2).xattr("filler", vec![0xee; 3000]);
        let id = store.create_blob(options).await.unwrap();
        store.unload().await.unwrap();
        // After a load no copy of the root is left.
        let store = Blobstore::load(slow_device(&disk, 2), LoadOptions::default()).await.unwrap();
        let states = watch(&disk);
        store.delete_blob(id).await.unwrap();
        crashes_leave_order(&states);
    });
}

#[test]
fn a_root_without_room_is_restored_by_checksums_in_a_second_page() {
    run_on("sim:4", async || {
        let disk = torn_disk(4);
        let store = Blobstore::init(slow_device(&disk, 1), small()).await.unwrap();
        // So long that fewer bytes are left in the root than checksums take.
        let id = store.create_blob(BlobOptions::thin(2).xattr("filler", vec![1; 3990])).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let states = watch(&disk);
        for byte in 2..6 {
            blob.set_xattr("filler", vec![byte; 3990]).await.unwrap();
            blob.sync().await.unwrap();
        }
        // From a full root to one with room, and back.
        for len in [10, 3990, 10] {
            blob.set_xattr("filler", vec![9; len]).await.unwrap();
            blob.sync().await.unwrap();
        }
        crashes_leave_order(&states);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        let left = check_image(disk.snapshot().visible());
        assert_eq!((left.used_pages.count(), left.repairs), (1, Vec::new()), "no copy is left");
    });
}

#[test]
fn no_crash_leaves_a_super_block_that_names_a_deleted_blob() {
    for merged in [false, true] {
        run_on("sim:2", async move || {
            let disk = torn_disk(2);
            let store = Blobstore::init(slow_device(&disk, 1), small()).await.unwrap();
            let id = store.create_blob(BlobOptions::thin(2)).await.unwrap();
            let id = if merged { store.snapshot(id, Vec::new()).await.unwrap() } else { id };
            store.set_super_blob(Some(id)).await.unwrap();
            let states = watch(&disk);
            store.delete_blob(id).await.unwrap();
            assert_eq!(store.super_blob().await.unwrap(), None);
            crashes_leave_order(&states);
        });
    }
}

#[test]
fn no_crash_while_a_store_grows_or_changes_hands_leaves_one_that_cannot_be_loaded() {
    run_on("sim:3", async || {
        let disk = torn_disk(3);
        let growing = Growing::new(slow_device(&disk, 1), (4 << 20) / 512);
        let store = Blobstore::init(growing.clone(), small()).await.unwrap();
        let states = watch(&disk);
        growing.grow();
        store.grow().await.unwrap();
        for bs_type in [b"SOMEBODY'S OWN\0\0", b"ANOTHER'S OWN\0\0\0", b"A THIRD'S\0\0\0\0\0\0\0"] {
            store.set_bs_type(BsType(*bs_type)).await.unwrap();
        }
        store.set_super_blob(Some(store.create_blob(BlobOptions::thin(2)).await.unwrap())).await.unwrap();
        store.set_bs_type(BsType::LVOLSTORE).await.unwrap();
        crashes_leave_order(&states);
    });
}

#[test]
fn a_blob_that_is_unmapped_while_it_is_inflated_has_everything_or_stays_thin() {
    for seed in 0..20 {
        run_on(&format!("sim:{seed}"), async move || {
            let disk = torn_disk(seed);
            let store = Blobstore::init(slow_device(&disk, seed), small()).await.unwrap();
            let id = store.create_blob(BlobOptions::thin(6)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 0, 4 * UNIT, 7).await;
            let other = blob.clone();
            let unmap = spindle_reactor::spawn_local(async move { other.unmap(0, 3 * UNIT).await });
            store.inflate(id).await.unwrap();
            unmap.await.unwrap().unwrap();
            assert!(!blob.info().await.unwrap().thin);
            check_image(disk.snapshot().visible());
        });
    }
}
