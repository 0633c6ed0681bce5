//! Operations on metadata that run at the same time, on the same blob and on related ones: each is refused, or
//! finds the store as the other left it. The second begins a little later in every round, on a device whose
//! requests take time.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use spindle_blob::{Blob, BlobError, BlobId, BlobOptions, Blobstore, Parent};
use spindle_block::{Device, File, FileOptions};
use spindle_engine::sim::{Disk, Effect, Fault, Image, Operation, World};
use spindle_reactor::{Runtime, sleep, yield_now};
use support::{CLUSTER, byte, check, check_image, disk_of, fill, small};

/// The second of two operations begins so many microseconds later in every round.
const STEP: u32 = 5;

/// Longer than an operation takes, in microseconds.
const LONGEST: u32 = 300;

/// What is done to a store beside something else.
type Other = fn(Blobstore, BlobId, BlobId) -> std::pin::Pin<Box<dyn Future<Output = Result<(), BlobError>>>>;

/// Runs two operations, the second so many microseconds after the first.
async fn together<A: 'static, B>(
    first: impl Future<Output = A> + 'static,
    later: u32,
    second: impl Future<Output = B>,
) -> (A, B) {
    let first = spindle_reactor::spawn_local(first);
    sleep(Duration::from_micros(later.into())).await;
    let second = second.await;
    (first.await.unwrap(), second)
}

/// Runs a test's main with the disk for every moment at which the second operation may begin.
fn at_every_step(main: impl AsyncFnOnce(Disk, u32) + Clone + Send + 'static) {
    for later in (0..LONGEST).step_by(STEP as usize) {
        let main = main.clone();
        let world = World::new(later.into());
        // It tears no page, so that the store leaves no copies.
        let disk = disk_of(Image::zeroed(8 << 20));
        world.add_disk("disk", disk.clone());
        let runtime = Runtime::builder().reactors(1).world(world).build().unwrap();
        runtime.run(async move || main(disk, later).await).unwrap();
    }
}

/// The disk as a device whose requests take time.
async fn slow() -> Arc<dyn Device> {
    File::open(FileOptions::new("disk").writable(true).name("disk")).await.unwrap()
}

/// A store on it.
async fn init() -> Blobstore {
    init_on(slow().await).await
}

async fn init_on(device: Arc<dyn Device>) -> Blobstore {
    Blobstore::init(device, small()).await.unwrap()
}

/// A thin blob of four clusters: the first two hold the byte.
async fn thin(store: &Blobstore, value: u8) -> (BlobId, Blob) {
    let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    fill(&blob, 0, 2 * CLUSTER, value).await;
    (id, blob)
}

/// The store as it is agrees with what the format's loader finds on the disk.
async fn agrees(store: &Blobstore, disk: &Disk) {
    let found = check(disk);
    let ids: Vec<BlobId> = found.blobs.keys().copied().collect();
    assert_eq!(ids, store.blobs().await.unwrap());
    assert_eq!(found.free_clusters(), store.info().await.unwrap().free_clusters);
}

#[test]
fn a_blob_that_is_deleted_meanwhile_is_not_written_again() {
    let others: [Other; 4] = [
        |store, id, _| Box::pin(async move { store.snapshot(id, Vec::new()).await.map(drop) }),
        |store, id, _| Box::pin(async move { store.inflate(id).await }),
        |store, id, _| Box::pin(async move { store.decouple_parent(id).await }),
        |store, id, parent| Box::pin(async move { store.set_parent(id, Parent::Snapshot(parent)).await }),
    ];
    for other in others {
        at_every_step(async move |disk, later| {
            let store = init().await;
            let (id, blob) = thin(&store, 1).await;
            store.snapshot(id, Vec::new()).await.unwrap();
            let (unrelated, stays) = thin(&store, 2).await;
            let parent = store.snapshot(unrelated, Vec::new()).await.unwrap();
            blob.close().await.unwrap();
            let deleting = store.clone();
            let deleted = async move { deleting.delete_blob(id).await };
            let (deleted, done) = together(deleted, later, other(store.clone(), id, parent)).await;
            assert!(deleted.is_ok() || done.is_ok(), "{later}: {deleted:?}, {done:?}");
            assert_eq!(store.blobs().await.unwrap().contains(&id), deleted.is_err(), "{later}");
            assert_eq!(byte(&stays, 0, 2 * CLUSTER).await, 2);
            agrees(&store, &disk).await;
        });
    }
}

#[test]
fn a_handle_whose_blob_is_closed_and_deleted_meanwhile_changes_nothing() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        let handle = blob.clone();
        let resized = async move { handle.resize(9).await };
        let (_resized, deleted) = together(resized, later, async {
            blob.close().await.unwrap();
            store.delete_blob(id).await
        })
        .await;
        assert!(deleted.is_ok(), "{later}: {deleted:?}");
        assert_eq!(store.blobs().await.unwrap(), []);
        agrees(&store, &disk).await;
    });
}

#[test]
fn a_snapshot_is_merged_into_the_clone_that_it_has_by_then() {
    for snapshot_first in [false, true] {
        at_every_step(async move |disk, later| {
            let device = slow().await;
            let store = init_on(device.clone()).await;
            let (id, blob) = thin(&store, 1).await;
            let old = store.snapshot(id, Vec::new()).await.unwrap();
            fill(&blob, CLUSTER, CLUSTER, 2).await;
            let (deleting, snapshotting) = (store.clone(), store.clone());
            let deleted = async move { deleting.delete_blob(old).await };
            let snapshot = async move { snapshotting.snapshot(id, Vec::new()).await };
            let (deleted, snapshot) = match snapshot_first {
                true => {
                    let (snapshot, deleted) = together(snapshot, later, deleted).await;
                    (deleted, snapshot)
                }
                false => together(deleted, later, snapshot).await,
            };
            assert!(snapshot.is_ok() && deleted.is_ok(), "{later}: {snapshot:?}, {deleted:?}");
            assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, CLUSTER).await), (1, 2));
            agrees(&store, &disk).await;
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            let store = Blobstore::load(device, Default::default()).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, CLUSTER).await), (1, 2));
        });
    }
}

#[test]
fn a_snapshot_can_be_deleted_while_its_clones_are() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        let clones = [
            store.clone_blob(snapshot, Vec::new()).await.unwrap(),
            store.clone_blob(snapshot, Vec::new()).await.unwrap(),
        ];
        let deleting = clones.map(|clone| {
            let store = store.clone();
            spindle_reactor::spawn_local(async move { store.delete_blob(clone).await })
        });
        let clones_deleted = async {
            for clone in deleting {
                clone.await.unwrap().unwrap();
            }
        };
        // Behind them: the clock moves when both have begun.
        let (_, deleted) = together(clones_deleted, later + 1, store.delete_blob(snapshot)).await;
        assert!(deleted.is_ok(), "{later}: {deleted:?}");
        assert_eq!(byte(&blob, 0, 2 * CLUSTER).await, 1);
        assert_eq!(store.blobs().await.unwrap(), [id]);
        agrees(&store, &disk).await;
    });
}

#[test]
fn a_blob_that_is_being_deleted_is_not_opened() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        blob.close().await.unwrap();
        let deleting = store.clone();
        let deleted = async move { deleting.delete_blob(id).await };
        let (deleted, opened) = together(deleted, later, store.open_blob(id)).await;
        assert!(deleted.is_ok() != opened.is_ok(), "{later}: {deleted:?}, {opened:?}");
        agrees(&store, &disk).await;
    });
}

#[test]
fn nothing_is_changed_in_a_store_that_was_left_meanwhile() {
    let others: [Other; 4] = [
        |store, _, _| Box::pin(async move { store.create_blob(BlobOptions::thick(2)).await.map(drop) }),
        |store, id, _| Box::pin(async move { store.snapshot(id, Vec::new()).await.map(drop) }),
        |store, id, _| Box::pin(async move { store.inflate(id).await }),
        |store, id, _| Box::pin(async move { store.delete_blob(id).await }),
    ];
    for other in others {
        at_every_step(async move |disk, later| {
            let store = init().await;
            let (id, blob) = thin(&store, 1).await;
            blob.close().await.unwrap();
            let before = store.blobs().await.unwrap().len();
            let leaving = store.clone();
            let left = async move { leaving.unload().await };
            let (left, done) = together(left, later, other(store.clone(), id, id)).await;
            if left.is_ok() {
                let found = check(&disk);
                assert!(found.super_block.clean, "{later}: {done:?}");
                let is_thin = |blob: &spindle_format::Blob| blob.metadata.flags.thin();
                let same = found.blobs.len() == before && found.blobs.get(&id).is_some_and(is_thin);
                assert!(done.is_ok() != same, "{later}: {done:?}");
            }
        });
    }
}

#[test]
fn what_a_blob_reads_stays_when_its_parent_changes_while_it_is_decoupled() {
    let others: [Other; 3] = [
        |store, _, parent| Box::pin(async move { store.delete_blob(parent).await }),
        |store, _, parent| Box::pin(async move { store.inflate(parent).await }),
        |store, _, parent| Box::pin(async move { store.decouple_parent(parent).await }),
    ];
    for other in others {
        for decouple_first in [false, true] {
            at_every_step(async move |disk, later| {
                let store = init().await;
                let (id, blob) = thin(&store, 1).await;
                store.snapshot(id, Vec::new()).await.unwrap();
                fill(&blob, CLUSTER, CLUSTER, 2).await;
                let parent = store.snapshot(id, Vec::new()).await.unwrap();
                let (decoupling, changing) = (store.clone(), store.clone());
                let decoupled = async move { decoupling.decouple_parent(id).await };
                let changed = other(changing, id, parent);
                let done = match decouple_first {
                    true => together(decoupled, later, changed).await,
                    false => together(changed, later, decoupled).await,
                };
                assert!(done.0.is_ok() || done.1.is_ok(), "{later}: {done:?}");
                assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, CLUSTER).await), (1, 2));
                agrees(&store, &disk).await;
            });
        }
    }
}

#[test]
fn a_blob_that_is_cut_off_while_it_is_inflated_is_whole_as_far_as_it_goes() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        let inflating = store.clone();
        let inflated = async move { inflating.inflate(id).await };
        let (inflated, resized) = together(inflated, later, blob.resize(1)).await;
        assert!(inflated.is_ok() && resized.is_ok(), "{later}: {inflated:?}, {resized:?}");
        let info = blob.info().await.unwrap();
        assert_eq!((info.clusters, info.allocated, info.thin), (1, 1, false));
        agrees(&store, &disk).await;
    });
}

#[test]
fn a_store_that_is_being_left_opens_nothing() {
    at_every_step(async |_, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        blob.close().await.unwrap();
        let leaving = store.clone();
        let left = async move { leaving.unload().await };
        let (left, opened) = together(left, later, store.open_blob(id)).await;
        assert!(left.is_ok() != opened.is_ok(), "{later}: {left:?}, {opened:?}");
    });
}

#[test]
fn a_close_waits_for_what_another_is_just_bringing_to_disk() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        blob.set_xattr("name", "value").await.unwrap();
        let other = store.open_blob(id).await.unwrap();
        let synced = async move { other.sync().await };
        let syncing = spindle_reactor::spawn_local(synced);
        sleep(Duration::from_micros(later.into())).await;
        blob.close().await.unwrap();
        let found = check_image(disk.snapshot().durable());
        assert_eq!(found.blobs[&id].metadata.xattrs.get(b"name"), Some(&b"value"[..]), "{later}");
        syncing.await.unwrap().unwrap();
    });
}

#[test]
fn of_two_unmaps_of_a_cluster_none_succeeds_when_their_flush_fails() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (_, blob) = thin(&store, 1).await;
        blob.flush().await.unwrap();
        let effect = Effect::Error;
        disk.inject(Fault { operation: Operation::Flush, nth: 1, times: 1, effect });
        let handle = blob.clone();
        let first = async move { handle.unmap(0, CLUSTER).await };
        let (first, second) = together(first, later, blob.unmap(0, CLUSTER)).await;
        assert!(first.is_err() && second.is_err(), "{later}: {first:?}, {second:?}");
    });
}

#[test]
fn an_unmap_whose_clusters_a_later_one_takes_away_does_not_succeed_when_that_ones_flush_fails() {
    at_every_step(async |disk, later| {
        let store = init().await;
        // So many that the first lets others have a turn when it has seen what is there.
        let id = store.create_blob(BlobOptions::thin(8192)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, CLUSTER, 1).await;
        blob.flush().await.unwrap();
        let effect = Effect::Error;
        disk.inject(Fault { operation: Operation::Flush, nth: 1, times: 1, effect });
        let handle = blob.clone();
        let first = async move { handle.unmap(0, 8192 * CLUSTER).await };
        let first = spindle_reactor::spawn_local(first);
        for _ in 0..later % 8 {
            yield_now().await;
        }
        let second = blob.unmap(0, CLUSTER).await;
        let first = first.await.unwrap();
        assert!(first.is_err() && second.is_err(), "{later}: {first:?}, {second:?}");
    });
}

#[test]
fn an_id_that_has_a_new_owner_is_not_taken_for_the_old_one() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (id, blob) = thin(&store, 1).await;
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        fill(&blob, CLUSTER, CLUSTER, 2).await;
        blob.close().await.unwrap();
        let (gives, takes) = (store.clone(), store.clone());
        let given = spindle_reactor::spawn_local(async move { gives.delete_blob(id).await });
        // Its turn comes right behind the delete, and the page of the root is free by then.
        let renewed = async move { takes.clone_blob(snapshot, Vec::new()).await };
        let (renewed, deleted) = together(renewed, later, store.delete_blob(snapshot)).await;
        given.await.unwrap().unwrap();
        assert!(renewed.is_ok() || deleted.is_ok(), "{later}: {renewed:?}, {deleted:?}");
        if let Ok(clone) = renewed {
            let blob = store.open_blob(clone).await.unwrap();
            assert_eq!(byte(&blob, 0, 2 * CLUSTER).await, 1, "{later}: {deleted:?}");
        }
        agrees(&store, &disk).await;
    });
}

#[test]
fn no_cluster_that_is_unmapped_while_its_store_is_left_is_lost() {
    at_every_step(async |disk, later| {
        let store = init().await;
        let (_, blob) = thin(&store, 1).await;
        let handle = blob.clone();
        let unmapped = async move { handle.unmap(0, CLUSTER).await };
        let (_unmapped, left) = together(unmapped, later, async {
            blob.close().await.unwrap();
            store.unload().await
        })
        .await;
        left.unwrap();
        check(&disk);
    });
}
