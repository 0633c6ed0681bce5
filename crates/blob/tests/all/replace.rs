//! Replacing the contents of a blob: a crash leaves the old or the new, and a try that ends early nothing.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::{Arc, Mutex};

use spindle_blob::{Blob, BlobError, BlobId, BlobOptions, Blobstore};
use spindle_engine::sim::{Crash, Disk, DiskOptions, Fault, State, disk};
use spindle_mem::IoBuf;

use crate::support::{
    CLUSTER, byte, check, check_image, fill, init, load, read, run_everywhere, run_on, slow_device, small,
};

const OLD: u8 = 0x11;
const NEW: u8 = 0x77;

/// A blob of four clusters: thin or thick, with a table or a list, or a clone of a snapshot with data everywhere.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Thin,
    Thick,
    List,
    Clone,
}

const KINDS: [Kind; 4] = [Kind::Thin, Kind::Thick, Kind::List, Kind::Clone];

/// Holds [`OLD`] in all but the last cluster, of a clone also there.
async fn old_blob(store: &Blobstore, kind: Kind) -> BlobId {
    let options = match kind {
        Kind::Thin | Kind::Clone => BlobOptions::thin(4),
        Kind::Thick => BlobOptions::thick(4),
        Kind::List => BlobOptions { extent_table: false, ..BlobOptions::thin(4) },
    };
    let id = store.create_blob(options.xattr("name", "vm")).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    fill(&blob, 0, 3 * CLUSTER, OLD).await;
    if let Kind::Clone = kind {
        fill(&blob, 3 * CLUSTER, CLUSTER, OLD).await;
        store.snapshot(id, Vec::new()).await.unwrap();
        fill(&blob, CLUSTER, 4096, OLD).await;
    }
    blob.flush().await.unwrap();
    blob.close().await.unwrap();
    id
}

/// Writes [`NEW`] into half of the second and all of the third cluster of new contents.
async fn write_new(blob: &Blob) -> spindle_blob::Replacement {
    let new = blob.replace().await.unwrap();
    new.write(2 * CLUSTER, IoBuf::copy_from(&vec![NEW; CLUSTER as usize])).await.unwrap();
    new.write(CLUSTER + CLUSTER / 2, IoBuf::copy_from(&vec![NEW; CLUSTER as usize / 2])).await.unwrap();
    new
}

/// Whether the blob holds the new contents; it holds all of the old ones otherwise.
async fn is_new(blob: &Blob, kind: Kind) -> bool {
    let half = CLUSTER / 2;
    let seen = [
        (0, CLUSTER),
        (CLUSTER, half),
        (CLUSTER + half, half),
        (2 * CLUSTER, CLUSTER),
        (3 * CLUSTER, CLUSTER),
    ];
    let mut bytes = Vec::new();
    for (at, len) in seen {
        bytes.push(byte(blob, at, len).await);
    }
    let last = if let Kind::Clone = kind { OLD } else { 0 };
    match bytes.as_slice() {
        [0, 0, NEW, NEW, 0] => true,
        old if old == [OLD, OLD, OLD, OLD, last] => false,
        mixed => panic!("{kind:?} holds neither: {mixed:x?}"),
    }
}

#[test]
fn new_contents_are_seen_only_when_they_are_committed_and_then_all_of_them() {
    run_everywhere(async || {
        for kind in KINDS {
            let disk = crate::support::disk(8);
            let store = init(&disk).await;
            let id = old_blob(&store, kind).await;
            let before = store.info().await.unwrap().free_clusters;
            let blob = store.open_blob(id).await.unwrap();
            let info = blob.info().await.unwrap();
            let new = write_new(&blob).await;
            assert!(!is_new(&blob, kind).await);
            drop(write_new(&blob).await);
            new.commit().await.unwrap();
            assert!(is_new(&blob, kind).await);
            let now = blob.info().await.unwrap();
            assert_eq!((now.clusters, now.thin, &now.parent), (info.clusters, info.thin, &info.parent));
            assert_eq!(blob.xattr("name").await.unwrap(), b"vm");
            // Written again, in place, and read by another handle.
            fill(&blob, 0, 4096, NEW).await;
            blob.close().await.unwrap();
            let free = store.info().await.unwrap().free_clusters;
            let own = store.blob_info(id).await.unwrap().allocated;
            assert_eq!(
                u64::from(free),
                u64::from(before) + info.allocated - own,
                "nothing is lost: {kind:?}"
            );
            store.unload().await.unwrap();
            let checked = check(&disk);
            assert_eq!(checked.free_clusters(), free);
            let store = load(&disk).await;
            let blob = store.open_blob(id).await.unwrap();
            assert_eq!((byte(&blob, 0, 4096).await, byte(&blob, 2 * CLUSTER, CLUSTER).await), (NEW, NEW));
            blob.close().await.unwrap();
            store.unload().await.unwrap();
        }
    });
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_contents_or_the_new() {
    for (seed, kind) in KINDS.into_iter().enumerate() {
        run_on(&format!("sim:{seed}"), async move || {
            let disk = Disk::new(DiskOptions { seed: seed as u64, ..DiskOptions::new(8 << 20) });
            let store = Blobstore::init(slow_device(&disk, 1), small()).await.unwrap();
            let id = old_blob(&store, kind).await;
            let states: Arc<Mutex<Vec<State>>> = Arc::default();
            let seen = states.clone();
            disk.observe(move |_, state| seen.lock().unwrap().push(state.clone()));
            let blob = store.open_blob(id).await.unwrap();
            write_new(&blob).await.commit().await.unwrap();
            blob.close().await.unwrap();
            disk.unobserve();
            let states = std::mem::take(&mut *states.lock().unwrap());
            let (mut old, mut new) = (0, 0);
            for state in &states {
                for crash in [Crash::Random, Crash::Random, Crash::Random] {
                    let mut choose = |n: usize| (spindle_reactor::random() % n as u64) as usize;
                    let image = state.crash(crash, &mut choose);
                    check_image(&image);
                    let crashed = Disk::from_image(image, DiskOptions::new(8 << 20));
                    let store = load(&crashed).await;
                    let blob = store.open_blob(id).await.unwrap();
                    *(if is_new(&blob, kind).await { &mut new } else { &mut old }) += 1;
                    assert_eq!(blob.xattr("name").await.unwrap(), b"vm");
                    blob.close().await.unwrap();
                    store.unload().await.unwrap();
                }
            }
            assert!(old > 0 && new > 0, "{kind:?}: {old} old, {new} new");
        });
    }
}

#[test]
fn what_cannot_be_replaced_is_refused_and_a_failed_try_gives_everything_back() {
    run_on("sim:1", async || {
        let disk = crate::support::disk(2);
        let store = init(&disk).await;
        let id = old_blob(&store, Kind::Thin).await;
        let blob = store.open_blob(id).await.unwrap();
        let free = store.info().await.unwrap().free_clusters;
        let wrong = blob.replace().await.unwrap();
        let unaligned = wrong.write(1, IoBuf::zeroed(4096)).await;
        assert!(matches!(unaligned, Err(BlobError::Unaligned { .. })), "{unaligned:?}");
        let beyond = wrong.write(4 * CLUSTER - 4096, IoBuf::zeroed(8192)).await;
        assert!(matches!(beyond, Err(BlobError::OutOfRange { .. })), "{beyond:?}");
        drop(wrong);
        // The device fails the first write of new data: the commit is refused.
        let failed = blob.replace().await.unwrap();
        disk.inject(Fault::error(disk::Operation::Write, 1));
        failed.write(0, IoBuf::copy_from(&vec![NEW; CLUSTER as usize])).await.unwrap_err();
        let given_up = blob.replace().await.unwrap();
        given_up.write(0, IoBuf::copy_from(&vec![NEW; CLUSTER as usize])).await.unwrap();
        given_up.abandon().await.unwrap();
        assert!(matches!(failed.commit().await, Err(BlobError::Refused { .. })));
        // A store that has no room for all of a thick blob.
        let large = BlobOptions::thick(u64::from(free) - 2);
        let large = store.open_blob(store.create_blob(large).await.unwrap()).await.unwrap();
        let full = large.replace().await.unwrap();
        full.write(0, IoBuf::copy_from(&vec![NEW; CLUSTER as usize])).await.unwrap();
        assert!(matches!(full.commit().await, Err(BlobError::OutOfSpace { .. })));
        assert_eq!(byte(&large, 0, CLUSTER).await, 0);
        let large_id = large.id();
        large.close().await.unwrap();
        store.delete_blob(large_id).await.unwrap();
        assert!(!is_new(&blob, Kind::Thin).await);
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        let snapshot = store.open_blob(snapshot).await.unwrap();
        assert!(matches!(
            snapshot.replace().await,
            Err(BlobError::ReadOnly { .. } | BlobError::MetadataReadOnly { .. })
        ));
        assert_eq!(read(&snapshot, 0, 4096).await, vec![OLD; 4096]);
        snapshot.close().await.unwrap();
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        assert_eq!(check(&disk).free_clusters(), free);
    });
}

#[test]
fn new_contents_outlive_the_handle_they_came_from_and_keep_the_store_until_they_end() {
    run_on("sim:2", async || {
        let disk = crate::support::disk(4);
        let store = init(&disk).await;
        let id = old_blob(&store, Kind::Thin).await;
        let free = store.info().await.unwrap().free_clusters;
        for commits in [false, true] {
            let blob = store.open_blob(id).await.unwrap();
            let new = write_new(&blob).await;
            blob.close().await.unwrap();
            assert!(matches!(store.unload().await, Err(BlobError::BlobsOpen { .. })));
            assert!(matches!(store.delete_blob(id).await, Err(BlobError::Busy { .. })));
            if commits {
                new.commit().await.unwrap()
            } else {
                new.abandon().await.unwrap()
            }
            let blob = store.open_blob(id).await.unwrap();
            assert_eq!(is_new(&blob, Kind::Thin).await, commits);
            blob.close().await.unwrap();
        }
        // Three clusters before, two now.
        assert_eq!(store.info().await.unwrap().free_clusters, free + 1);
        store.unload().await.unwrap();
        assert_eq!(check(&disk).free_clusters(), free + 1);
    });
}

#[test]
fn new_contents_that_are_dropped_leave_nothing_in_use_when_the_store_is_left_at_once() {
    run_on("sim:3", async || {
        let disk = crate::support::disk(4);
        let store = init(&disk).await;
        let id = old_blob(&store, Kind::Thin).await;
        let free = store.info().await.unwrap().free_clusters;
        let blob = store.open_blob(id).await.unwrap();
        drop(write_new(&blob).await);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        assert_eq!(check(&disk).free_clusters(), free);
    });
}
