//! Long work on the metadata thread leaves the thread's other work its turns, counted, not timed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use spindle_blob::{BlobOptions, Blobstore, InitOptions, LayoutOptions, LoadOptions, LoadStep, MdPages};
use spindle_block::{Device, Malloc};
use support::run_on;

/// A store on memory with small clusters.
async fn store(clusters: u64, pages: u32) -> (Arc<dyn Device>, Blobstore) {
    let device: Arc<dyn Device> = Malloc::new("memory", 4096, clusters + 64 + 2 * u64::from(pages)).unwrap();
    let layout =
        LayoutOptions { cluster_size: 4096, md_pages: MdPages::Count(pages), ..LayoutOptions::default() };
    let options = InitOptions { layout, ..InitOptions::default() };
    (device.clone(), Blobstore::init(device, options).await.unwrap())
}

/// How often another task of this thread has a turn while a future runs.
async fn turns_beside<T>(work: impl Future<Output = T>) -> (T, u64) {
    let turns = Rc::new(Cell::new(0));
    let counting = turns.clone();
    let beside = spindle_reactor::spawn_local(async move {
        loop {
            counting.set(counting.get() + 1);
            spindle_reactor::yield_now().await;
        }
    });
    let before = turns.get();
    let done = work.await;
    let taken = turns.get() - before;
    beside.abort();
    (done, taken)
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
        let counting = turns.clone();
        let beside = spindle_reactor::spawn_local(async move {
            loop {
                counting.fetch_add(1, Ordering::Relaxed);
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
            assert!(pair[1].1 > pair[0].1, "nobody else had a turn between two steps");
        }
        let (left, turns) = turns_beside(store.unload()).await;
        left.unwrap();
        assert!(turns >= BLOBS / 1024, "{turns} turns while the store was left");
    });
}

#[test]
fn large_blobs_leave_others_their_turns_while_they_are_made_grown_cut_and_deleted() {
    const CLUSTERS: u64 = 40_000;
    run_on("epoll", async || {
        let (_, store) = store(CLUSTERS, 1024).await;
        let least = CLUSTERS / 2 / 1024;
        let (id, turns) = turns_beside(store.create_blob(BlobOptions::thick(CLUSTERS / 2))).await;
        let id = id.unwrap();
        assert!(turns >= least, "{turns} turns while it was made");
        let blob = store.open_blob(id).await.unwrap();
        let (grown, turns) = turns_beside(blob.resize(CLUSTERS)).await;
        grown.unwrap();
        assert!(turns >= least, "{turns} turns while it was grown");
        let (cut, turns) = turns_beside(blob.resize(CLUSTERS / 2)).await;
        cut.unwrap();
        assert!(turns >= least, "{turns} turns while it was cut");
        // A huge blob without anything in it.
        let thin = store.create_blob(BlobOptions::thin(1 << 21)).await.unwrap();
        let thin = store.open_blob(thin).await.unwrap();
        let (unmapped, turns) = turns_beside(thin.unmap(0, thin.size())).await;
        unmapped.unwrap();
        assert!(turns >= (1 << 21) / 1024, "{turns} turns while nothing was unmapped");
        assert_eq!(thin.next_allocated(0), None);
        blob.close().await.unwrap();
        let (gone, turns) = turns_beside(store.delete_blob(id)).await;
        gone.unwrap();
        assert!(turns >= least, "{turns} turns while it was deleted");
    });
}
