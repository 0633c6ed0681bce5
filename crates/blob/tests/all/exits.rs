//! Threads that come, do I/O, and go.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::Arc;

use spindle_blob::{Blob, BlobOptions, Blobstore};
use spindle_block::{Device, File, FileOptions, Malloc};
use spindle_mem::IoBuf;
use spindle_reactor::Thread;
use support::{CLUSTER, fill, run_on, slow_device, small};

#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    ReadHole,
    ReadKnown,
    WriteNew,
    WriteKnown,
    Zeroes,
    Unmap,
    Flush,
    /// A write that is given up.
    GivenUp,
    Channel,
}

const ALL: [What; 9] = [
    What::ReadHole,
    What::ReadKnown,
    What::WriteNew,
    What::WriteKnown,
    What::Zeroes,
    What::Unmap,
    What::Flush,
    What::GivenUp,
    What::Channel,
];

async fn touch(blob: Blob, what: What) {
    let block = || IoBuf::zeroed(4096);
    match what {
        What::ReadHole => blob.read(0, block()).await.0.unwrap(),
        What::ReadKnown => blob.read(CLUSTER, block()).await.0.unwrap(),
        What::WriteNew => blob.write(0, block()).await.0.unwrap(),
        What::WriteKnown => blob.write(CLUSTER, block()).await.0.unwrap(),
        What::Zeroes => blob.write_zeroes(CLUSTER, 4096).await.unwrap(),
        What::Unmap => blob.unmap(CLUSTER, CLUSTER).await.unwrap(),
        What::Flush => blob.flush().await.unwrap(),
        What::GivenUp => drop(support::poll_once(Box::pin(blob.write(2 * CLUSTER, block())).as_mut())),
        What::Channel => blob.channel().unwrap().read(CLUSTER, block()).await.0.unwrap(),
    }
}

/// The test hangs if one of the threads does.
async fn come_and_go(device: Arc<dyn Device>) {
    let store = Blobstore::init(device, small()).await.unwrap();
    for what in ALL {
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, CLUSTER, CLUSTER, 1).await;
        let thread = Thread::create("conn", &Thread::current().unwrap().cores().to_string()).unwrap();
        let there = blob.clone();
        thread.run(async move || touch(there, what).await).await.unwrap();
        thread.exit();
        thread.joined().await;
        store.snapshot(id, Vec::new()).await.unwrap();
        blob.close().await.unwrap();
        store.delete_blob(id).await.unwrap();
    }
    store.unload().await.unwrap();
}

#[test]
fn a_thread_that_did_any_io_to_a_blob_exits() {
    for engine in ["epoll", "auto", "sim:1", "sim:2"] {
        run_on(engine, async || come_and_go(Malloc::new("m", 4096, 1 << 14).unwrap()).await);
        run_on(engine, async || come_and_go(slow_device(&support::disk(64), 7)).await);
    }
    let directory = tempfile::tempdir().unwrap();
    for engine in ["epoll", "auto"] {
        let path = directory.path().join(engine);
        run_on(engine, async move || {
            come_and_go(File::open(FileOptions::new(path).writable(true).create(64 << 20)).await.unwrap())
                .await;
        });
    }
}
