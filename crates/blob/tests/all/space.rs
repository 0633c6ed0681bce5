//! Clusters for new writes: reserves of many threads, a full store, zeroed clusters kept ready, group commit.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use spindle_blob::{
    Blob, BlobError, BlobOptions, Blobstore, InitOptions, LayoutOptions, LoadOptions, SpaceEvent,
};
use spindle_block::{Device, Effect, Faulty, IoErrorKind, Operation, SimDisk};
use spindle_engine::sim::{Disk, DiskOptions, UnmapReads};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, Thread};
use support::{
    CLUSTER, Growing, Plain, byte, check, device, disk, fill, init, load, run_everywhere, run_on, small,
};

/// Runs a test's main on two reactors under several engines.
fn run_on_two<R: Send + 'static>(main: impl AsyncFnOnce() -> R + Clone + Send + 'static) {
    for engine in ["epoll", "sim:1", "sim:2", "sim:3"] {
        let engine: EngineKind = engine.parse().unwrap();
        Runtime::builder().reactors(2).engine(engine).build().unwrap().run(main.clone()).unwrap();
    }
}

/// A thread on any core.
fn thread(name: &str) -> Thread {
    let cores = Thread::current().unwrap().cores().to_string();
    Thread::create(name, &cores).unwrap()
}

/// Writes one block into each of these clusters, as many at a time; the clusters that there was no room for.
async fn write_each(blob: Blob, clusters: std::ops::Range<u64>, seed: u8) -> Vec<u64> {
    let mut refused = Vec::new();
    let all: Vec<u64> = clusters.collect();
    for some in all.chunks(8) {
        let writes: Vec<_> = some
            .iter()
            .map(|&index| {
                let blob = blob.clone();
                spindle_reactor::spawn_local(async move {
                    (index, blob.write(index * CLUSTER, IoBuf::copy_from(&[seed; 512])).await.0)
                })
            })
            .collect();
        for write in writes {
            match write.await.unwrap() {
                (_, Ok(())) => {}
                (index, Err(BlobError::OutOfSpace { .. })) => refused.push(index),
                (_, Err(error)) => panic!("{error}"),
            }
        }
    }
    refused
}

#[test]
fn a_store_is_full_only_when_every_thread_has_given_back_what_it_had_in_hand() {
    run_on_two(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(1000)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let free = store.info().await.unwrap().free_clusters as u64;
        let threads: Vec<Thread> = (0..3).map(|at| thread(&format!("writer{at}"))).collect();
        // Every thread gets clusters in hand, and the last one uses up what there is.
        for (at, thread) in threads.iter().enumerate() {
            let (blob, from) = (blob.clone(), at as u64 * 100);
            let refused =
                thread.run(async move || write_each(blob, from..from + 9, at as u8 + 1).await).await;
            assert_eq!(refused.unwrap(), [0u64; 0]);
        }
        assert_eq!(store.info().await.unwrap().free_clusters as u64, free - 27, "in hand is free");
        let rest = blob.clone();
        let last = threads[0].run(async move || write_each(rest, 300..300 + free - 27, 9).await);
        assert_eq!(last.await.unwrap(), [0u64; 0], "all that is free can be had by one thread");
        assert_eq!(store.info().await.unwrap().free_clusters, 0);
        let (result, _) = blob.write(999 * CLUSTER, IoBuf::zeroed(512)).await;
        assert!(matches!(result, Err(BlobError::OutOfSpace { needed: 1, free: 0, .. })), "{result:?}");
        for at in 0..3 {
            assert_eq!(byte(&blob, (at * 100 + 8) * CLUSTER, 512).await, at as u8 + 1);
        }
        assert_eq!(byte(&blob, (299 + free - 27) * CLUSTER, 512).await, 9, "nothing is lost");
        blob.unmap(0, CLUSTER).await.unwrap();
        fill(&blob, 999 * CLUSTER, 512, 7).await;
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn threads_that_fill_a_store_together_get_all_of_it_and_no_more() {
    run_on_two(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(1000)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let free = store.info().await.unwrap().free_clusters as usize;
        let jobs: Vec<_> = (0..3_u64)
            .map(|at| {
                let (blob, thread) = (blob.clone(), thread(&format!("writer{at}")));
                let job =
                    thread.spawn(async move || write_each(blob, at * 100..at * 100 + 60, at as u8 + 1).await);
                (thread, job)
            })
            .collect();
        let mut refused = Vec::new();
        for (_thread, job) in jobs {
            refused.extend(job.await.unwrap());
        }
        assert_eq!(refused.len(), 180 - free);
        assert_eq!(blob.info().await.unwrap().allocated as usize, free);
        for index in (0..3).flat_map(|at| at * 100..at * 100 + 60) {
            let wanted = if refused.contains(&index) { 0 } else { (index / 100) as u8 + 1 };
            assert_eq!(byte(&blob, index * CLUSTER, 512).await, wanted);
            assert_eq!(byte(&blob, index * CLUSTER + 512, CLUSTER - 512).await, 0);
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn threads_that_write_to_one_new_cluster_share_it() {
    run_on_two(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(32)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let jobs: Vec<_> = (0..3_u64)
            .map(|at| {
                let (blob, thread) = (blob.clone(), thread(&format!("writer{at}")));
                let job = thread.spawn(async move || {
                    for index in 0..32 {
                        fill(&blob, index * CLUSTER + at * 4096, 4096, at as u8 + 1).await;
                    }
                });
                (thread, job)
            })
            .collect();
        for (_thread, job) in jobs {
            job.await.unwrap();
        }
        assert_eq!(blob.info().await.unwrap().allocated, 32);
        for index in 0..32 {
            for at in 0..3 {
                assert_eq!(byte(&blob, index * CLUSTER + at * 4096, 4096).await, at as u8 + 1);
            }
            assert_eq!(byte(&blob, index * CLUSTER + 3 * 4096, CLUSTER - 3 * 4096).await, 0);
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn a_watch_is_told_once_each_time_that_space_runs_low() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let free = u64::from(store.info().await.unwrap().free_clusters);
        let mut events = store.low_space(10).await.unwrap();
        let mut now = store.low_space(free).await.unwrap();
        assert_eq!(now.next().await, Some(SpaceEvent { free_clusters: free, threshold: free }));
        let id = store.create_blob(BlobOptions::thin(1000)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        for round in 0..2 {
            for index in 0..free - 10 {
                fill(&blob, index * CLUSTER, 512, 1).await;
            }
            let event = events.next().await;
            assert_eq!(event, Some(SpaceEvent { free_clusters: 10, threshold: 10 }), "round {round}");
            fill(&blob, free * CLUSTER, 512, 1).await;
            blob.unmap(0, blob.size()).await.unwrap();
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        assert_eq!(events.next().await, None, "once each time, and the end is told");
    });
}

#[test]
fn clusters_zeroed_ahead_show_nothing_old_and_none_is_lost() {
    run_everywhere(async || {
        let disk = disk(64);
        let store = init(&disk).await;
        // Freed without being cleared, once the store was loaded: nothing is known to read zero.
        let clear_method = spindle_blob::ClearMethod::None;
        let options = BlobOptions { clear_method, ..BlobOptions::thick(700) };
        let old = store.create_blob(options).await.unwrap();
        let blob = store.open_blob(old).await.unwrap();
        for index in 0..700 {
            fill(&blob, index * CLUSTER, CLUSTER, 0x77).await;
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        let store = load(&disk).await;
        store.delete_blob(old).await.unwrap();
        let free = store.info().await.unwrap().free_clusters;
        let id = store.create_blob(BlobOptions::thin(500)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        for index in 0..500 {
            fill(&blob, index * CLUSTER + 512, 512, 1).await;
        }
        for index in 0..500 {
            assert_eq!(byte(&blob, index * CLUSTER, 512).await, 0);
            assert_eq!(byte(&blob, index * CLUSTER + 1024, CLUSTER - 1024).await, 0, "{index}");
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
        assert_eq!(load(&disk).await.info().await.unwrap().free_clusters, free - 500);
    });
}

#[test]
fn a_device_without_commands_for_zeroes_gets_zeroes_written() {
    run_everywhere(async || {
        let disk = Disk::new(DiskOptions::new(8 << 20));
        disk.write(0, &vec![0x77; 8 << 20]).unwrap();
        let plain: Arc<dyn Device> = Plain::new(device(&disk));
        let store = Blobstore::init(plain.clone(), small()).await.unwrap();
        let thick = store.create_blob(BlobOptions::thick(5)).await.unwrap();
        let thin = store.create_blob(BlobOptions::thin(5)).await.unwrap();
        let (thick, thin) = (store.open_blob(thick).await.unwrap(), store.open_blob(thin).await.unwrap());
        assert_eq!(byte(&thick, 0, thick.size()).await, 0);
        fill(&thin, 512, 512, 1).await;
        assert_eq!(byte(&thin, 1024, thin.size() - 1024).await, 0);
        thick.write_zeroes(0, CLUSTER).await.unwrap();
        thin.unmap(0, CLUSTER).await.unwrap();
        assert_eq!(byte(&thin, 0, thin.size()).await, 0);
        store.snapshot(thin.id(), Vec::new()).await.unwrap();
        for blob in [thick, thin] {
            let id = blob.id();
            blob.close().await.unwrap();
            store.delete_blob(id).await.unwrap();
        }
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn changes_of_one_map_page_at_a_time_share_its_writes_and_flushes() {
    run_on("sim:1", async || {
        let options = DiskOptions { block: 4096, atomic_unit: 4096, ..DiskOptions::new(32 << 20) };
        let disk = Disk::new(options);
        let counted = Faulty::new("disk0", SimDisk::new("disk0", disk, 1).unwrap());
        let store = Blobstore::init(counted.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(400)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        for (wanted, operation) in [(128 + 20, Operation::Write), (10, Operation::Flush)] {
            counted.inject(&[operation], u64::MAX, 0, Effect::Fail);
            let from = if operation == Operation::Write { 0 } else { 128 };
            let writes: Vec<_> = (from..from + 128_u64)
                .map(|index| {
                    let blob = blob.clone();
                    spindle_reactor::spawn_local(async move {
                        blob.write(index * CLUSTER, IoBuf::copy_from(&[1; 4096])).await.0.unwrap();
                    })
                })
                .collect();
            for write in writes {
                write.await.unwrap();
            }
            assert!(counted.seen() <= wanted, "{} of {operation:?} for 128 new clusters", counted.seen());
        }
    });
}

#[test]
fn a_store_in_use_grows_with_its_device_on_every_thread() {
    run_on_two(async || {
        let disk = disk(16);
        let growing = Growing::new(device(&disk), (8 << 20) / 512);
        let store = Blobstore::init(growing.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(1000)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let other = thread("other");
        let (here, there) = (blob.clone(), blob.clone());
        assert_eq!(write_each(here, 0..4, 1).await, [0u64; 0]);
        assert_eq!(other.run(async move || write_each(there, 4..8, 1).await).await.unwrap(), [0u64; 0]);
        growing.grow();
        store.grow().await.unwrap();
        let free = u64::from(store.info().await.unwrap().free_clusters);
        assert!(free > 128, "{free} clusters are free");
        let (here, there) = (blob.clone(), blob.clone());
        let half = 8 + free / 2;
        assert_eq!(write_each(here, 8..half, 2).await, [0u64; 0]);
        assert_eq!(
            other.run(async move || write_each(there, half..8 + free, 2).await).await.unwrap(),
            [0u64; 0]
        );
        for index in 0..8 + free {
            assert_eq!(byte(&blob, index * CLUSTER, 512).await, if index < 8 { 1 } else { 2 });
        }
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        assert_eq!(check(&disk).geometry.total_clusters(), 256);
    });
}

/// What a host says that has no room: the device is full, the quota is used up, no file may be so large.
const NO_ROOM: [IoErrorKind; 3] = [IoErrorKind::NoSpace, IoErrorKind::Quota, IoErrorKind::FileTooLarge];

/// Whether a host that says `kind` had no room for an operation.
fn had_no_room<T>(done: &Result<T, BlobError>, kind: IoErrorKind) -> bool {
    matches!(done, Err(BlobError::Io(error)) if error.kind == kind)
}

/// A loaded store, of whose free clusters nothing is known, on a host that is going to be full.
async fn on_a_host(cluster_size: u32, unmap_reads_zero: bool) -> (Arc<support::Host>, Blobstore) {
    let options = DiskOptions { discard: Some(UnmapReads::Zero), ..DiskOptions::new(64 << 20) };
    let host = support::Host::new(device(&Disk::new(options)), unmap_reads_zero);
    let layout = LayoutOptions { cluster_size, ..LayoutOptions::default() };
    let options = InitOptions { layout, ..InitOptions::default() };
    let store = Blobstore::init(host.clone(), options).await.unwrap();
    // The map's page is there already when what a test counts is written.
    store.create_blob(BlobOptions::thin(16)).await.unwrap();
    store.unload().await.unwrap();
    let store = Blobstore::load(host.clone(), LoadOptions::default()).await.unwrap();
    (host, store)
}

#[test]
fn a_create_or_growth_that_the_host_has_no_room_for_gives_back_what_it_took_and_is_no_event() {
    run_everywhere(async || {
        for (unmap_reads_zero, kind) in [(false, NO_ROOM[0]), (true, NO_ROOM[1]), (false, NO_ROOM[2])] {
            let (host, store) = on_a_host(CLUSTER as u32, unmap_reads_zero).await;
            host.refuses_with(kind);
            let id = store.create_blob(BlobOptions::thick(4)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            let free = u64::from(store.info().await.unwrap().free_clusters);
            let mut low = store.low_space(free - 100).await.unwrap();
            let used = host.used();
            host.leave_room(30);
            let refused = store.create_blob(BlobOptions::thick(200)).await;
            assert!(had_no_room(&refused, kind), "{refused:?}");
            if !unmap_reads_zero {
                // Else the clusters are known to read zero now, and need no room.
                let refused = blob.resize(204).await;
                assert!(had_no_room(&refused, kind), "{refused:?}");
            }
            assert!(host.used() <= used + 2, "{} of {used} units more", host.used() - used);
            assert_eq!(u64::from(store.info().await.unwrap().free_clusters), free);
            assert!(support::poll_once(Box::pin(low.next()).as_mut()).is_none(), "nothing was used up");
            host.leave_room(1000);
            store.create_blob(BlobOptions::thick(200)).await.unwrap();
            let event = support::poll_once(Box::pin(low.next()).as_mut()).unwrap();
            assert_eq!(event, Some(SpaceEvent { free_clusters: free - 200, threshold: free - 100 }));
            blob.close().await.unwrap();
            store.unload().await.unwrap();
        }
    });
}

#[test]
fn an_inflate_that_the_host_has_no_room_for_gives_back_what_it_took() {
    run_everywhere(async || {
        let (host, store) = on_a_host(CLUSTER as u32, true).await;
        let id = store.create_blob(BlobOptions::thin(40)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, 30 * CLUSTER, 7).await;
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        fill(&blob, 3 * CLUSTER, CLUSTER, 8).await;
        blob.close().await.unwrap();
        let (used, free) = (host.used(), store.info().await.unwrap().free_clusters);
        for (inflate, kind) in [(true, NO_ROOM[0]), (false, NO_ROOM[1]), (true, NO_ROOM[2])] {
            host.refuses_with(kind);
            host.leave_room(12);
            let refused = if inflate { store.inflate(id).await } else { store.decouple_parent(id).await };
            assert!(had_no_room(&refused, kind), "{refused:?}");
            assert!(host.used() <= used + 2, "{} of {used} units more", host.used() - used);
            assert_eq!(store.info().await.unwrap().free_clusters, free);
            assert_eq!(store.blob_info(id).await.unwrap().allocated, 1);
        }
        host.leave_room(1000);
        let blob = store.open_blob(id).await.unwrap();
        assert_eq!((byte(&blob, 0, 3 * CLUSTER).await, byte(&blob, 3 * CLUSTER, CLUSTER).await), (7, 8));
        store.inflate(id).await.unwrap();
        store.delete_blob(snapshot).await.unwrap();
        assert_eq!((byte(&blob, 0, 3 * CLUSTER).await, byte(&blob, 3 * CLUSTER, CLUSTER).await), (7, 8));
        blob.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

/// Where an unmap makes zeroes; elsewhere zeroes are written, and ahead as much as clusters of that size allow.
#[test]
fn a_block_written_to_a_thin_blob_takes_a_block_of_the_host_whatever_the_size_of_clusters() {
    run_everywhere(async || {
        let (host, store) = on_a_host(8 << 20, true).await;
        let id = store.blobs().await.unwrap()[0];
        let blob = store.open_blob(id).await.unwrap();
        let used = host.used();
        for cluster in 0..3 {
            fill(&blob, (cluster << 23) + (1 << 20), 4096, 5).await;
        }
        blob.write_zeroes((3 << 23) + 4096, 4096).await.unwrap();
        // One each, and a page or two of metadata.
        assert!(host.used() <= used + 5, "{} units more", host.used() - used);
        assert_eq!(byte(&blob, 0, 1 << 20).await, 0);
        // The same where they are new contents in the place of old ones.
        let new = blob.replace().await.unwrap();
        let used = host.used();
        for cluster in 3..6 {
            new.write((cluster << 23) + (1 << 20), IoBuf::copy_from(&[6; 4096])).await.unwrap();
        }
        assert!(host.used() <= used + 5, "{} units more", host.used() - used);
        new.commit().await.unwrap();
        assert_eq!(byte(&blob, 3 << 23, 1 << 20).await, 0);
        assert_eq!(byte(&blob, (3 << 23) + (1 << 20), 4096).await, 6);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

/// Pollers of all threads.
async fn pollers() -> Vec<String> {
    let dump = spindle_reactor::Handle::current().unwrap().dump().await;
    let of = |thread: &spindle_reactor::ThreadDump| {
        thread.pollers.iter().map(|poller| poller.name.clone()).collect::<Vec<_>>()
    };
    dump.reactors.iter().flat_map(|reactor| reactor.threads.iter().flat_map(of)).collect()
}

/// The blob stays open; in simulation, where time passes when all sleep.
#[test]
fn zeroes_that_were_written_ahead_are_given_back_when_nothing_is_written_and_leave_no_timer() {
    for engine in ["sim:1", "sim:2", "sim:3"] {
        run_on(engine, async || {
            let (host, store) = on_a_host(CLUSTER as u32, false).await;
            let id = store.blobs().await.unwrap()[0];
            let blob = store.open_blob(id).await.unwrap();
            let (used, without) = (host.used(), pollers().await);
            let mut written = 0;
            for writes in [4, 3, 2] {
                for _ in 0..writes {
                    fill(&blob, written * CLUSTER, 4096, 5).await;
                    written += 1;
                    // Not long enough to be idle.
                    spindle_reactor::sleep(Duration::from_millis(400)).await;
                }
                assert!(host.used() > used + written as usize + 1, "some are zeroed ahead");
                assert!(pollers().await.len() > without.len());
                spindle_reactor::sleep(Duration::from_secs(3)).await;
                assert!(host.used() <= used + written as usize + 3, "{} units more", host.used() - used);
                assert_eq!(pollers().await, without, "an idle store has no poller");
            }
            assert_eq!(byte(&blob, 4096, CLUSTER - 4096).await, 0);
            blob.close().await.unwrap();
            store.unload().await.unwrap();
        });
    }
}

#[test]
fn zeroes_that_were_written_ahead_are_given_back_when_no_blob_is_open_and_by_an_unload() {
    run_everywhere(async || {
        for closes in [true, false] {
            let (host, store) = on_a_host(CLUSTER as u32, false).await;
            let id = store.blobs().await.unwrap()[0];
            let blob = store.open_blob(id).await.unwrap();
            let used = host.used();
            for at in 0..4 {
                fill(&blob, at * CLUSTER, 4096, 5).await;
            }
            assert!(host.used() > used + 5, "some are zeroed ahead");
            if closes {
                blob.close().await.unwrap();
            } else {
                drop(blob);
            }
            store.unload().await.unwrap();
            assert!(host.used() <= used + 4 + 3, "{} units more", host.used() - used);
        }
    });
}

#[test]
fn a_thin_write_that_the_host_has_no_room_for_fails_alone_and_the_store_goes_on() {
    run_everywhere(async || {
        for kind in NO_ROOM {
            let (host, store) = on_a_host(CLUSTER as u32, true).await;
            host.refuses_with(kind);
            let blob = store.open_blob(store.blobs().await.unwrap()[0]).await.unwrap();
            fill(&blob, 0, CLUSTER, 7).await;
            // Where a cluster is known to read zero the map may have been written beside the data: it is the blob's.
            let all = async || {
                let own = blob.info().await.unwrap().allocated;
                u64::from(store.info().await.unwrap().free_clusters) + own
            };
            let before = all().await;
            host.leave_room(0);
            for _ in 0..3 {
                let refused = blob.write(CLUSTER, IoBuf::zeroed(4096)).await.0;
                assert!(had_no_room(&refused, kind), "{refused:?}");
            }
            assert_eq!(all().await, before, "no cluster is lost");
            fill(&blob, 4096, 4096, 8).await;
            host.leave_room(10);
            fill(&blob, CLUSTER, CLUSTER, 9).await;
            assert_eq!((byte(&blob, 4096, 4096).await, byte(&blob, CLUSTER, CLUSTER).await), (8, 9));
            blob.close().await.unwrap();
            store.unload().await.unwrap();
        }
    });
}

#[test]
fn a_host_that_refuses_all_changes_late_fails_them_with_its_reason_and_reads_go_on() {
    run_everywhere(async || {
        // EPERM, of a file that was sealed or made immutable; EROFS, of a file system that was made read-only.
        for kind in [IoErrorKind::Device { errno: 1 }, IoErrorKind::Device { errno: 30 }] {
            let (host, store) = on_a_host(CLUSTER as u32, true).await;
            let blob = store.open_blob(store.blobs().await.unwrap()[0]).await.unwrap();
            fill(&blob, 0, CLUSTER, 7).await;
            host.refuse_writes(kind);
            let refused = blob.write(0, IoBuf::zeroed(4096)).await.0;
            assert!(had_no_room(&refused, kind), "{refused:?}");
            let refused = store.create_blob(BlobOptions::thin(1)).await.unwrap_err().to_string();
            assert!(refused.contains(&kind.to_string()), "{refused}");
            assert_eq!(byte(&blob, 0, CLUSTER).await, 7);
            blob.close().await.unwrap();
            let _ = store.unload().await;
            let store = Blobstore::load(host, LoadOptions { read_only: true, ..Default::default() }).await;
            let store = store.unwrap();
            let blob = store.open_blob(store.blobs().await.unwrap()[0]).await.unwrap();
            assert_eq!(byte(&blob, 0, CLUSTER).await, 7);
            blob.close().await.unwrap();
            store.unload().await.unwrap();
        }
    });
}

#[test]
fn a_store_whose_device_lost_its_end_is_read_as_far_as_it_is_there_and_a_writing_load_names_the_size() {
    run_everywhere(async || {
        let whole = disk(8);
        let store = init(&whole).await;
        let id = store.create_blob(BlobOptions::thick(20)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, 20 * CLUSTER, 7).await;
        blob.close().await.unwrap();
        store.unload().await.unwrap();

        // Ten clusters of the blob are left.
        let first = check(&whole).blobs[&id].metadata.map.runs().next().unwrap().cluster.0;
        let left = (u64::from(first) + 10) * CLUSTER;
        let mut bytes = vec![0; left as usize];
        whole.snapshot().visible().read(0, &mut bytes);
        let cut = support::disk_again(spindle_engine::sim::Image::from_bytes(&bytes));
        let refused = Blobstore::load(device(&cut), LoadOptions::default()).await.unwrap_err().to_string();
        assert!(refused.contains("make it 8388608 bytes long again"), "{refused}");
        let read_only = LoadOptions { read_only: true, ..LoadOptions::default() };
        let store = Blobstore::load(device(&cut), read_only).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        assert_eq!(byte(&blob, 0, 10 * CLUSTER).await, 7);
        let behind = blob.read(10 * CLUSTER, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert!(
            matches!(&behind, BlobError::Io(error) if error.kind == IoErrorKind::OutOfRange),
            "{behind:?}"
        );
        blob.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

#[test]
fn unmaps_with_clusters_in_common_all_end_whatever_the_order_in_which_they_get_their_places() {
    for seed in 1..=24 {
        run_on(&format!("sim:{seed}"), async move || {
            // What was unmapped is known to read zero, so that data and map are written side by side.
            let options = DiskOptions { discard: Some(UnmapReads::Zero), ..DiskOptions::new(8 << 20) };
            let disk = Disk::new(options);
            let store = Blobstore::init(support::slow_device(&disk, seed), small()).await.unwrap();
            let free = store.info().await.unwrap().free_clusters;
            let blob =
                store.open_blob(store.create_blob(BlobOptions::thin(16)).await.unwrap()).await.unwrap();
            fill(&blob, 0, 16 * CLUSTER, 7).await;
            // A new cluster may be in the map while its data is still being written and its place claimed. Two
            // unmaps that begin then both wait for it, each with places that the other one wants.
            let mut random = seed;
            let mut next = |below: u64| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let mut tasks = Vec::new();
            for _ in 0..200 {
                let (blob, at, writes) = (blob.clone(), next(16), next(3) > 0);
                let count = 1 + next(16 - at);
                tasks.push(spindle_reactor::spawn_local(async move {
                    match writes {
                        true => blob.write(at * CLUSTER, IoBuf::zeroed(4096)).await.0,
                        false => blob.unmap(at * CLUSTER, count * CLUSTER).await,
                    }
                }));
                spindle_reactor::sleep(Duration::from_micros(next(60))).await;
            }
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            blob.unmap(0, 16 * CLUSTER).await.unwrap();
            assert_eq!(byte(&blob, 0, 16 * CLUSTER).await, 0);
            assert_eq!(store.info().await.unwrap().free_clusters, free);
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            check(&disk);
        });
    }
}

/// A new cluster may be in the map while its data is still being written and its place is claimed. Both unmaps then
/// wait for that place, and the one that gets it must not wait for places of the other.
#[test]
fn two_unmaps_that_wait_for_a_cluster_whose_data_is_slower_than_its_map_both_end() {
    for seed in 1..=24 {
        run_on(&format!("sim:{seed}"), async || {
            let options = DiskOptions { discard: Some(UnmapReads::Zero), ..DiskOptions::new(8 << 20) };
            let disk = Disk::new(options);
            let slow = support::Stuck::new(device(&disk));
            let store = Blobstore::init(slow.clone(), small()).await.unwrap();
            let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            // What was unmapped is known to read zero, so that data and map are written side by side.
            fill(&blob, 0, 8 * CLUSTER, 7).await;
            blob.unmap(0, 8 * CLUSTER).await.unwrap();
            fill(&blob, CLUSTER, 7 * CLUSTER, 7).await;
            slow.hold_from(data_start(&disk));
            let writer = blob.clone();
            let mut write =
                Box::pin(spindle_reactor::spawn_local(async move { fill(&writer, 0, 4096, 8).await }));
            while blob.info().await.unwrap().allocated < 8 {
                spindle_reactor::sleep(Duration::from_micros(10)).await;
            }
            let unmaps: Vec<_> = (0..2)
                .map(|_| {
                    let blob = blob.clone();
                    spindle_reactor::spawn_local(async move { blob.unmap(0, 8 * CLUSTER).await })
                })
                .collect();
            spindle_reactor::sleep(Duration::from_millis(1)).await;
            assert!(support::poll_once(write.as_mut()).is_none(), "the data is slower than the map");
            slow.let_go();
            for unmap in unmaps {
                let ended = spindle_reactor::timeout(Duration::from_secs(60), unmap).await;
                ended.expect("it ends").unwrap().unwrap();
            }
            write.await.unwrap();
            assert_eq!(byte(&blob, 0, 8 * CLUSTER).await, 0);
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            check(&disk);
        });
    }
}

/// The block at which the clusters of blobs begin.
fn data_start(disk: &Disk) -> u64 {
    u64::from(support::check_image(disk.snapshot().visible()).geometry.metadata_clusters()) * CLUSTER / 512
}
