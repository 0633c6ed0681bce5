//! Long work on the metadata thread leaves the thread's other work its turns.
//!
//! How long others wait for one is told as a part of all the work, both in time that this thread had on a core:
//! work in one piece is one long wait, however fast the machine is and whoever else is on it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
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

/// The time that this thread has had on a core.
fn on_core() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Does some work, during which no other task may wait for its turn for a quarter of it.
#[track_caller]
fn leaves_turns<T>(what: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let longest = Rc::new(Cell::new(Duration::ZERO));
        let seen = longest.clone();
        let beside = spindle_reactor::spawn_local(async move {
            let mut last = on_core();
            loop {
                spindle_reactor::yield_now().await;
                let now = on_core();
                seen.set(seen.get().max(now - last));
                last = now;
            }
        });
        spindle_reactor::yield_now().await;
        let begun = on_core();
        let done = work.await;
        // The last wait ends with the work.
        spindle_reactor::yield_now().await;
        let (whole, longest) = (on_core() - begun, longest.get());
        beside.abort();
        println!("{what}: a wait of {longest:?} at most in {whole:?}");
        assert!(longest * 4 <= whole, "{caller}: {what}: a wait of {longest:?} in {whole:?}");
        done
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
        leaves_turns("leaving it", store.unload()).await.unwrap();
    });
}

#[test]
fn large_blobs_leave_others_their_turns_whatever_is_done_with_them() {
    const CLUSTERS: u64 = 1 << 19;
    run_on("epoll", async || {
        let (_, store) = store(CLUSTERS, 4096).await;
        let thick = BlobOptions::thick(CLUSTERS / 2);
        let id = leaves_turns("making it", store.create_blob(thick)).await.unwrap();
        let blob = leaves_turns("opening it", store.open_blob(id)).await.unwrap();
        leaves_turns("growing it by one", blob.resize(CLUSTERS / 2 + 1)).await.unwrap();
        leaves_turns("growing it", blob.resize(CLUSTERS - 4096)).await.unwrap();
        leaves_turns("cutting it", blob.resize(CLUSTERS / 2)).await.unwrap();
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        blob.close().await.unwrap();
        leaves_turns("deleting its snapshot", store.delete_blob(snapshot)).await.unwrap();
        leaves_turns("deleting it", store.delete_blob(id)).await.unwrap();
        // A huge blob without anything in it.
        let thin = store.create_blob(BlobOptions::thin(1 << 21)).await.unwrap();
        let thin = store.open_blob(thin).await.unwrap();
        leaves_turns("zeroing nothing", thin.write_zeroes(0, thin.size())).await.unwrap();
        leaves_turns("unmapping nothing", thin.unmap(0, thin.size())).await.unwrap();
        assert_eq!(thin.next_allocated(0), None);
    });
}

#[test]
fn the_masks_of_a_vast_store_leave_others_their_turns() {
    run_on("epoll", async || {
        let (_, store) = store(1 << 26, 64).await;
        store.create_blob(BlobOptions::thick(1)).await.unwrap();
        leaves_turns("leaving it", store.unload()).await.unwrap();
    });
}
