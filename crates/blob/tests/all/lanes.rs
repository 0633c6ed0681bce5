//! Blobs as block devices, and the order in which their requests wait.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::Arc;

use spindle_blob::{BlobError, BlobOptions, Blobstore};
use spindle_block::{Channel, Device, IoErrorKind, Operation, QueuePair};
use spindle_mem::{Buffers, IoBuf};
use support::{CLUSTER, disk, fill, init, read, run_everywhere, slow_device, small};

#[test]
fn a_blobs_device_reads_and_writes_what_the_blob_does_and_is_refused_once_that_was_closed() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let device = blob.device();
        assert!(Arc::ptr_eq(&device, &blob.device()), "one opening is one device");
        assert_eq!(device.geometry().bytes(), 8 * CLUSTER);
        let channel = Channel::open(device.clone()).unwrap();
        // In one cluster, across borders of clusters that are there and of some that are not.
        fill(&blob, 2 * CLUSTER, CLUSTER, 1).await;
        for (offset, len, byte) in [(0, 512, 2), (CLUSTER + 512, 3 * CLUSTER, 3), (7 * CLUSTER, CLUSTER, 4)] {
            let written = vec![byte; len as usize];
            channel.write(offset, IoBuf::copy_from(&written)).await.0.unwrap();
            assert_eq!(read(&blob, offset, len).await, written);
            let (result, buffers) = channel.read(offset, IoBuf::zeroed(len as usize)).await;
            result.unwrap();
            assert_eq!(buffers.to_vec(), written);
        }
        channel.write_zeroes(CLUSTER + 512, CLUSTER).await.unwrap();
        assert_eq!(read(&blob, CLUSTER + 512, CLUSTER).await, vec![0; CLUSTER as usize]);
        channel.unmap(0, 2 * CLUSTER).await.unwrap();
        assert_eq!(store.blob_info(id).await.unwrap().allocated, 4, "two whole clusters were freed");
        channel.flush().await.unwrap();
        let beyond = channel.read(8 * CLUSTER, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert_eq!(beyond.kind, IoErrorKind::OutOfRange);
        blob.close().await.unwrap();
        let closed = channel.read(0, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert_eq!(closed.kind, IoErrorKind::Removed);
        store.unload().await.unwrap();
    });
}

#[test]
fn a_blobs_device_tells_where_data_and_holes_are_compares_and_copies() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let channel = Channel::open(blob.device()).unwrap();
        fill(&blob, 2 * CLUSTER, 2 * CLUSTER, 1).await;
        // Of the blob itself, and of one that reads its clusters in a snapshot.
        for _ in 0..2 {
            assert_eq!(channel.seek_data(0).await.unwrap(), 2 * CLUSTER);
            assert_eq!(channel.seek_data(3 * CLUSTER + 512).await.unwrap(), 3 * CLUSTER + 512);
            assert_eq!(channel.seek_data(5 * CLUSTER).await.unwrap(), 8 * CLUSTER, "there is no more");
            assert_eq!(channel.seek_hole(512).await.unwrap(), 512);
            assert_eq!(channel.seek_hole(2 * CLUSTER).await.unwrap(), 4 * CLUSTER);
            store.snapshot(id, Vec::new()).await.unwrap();
        }
        // What its lane does not know the block layer does.
        channel.compare(0, IoBuf::zeroed(512)).await.0.unwrap();
        channel.copy(0, 2 * CLUSTER, 512).await.unwrap();
        let compared = channel.compare(0, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert_eq!(compared.kind, IoErrorKind::Miscompare { offset: 0 });
        channel.reset().await.unwrap();
    });
}

#[test]
fn a_blobs_device_keeps_the_blob_open_and_follows_its_size() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(2)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let device = blob.device();
        let channel = Channel::open(device.clone()).unwrap();
        for clusters in [4, 1, 9] {
            blob.resize(clusters).await.unwrap();
            assert_eq!(channel.geometry().bytes(), clusters * CLUSTER);
            channel.write((clusters - 1) * CLUSTER, IoBuf::copy_from(&[5; 512])).await.0.unwrap();
            let beyond = channel.write(clusters * CLUSTER, IoBuf::zeroed(512)).await.0.unwrap_err();
            assert_eq!(beyond.kind, IoErrorKind::OutOfRange);
        }
        drop(blob);
        let open = store.delete_blob(id).await;
        assert!(matches!(open, Err(BlobError::Busy { .. })), "{open:?}");
        drop((channel, device));
        spindle_reactor::yield_now().await;
        store.delete_blob(id).await.unwrap();
        store.unload().await.unwrap();
    });
}

/// A request of one blob that the device does not end, while another blob is frozen, cut and deleted.
#[test]
fn what_changes_one_blob_does_not_wait_for_requests_of_another() {
    run_everywhere(async || {
        let disk = disk(16);
        let slow = support::Stuck::new(support::device(&disk));
        let store = Blobstore::init(slow.clone(), small()).await.unwrap();
        let mut blobs = Vec::new();
        for _ in 0..2 {
            let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 0, 2 * CLUSTER, 1).await;
            blobs.push(blob);
        }
        let (one, other) = (blobs.remove(0), blobs.remove(0));
        slow.hold(true);
        let mut stuck = Box::pin(one.read(0, IoBuf::zeroed(512)));
        assert!(support::poll_once(stuck.as_mut()).is_none());
        slow.hold(false);
        let snapshot = store.snapshot(other.id(), Vec::new()).await.unwrap();
        fill(&other, 0, CLUSTER, 2).await;
        other.resize(1).await.unwrap();
        let id = other.id();
        other.close().await.unwrap();
        store.delete_blob(id).await.unwrap();
        store.delete_blob(snapshot).await.unwrap();
        assert!(support::poll_once(stuck.as_mut()).is_none(), "the device has not ended it");
        // A request of the blob itself is waited for.
        let mut freezing = Box::pin(store.snapshot(one.id(), Vec::new()));
        for _ in 0..100 {
            assert!(support::poll_once(freezing.as_mut()).is_none(), "a request of the blob is under way");
            spindle_reactor::yield_now().await;
        }
        slow.let_go();
        stuck.await.0.unwrap();
        freezing.await.unwrap();
        one.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

/// Tasks of all threads.
async fn tasks() -> usize {
    let dump = spindle_reactor::Handle::current().unwrap().dump().await;
    dump.reactors.iter().flat_map(|reactor| &reactor.threads).map(|thread| thread.tasks.len()).sum()
}

#[test]
fn writes_to_a_cluster_that_an_earlier_one_is_getting_need_no_tasks_and_those_given_up_change_nothing() {
    run_everywhere(async || {
        let disk = disk(16);
        let slow = support::Stuck::new(support::device(&disk));
        let store = Blobstore::init(slow.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let channel = blob.channel().unwrap();
        // So that its map has a page.
        channel.write(7 * CLUSTER, IoBuf::zeroed(512)).await.0.unwrap();
        let before = tasks().await;
        slow.hold(true);
        let byte_of = |at: u64| at as u8 + 1;
        let mut writes: Vec<_> = (0..64)
            .map(|at| Box::pin(channel.write(at * 512, IoBuf::copy_from(&[byte_of(at); 512]))))
            .collect();
        for write in &mut writes {
            assert!(support::poll_once(write.as_mut()).is_none());
        }
        for _ in 0..50 {
            spindle_reactor::yield_now().await;
        }
        let more = tasks().await - before;
        assert!(more < 8, "{more} tasks for 64 writes to one cluster");
        let given_up = |at: u64| at % 4 == 1;
        let (dropped, kept): (Vec<_>, Vec<_>) =
            writes.into_iter().zip(0..).partition(|(_, at)| given_up(*at));
        drop(dropped);
        for _ in 0..50 {
            spindle_reactor::yield_now().await;
        }
        slow.let_go();
        for (write, _) in kept {
            write.await.0.unwrap();
        }
        for at in 0..64 {
            let wanted = if given_up(at) { 0 } else { byte_of(at) };
            assert_eq!(support::byte(&blob, at * 512, 512).await, wanted, "block {at}");
        }
        drop(channel);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        support::check(&disk);
    });
}

/// Clusters are freed only when clones that read them have done so.
#[test]
fn a_snapshots_cluster_is_not_freed_under_a_clone_that_reads_it() {
    run_everywhere(async || {
        let disk = disk(16);
        let slow = support::Stuck::new(support::device(&disk));
        let store = Blobstore::init(slow.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, CLUSTER, 1).await;
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        slow.hold(true);
        let mut reading = Box::pin(blob.read(0, IoBuf::zeroed(512)));
        assert!(support::poll_once(reading.as_mut()).is_none());
        slow.hold(false);
        // From now on the blob has its own cluster there, and no blob needs the snapshot's.
        fill(&blob, 0, CLUSTER, 2).await;
        let mut deleting = Box::pin(store.delete_blob(snapshot));
        for _ in 0..100 {
            assert!(support::poll_once(deleting.as_mut()).is_none(), "the clone's read is under way");
            spindle_reactor::yield_now().await;
        }
        slow.let_go();
        let (result, bytes) = reading.await;
        result.unwrap();
        assert_eq!(bytes.to_vec(), [1; 512]);
        deleting.await.unwrap();
        blob.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

#[test]
fn writes_with_force_unit_access_are_durable_when_they_complete_their_maps_too() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let channel = blob.channel().unwrap();
        // Plain, so that its map may be lost: the next write rests on it.
        channel.write(0, IoBuf::copy_from(&[9; 512])).await.0.unwrap();
        channel.write(512, IoBuf::copy_from(&[1; 512])).fua().await.0.unwrap();
        channel.write(CLUSTER - 512, IoBuf::copy_from(&[2; 1024])).fua().await.0.unwrap();
        channel.write(3 * CLUSTER, IoBuf::copy_from(&[3; 1024])).await.0.unwrap();
        channel.write_zeroes(3 * CLUSTER, 512).fua().await.unwrap();
        channel.write(4 * CLUSTER, IoBuf::copy_from(&vec![4; CLUSTER as usize])).await.0.unwrap();
        channel.flush().await.unwrap();
        channel.unmap(4 * CLUSTER, CLUSTER).fua().await.unwrap();
        let lost = disk.snapshot().durable().clone();
        let store = support::load(&support::disk_again(lost)).await;
        let blob = store.open_blob(id).await.unwrap();
        assert_eq!(read(&blob, 512, 512).await, [1; 512]);
        assert_eq!(read(&blob, CLUSTER - 512, 1024).await, [2; 1024]);
        assert_eq!(read(&blob, 3 * CLUSTER, 512).await, [0; 512]);
        assert_eq!(read(&blob, 4 * CLUSTER, 512).await, [0; 512]);
    });
}

/// Requests without futures, as a target makes them, beside a snapshot: frozen writes wait in order and go on.
#[test]
fn requests_of_a_queue_pair_wait_for_a_thaw_and_all_complete() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = Blobstore::init(slow_device(&disk, 3), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let device: Arc<dyn Device> = blob.device();
        let mut pair = QueuePair::open(&device).unwrap();
        for round in 0..4_u8 {
            let (taking, new) = (store.clone(), blob.id());
            let snapshot =
                spindle_reactor::spawn_local(async move { taking.snapshot(new, Vec::new()).await });
            for at in 0..32 {
                let bytes = IoBuf::copy_from(&[round * 32 + at as u8; 4096]);
                let io = pair.request(Operation::Write, at % 8 * (CLUSTER / 512), 8, bytes);
                pair.submit(io);
                if at % 5 == 0 {
                    spindle_reactor::yield_now().await;
                }
            }
            while pair.outstanding() > 0 {
                pair.wait().await;
                pair.reap(|io, status| {
                    status.unwrap();
                    drop(io);
                });
            }
            snapshot.await.unwrap().unwrap();
        }
        let flush = pair.request(Operation::Flush, 0, 0, Buffers::None);
        pair.submit(flush);
        pair.wait().await;
        assert_eq!(pair.reap(|_, status| status.unwrap()), 1);
        drop((pair, device));
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        support::check(&disk);
    });
}
