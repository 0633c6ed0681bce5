//! Four writers on two threads fill a thin blob while a snapshot is taken; then everything is read back. The same
//! program runs on a memory disk, and on a bdev that has a name.

use std::error::Error;
use std::sync::Arc;

use spindle::bdev::modules::malloc::{self, MallocSpec};
use spindle::{
    BlobDevice, BlobOptions, Blobstore, Device, InitOptions, IoBuf, Malloc, Registry, Runtime, Thread,
};

/// The error, if any.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Blocks that each of the four writers writes, every fourth one of the blob.
const BLOCKS: u64 = 512;

/// Runs it on two reactors.
pub fn main() -> Outcome {
    Runtime::builder().reactors(2).build()?.try_run(async || {
        snapshot_under_load(Malloc::of_bytes("Malloc0", 64 * MIB)?).await?;
        let registry = Registry::start()?;
        let bdev = malloc::create(&registry, MallocSpec::of_bytes("Malloc1", 64 * MIB)).await?;
        snapshot_under_load(BlobDevice::open("Malloc1", |_| {})?).await?;
        Ok(registry.unregister(&bdev).await?)
    })
}

async fn snapshot_under_load(device: Arc<dyn Device>) -> Outcome {
    let store = Blobstore::init(device, InitOptions::default()).await?;
    let id = store.create_blob(BlobOptions::thin(store.clusters_for(16 * MIB))).await?;
    let blob = store.open_blob(id).await?;
    let threads = [Thread::create("even", 0..1024)?, Thread::create("odd", 0..1024)?];

    let write = |writer: u64| {
        let blob = blob.clone();
        threads[writer as usize % 2].spawn(async move || {
            for block in (writer..4 * BLOCKS).step_by(4) {
                let data = IoBuf::copy_from(&[block as u8; BLOCK]);
                blob.write(block * BLOCK as u64, data).await.0?;
            }
            blob.flush().await
        })
    };
    let writers = [0, 1, 2, 3].map(write);
    let snapshot = store.snapshot(id, vec![]).await?;
    for writer in writers {
        writer.await??;
    }

    let snapshot = store.open_blob(snapshot).await?;
    let mut in_snapshot = 0;
    for block in 0..4 * BLOCKS {
        let (read, now) = blob.read(block * BLOCK as u64, IoBuf::zeroed(BLOCK)).await;
        let (read_then, then) = snapshot.read(block * BLOCK as u64, IoBuf::zeroed(BLOCK)).await;
        read.and(read_then)?;
        assert_eq!(now.to_vec(), [block as u8; BLOCK], "the blob has all that was written");
        in_snapshot += u64::from(then.to_vec() == now.to_vec());
    }
    println!("{}: {} blocks written, {in_snapshot} of them before the snapshot", store.name(), 4 * BLOCKS);

    snapshot.close().await?;
    blob.close().await?;
    store.unload().await?;
    for thread in &threads {
        thread.exit();
        thread.joined().await;
    }
    Ok(())
}
