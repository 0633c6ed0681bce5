//! Handles on threads other than the metadata thread, chains of snapshots, devices that fail.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::Arc;

use spindle_blob::{BlobError, BlobOptions, Blobstore, LoadOptions, Parent, StoreOptions};
use spindle_block::{Effect, Faulty, Malloc, Operation};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, Thread};
use support::{CLUSTER, byte, check, check_image, device, disk, fill, init, load, run_everywhere, small};

#[test]
fn threads_write_and_take_snapshots_at_the_same_time() {
    for engine in ["epoll", "sim:1", "sim:2", "sim:3", "sim:4"] {
        let engine: EngineKind = engine.parse().unwrap();
        let runtime = Runtime::builder().reactors(2).engine(engine).build().unwrap();
        let main = async || {
            let disk = disk(8);
            let store = init(&disk).await;
            let id = store.create_blob(BlobOptions::thin(16)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            let cores = spindle_reactor::Thread::current().unwrap().cores().to_string();
            let writers: Vec<_> = (0..3_u8)
                .map(|at| {
                    let thread = Thread::create(&format!("writer{at}"), &cores).unwrap();
                    let blob = blob.clone();
                    let job = thread.spawn(async move || {
                        for round in 1..=20_u8 {
                            for index in 0..16 {
                                let bytes = IoBuf::copy_from(&[round; 4096]);
                                blob.write(index * CLUSTER + u64::from(at) * 4096, bytes).await.0.unwrap();
                            }
                        }
                    });
                    (thread, job)
                })
                .collect();
            let mut snapshots = Vec::new();
            for _ in 0..3 {
                snapshots.push(store.snapshot(id, Vec::new()).await.unwrap());
            }
            let first = store.open_blob(snapshots[0]).await.unwrap();
            let before = support::read(&first, 0, first.size()).await;
            for (_, job) in writers {
                job.await.unwrap();
            }
            assert!(before == support::read(&first, 0, first.size()).await, "a snapshot never changes");
            for index in 0..16 {
                assert_eq!(byte(&blob, index * CLUSTER, 3 * 4096).await, 20);
            }
            first.close().await.unwrap();
            for snapshot in snapshots {
                store.delete_blob(snapshot).await.unwrap();
            }
            for index in 0..16 {
                assert_eq!(byte(&blob, index * CLUSTER, 3 * 4096).await, 20);
            }
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            check(&disk);
        };
        runtime.run(main).unwrap();
    }
}

#[test]
fn a_long_chain_reads_what_each_link_wrote() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(20)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        for depth in 0..16 {
            fill(&blob, depth * CLUSTER, CLUSTER, depth as u8 + 1).await;
            store.snapshot(id, Vec::new()).await.unwrap();
        }
        for depth in 0..16 {
            assert_eq!(byte(&blob, depth * CLUSTER, CLUSTER).await, depth as u8 + 1);
        }
        assert_eq!(blob.info().await.unwrap().allocated, 0);
        blob.flush().await.unwrap();
        let store = load(&disk).await;
        let blob = store.open_blob(id).await.unwrap();
        for depth in 0..16 {
            assert_eq!(byte(&blob, depth * CLUSTER, CLUSTER).await, depth as u8 + 1);
        }
    });
}

#[test]
fn a_clone_of_an_external_snapshot_reads_it_until_written() {
    run_everywhere(async || {
        let outside = Malloc::new("outside", 512, 3 * CLUSTER / 2 / 512).unwrap();
        let channel = spindle_block::Channel::open(outside.clone()).unwrap();
        channel.write(0, IoBuf::copy_from(&vec![7; (3 * CLUSTER / 2) as usize])).await.0.unwrap();
        let external = StoreOptions {
            external: Some(Arc::new(move |id| (id == b"outside").then(|| outside.clone() as _))),
            ..StoreOptions::default()
        };
        let disk = disk(8);
        let options = spindle_blob::InitOptions { store: external, ..small() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        let clone = BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(4) };
        let id = store.create_blob(clone).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 512, 512, 9).await;
        assert_eq!(byte(&blob, 512, 512).await, 9);
        assert_eq!(byte(&blob, 1024, CLUSTER / 2 * 3 - 1024).await, 7);
        assert_eq!(byte(&blob, CLUSTER / 2 * 3, CLUSTER).await, 0, "zeroes beyond its end");
        assert_eq!(blob.info().await.unwrap().parent, Some(Parent::External(b"outside".to_vec())));
        assert!(!blob.info().await.unwrap().degraded);
        blob.close().await.unwrap();
        assert!(!store.blob_info(id).await.unwrap().degraded);
        store.unload().await.unwrap();

        let store = Blobstore::load(device(&disk), LoadOptions::default()).await.unwrap();
        assert!(store.blob_info(id).await.unwrap().degraded);
        let blob = store.open_blob(id).await.unwrap();
        assert!(blob.info().await.unwrap().degraded);
        assert_eq!(byte(&blob, 512, 512).await, 9, "its own cluster needs no parent");
        let (result, _) = blob.read(CLUSTER, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::MissingParent { .. })), "{result:?}");
        blob.close().await.unwrap();
        store.delete_blob(id).await.unwrap();
    });
}

/// A device of one byte throughout.
async fn full_of(name: &str, clusters: u64, byte: u8) -> Arc<Malloc> {
    let device = Malloc::new(name, 512, clusters * CLUSTER / 512).unwrap();
    let channel = spindle_block::Channel::open(device.clone()).unwrap();
    channel.write(0, IoBuf::copy_from(&vec![byte; (clusters * CLUSTER) as usize])).await.0.unwrap();
    device
}

#[test]
fn an_external_snapshot_that_was_missing_or_has_moved_is_set_below_an_open_clone() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let clone = BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(4) };
        let id = store.create_blob(clone).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        let below = store.open_blob(snapshot).await.unwrap();
        assert!(below.external_device().is_none() && blob.info().await.unwrap().degraded);
        let (result, _) = blob.read(0, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::MissingParent { .. })), "{result:?}");

        let first = full_of("first", 2, 7).await;
        below.set_external_device(first.clone()).await.unwrap();
        assert!(below.external_device().is_some() && !blob.info().await.unwrap().degraded);
        assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, 3 * CLUSTER, CLUSTER).await), (7, 0));
        fill(&blob, 512, 512, 9).await;
        below.set_external_device(full_of("second", 4, 8).await).await.unwrap();
        assert_eq!((byte(&blob, 0, 512).await, byte(&blob, 512, 512).await), (7, 9), "copied up before");
        assert_eq!((byte(&blob, CLUSTER, CLUSTER).await, byte(&blob, 3 * CLUSTER, CLUSTER).await), (8, 8));
        assert_eq!(Arc::strong_count(&first), 1, "every thread has let go of it");

        let refused = blob.set_external_device(first).await;
        assert!(matches!(refused, Err(BlobError::Refused { .. })), "{refused:?}");
    });
}

#[test]
fn every_thread_lets_go_of_an_external_snapshot_when_the_last_blob_that_reads_it_does() {
    run_everywhere(async || {
        let outside = full_of("outside", 2, 7).await;
        let found = outside.clone();
        let external: spindle_blob::ExternalSource = Arc::new(move |_| Some(found.clone()));
        let external = StoreOptions { external: Some(external), ..StoreOptions::default() };
        let disk = disk(8);
        let options = spindle_blob::InitOptions { store: external, ..small() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        let unread = Arc::strong_count(&outside);
        let clone = || BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(2) };
        let first = store.create_blob(clone()).await.unwrap();
        let second = store.create_blob(clone()).await.unwrap();
        let cores = Thread::current().unwrap().cores().to_string();
        let other = Thread::create("other", &cores).unwrap();
        let let_go = async || {
            for _ in 0..1000 {
                if Arc::strong_count(&outside) == unread {
                    return true;
                }
                spindle_reactor::yield_now().await;
            }
            false
        };

        let blobs = [store.open_blob(first).await.unwrap(), store.open_blob(second).await.unwrap()];
        for blob in &blobs {
            let there = blob.clone();
            other.run(async move || assert_eq!(byte(&there, 0, CLUSTER).await, 7)).await.unwrap();
            assert_eq!(byte(blob, 0, CLUSTER).await, 7);
        }
        let [one, another] = blobs;
        one.close().await.unwrap();
        assert!(!let_go().await, "the other blob reads it");
        assert_eq!(byte(&another, 0, CLUSTER).await, 7);
        another.close().await.unwrap();
        assert!(let_go().await, "closed");

        // A snapshot stands between; then the clone is inflated, the snapshot deleted.
        let snapshot = store.snapshot(first, Vec::new()).await.unwrap();
        let blob = store.open_blob(first).await.unwrap();
        assert_eq!(byte(&blob, 0, CLUSTER).await, 7);
        assert!(!let_go().await);
        store.inflate(first).await.unwrap();
        assert!(let_go().await, "inflated");
        store.delete_blob(snapshot).await.unwrap();
        store.delete_blob(second).await.unwrap();
        assert!(let_go().await, "deleted");
        blob.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

#[test]
fn a_blob_put_under_another_parent_reads_what_that_one_has() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let mut snapshots = Vec::new();
        let mut blobs = Vec::new();
        for seed in 1..=2 {
            let id = store.create_blob(BlobOptions::thin(3)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 0, CLUSTER, seed).await;
            snapshots.push(store.snapshot(id, Vec::new()).await.unwrap());
            blobs.push(blob);
        }
        let blob = &blobs[0];
        fill(blob, CLUSTER, CLUSTER, 9).await;
        assert_eq!(byte(blob, 0, CLUSTER).await, 1);
        store.set_parent(blob.id(), Parent::Snapshot(snapshots[1])).await.unwrap();
        assert_eq!((byte(blob, 0, CLUSTER).await, byte(blob, CLUSTER, CLUSTER).await), (2, 9));
        let circle = store.set_parent(blob.id(), Parent::Snapshot(blob.id())).await;
        assert!(matches!(circle, Err(BlobError::Refused { .. })));
        store.delete_blob(snapshots[0]).await.unwrap();
        assert_eq!(store.blob_info(snapshots[1]).await.unwrap().clones.len(), 2);

        let target = Malloc::new("target", 512, 3 * CLUSTER / 512).unwrap();
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let notes = seen.clone();
        let progress = move |done, total| notes.lock().unwrap().push((done, total));
        store.shallow_copy(snapshots[1], target.clone(), progress).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(1, 1)]);
        let channel = spindle_block::Channel::open(target).unwrap();
        let (result, copied) = channel.read(0, IoBuf::zeroed(CLUSTER as usize)).await;
        result.unwrap();
        assert!(copied.to_vec().iter().all(|&byte| byte == 2));
        drop(blobs);
    });
}

#[test]
fn a_store_grows_with_its_device() {
    run_everywhere(async || {
        let image = {
            let disk = disk(8);
            let store = init(&disk).await;
            store.create_blob(BlobOptions::thick(2)).await.unwrap();
            store.unload().await.unwrap();
            disk.snapshot().visible().to_bytes()
        };
        let larger = disk(16);
        larger.write(0, &image).unwrap();
        let options = LoadOptions { grow: true, ..LoadOptions::default() };
        let store = Blobstore::load(device(&larger), options).await.unwrap();
        let id = store.create_blob(BlobOptions::thick(150)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        assert_eq!(byte(&blob, 0, blob.size()).await, 0);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        assert_eq!(check(&larger).geometry.total_clusters(), 256);
    });
}

/// A history whose n-th write or flush fails. Errors are allowed anywhere; nothing may be wrong on the disk.
#[test]
fn a_device_that_fails_once_costs_an_error_and_nothing_else() {
    for operation in [Operation::Write, Operation::Flush, Operation::WriteZeroes] {
        for nth in 1..40 {
            support::run_on("sim:1", async move || {
                let disk = disk(8);
                let faulty = Faulty::new("disk0", device(&disk));
                let store = Blobstore::init(faulty.clone(), small()).await.unwrap();
                faulty.inject(&[operation], nth, 1, Effect::Fail);
                let result = history(&store).await;
                let hit = faulty.seen() >= nth;
                assert!(hit || result.is_ok(), "an error without a cause: {result:?}");
                let refused = store.create_blob(BlobOptions::thin(1)).await;
                if operation == Operation::Flush && hit {
                    assert!(matches!(refused, Err(BlobError::Poisoned { .. })), "{nth}: {refused:?}");
                }
                check_image(disk.snapshot().visible());
                let store = load(&disk).await;
                store.create_blob(BlobOptions::thin(1)).await.unwrap();
            });
        }
    }
}

#[test]
fn a_flush_that_failed_fails_all_later_ones_until_the_store_is_loaded_again() {
    run_everywhere(async || {
        let disk = disk(8);
        let faulty = Faulty::new("disk0", device(&disk));
        let store = Blobstore::init(faulty.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(2)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, 512, 1).await;
        faulty.inject(&[Operation::Flush], 1, 1, Effect::Fail);
        assert!(matches!(blob.flush().await, Err(BlobError::Io(_))));
        assert!(matches!(blob.flush().await, Err(BlobError::Poisoned { .. })));
        let (result, _) = blob.write(CLUSTER, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::Poisoned { .. })), "it needs a new cluster: {result:?}");
        assert_eq!(byte(&blob, 0, 512).await, 1, "reading goes on");
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        let store = load(&disk).await;
        store.open_blob(id).await.unwrap().flush().await.unwrap();
    });
}

async fn history(store: &Blobstore) -> Result<(), BlobError> {
    let id = store.create_blob(BlobOptions::thin(8)).await?;
    let blob = store.open_blob(id).await?;
    for index in 0..3 {
        blob.write(index * CLUSTER + 512, IoBuf::copy_from(&[1; 512])).await.0?;
    }
    let snapshot = store.snapshot(id, Vec::new()).await?;
    blob.write(512, IoBuf::copy_from(&[2; 512])).await.0?;
    blob.set_xattr("name", "x").await?;
    blob.sync().await?;
    blob.resize(600).await?;
    blob.resize(4).await?;
    store.delete_blob(snapshot).await?;
    blob.unmap(0, CLUSTER).await?;
    blob.close().await?;
    store.delete_blob(id).await
}

#[test]
fn a_snapshot_of_one_blob_keeps_writes_to_others_going() {
    for seed in 0..8 {
        support::run_on(&format!("sim:{seed}"), async move || {
            let disk = disk(8);
            let store = Blobstore::init(support::slow_device(&disk, seed), small()).await.unwrap();
            let mut blobs = Vec::new();
            for _ in 0..2 {
                let id = store.create_blob(BlobOptions::thin(16)).await.unwrap();
                blobs.push(store.open_blob(id).await.unwrap());
                fill(&blobs[blobs.len() - 1], 0, CLUSTER, 1).await;
            }
            let under_way: Vec<_> = (0..16)
                .map(|index| {
                    let blob = blobs[0].clone();
                    spindle_reactor::spawn_local(async move {
                        fill(&blob, index * CLUSTER, 512, 2).await;
                    })
                })
                .collect();
            let taken = std::rc::Rc::new(std::cell::Cell::new(false));
            let (other, done) = (blobs[1].clone(), taken.clone());
            let writer = spindle_reactor::spawn_local(async move {
                let mut written = 0;
                while !done.get() {
                    fill(&other, written % 16 * CLUSTER, 512, 3).await;
                    written += 1;
                }
                written
            });
            store.snapshot(blobs[0].id(), Vec::new()).await.unwrap();
            taken.set(true);
            let written = writer.await.unwrap();
            assert!(written > 3, "only {written} writes to the other blob, one after the other");
            for write in under_way {
                write.await.unwrap();
            }
        });
    }
}

#[test]
fn what_comes_while_a_store_is_unloaded_is_done_before_or_refused() {
    for seed in 0..24 {
        support::run_on(&format!("sim:{seed}"), async move || {
            let disk = disk(8);
            let store = Blobstore::init(support::slow_device(&disk, seed), small()).await.unwrap();
            let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            // Writes whose futures were dropped outlive the handle.
            for index in 0..8 {
                let blob = blob.clone();
                let write = async move { blob.write(index * CLUSTER, IoBuf::zeroed(512)).await.0 };
                let late = spindle_reactor::timeout(std::time::Duration::from_micros(seed * 10), write);
                drop(spindle_reactor::spawn_local(async move { drop(late.await) }));
            }
            spindle_reactor::yield_now().await;
            blob.close().await.unwrap();
            let mut others = Vec::new();
            for at in 0..4 {
                let store = store.clone();
                others.push(spindle_reactor::spawn_local(async move {
                    match at {
                        0 => store.create_blob(BlobOptions::thick(2)).await.map(drop),
                        1 => store.snapshot(id, Vec::new()).await.map(drop),
                        2 => store.inflate(id).await,
                        _ => store.set_super_blob(Some(id)).await,
                    }
                }));
            }
            for _ in 0..seed {
                spindle_reactor::yield_now().await;
            }
            // The inflate may have begun: its blob is in use then.
            while let Err(error) = store.unload().await {
                assert!(matches!(error, BlobError::BlobsOpen { .. }), "{error}");
                spindle_reactor::yield_now().await;
            }
            for other in others {
                let result = other.await.unwrap();
                let fine =
                    matches!(&result, Ok(()) | Err(BlobError::Unloaded { .. } | BlobError::Busy { .. }));
                assert!(fine, "{result:?}");
            }
            check(&disk);
            assert!(!load(&disk).await.info().await.unwrap().recovered);
        });
    }
}

#[test]
fn an_external_snapshot_is_claimed_for_reading_only_while_a_blob_reads_it() {
    run_everywhere(async || {
        let outside = full_of("outside", 4, 7).await;
        let found = outside.clone();
        let external: spindle_blob::ExternalSource = Arc::new(move |_| Some(found.clone()));
        let external = StoreOptions { external: Some(external), ..StoreOptions::default() };
        let disk = disk(8);
        let options = spindle_blob::InitOptions { store: external, ..small() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        let clone = || BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(4) };
        let ids = [store.create_blob(clone()).await.unwrap(), store.create_blob(clone()).await.unwrap()];

        // A writer has it: its clone reads only what is its own.
        let over = spindle_blob::InitOptions { force: true, ..small() };
        let writer = Blobstore::init(outside.clone(), over.clone()).await.unwrap();
        let blob = store.open_blob(ids[0]).await.unwrap();
        let why = blob.read(0, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert!(matches!(why, BlobError::MissingParent { .. }), "{why:?}");
        assert!(why.to_string().contains("a store that this process has loaded"), "{why}");
        fill(&blob, 0, CLUSTER, 9).await;
        assert_eq!(byte(&blob, 0, CLUSTER).await, 9);
        let refused = blob.set_external_device(outside.clone()).await.unwrap_err();
        assert!(matches!(refused, BlobError::Open { .. }), "{refused:?}");
        let parent = spindle_blob::Parent::External(b"other"[..].into());
        let refused = store.set_parent(ids[1], parent).await.unwrap_err();
        assert!(matches!(refused, BlobError::Open { .. }), "{refused:?}");
        blob.close().await.unwrap();
        writer.unload().await.unwrap();

        // Any number of clones read it, and no writer comes in between.
        let blobs = [store.open_blob(ids[0]).await.unwrap(), store.open_blob(ids[1]).await.unwrap()];
        let refused = Blobstore::init(outside.clone(), over.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("a clone in store disk0"), "{refused}");
        for blob in blobs {
            byte(&blob, CLUSTER, CLUSTER).await;
            blob.close().await.unwrap();
        }
        store.unload().await.unwrap();
        Blobstore::init(outside, over).await.unwrap().unload().await.unwrap();
    });
}
