//! Long work on the metadata thread leaves the thread's other work its turns.
//!
//! Turns that another task had are counted, at two sizes of the same work. Work that is done in steps gives turns
//! in proportion to its size; work in one piece gives the same few at any size.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use spindle_blob::{
    BlobError, BlobOptions, Blobstore, InitOptions, LayoutOptions, LoadOptions, LoadStep, MdPages,
};
use spindle_block::{Device, Malloc};
use spindle_mem::IoBuf;
use support::run_on;

/// A store on memory with small clusters.
async fn store(clusters: u64, pages: u32) -> (Arc<dyn Device>, Blobstore) {
    let device: Arc<dyn Device> = Malloc::new("memory", 4096, clusters + 64 + 2 * u64::from(pages)).unwrap();
    let layout =
        LayoutOptions { cluster_size: 4096, md_pages: MdPages::Count(pages), ..LayoutOptions::default() };
    let options = InitOptions { layout, ..InitOptions::default() };
    (device.clone(), Blobstore::init(device, options).await.unwrap())
}

/// Does some work, and counts the turns that another task of the thread had meanwhile.
async fn counting<T>(work: impl Future<Output = T>) -> (T, u64) {
    let turns = Rc::new(Cell::new(0));
    let counted = turns.clone();
    let beside = spindle_reactor::spawn_local(async move {
        loop {
            counted.set(counted.get() + 1);
            spindle_reactor::yield_now().await;
        }
    });
    let done = work.await;
    beside.abort();
    (done, turns.get())
}

/// What was done, and the turns that others had meanwhile.
type Counted = Vec<(&'static str, u64)>;

/// The same work at a size and at four times that size: each part of it must give others more turns at the second.
#[track_caller]
fn turns_grow_with_the_size(small: Counted, large: Counted) {
    assert_eq!(small.len(), large.len());
    for ((what, few), (_, many)) in small.into_iter().zip(large) {
        println!("{what}: {few} turns, {many} at four times the size");
        assert!(many >= 2 * few && many >= 8, "{what}: {few} turns, {many} at four times the size");
    }
}

#[test]
fn the_end_of_a_load_leaves_others_their_turns_and_says_how_far_it_is() {
    const BLOBS: u64 = 6000;
    run_on("epoll", async || {
        let (device, store) = store(64, 8192).await;
        for _ in 0..BLOBS {
            store.create_blob(BlobOptions::thin(1)).await.unwrap();
        }
        store.unload().await.unwrap();
        // Turns that others have had by each step of putting the blobs together.
        let turns = Arc::new(AtomicU64::new(0));
        let steps = Arc::new(Mutex::new(Vec::<(LoadStep, u64)>::new()));
        let (seen, clock) = (steps.clone(), turns.clone());
        let progress = move |step: LoadStep| seen.lock().unwrap().push((step, clock.load(Ordering::Relaxed)));
        let counted = turns.clone();
        let beside = spindle_reactor::spawn_local(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                spindle_reactor::yield_now().await;
            }
        });
        let options = LoadOptions { progress: Some(Arc::new(progress)), ..LoadOptions::default() };
        let store = Blobstore::load(device, options).await.unwrap();
        beside.abort();
        let steps: Vec<_> =
            steps.lock().unwrap().iter().copied().filter(|(step, _)| step.assembled.1 > 0).collect();
        let units = steps.last().unwrap().0.assembled.0;
        assert!(units >= 2 * BLOBS && steps.last().unwrap().0.assembled.1 >= units, "{units} units");
        for pair in steps.windows(2) {
            let more = pair[1].0.assembled.0 - pair[0].0.assembled.0;
            assert!((1..1024).contains(&more), "{more} units of work in one step");
            assert!(pair[1].1 > pair[0].1, "no other task had a turn between two steps");
        }
        let (left, turns) = counting(store.unload()).await;
        left.unwrap();
        assert!(turns >= BLOBS / 1024, "{turns} turns while it was left");
    });
}

/// The life of a huge blob, with the turns that others had in each part of it.
async fn life_of_a_blob(clusters: u64) -> Counted {
    let (_, store) = store(clusters, 4096).await;
    let mut counted = Counted::new();
    let (id, turns) = counting(store.create_blob(BlobOptions::thick(clusters / 2))).await;
    counted.push(("making it", turns));
    let id = id.unwrap();
    let (blob, turns) = counting(store.open_blob(id)).await;
    counted.push(("opening it", turns));
    let blob = blob.unwrap();
    for (what, size) in [
        ("growing it by one", clusters / 2 + 1),
        ("growing it", clusters - 4096),
        ("cutting it", clusters / 2),
    ] {
        let (resized, turns) = counting(blob.resize(size)).await;
        resized.unwrap();
        counted.push((what, turns));
    }
    let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
    blob.close().await.unwrap();
    for (what, id) in [("deleting its snapshot", snapshot), ("deleting it", id)] {
        let (deleted, turns) = counting(store.delete_blob(id)).await;
        deleted.unwrap();
        counted.push((what, turns));
    }
    counted
}

#[test]
fn large_blobs_leave_others_their_turns_whatever_is_done_with_them() {
    run_on("epoll", async || {
        turns_grow_with_the_size(life_of_a_blob(1 << 17).await, life_of_a_blob(1 << 19).await);
    });
}

#[test]
fn the_masks_of_a_vast_store_leave_others_their_turns() {
    async fn leaving(clusters: u64) -> Counted {
        let (_, store) = store(clusters, 64).await;
        store.create_blob(BlobOptions::thick(1)).await.unwrap();
        let (left, turns) = counting(store.unload()).await;
        left.unwrap();
        vec![("leaving it", turns)]
    }
    run_on("epoll", async || turns_grow_with_the_size(leaving(1 << 24).await, leaving(1 << 26).await));
}

#[test]
fn what_a_thin_blob_of_absurd_size_does_not_have_takes_no_steps() {
    /// A map of so many clusters, gone through one by one, would give others a turn for every thousand.
    const CLUSTERS: u64 = 1 << 28;
    run_on("epoll", async || {
        let (_, store) = store(64, 256).await;
        let base = store.create_blob(BlobOptions::thin(CLUSTERS)).await.unwrap();
        let open = store.open_blob(base).await.unwrap();
        open.write(7 << 12, IoBuf::zeroed(4096)).await.0.unwrap();
        let first = store.snapshot(base, Vec::new()).await.unwrap();
        open.write((CLUSTERS - 1) << 12, IoBuf::zeroed(4096)).await.0.unwrap();
        let second = store.snapshot(base, Vec::new()).await.unwrap();
        let few = |what: &str, turns| {
            println!("{what}: {turns} turns");
            assert!(turns < CLUSTERS / 1024 / 32, "{what}: {turns} turns");
        };
        let clone = store.clone_blob(second, Vec::new()).await.unwrap();
        let zeroed = store.open_blob(clone).await.unwrap();
        let (done, turns) = counting(zeroed.write_zeroes(0, zeroed.size())).await;
        done.unwrap();
        few("zeroing a clone", turns);
        assert_eq!(zeroed.allocated_ranges().await.unwrap(), [(7, 1), (CLUSTERS - 1, 1)]);
        let (done, turns) = counting(zeroed.unmap(0, zeroed.size())).await;
        done.unwrap();
        few("unmapping a clone", turns);
        zeroed.close().await.unwrap();
        store.delete_blob(clone).await.unwrap();
        let (refused, turns) = counting(store.inflate(base)).await;
        assert!(matches!(refused, Err(BlobError::OutOfSpace { needed: CLUSTERS, .. })), "{refused:?}");
        few("refusing to inflate it", turns);
        let (decoupled, turns) = counting(store.decouple_parent(base)).await;
        decoupled.unwrap();
        few("decoupling it", turns);
        assert_eq!(open.allocated_ranges().await.unwrap(), [(CLUSTERS - 1, 1)]);
        let (resized, turns) = counting(open.resize(CLUSTERS + 512)).await;
        resized.unwrap();
        few("growing it", turns);
        let (merged, turns) = counting(store.decouple_parent(base)).await;
        merged.unwrap();
        few("decoupling it from the other", turns);
        let (unmapped, turns) = counting(open.unmap(0, open.size())).await;
        unmapped.unwrap();
        few("unmapping it", turns);
        assert_eq!(open.allocated_ranges().await.unwrap(), []);
        for id in [second, first] {
            let (deleted, turns) = counting(store.delete_blob(id)).await;
            deleted.unwrap();
            few("deleting a snapshot", turns);
        }
    });
}
