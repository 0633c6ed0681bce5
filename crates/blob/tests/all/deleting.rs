//! Deletions that answer at once: what they write until then, and what is cleared behind them.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use spindle_blob::{BlobError, BlobId, BlobOptions, Blobstore, ClearMethod, LoadOptions, MdPages};
use spindle_block::{Device, File, FileOptions, OpenError};
use spindle_engine::sim::{Crash, Disk, DiskOptions, Image, State};
use support::{
    CLUSTER, Host, Stuck, byte, check, check_image, device, disk, fill, run_everywhere, run_on, slow_device,
    small, small_with,
};

/// A disk that cannot tear a page.
fn whole_pages(mib: u64) -> Disk {
    Disk::new(DiskOptions { atomic_unit: 4096, ..DiskOptions::new(mib << 20) })
}

/// Makes a blob of so many clusters, with data in each.
async fn full_blob(store: &Blobstore, clusters: u64, method: ClearMethod) -> BlobId {
    let options = BlobOptions { clear_method: method, ..BlobOptions::thin(clusters) };
    let id = store.create_blob(options).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    fill(&blob, 0, clusters * CLUSTER, 7).await;
    blob.flush().await.unwrap();
    blob.close().await.unwrap();
    id
}

/// Waits until nothing is left to clear.
async fn cleared(store: &Blobstore) {
    while store.info().await.unwrap().clearing_bytes > 0 {
        spindle_reactor::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything that would follow is held by the device.
#[test]
fn a_deletion_answers_after_one_write_of_the_root_and_one_flush_however_large_the_blob() {
    run_everywhere(async || {
        // Where a root can be torn, a copy of it goes with it, when the root in place is durable.
        let (whole, torn) = (2, 4);
        let cases = [(whole_pages(8), 1, whole), (whole_pages(8), 100, whole), (disk(8), 100, torn)];
        for (disk, clusters, writes) in cases.into_iter().chain([(whole_pages(80), 1100, whole)]) {
            let stuck = Stuck::new(device(&disk));
            let store = Blobstore::init(stuck.clone(), small()).await.unwrap();
            let kept = full_blob(&store, 1, ClearMethod::Default).await;
            let id = full_blob(&store, clusters, ClearMethod::Default).await;
            let free = store.info().await.unwrap().free_clusters;
            stuck.let_pass(writes);
            let deleted = spindle_reactor::timeout(Duration::from_secs(60), store.delete_blob(id)).await;
            deleted.unwrap_or_else(|_| panic!("{clusters} clusters: it waits for more")).unwrap();
            let info = store.info().await.unwrap();
            assert_eq!(u64::from(info.free_clusters - free), clusters, "they are free at once");
            assert_eq!(info.clearing_bytes, clusters * CLUSTER);
            assert_eq!(store.blobs().await.unwrap(), [kept]);
            stuck.let_go();
            store.unload().await.unwrap();
            let seen = check(&disk);
            assert_eq!(u64::from(seen.free_clusters()), u64::from(free) + clusters);
        }
    });
}

#[test]
fn what_a_deleted_blob_held_comes_back_to_the_host_in_the_background_and_shows_meanwhile() {
    run_everywhere(async || {
        for method in [ClearMethod::Default, ClearMethod::Unmap] {
            let host = Host::new(device(&disk(80)), true);
            let store = Blobstore::init(host.clone(), small()).await.unwrap();
            let used = host.used();
            let id = full_blob(&store, 1000, method).await;
            assert!(host.used() >= used + 1000);
            store.delete_blob(id).await.unwrap();
            let left = store.info().await.unwrap().clearing_bytes / CLUSTER;
            assert!(left <= 1000 && host.used() as u64 <= used as u64 + left + 3, "what is still held shows");
            cleared(&store).await;
            assert!(host.used() <= used + 3, "{} units more", host.used() - used);
            let free = store.info().await.unwrap().free_clusters;
            store.unload().await.unwrap();
            assert_eq!(free, store_of(&host).await.info().await.unwrap().free_clusters);
        }
    });
}

async fn store_of(host: &Arc<Host>) -> Blobstore {
    Blobstore::load(host.clone(), LoadOptions::default()).await.unwrap()
}

#[test]
fn a_clear_method_decides_what_happens_after_a_deletion() {
    run_everywhere(async || {
        for method in [ClearMethod::None, ClearMethod::WriteZeroes] {
            let host = Host::new(device(&disk(8)), true);
            let store = Blobstore::init(host.clone(), small()).await.unwrap();
            let id = full_blob(&store, 20, method).await;
            let used = host.used();
            store.delete_blob(id).await.unwrap();
            let left = store.info().await.unwrap().clearing_bytes;
            assert!(left <= if method == ClearMethod::None { 0 } else { 20 * CLUSTER });
            cleared(&store).await;
            assert_eq!(host.used(), used, "neither gives the host anything back");
            // What was zeroed is given to a blob that waives zeroes.
            let all = store.info().await.unwrap().free_clusters.into();
            let waives = BlobOptions { clear_method: ClearMethod::None, ..BlobOptions::thick(all) };
            let id = store.create_blob(waives).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            let shows = support::read(&blob, 0, all * CLUSTER).await.contains(&7);
            assert_eq!(shows, method == ClearMethod::None);
        }
    });
}

#[test]
fn a_full_store_gives_out_what_is_not_cleared_yet_and_it_reads_zero() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = Blobstore::init(device(&disk), small()).await.unwrap();
        let all = u64::from(store.info().await.unwrap().free_clusters);
        for thick in [true, false, true] {
            let id = full_blob(&store, all, ClearMethod::Default).await;
            assert_eq!(store.info().await.unwrap().free_clusters, 0);
            store.delete_blob(id).await.unwrap();
            let options = if thick { BlobOptions::thick(all) } else { BlobOptions::thin(all) };
            let id = store.create_blob(options).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            for at in 0..all {
                fill(&blob, at * CLUSTER, 512, 3).await;
            }
            for at in 0..all {
                assert_eq!(byte(&blob, at * CLUSTER + 512, CLUSTER - 512).await, 0);
            }
            blob.close().await.unwrap();
            assert_eq!(store.info().await.unwrap().clearing_bytes, 0, "all have an owner");
            store.delete_blob(id).await.unwrap();
        }
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn a_store_without_free_pages_gives_out_those_of_a_deleted_blob_at_once() {
    run_everywhere(async || {
        {
            let disk = whole_pages(8);
            let store = Blobstore::init(device(&disk), small_with(MdPages::Count(40))).await.unwrap();
            // Of more than one page.
            let large = BlobOptions::thin(1).xattr("filler", vec![1; 3000]).xattr("more", vec![2; 3000]);
            for _ in 0..3 {
                let id = store.create_blob(large.clone()).await.unwrap();
                while store.create_blob(BlobOptions::thin(1)).await.is_ok() {}
                store.delete_blob(id).await.unwrap();
                store.create_blob(large.clone()).await.unwrap();
                let error = store.create_blob(BlobOptions::thin(1)).await.unwrap_err();
                assert!(matches!(error, BlobError::OutOfMetadata { .. }), "{error}");
                for id in store.blobs().await.unwrap() {
                    store.delete_blob(id).await.unwrap();
                }
                assert_eq!(store.info().await.unwrap().used_md_pages, 0);
            }
            store.unload().await.unwrap();
            assert_eq!(check(&disk).used_pages.count(), 0);
        }
    });
}

/// On a host that can tell what it holds: the program is gone at every moment of the clearing.
#[test]
fn a_program_that_dies_after_a_deletion_leaks_no_space_of_the_host() {
    for engine in ["epoll", "sim:1", "sim:2"] {
        run_on(engine, async || {
            for steps in 0..4_u64 {
                let host = Host::new(device(&disk(48)), true);
                let store = Blobstore::init(host.clone(), small()).await.unwrap();
                full_blob(&store, 3, ClearMethod::Default).await;
                let used = host.used();
                // More than one step.
                let id = full_blob(&store, 600, ClearMethod::Default).await;
                store.delete_blob(id).await.unwrap();
                for _ in 0..steps * 3 {
                    spindle_reactor::yield_now().await;
                }
                drop(store);
                let store = store_of(&host).await;
                assert!(store.info().await.unwrap().recovered);
                if steps % 2 == 0 {
                    while host.used() > used + 3 {
                        spindle_reactor::sleep(Duration::from_millis(5)).await;
                    }
                    assert_eq!(byte(&open_first(&store).await, 0, 3 * CLUSTER).await, 7, "the rest stays");
                }
                store.unload().await.unwrap();
                assert!(host.used() <= used + 3, "{} units more", host.used() - used);
            }
        });
    }
}

async fn open_first(store: &Blobstore) -> spindle_blob::Blob {
    let id = store.blobs().await.unwrap()[0];
    store.open_blob(id).await.unwrap()
}

/// The same in a file, which the file system frees.
#[test]
fn a_file_gets_smaller_after_a_deletion_also_after_a_kill() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    for engine in ["epoll", "auto"] {
        let path = directory.path().join(engine);
        let held = {
            let path = path.clone();
            move || std::fs::metadata(&path).unwrap().blocks() * 512
        };
        run_on(engine, async move || {
            let open = async |create: bool| loop {
                let options = FileOptions::new(&path).writable(true).block_size(4096);
                let options = if create { options.create(40 << 20) } else { options };
                match File::open(options).await {
                    Ok(file) => break file as Arc<dyn Device>,
                    // The store that was dropped has it still.
                    Err(OpenError::Busy { .. }) => spindle_reactor::sleep(Duration::from_millis(5)).await,
                    Err(error) => panic!("{error}"),
                }
            };
            let store = Blobstore::init(open(true).await, small()).await.unwrap();
            let id = full_blob(&store, 300, ClearMethod::Default).await;
            assert!(held() > 300 * CLUSTER);
            store.delete_blob(id).await.unwrap();
            drop(store);
            let store = Blobstore::load(open(false).await, LoadOptions::default()).await.unwrap();
            while held() > 100 * CLUSTER {
                spindle_reactor::sleep(Duration::from_millis(5)).await;
            }
            let id = full_blob(&store, 300, ClearMethod::Default).await;
            assert!(held() > 300 * CLUSTER);
            store.delete_blob(id).await.unwrap();
            store.unload().await.unwrap();
            assert!(held() < 100 * CLUSTER, "an unload leaves nothing to clear");
        });
    }
}

async fn is_merged(blob: &spindle_blob::Blob) {
    assert_eq!(byte(blob, 0, 2 * CLUSTER).await, 1);
    assert_eq!(byte(blob, 2 * CLUSTER, 4 * CLUSTER).await, 2);
    assert_eq!(byte(blob, 6 * CLUSTER, 10 * CLUSTER).await, 0);
}

#[test]
fn a_snapshot_is_deleted_in_a_store_without_a_free_page_and_a_crash_leaves_its_clone_what_it_reads() {
    for engine in ["epoll", "sim:1", "sim:2"] {
        run_on(engine, async || a_snapshot_is_deleted(4096).await);
    }
}

/// The copy of one page at a time has room.
#[test]
fn where_pages_tear_a_snapshot_is_deleted_in_a_store_with_one_free_page() {
    for engine in ["epoll", "sim:1", "sim:2"] {
        run_on(engine, async || a_snapshot_is_deleted(512).await);
    }
}

/// Deletes a snapshot in a store of a few pages, as one on 20 MiB with clusters of 4 MiB has, where none is kept
/// back: without a free page, and where pages tear with one.
async fn a_snapshot_is_deleted(atomic_unit: u32) {
    let pages = if atomic_unit < 4096 { 6 } else { 5 };
    let disk = Disk::new(DiskOptions { atomic_unit, ..DiskOptions::new(8 << 20) });
    let options = small_with(MdPages::Count(pages));
    let store = Blobstore::init(slow_device(&disk, 3), options).await.unwrap();
    let id = store.create_blob(BlobOptions::thin(16)).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    fill(&blob, 0, 4 * CLUSTER, 1).await;
    let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
    fill(&blob, 2 * CLUSTER, 4 * CLUSTER, 2).await;
    blob.flush().await.unwrap();
    store.create_blob(BlobOptions::thin(1)).await.unwrap();
    let error = store.create_blob(BlobOptions::thin(1)).await.unwrap_err();
    assert!(matches!(error, BlobError::OutOfMetadata { free: 0, .. }), "{error}");
    let states = Arc::new(Mutex::new(Vec::<State>::new()));
    let seen = states.clone();
    disk.observe(move |_, state| seen.lock().unwrap().push(state.clone()));
    store.delete_blob(snapshot).await.unwrap();
    disk.unobserve();
    is_merged(&blob).await;
    blob.close().await.unwrap();
    store.unload().await.unwrap();
    assert_eq!(check(&disk).used_pages.count(), 3);
    let states = std::mem::take(&mut *states.lock().unwrap());
    for state in states {
        for _ in 0..4 {
            let mut choose = |n: usize| (spindle_reactor::random() % n as u64) as usize;
            let image = state.crash(Crash::Random, &mut choose);
            decoupled(image.clone(), atomic_unit, id, snapshot).await;
            crashed(image, atomic_unit, id, snapshot).await;
        }
    }
}

/// Where pages tear, each write to a new cluster takes the free page for a while, for a copy, and does not wait for
/// the deletion, which needs it in several steps and to go back.
#[test]
fn a_deletion_that_shares_the_last_pages_with_writes_ends_or_is_refused_and_the_store_goes_on() {
    for seed in 1..=24 {
        for pages in [7, 8] {
            run_on(&format!("sim:{seed}"), async move || {
                a_snapshot_is_deleted_beside_writes(seed, pages).await
            });
        }
    }
}

async fn a_snapshot_is_deleted_beside_writes(seed: u64, pages: u32) {
    let disk = Disk::new(DiskOptions { atomic_unit: 512, ..DiskOptions::new(8 << 20) });
    let options = small_with(MdPages::Count(pages));
    let store = Blobstore::init(slow_device(&disk, seed), options).await.unwrap();
    let id = store.create_blob(BlobOptions::thin(16)).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    fill(&blob, 0, 4 * CLUSTER, 1).await;
    let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
    fill(&blob, 2 * CLUSTER, 4 * CLUSTER, 2).await;
    let other = store.open_blob(store.create_blob(BlobOptions::thin(64)).await.unwrap()).await.unwrap();
    fill(&other, 0, CLUSTER, 3).await;
    let writers: Vec<_> = (0..3)
        .map(|first| {
            let other = other.clone();
            spindle_reactor::spawn_local(async move {
                for cluster in (1 + first..60).step_by(3) {
                    // One that finds no page is refused.
                    let data = spindle_mem::IoBuf::copy_from(&[3; 4096]);
                    let _refused_or_done = other.write(cluster * CLUSTER, data).await;
                }
            })
        })
        .collect();
    for _ in 0..20 {
        match store.delete_blob(snapshot).await {
            Err(BlobError::OutOfMetadata { .. }) => {}
            ended => {
                ended.unwrap();
                break;
            }
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    fill(&other, 61 * CLUSTER, CLUSTER, 4).await;
    match store.delete_blob(snapshot).await {
        Ok(()) | Err(BlobError::NoSuchBlob { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    is_merged(&blob).await;
    other.close().await.unwrap();
    blob.close().await.unwrap();
    store.unload().await.unwrap();
}

fn disk_again(image: Image, atomic_unit: u32) -> Disk {
    let options = DiskOptions { atomic_unit, ..DiskOptions::new(image.size()) };
    Disk::from_image(image, options)
}

/// A snapshot that a load shows is there after the next one, too, although its clone needs it no more.
async fn decoupled(image: Image, atomic_unit: u32, clone: BlobId, snapshot: BlobId) {
    let disk = disk_again(image, atomic_unit);
    let device = device(&disk);
    let store = Blobstore::load(device.clone(), LoadOptions::default()).await.unwrap();
    if store.blobs().await.unwrap().contains(&snapshot) {
        store.decouple_parent(clone).await.unwrap();
        drop(store);
        let store = Blobstore::load(device, LoadOptions::default()).await.unwrap();
        assert!(store.blobs().await.unwrap().contains(&snapshot));
        store.unload().await.unwrap();
    }
}

/// The clone reads the same, and the snapshot is there, and can be deleted, or is gone.
async fn crashed(image: Image, atomic_unit: u32, clone: BlobId, snapshot: BlobId) {
    check_image(&image);
    let disk = disk_again(image, atomic_unit);
    let store = Blobstore::load(device(&disk), LoadOptions::default()).await.unwrap();
    for _ in 0..2 {
        let blob = store.open_blob(clone).await.unwrap();
        is_merged(&blob).await;
        blob.close().await.unwrap();
        if store.blobs().await.unwrap().contains(&snapshot) {
            store.delete_blob(snapshot).await.unwrap();
        }
    }
    store.unload().await.unwrap();
    check(&disk);
}
