//! Requests for which the process has no memory: none waits without end, none ends twice, and later ones succeed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../../tests/support/failing_allocator.rs"]
mod failing_allocator;
#[path = "common/plain.rs"]
mod plain;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spindle_block::{
    Channel, Device, File, FileOptions, Io, IoErrorKind, Malloc, Operation, QueuePair, Status,
};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, sleep};

use failing_allocator::NONE_LEFT;
use plain::Plain;

fn run(test: impl AsyncFnOnce() + Send + 'static) {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Auto).build().unwrap();
    runtime.run(test).unwrap();
}

/// Bytes of a transfer.
const LEN: usize = 128 << 10;

/// A buffer that direct transfers cannot use.
fn odd(len: usize) -> IoBuf {
    IoBuf::zeroed(len + 8).split_off(8)
}

/// A file whose transfers go through its bounce memory, of which it has none yet; none where that is not needed.
async fn file(path: PathBuf) -> Option<Arc<dyn Device>> {
    let options = FileOptions::new(path).writable(true).create(4 << 20).block_size(4096);
    let file = File::open(options.bounce_bytes(2 * LEN)).await.unwrap();
    if !file.info().direct {
        eprintln!("skipped: no direct transfers in the temporary folder");
        return None;
    }
    Some(file)
}

/// Submits writes that need such memory, when there is none any more.
fn submit(pair: &mut QueuePair, requests: u64) {
    let made: Vec<Io> = (0..requests)
        .map(|tag| {
            let mut io = pair.request(Operation::Write, 0, LEN as u64 / 4096, odd(LEN));
            io.set_tag(tag);
            io
        })
        .collect();
    NONE_LEFT.store(true, Ordering::Relaxed);
    made.into_iter().for_each(|io| pair.submit(io));
    pair.reap(|_, _| ());
}

/// How each request ended, by its number.
async fn ends(pair: &mut QueuePair) -> Vec<(u64, Status)> {
    let mut ends = Vec::new();
    while pair.outstanding() > 0 {
        pair.wait().await;
        pair.reap(|io, status| ends.push((io.tag(), status)));
    }
    ends.sort_by_key(|(tag, _)| *tag);
    ends
}

// One test, as what it sets is the process's.
#[test]
fn without_memory_requests_wait_or_end_and_go_on_when_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    run(async || {
        // Made of reads and writes, for which there is no memory.
        let disk = Malloc::new("below", 512, 4096).unwrap();
        let channel = Channel::open(Plain::over(disk)).unwrap();
        let (data, again) = (IoBuf::zeroed(2 * LEN), IoBuf::zeroed(2 * LEN));
        NONE_LEFT.store(true, Ordering::Relaxed);
        let compared = channel.compare_and_write(0, data).await.0;
        let zeroed = channel.write_zeroes(0, LEN as u64).await;
        let copied = channel.copy(0, LEN as u64, LEN as u64).await;
        NONE_LEFT.store(false, Ordering::Relaxed);
        for refused in [compared, zeroed, copied] {
            assert_eq!(refused.unwrap_err().kind, IoErrorKind::NoMemory);
        }
        channel.compare_and_write(0, again).await.0.unwrap();
        channel.write_zeroes(0, LEN as u64).await.unwrap();
    });
    let waits = path("waits");
    run(async move || {
        let Some(device) = file(waits).await else { return };
        let mut pair = QueuePair::open(&device).unwrap();
        // No other request has memory that could come back, so no event wakes it.
        submit(&mut pair, 4);
        sleep(Duration::from_millis(30)).await;
        assert_eq!(pair.outstanding(), 4);
        NONE_LEFT.store(false, Ordering::Relaxed);
        assert_eq!(ends(&mut pair).await, (0..4).map(|tag| (tag, Ok(()))).collect::<Vec<_>>());
    });
    let goes = path("goes");
    run(async move || {
        let Some(device) = file(goes).await else { return };
        let mut pair = QueuePair::open(&device).unwrap();
        submit(&mut pair, 64);
        device.state().unwrap().remove().await;
        let removed = Err(IoErrorKind::Removed);
        assert_eq!(ends(&mut pair).await, (0..64).map(|tag| (tag, removed)).collect::<Vec<_>>());
        NONE_LEFT.store(false, Ordering::Relaxed);
    });
}
