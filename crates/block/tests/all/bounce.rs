//! Transfers that the engine cannot do from their own buffers share memory, and wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spindle_block::{
    Channel, Device, File, FileOptions, Io, IoErrorKind, LaneTable, OpenError, Operation, QueuePair, Status,
};
use spindle_engine::EngineKind;
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{Runtime, Thread, spawn_local, yield_now};

use crate::common::taken_at_once;

/// A buffer that is not aligned as direct transfers need, filled by its position.
fn odd(len: usize, seed: u8) -> IoBuf {
    let mut buffer = IoBuf::zeroed(len + 8);
    let mut buffer = buffer.split_off(8);
    buffer.chunks_mut(509).enumerate().for_each(|(n, chunk)| chunk.fill(seed.wrapping_add(n as u8)));
    buffer
}

fn same(buffers: &Buffers, seed: u8) -> bool {
    let bytes = buffers.to_vec();
    bytes
        .chunks(509)
        .enumerate()
        .all(|(n, chunk)| chunk.iter().all(|byte| *byte == seed.wrapping_add(n as u8)))
}

async fn open(path: std::path::PathBuf, bytes: u64, bounce: usize) -> Arc<File> {
    let options = FileOptions::new(path).writable(true).create(bytes).block_size(4096);
    File::open(options.bounce_bytes(bounce)).await.unwrap()
}

fn run<F: Future<Output = ()>>(reactors: usize, test: impl FnOnce(std::path::PathBuf) -> F + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let runtime = Runtime::builder().reactors(reactors).engine(EngineKind::Auto).build().unwrap();
    runtime.run(async move || test(path).await).unwrap();
}

#[test]
fn a_transfer_larger_than_the_pool_goes_in_steps_and_arrives_whole() {
    run(1, |path| async move {
        const LEN: usize = 3 << 20;
        for (n, bounce) in [64 << 10, 1 << 20, 64 << 20].into_iter().enumerate() {
            let file = open(path.clone(), 16 << 20, bounce).await;
            let channel = Channel::open(file).unwrap();
            let seed = n as u8 * 7;
            let (written, back) = channel.write(4096, odd(LEN, seed)).fua().await;
            written.unwrap();
            assert!(same(&back, seed), "a write changes no buffer");
            // A list whose runs end anywhere.
            let list = vec![odd(5000, 0), odd(LEN - 5000 - 77, 0), odd(77, 0)];
            let (read, data) = channel.read(4096, list).await;
            read.unwrap();
            assert!(same(&data, seed), "with {bounce} bytes");
            channel.close().await;
        }
    });
}

#[test]
fn a_file_has_64_mib_for_transfers_that_are_not_aligned_and_one_more_waits_until_one_ends() {
    run(1, |path| async move {
        // As much as a transfer takes at once.
        const STEP: usize = 4 << 20;
        let options = FileOptions::new(path).writable(true).create(8 << 20).block_size(4096);
        let file = File::open(options).await.unwrap();
        if !file.info().direct {
            return eprintln!("skipped: no direct transfers in the temporary folder");
        }
        let device: Arc<dyn Device> = file;
        let (blocks, mut pair) = (STEP as u64 / 4096, QueuePair::open(&device).unwrap());
        for many in [16, 17] {
            let writes = (0..many).map(|n| pair.request(Operation::Write, 0, blocks, odd(STEP, n)));
            let writes = writes.collect();
            assert_eq!(taken_at_once(&device, &mut pair, writes).await, 16, "of {many}");
        }
        // A block too much in one transfer takes no more at once.
        let whole = (0..16).map(|n| pair.request(Operation::Write, 0, blocks + 1, odd(STEP + 4096, n)));
        let whole = whole.collect();
        assert_eq!(taken_at_once(&device, &mut pair, whole).await, 16);
    });
}

#[test]
fn who_finds_no_memory_waits_for_that_of_other_threads_and_gets_no_error() {
    run(2, |path| async move {
        let file = open(path, 64 << 20, 128 << 10).await;
        let done = Arc::new(AtomicUsize::new(0));
        for n in 0..4u64 {
            let thread = Thread::create(&format!("t{n}"), "[0-1023]").unwrap();
            let (file, done) = (file.clone(), done.clone());
            drop(thread.spawn(async move || {
                let channel = std::rc::Rc::new(Channel::open(file).unwrap());
                let tasks: Vec<_> = (0..6u64)
                    .map(|task| {
                        let channel = channel.clone();
                        spawn_local(async move {
                            let at = (n * 6 + task) * (1 << 20);
                            for (round, len) in [4096, 64 << 10, 300 << 10, 512 << 10].into_iter().enumerate()
                            {
                                let seed = (n + task) as u8 + round as u8;
                                channel.write(at, odd(len, seed)).await.0.unwrap();
                                let (read, data) = channel.read(at, odd(len, 0)).await;
                                read.unwrap();
                                assert!(same(&data, seed));
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            }));
            thread.exit();
        }
        while done.load(Ordering::SeqCst) < 4 {
            yield_now().await;
        }
        assert_eq!(file.state().unwrap().held_ranges(), 0);
    });
}

#[test]
fn memory_comes_back_from_a_thread_that_exits_with_transfers_under_way() {
    run(2, |path| async move {
        let file = open(path, 64 << 20, 128 << 10).await;
        for round in 0..10 {
            let thread = Thread::create(&format!("t{round}"), "[0-1023]").unwrap();
            let other = file.clone();
            let gone = thread.spawn(async move || {
                let channel = Channel::open_unheld(other).unwrap();
                let mut writes: Vec<_> =
                    (0..8u64).map(|n| Box::pin(channel.write(n << 20, odd(64 << 10, 1)))).collect();
                std::future::poll_fn(|cx| {
                    for write in &mut writes {
                        let _ = write.as_mut().poll(cx).is_ready();
                    }
                    std::task::Poll::Ready(())
                })
                .await;
            });
            let channel = Channel::open(file.clone()).unwrap();
            let _ = gone.await;
            thread.exit();
            channel.write(32 << 20, odd(256 << 10, 2)).await.0.unwrap();
            thread.joined().await;
        }
    });
}

#[test]
fn too_little_memory_for_two_blocks_is_refused_with_the_numbers() {
    run(1, |path| async move {
        let options = FileOptions::new(path).writable(true).create(1 << 20).block_size(4096);
        let error = File::open(options.bounce_bytes(5000)).await.unwrap_err();
        assert!(matches!(error, OpenError::Geometry { .. }));
        assert!(error.to_string().contains("5000 bytes"), "{error}");
    });
}

#[test]
fn a_removal_ends_requests_that_wait_for_memory_once_each_and_the_memory_comes_back() {
    run(1, |path| async move {
        let file = open(path, 4 << 20, 16 << 10).await;
        let device: Arc<dyn Device> = file.clone();
        let mut pair = QueuePair::open(&device).unwrap();
        const QUEUED: u64 = 1024;
        for tag in 0..QUEUED {
            let operation = if tag % 2 == 0 { Operation::Write } else { Operation::Read };
            let mut io = pair.request(operation, tag % 1000, 1, odd(4096, 1));
            io.set_tag(tag);
            pair.submit(io);
        }
        let mut times = vec![0; QUEUED as usize];
        let mut seen = |io: Io, status: Status| {
            times[io.tag() as usize] += 1;
            let right = matches!(status, Ok(()) | Err(IoErrorKind::Removed | IoErrorKind::Aborted));
            assert!(right, "{status:?}");
        };
        // Some are under way, and most wait.
        pair.wait().await;
        pair.reap(&mut seen);
        device.state().unwrap().remove().await;
        while pair.outstanding() > 0 {
            pair.wait().await;
            pair.reap(&mut seen);
        }
        assert!(times.iter().all(|times| *times == 1));
        drop((pair, device));
        yield_now().await;
        let left = LaneTable::current().unwrap().stats();
        assert_eq!((left.lanes, left.in_flight), (0, 0));
    });
}
