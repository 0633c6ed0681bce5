//! What the maps of blobs take in memory, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use spindle_blob::{Blob, BlobOptions, Blobstore, InitOptions, LayoutOptions, LoadOptions, MdPages};
use spindle_block::{Device, Malloc};
use spindle_mem::IoBuf;
use support::run_on;

/// Counts what the current thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // During thread teardown the counter is gone; nothing is measured then.
    let _ = HELD.try_with(|held| held.set(held.get() + change));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLUSTER: u64 = 4096;

/// Clusters that a leaf of a map describes.
const LEAF: u64 = 512;

/// Leaves of a large blob.
const LEAVES: u64 = 256;

/// A store with small clusters and room for a large blob; what is not written takes no memory.
async fn store() -> (Arc<dyn Device>, Blobstore) {
    let device: Arc<dyn Device> = Malloc::new("memory", 4096, (LEAVES + 16) * LEAF).unwrap();
    let layout = LayoutOptions {
        cluster_size: CLUSTER as u32,
        md_pages: MdPages::Count(1024),
        ..LayoutOptions::default()
    };
    let options = InitOptions { layout, ..InitOptions::default() };
    (device.clone(), Blobstore::init(device, options).await.unwrap())
}

/// Bytes that a store with a blob of so many clusters takes: loaded, and with the blob open.
async fn loaded_and_open(clusters: u64) -> (isize, isize) {
    let (device, store) = store().await;
    let id = store.create_blob(BlobOptions::thick(clusters)).await.unwrap();
    store.unload().await.unwrap();
    let before = HELD.get();
    let store = Blobstore::load(device, LoadOptions::default()).await.unwrap();
    let loaded = HELD.get() - before;
    let blob = store.open_blob(id).await.unwrap();
    let open = HELD.get() - before;
    blob.close().await.unwrap();
    store.unload().await.unwrap();
    (loaded, open)
}

/// Has a blob look up a cluster in each of so many leaves.
async fn look(blob: &Blob, leaves: u64) {
    for leaf in 0..leaves {
        blob.read(leaf * LEAF * CLUSTER, IoBuf::zeroed(CLUSTER as usize)).await.0.unwrap();
    }
}

#[test]
fn a_cluster_takes_four_bytes_once_loaded_and_eight_once_its_blob_is_open() {
    run_on("epoll", async || {
        // Once for what is made on first use.
        loaded_and_open(LEAF).await;
        let (few_loaded, few_open) = loaded_and_open(LEAF).await;
        let (loaded, open) = loaded_and_open(LEAF * LEAVES).await;
        let per_cluster = |more: isize| more as f64 / (LEAF * (LEAVES - 1)) as f64;
        let (loaded, open) = (per_cluster(loaded - few_loaded), per_cluster(open - few_open));
        println!("{loaded:.3} bytes per cluster loaded, {open:.3} open");
        // A 512th of what stands around each leaf of 512 is allowed for.
        assert!((4.0..4.25).contains(&loaded), "{loaded} bytes per cluster");
        assert!((8.0..8.25).contains(&open), "{open} bytes per cluster");
    });
}

#[test]
fn a_leaf_that_a_clone_shares_takes_sixteen_bytes_at_most() {
    run_on("epoll", async || {
        let (_, store) = store().await;
        let id = store.create_blob(BlobOptions::thick(LEAF * LEAVES)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let snapshot = store.snapshot(id, vec![]).await.unwrap();
        look(&blob, LEAVES).await;
        let mut clones = Vec::new();
        let mut took = Vec::new();
        for leaves in [1, 1, LEAVES] {
            let clone = store.clone_blob(snapshot, vec![]).await.unwrap();
            let before = HELD.get();
            let clone = store.open_blob(clone).await.unwrap();
            look(&clone, leaves).await;
            took.push(HELD.get() - before);
            clones.push(clone);
        }
        let per_leaf = (took[2] - took[1]) as f64 / (LEAVES - 1) as f64;
        println!("{per_leaf:.2} bytes per shared leaf");
        assert!(per_leaf <= 16.0, "{per_leaf} bytes per shared leaf");
    });
}
