//! Maps in memory: what blobs of a chain share, and that sharing never shows anything else.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use spindle_blob::{Blob, BlobOptions, Blobstore, InitOptions, LayoutOptions, MdPages};
use spindle_format::Parent;
use support::{device, disk, fill, read, run_everywhere, run_on};

const CLUSTER: u64 = 4096;
const LEAF: u64 = 512 * CLUSTER;

/// A store of 64 MiB with small clusters, so that a leaf of a map is 2 MiB.
async fn store() -> Blobstore {
    let layout = LayoutOptions {
        cluster_size: CLUSTER as u32,
        md_pages: MdPages::Count(64),
        ..LayoutOptions::default()
    };
    let options = InitOptions { layout, ..InitOptions::default() };
    Blobstore::init(device(&disk(64)), options).await.unwrap()
}

async fn leaves(store: &Blobstore) -> u64 {
    store.info().await.unwrap().map_leaves
}

/// The first byte of each cluster.
async fn look(blob: &Blob) -> Vec<u8> {
    let all = read(blob, 0, blob.size()).await;
    all.chunks(CLUSTER as usize).map(|cluster| cluster[0]).collect()
}

#[test]
fn clones_share_the_leaves_of_their_snapshot_until_they_differ() {
    run_everywhere(async || {
        let store = store().await;
        let blob =
            store.open_blob(store.create_blob(BlobOptions::thin(4 * 512)).await.unwrap()).await.unwrap();
        for leaf in 0..3 {
            fill(&blob, leaf * LEAF, CLUSTER, 1).await;
        }
        assert_eq!(leaves(&store).await, 3);
        let snapshot = store.snapshot(blob.id(), vec![]).await.unwrap();
        let expected = look(&blob).await;
        assert_eq!(leaves(&store).await, 3, "they are the snapshot's now");
        let mut clones = Vec::new();
        for _ in 0..10 {
            let clone = store.open_blob(store.clone_blob(snapshot, vec![]).await.unwrap()).await.unwrap();
            assert_eq!(look(&clone).await, expected);
            clones.push(clone);
        }
        assert_eq!(leaves(&store).await, 3, "none differs");
        fill(&clones[0], LEAF + CLUSTER, CLUSTER, 7).await;
        fill(&blob, 3 * LEAF, CLUSTER, 8).await;
        assert_eq!(leaves(&store).await, 5, "one leaf of each of two blobs differs");
        let mut differs = expected.clone();
        differs[513] = 7;
        assert_eq!(look(&clones[0]).await, differs);
        assert_eq!(look(&clones[1]).await, expected);
        for clone in clones {
            clone.close().await.unwrap();
        }
        blob.close().await.unwrap();
        assert_eq!(leaves(&store).await, 0, "no reader is left");
        store.unload().await.unwrap();
    });
}

#[test]
fn every_change_of_a_chain_is_seen_through_leaves_that_were_shared_before_it() {
    run_everywhere(async || {
        let store = store().await;
        // bottom <- middle <- top <- clone, each with one cluster of its own; all shared by those below.
        let blob = store.open_blob(store.create_blob(BlobOptions::thin(600)).await.unwrap()).await.unwrap();
        let mut snapshots = Vec::new();
        for (level, at) in [(1, 0), (2, 1), (3, 513)] {
            fill(&blob, at * CLUSTER, CLUSTER, level).await;
            snapshots.push(store.snapshot(blob.id(), vec![]).await.unwrap());
        }
        let clone = store.clone_blob(snapshots[2], vec![]).await.unwrap();
        let clone = store.open_blob(clone).await.unwrap();
        let mut expected = vec![0; 600];
        expected[..2].copy_from_slice(&[1, 2]);
        expected[513] = 3;
        assert_eq!((look(&blob).await, look(&clone).await), (expected.clone(), expected.clone()));

        store.delete_blob(snapshots[1]).await.unwrap();
        assert_eq!((look(&blob).await, look(&clone).await), (expected.clone(), expected.clone()));

        // Another parent for one of them, with other data.
        let other = store.open_blob(store.create_blob(BlobOptions::thin(600)).await.unwrap()).await.unwrap();
        fill(&other, 0, 600 * CLUSTER, 9).await;
        let other = store.snapshot(other.id(), vec![]).await.unwrap();
        store.set_parent(clone.id(), Parent::Snapshot(other)).await.unwrap();
        assert_eq!((look(&blob).await, look(&clone).await), (expected.clone(), vec![9; 600]));

        store.decouple_parent(clone.id()).await.unwrap();
        store.inflate(blob.id()).await.unwrap();
        fill(&clone, 0, CLUSTER, 4).await;
        assert_eq!((look(&blob).await, look(&clone).await[..2].to_vec()), (expected, vec![4, 9]));
        store.unload().await.unwrap_err();
        blob.close().await.unwrap();
        clone.close().await.unwrap();
    });
}

#[test]
fn a_clone_larger_than_its_parent_sees_nothing_of_a_larger_grandparent() {
    run_everywhere(async || {
        let store = store().await;
        let blob = store.open_blob(store.create_blob(BlobOptions::thin(40)).await.unwrap()).await.unwrap();
        fill(&blob, 0, 40 * CLUSTER, 5).await;
        let long = store.snapshot(blob.id(), vec![]).await.unwrap();
        blob.resize(10).await.unwrap();
        let short = store.snapshot(blob.id(), vec![]).await.unwrap();
        blob.resize(40).await.unwrap();
        let mut expected = vec![5; 10];
        expected.resize(40, 0);
        assert_eq!(look(&blob).await, expected);
        // As the length of the other clones that share it must not matter either.
        let clone = store.open_blob(store.clone_blob(long, vec![]).await.unwrap()).await.unwrap();
        assert_eq!(look(&clone).await, vec![5; 40]);
        assert_eq!(look(&blob).await, expected);
        blob.close().await.unwrap();
        clone.close().await.unwrap();
        store.delete_blob(short).await.unwrap();
        let blob = store.open_blob(store.next_blob(None).await.unwrap().unwrap()).await.unwrap();
        assert_eq!(look(&blob).await, expected);
    });
}

#[test]
fn a_blob_that_grows_beyond_its_snapshot_sees_nothing_of_what_was_cut_off_before() {
    run_everywhere(async || {
        let store = store().await;
        let blob = store.open_blob(store.create_blob(BlobOptions::thin(4)).await.unwrap()).await.unwrap();
        fill(&blob, 0, 4 * CLUSTER, 5).await;
        store.snapshot(blob.id(), vec![]).await.unwrap();
        blob.resize(1).await.unwrap();
        // Shares the leaf of the longer snapshot, and goes on doing so when a shorter one comes between.
        assert_eq!(look(&blob).await, [5]);
        store.snapshot(blob.id(), vec![]).await.unwrap();
        blob.resize(4).await.unwrap();
        assert_eq!(look(&blob).await, [5, 0, 0, 0]);
    });
}

#[test]
fn a_chain_of_thousands_is_opened_read_and_let_go_of() {
    run_on("epoll", async || {
        let disk = disk(64);
        let layout = LayoutOptions {
            cluster_size: CLUSTER as u32,
            md_pages: MdPages::Count(8000),
            ..Default::default()
        };
        let options = InitOptions { layout, ..InitOptions::default() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        let blob = store.open_blob(store.create_blob(BlobOptions::thin(2)).await.unwrap()).await.unwrap();
        fill(&blob, 0, CLUSTER, 1).await;
        for _ in 0..3000 {
            store.snapshot(blob.id(), vec![]).await.unwrap();
        }
        assert_eq!(look(&blob).await, [1, 0]);
        let id = blob.id();
        blob.close().await.unwrap();
        assert_eq!(leaves(&store).await, 0);
        let blob = store.open_blob(id).await.unwrap();
        assert_eq!(look(&blob).await, [1, 0]);
    });
}
