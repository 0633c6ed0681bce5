//! Channels to blobs: one look-up for many requests, and nothing else that differs from the blob itself.

use crate::support;

use spindle_blob::{BlobError, BlobOptions, Blobstore};
use spindle_mem::IoBuf;
use support::{CLUSTER, Growing, device, disk, fill, init, read, run_everywhere, small};

#[test]
fn a_channel_reads_and_writes_what_its_blob_does_and_is_refused_once_that_was_closed() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let channel = blob.channel().unwrap();
        fill(&blob, 0, 2 * CLUSTER, 1).await;
        // In a known cluster, across a border, in one that is not there yet, and of zero bytes.
        for (offset, len) in [(0, 512), (CLUSTER - 512, 1024), (3 * CLUSTER, 512), (512, 0)] {
            let (result, _) = channel.write(offset, IoBuf::copy_from(&vec![7; len])).await;
            result.unwrap();
            assert_eq!(read(&blob, offset, len as u64).await, vec![7; len]);
            let (result, buffers) = channel.read(offset, IoBuf::zeroed(len)).await;
            result.unwrap();
            assert_eq!(buffers.to_vec(), vec![7; len]);
        }
        assert_eq!(read(&blob, 2 * CLUSTER, 512).await, [0; 512]);
        let outside = channel.read(4 * CLUSTER, IoBuf::zeroed(512)).await.0;
        assert!(matches!(outside, Err(BlobError::OutOfRange { .. })), "{outside:?}");
        let unaligned = channel.write(100, IoBuf::zeroed(512)).await.0;
        assert!(matches!(unaligned, Err(BlobError::Unaligned { .. })), "{unaligned:?}");
        blob.close().await.unwrap();
        let closed = channel.read(0, IoBuf::zeroed(512)).await.0;
        assert!(matches!(closed, Err(BlobError::Closed { .. })), "{closed:?}");
        let refused = channel.blob().channel().map(drop);
        assert!(matches!(refused, Err(BlobError::Closed { .. })), "{refused:?}");
        store.unload().await.unwrap();
    });
}

#[test]
fn a_channel_is_kept_out_by_what_keeps_writes_of_its_blob_out() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thick(2)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let channel = blob.channel().unwrap();
        fill(&blob, 0, CLUSTER, 3).await;
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        channel.write(0, IoBuf::copy_from(&[4; 512])).await.0.unwrap();
        assert_eq!(read(&blob, 0, 1024).await, [[4; 512], [3; 512]].concat());
        let below = store.open_blob(snapshot).await.unwrap();
        let channel = below.channel().unwrap();
        let refused = channel.write(0, IoBuf::zeroed(512)).await.0;
        assert!(matches!(refused, Err(BlobError::ReadOnly { .. })), "{refused:?}");
        assert_eq!(read(&below, 0, 512).await, [3; 512]);
    });
}

#[test]
fn a_channel_is_open_while_its_device_grows() {
    run_everywhere(async || {
        let disk = disk(16);
        let growing = Growing::new(device(&disk), (8 << 20) / 512);
        let store = Blobstore::init(growing.clone(), small()).await.unwrap();
        let id = store.create_blob(BlobOptions::thin(200)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        let channel = blob.channel().unwrap();
        channel.write(0, IoBuf::copy_from(&[1; 512])).await.0.unwrap();
        growing.grow();
        store.grow().await.unwrap();
        // More than there was room for before.
        for at in 0..blob.clusters() {
            channel.write(at * CLUSTER, IoBuf::copy_from(&[at as u8 + 1; 512])).await.0.unwrap();
        }
        for at in 0..blob.clusters() {
            assert_eq!(read(&blob, at * CLUSTER, 512).await, [at as u8 + 1; 512]);
        }
    });
}
