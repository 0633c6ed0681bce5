//! What the maps of blobs take in memory, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use spindle_blob::{
    Blob, BlobId, BlobOptions, Blobstore, ExternalSource, InitOptions, LayoutOptions, LoadOptions, MdPages,
    StoreOptions,
};
use spindle_block::{Device, Malloc};
use spindle_mem::IoBuf;
use spindle_reactor::Thread;
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
    let device: Arc<dyn Device> = Malloc::new("memory", 4096, (LEAVES + 64) * LEAF).unwrap();
    let layout = LayoutOptions {
        cluster_size: CLUSTER as u32,
        md_pages: MdPages::Count(1024),
        ..LayoutOptions::default()
    };
    let options = InitOptions { layout, ..InitOptions::default() };
    (device.clone(), Blobstore::init(device, options).await.unwrap())
}

/// How the clusters of a blob lie on the device.
#[derive(Clone, Copy)]
enum Lie {
    /// One behind the other.
    InOrder,
    /// No two neighbours are neighbours, in a table of extent pages or in a run-length list.
    Scattered { table: bool },
}

async fn make(store: &Blobstore, lie: Lie, clusters: u64) -> BlobId {
    let Lie::Scattered { table } = lie else {
        return store.create_blob(BlobOptions::thick(clusters)).await.unwrap();
    };
    let options = BlobOptions { extent_table: table, ..BlobOptions::thin(clusters) };
    let id = store.create_blob(options).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    for index in (0..clusters).step_by(2).chain((1..clusters).step_by(2)) {
        blob.write(index * CLUSTER, IoBuf::zeroed(4096)).await.0.unwrap();
    }
    blob.close().await.unwrap();
    id
}

/// Bytes that a store with a blob of so many clusters takes: loaded, and with the blob open.
async fn loaded_and_open(lie: Lie, clusters: u64) -> (isize, isize) {
    let (device, store) = store().await;
    let id = make(&store, lie, clusters).await;
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

/// The same for each cluster of a large blob more than a small one has.
async fn per_cluster(lie: Lie, leaves: u64) -> (f64, f64) {
    // Once for what is made on first use.
    loaded_and_open(lie, LEAF).await;
    let few = loaded_and_open(lie, LEAF).await;
    let many = loaded_and_open(lie, LEAF * leaves).await;
    let each = |many: isize, few: isize| (many - few) as f64 / (LEAF * (leaves - 1)) as f64;
    (each(many.0, few.0), each(many.1, few.1))
}

/// Has a blob look up a cluster in each of so many leaves.
async fn look(blob: &Blob, leaves: u64) {
    for leaf in 0..leaves {
        blob.read(leaf * LEAF * CLUSTER, IoBuf::zeroed(CLUSTER as usize)).await.0.unwrap();
    }
}

#[test]
fn clusters_in_order_take_next_to_nothing_once_loaded_and_four_bytes_each_once_open() {
    run_on("epoll", async || {
        let (loaded, open) = per_cluster(Lie::InOrder, LEAVES).await;
        println!("in order: {loaded:.3} bytes per cluster loaded, {open:.3} open");
        assert!((0.0..0.25).contains(&loaded), "{loaded} bytes per cluster");
        assert!((4.0..4.5).contains(&open), "{open} bytes per cluster");
    });
}

#[test]
fn scattered_clusters_take_less_than_five_bytes_each_loaded_and_less_than_eight_open() {
    run_on("epoll", async || {
        for (table, leaves) in [(true, 64), (false, 9)] {
            let (loaded, open) = per_cluster(Lie::Scattered { table }, leaves).await;
            println!("scattered, table {table}: {loaded:.3} bytes per cluster loaded, {open:.3} open");
            assert!((4.0..5.0).contains(&loaded), "{loaded} bytes per cluster");
            // What was read in is given back when the leaves that threads see are there.
            assert!((4.0..6.0).contains(&open), "{open} bytes per cluster");
        }
    });
}

#[test]
fn blobs_that_are_opened_one_after_the_other_take_as_much_as_one() {
    run_on("epoll", async || {
        let (_, store) = store().await;
        let mut took = Vec::new();
        let before = HELD.get();
        for _ in 0..4 {
            let id = store.create_blob(BlobOptions::thick(LEAF * LEAVES / 4)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            took.push(HELD.get() - before);
            blob.close().await.unwrap();
            // The metadata thread has heard of it by the end of its next operation.
            store.info().await.unwrap();
        }
        println!("{took:?} bytes with one blob open");
        assert!(took[3] < took[0] + took[0] / 4, "{took:?}");
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

/// A thread that allocates, reads, makes channels, reads an external snapshot, and goes.
async fn come_and_go(blob: &Blob, outside: &Blob, at: u64) {
    let thread = Thread::create("conn", "[0-1023]").unwrap();
    let (blob, outside) = (blob.clone(), outside.clone());
    let touch = async move || {
        let block = || IoBuf::zeroed(CLUSTER as usize);
        blob.write(at * CLUSTER, block()).await.0.unwrap();
        blob.read(at * CLUSTER, block()).await.0.unwrap();
        outside.read(0, block()).await.0.unwrap();
        let channel = blob.channel().unwrap();
        channel.write(0, block()).fua().await.0.unwrap();
        channel.unmap(at * CLUSTER, CLUSTER).await.unwrap();
        blob.flush().await.unwrap();
        drop(support::poll_once(Box::pin(channel.read(0, block())).as_mut()));
    };
    thread.run(touch).await.unwrap();
    thread.exit();
    thread.joined().await;
}

/// How many turns another task has while a snapshot of a blob is taken that no thread but this one has touched.
async fn turns_of_a_snapshot(store: &Blobstore, id: BlobId) -> u64 {
    let (turns, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let counting = spindle_reactor::spawn_local({
        let (turns, over) = (turns.clone(), over.clone());
        async move {
            while !over.get() {
                turns.set(turns.get() + 1);
                spindle_reactor::yield_now().await;
            }
        }
    });
    let snapshot = store.snapshot(id, vec![]).await.unwrap();
    over.set(true);
    counting.await.unwrap();
    store.delete_blob(snapshot).await.unwrap();
    turns.get()
}

/// 2,000 threads; `SPINDLE_LONG=1` makes it 100,000.
#[test]
fn threads_that_exit_leave_no_memory_and_no_steps() {
    run_on("epoll", async || {
        let long = std::env::var_os("SPINDLE_LONG").is_some();
        let outside: Arc<dyn Device> = Malloc::new("outside", 4096, 64).unwrap();
        let device: Arc<dyn Device> = Malloc::new("memory", 4096, 1 << 14).unwrap();
        let md_pages = MdPages::Count(512);
        let layout = LayoutOptions { cluster_size: CLUSTER as u32, md_pages, ..LayoutOptions::default() };
        let external: ExternalSource = Arc::new(move |_| Some(outside.clone()));
        let options = StoreOptions { external: Some(external), ..StoreOptions::default() };
        let options = InitOptions { layout, store: options, ..InitOptions::default() };
        let store = Blobstore::init(device, options).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(64)).await.unwrap();
        let idle = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let clone = BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(8) };
        let clone = store.create_blob(clone).await.unwrap();
        let (blob, outside) = (store.open_blob(id).await.unwrap(), store.open_blob(clone).await.unwrap());
        let some = if long { 50_000 } else { 1_000 };
        let mut seen = Vec::new();
        for round in 0..3 {
            let threads = if round == 0 { 100 } else { some };
            for n in 0..threads {
                come_and_go(&blob, &outside, 1 + n % 60).await;
            }
            let free = store.info().await.unwrap().free_clusters;
            seen.push((HELD.get(), turns_of_a_snapshot(&store, idle).await, free));
        }
        println!(
            "bytes, turns and free clusters after 100, {}, {} threads: {seen:?}",
            some + 100,
            2 * some + 100
        );
        // Lists double now and then: a byte for each thread would be noticed.
        assert!(seen[2].0 - seen[1].0 < some as isize, "{seen:?}");
        assert!(seen[2].1 <= seen[0].1 + 2, "{seen:?}");
        assert_eq!(seen[2].2, seen[0].2, "no cluster stays with a thread that is gone: {seen:?}");
        blob.close().await.unwrap();
        outside.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

/// Bytes of each of `count` things that are made one after the other and kept.
async fn each<T>(count: usize, mut make: impl AsyncFnMut() -> T) -> (isize, Vec<T>) {
    let mut kept = Vec::with_capacity(count + 1);
    // The first makes what all share.
    kept.push(make().await);
    let before = HELD.get();
    for _ in 0..count {
        kept.push(make().await);
    }
    ((HELD.get() - before) / count as isize, kept)
}

/// The figures of `docs/sizing.md`, which a change that needs more must change, too.
#[test]
fn a_store_a_blob_an_opening_a_channel_and_a_request_take_what_the_page_on_sizes_says() {
    run_on("epoll", async || {
        const MANY: usize = 300;
        let (device, store) = store().await;
        let mut ids = Vec::new();
        for _ in 0..=MANY {
            ids.push(store.create_blob(BlobOptions::thin(LEAF)).await.unwrap());
        }
        store.unload().await.unwrap();
        let empty: Arc<dyn Device> = Malloc::new("empty", 4096, (LEAVES + 64) * LEAF).unwrap();
        let none = Blobstore::init(empty.clone(), InitOptions::default()).await.unwrap();
        none.unload().await.unwrap();
        let before = HELD.get();
        let none = Blobstore::load(empty, LoadOptions::default()).await.unwrap();
        let of_store = HELD.get() - before;
        none.unload().await.unwrap();

        let before = HELD.get();
        let store = Blobstore::load(device, LoadOptions::default()).await.unwrap();
        let of_blob = (HELD.get() - before - of_store) / (MANY as isize + 1);
        let mut next = ids.iter();
        let (opening, blobs) =
            each(MANY, async || store.open_blob(*next.next().unwrap()).await.unwrap()).await;
        let mut next = blobs.iter();
        let (channel, channels) = each(MANY, async || next.next().unwrap().channel().unwrap()).await;
        println!("bytes: store {of_store}, blob {of_blob}, opening {opening}, channel {channel}");
        assert!(of_store <= 4096, "a store without blobs: {of_store} bytes");
        assert!(of_blob <= 640, "a blob that is not open: {of_blob} bytes more");
        assert!(opening <= 2048, "an open blob: {opening} bytes more");
        assert!(channel <= 2880, "a channel: {channel} bytes more");
        drop(channels);
        for blob in blobs {
            blob.close().await.unwrap();
        }
        store.unload().await.unwrap();
    });
}
