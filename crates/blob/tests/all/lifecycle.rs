//! From an empty disk to a store and back: what every program does.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use spindle_blob::{BlobError, BlobOptions, Blobstore, LoadOptions, MdPages};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, Thread};
use support::{CLUSTER, byte, check, disk, fill, init, load, read, run_everywhere, slow_device, small};

#[test]
fn what_was_written_is_there_after_an_unload() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let thick = store.create_blob(BlobOptions::thick(3).xattr("name", "thick")).await.unwrap();
        let thin = store.create_blob(BlobOptions::thin(600)).await.unwrap();
        for (id, seed) in [(thick, 1), (thin, 2)] {
            let blob = store.open_blob(id).await.unwrap();
            assert_eq!(byte(&blob, 0, blob.size().min(1 << 20)).await, 0, "a new blob reads zero");
            fill(&blob, CLUSTER - 512, 1024, seed).await;
            blob.close().await.unwrap();
        }
        store.set_super_blob(Some(thick)).await.unwrap();
        store.unload().await.unwrap();
        check(&disk);

        let store = load(&disk).await;
        assert!(!store.info().await.unwrap().recovered, "it was unloaded in order");
        assert_eq!(store.super_blob().await.unwrap(), Some(thick));
        assert_eq!(store.blobs().await.unwrap(), [thick, thin]);
        for (id, seed) in [(thick, 1), (thin, 2)] {
            let blob = store.open_blob(id).await.unwrap();
            assert_eq!(byte(&blob, CLUSTER - 512, 1024).await, seed);
            assert_eq!(byte(&blob, 0, CLUSTER - 512).await, 0);
            assert_eq!(byte(&blob, CLUSTER + 512, CLUSTER).await, 0);
        }
        let blob = store.open_blob(thick).await.unwrap();
        assert_eq!(blob.xattr("name").await.unwrap(), b"thick");
    });
}

#[test]
fn a_store_that_was_never_unloaded_is_recovered() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(10)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 3 * CLUSTER, CLUSTER, 7).await;
        let free = store.info().await.unwrap().free_clusters;
        let again = load(&disk).await;
        assert!(again.info().await.unwrap().recovered);
        assert_eq!(again.info().await.unwrap().free_clusters, free);
        let blob = again.open_blob(id).await.unwrap();
        assert_eq!(byte(&blob, 3 * CLUSTER, CLUSTER).await, 7);
    });
}

#[test]
fn writes_that_meet_in_one_cluster_or_one_map_page_all_arrive() {
    for seed in 0..8 {
        support::run_on(&format!("sim:{seed}"), async move || {
            let disk = disk(8);
            let store = spindle_blob::Blobstore::init(slow_device(&disk, seed), small()).await.unwrap();
            let id = store.create_blob(BlobOptions::thin(40)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            let writes: Vec<_> = (0..80_u64)
                .map(|at| {
                    let blob = blob.clone();
                    spindle_reactor::spawn_local(async move {
                        let bytes = vec![at as u8 + 1; 512];
                        blob.write(at * CLUSTER / 2 + 1024, IoBuf::copy_from(&bytes)).await.0.unwrap();
                    })
                })
                .collect();
            for write in writes {
                write.await.unwrap();
            }
            for at in 0..80 {
                assert_eq!(byte(&blob, at * CLUSTER / 2 + 1024, 512).await, at as u8 + 1);
                assert_eq!(byte(&blob, at * CLUSTER / 2 + 1536, 512).await, 0);
            }
            assert_eq!(blob.info().await.unwrap().allocated, 40, "two writers share a cluster");
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            check(&disk);
        });
    }
}

#[test]
fn a_new_cluster_never_shows_what_was_deleted() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let secret = store.create_blob(BlobOptions::thick(100)).await.unwrap();
        let blob = store.open_blob(secret).await.unwrap();
        for index in 0..100 {
            fill(&blob, index * CLUSTER, CLUSTER, 0x77).await;
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        let store = load(&disk).await;
        store.delete_blob(secret).await.unwrap();
        let thick = store.create_blob(BlobOptions::thick(10)).await.unwrap();
        let thin = store.create_blob(BlobOptions::thin(10)).await.unwrap();
        let (thick, thin) = (store.open_blob(thick).await.unwrap(), store.open_blob(thin).await.unwrap());
        assert_eq!(byte(&thick, 0, thick.size()).await, 0);
        fill(&thin, 512, 512, 1).await;
        assert_eq!(byte(&thin, 1024, CLUSTER - 1024).await, 0);
    });
}

#[test]
fn a_full_store_says_so_and_loses_nothing() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(1000)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let free = u64::from(store.info().await.unwrap().free_clusters);
        for index in 0..free {
            fill(&blob, index * CLUSTER, 512, index as u8).await;
        }
        let (result, buffers) = blob.write(free * CLUSTER, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::OutOfSpace { .. })), "{result:?}");
        assert_eq!(buffers.len(), 512, "the memory comes back");
        assert!(matches!(
            store.create_blob(BlobOptions::thick(1)).await,
            Err(BlobError::OutOfSpace { needed: 1, free: 0, .. })
        ));
        for index in 0..free {
            assert_eq!(byte(&blob, index * CLUSTER, 512).await, index as u8);
        }
        blob.unmap(0, CLUSTER).await.unwrap();
        fill(&blob, free * CLUSTER, 512, 9).await;
    });
}

#[test]
fn ranges_are_checked_and_errors_name_them() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(2)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let (result, _) = blob.read(2 * CLUSTER, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::OutOfRange { .. })));
        let (result, _) = blob.read(100, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::Unaligned { .. })));
        assert_eq!(read(&blob, 0, 0).await, [0u8; 0]);
        assert!(matches!(store.unload().await, Err(BlobError::BlobsOpen { open: 1, .. })));
        let other = blob.clone();
        blob.close().await.unwrap();
        let (result, _) = other.read(0, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::Closed { .. })));
        store.unload().await.unwrap();
        assert!(matches!(store.blobs().await, Err(BlobError::Unloaded { .. })));
    });
}

#[test]
fn a_dropped_handle_closes_its_blob() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(2)).await.unwrap();
        drop(store.open_blob(id).await.unwrap());
        store.delete_blob(id).await.unwrap();
        store.unload().await.unwrap();
    });
}

#[test]
fn a_store_with_more_clusters_than_maps_can_tell_is_not_made() {
    run_everywhere(async || {
        let device = spindle_block::Null::new("vast", spindle_block::Geometry::new(4096, 1 << 31).unwrap());
        let mut options = small();
        options.layout.cluster_size = 4096;
        options.layout.md_pages = spindle_blob::MdPages::Count(64);
        let made = spindle_blob::Blobstore::init(device, options).await;
        assert!(matches!(made, Err(BlobError::TooManyClusters { clusters: 0x8000_0000, .. })), "{made:?}");
    });
}

#[test]
fn a_device_that_holds_something_is_not_overwritten_unless_forced() {
    run_everywhere(async || {
        let disk = disk(8);
        init(&disk).await.unload().await.unwrap();
        let again = spindle_blob::Blobstore::init(support::device(&disk), small()).await;
        assert!(matches!(again, Err(BlobError::InUse { found: "a Blobstore", .. })));
        let mut options = small();
        options.force = true;
        spindle_blob::Blobstore::init(support::device(&disk), options).await.unwrap();
    });
}

/// Tries to load a store; with a read that was given up under way on another thread, handles there, and an opening.
#[test]
fn a_store_whose_handles_are_all_dropped_lets_go_of_its_device_and_is_recovered_by_the_next_load() {
    run_everywhere(async || {
        let disk = disk(16);
        let device = slow_device(&disk, 5);
        let store = Blobstore::init(device.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, CLUSTER, 3).await;
        let thread = Thread::create("other", &Thread::current().unwrap().cores().to_string()).unwrap();
        let there = blob.clone();
        let held = thread.spawn(async move || {
            there.write(CLUSTER, IoBuf::copy_from(&[4; 512])).await.0.unwrap();
            drop(support::poll_once(Box::pin(there.read(0, IoBuf::zeroed(512))).as_mut()));
            there.device()
        });
        let last = held.await.unwrap();
        drop(store);
        let kept = Blobstore::load(device.clone(), LoadOptions::default()).await;
        assert!(matches!(kept, Err(BlobError::Open { .. })), "a blob is open: {kept:?}");
        // The device of an opening is the last that holds the store.
        drop(blob);
        drop(last);
        let store = Blobstore::load(device.clone(), LoadOptions::default()).await.unwrap();
        assert!(store.info().await.unwrap().recovered, "it was not unloaded cleanly");
        let blob = store.open_blob(id).await.unwrap();
        assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, 512).await), (3, 4));
        // A change whose future was dropped ends first.
        let opening = store.clone();
        let mut creating = Box::pin(opening.create_blob(BlobOptions::thick(2)));
        assert!(support::poll_once(creating.as_mut()).is_none());
        spindle_reactor::yield_now().await;
        drop(creating);
        drop((opening, blob, store));
        let store = Blobstore::load(device, LoadOptions::default()).await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
    });
}

/// The ways in which a store releases its device.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Dropped,
    Unloading,
    LoadGivenUp,
    InitGivenUp,
}

#[test]
fn a_load_on_another_thread_waits_for_a_store_that_is_letting_go_of_the_device() {
    use Leaving::{Dropped, InitGivenUp, LoadGivenUp, Unloading};
    for engine in ["epoll", "sim:1", "sim:2", "sim:3", "sim:4"] {
        let engine: EngineKind = engine.parse().unwrap();
        let runtime = Runtime::builder().reactors(2).engine(engine).build().unwrap();
        let main = async || {
            let device = slow_device(&disk(16), 5);
            let other = Thread::create("other", "[0-1023]").unwrap();
            let mut store = Blobstore::init(device.clone(), small()).await.unwrap();
            for leaving in [Dropped, Unloading, LoadGivenUp, InitGivenUp, Dropped, Unloading] {
                let busy = device.clone();
                let refused = other.run(async move || load_and_unload(busy).await).await.unwrap();
                assert!(matches!(refused, Err(BlobError::Open { .. })), "one that is kept: {refused:?}");
                match leaving {
                    Dropped => drop(store),
                    Unloading => {
                        assert!(support::poll_once(Box::pin(store.unload()).as_mut()).is_none());
                        drop(store);
                    }
                    LoadGivenUp | InitGivenUp => {
                        store.unload().await.unwrap();
                        let (there, options) = (device.clone(), LoadOptions::default());
                        let mut options_of_new = small();
                        options_of_new.force = true;
                        let mut load = Box::pin(Blobstore::load(there.clone(), options));
                        let mut init = Box::pin(Blobstore::init(there, options_of_new));
                        for _ in 0..3 {
                            let begun = match leaving {
                                LoadGivenUp => support::poll_once(load.as_mut()).is_none(),
                                _ => support::poll_once(init.as_mut()).is_none(),
                            };
                            assert!(begun, "it takes longer");
                            spindle_reactor::yield_now().await;
                        }
                    }
                }
                let free = device.clone();
                let loaded = other.run(async move || load_and_unload(free).await).await.unwrap();
                loaded.unwrap_or_else(|error| panic!("{leaving:?}: {error}"));
                store = Blobstore::load(device.clone(), LoadOptions::default()).await.unwrap();
            }
            store.unload().await.unwrap();
        };
        runtime.run(main).unwrap();
    }
}

async fn load_and_unload(device: std::sync::Arc<dyn spindle_block::Device>) -> Result<(), BlobError> {
    Blobstore::load(device, LoadOptions::default()).await?.unload().await
}

#[test]
fn xattrs_set_through_handles_that_were_dropped_are_there_after_an_unload() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(1).xattr("old", "old")).await.unwrap();
        let other = store.create_blob(BlobOptions::thin(1)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        blob.set_xattr("new", "new").await.unwrap();
        blob.remove_xattr("old").await.unwrap();
        drop(blob);
        store.open_blob(other).await.unwrap().set_xattr("large", vec![7; 3000]).await.unwrap();
        store.unload().await.unwrap();
        check(&disk);

        let store = load(&disk).await;
        assert!(!store.info().await.unwrap().recovered, "it was unloaded in order");
        let xattrs = async |id| {
            let xattrs = store.blob_xattrs(id).await.unwrap();
            xattrs.into_iter().map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(xattrs(id).await, [(b"new".to_vec(), b"new".to_vec())]);
        assert_eq!(xattrs(other).await, [(b"large".to_vec(), vec![7; 3000])]);
        store.unload().await.unwrap();
    });
}

#[test]
fn an_unload_that_has_no_page_for_a_dropped_xattr_says_so_and_leaves_the_store_in_order() {
    run_everywhere(async || {
        let disk = disk(8);
        let mut options = small();
        options.layout.md_pages = MdPages::Count(8);
        let store = Blobstore::init(support::device(&disk), options).await.unwrap();
        let mut ids = Vec::new();
        while let Ok(id) = store.create_blob(BlobOptions::thin(1)).await {
            ids.push(id);
        }
        let blob = store.open_blob(ids[0]).await.unwrap();
        // No room in its page, and no page left.
        for name in ["a", "b"] {
            blob.set_xattr(name, vec![7; 3000]).await.unwrap();
        }
        drop(blob);
        let error = store.unload().await.unwrap_err();
        assert!(matches!(error, BlobError::OutOfMetadata { .. }), "{error}");
        check(&disk);

        let store = load(&disk).await;
        assert!(!store.info().await.unwrap().recovered, "it was left in order");
        assert_eq!(store.blob_xattrs(ids[0]).await.unwrap(), []);
        store.unload().await.unwrap();
    });
}
