//! Files and simulated disks opened through the engine of a real thread, under every engine there is.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::common;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use common::model::{exercise, join_all};
use common::{poll_once, taken_at_once};
use spindle_block::{
    Channel, Device, Faulty, File, FileOptions, IoErrorKind, Malloc, OpenError, Operation, QueuePair, SimDisk,
};
use spindle_engine::sim::{Disk, DiskOptions};
use spindle_engine::{Direct, EngineKind};
use spindle_mem::IoBuf;
use spindle_reactor::{Runtime, yield_now};

const SIZE: u64 = 256 * 4096;

/// Runs `test` under each engine, each time with another file.
fn under_every_engine<F: Future<Output = ()>>(
    test: impl Fn(PathBuf, EngineKind) -> F + Copy + Send + 'static,
) {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [EngineKind::Auto, EngineKind::Epoll].into_iter().chain((0..8).map(EngineKind::Sim));
    for (n, kind) in kinds.enumerate() {
        let path = folder.path().join(format!("disk{n}"));
        let runtime = Runtime::builder().cores("[0]").engine(kind).build().unwrap();
        runtime.run(async move || test(path, kind).await).unwrap();
    }
}

fn filled(len: usize, byte: u8) -> IoBuf {
    let mut buffer = IoBuf::zeroed(len);
    buffer.fill(byte);
    buffer
}

#[test]
fn a_file_is_an_array_of_bytes_under_every_engine() {
    under_every_engine(|path, _| async move {
        for (seed, direct, block_size) in
            [(1, Direct::Wanted, 4096), (2, Direct::Off, 512), (3, Direct::Wanted, 512)]
        {
            let options =
                FileOptions::new(&path).writable(true).create(SIZE).direct(direct).block_size(block_size);
            let file = File::open(options).await.unwrap();
            let channel = Channel::open(file).unwrap();
            assert_eq!(channel.geometry().bytes(), SIZE);
            exercise(&channel, seed, 15, 4, true).await;
            channel.close().await;
        }
    });
}

#[test]
fn what_a_file_calls_a_hole_reads_as_zeroes_and_what_was_written_is_found() {
    under_every_engine(|path, kind| async move {
        let options = FileOptions::new(&path).writable(true).create(SIZE).block_size(512);
        let channel = Channel::open(File::open(options).await.unwrap()).unwrap();
        for at in [17 * 4096, 18 * 4096, 100 * 4096, SIZE - 512] {
            channel.write(at, filled(512, 1)).await.0.unwrap();
        }
        channel.flush().await.unwrap();
        let (mut at, mut data, mut holes) = (0, 0, 0);
        while at < SIZE {
            let from = channel.seek_data(at).await.unwrap();
            assert!(from >= at && from <= SIZE && from.is_multiple_of(512), "{from} from {at}");
            if from > at {
                holes += from - at;
                let (read, buffers) = channel.read(at, IoBuf::zeroed((from - at) as usize)).await;
                read.unwrap();
                assert!(buffers.to_vec().iter().all(|byte| *byte == 0), "a hole from {at} to {from}");
            }
            if from == SIZE {
                break;
            }
            at = channel.seek_hole(from).await.unwrap();
            assert!(at > from && at <= SIZE && at.is_multiple_of(512), "{at} from {from}");
            data += at - from;
        }
        assert_eq!(holes + data, SIZE);
        if matches!(kind, EngineKind::Sim(_)) {
            assert_eq!(data, SIZE, "a simulated disk knows no holes");
        }
        assert_eq!(channel.seek_data(SIZE - 512).await.unwrap(), SIZE - 512);
    });
}

#[test]
fn more_requests_than_the_file_takes_at_once_all_end() {
    under_every_engine(|path, _| async move {
        let file =
            File::open(FileOptions::new(&path).writable(true).create(SIZE).block_size(512)).await.unwrap();
        let device: Arc<dyn Device> = file;
        let mut pair = QueuePair::open(&device).unwrap();
        let many = device.geometry().depth() as u64 * 3;
        for n in 0..many {
            let io = pair.request(Operation::Write, n, 1, filled(512, n as u8));
            pair.submit(io);
        }
        let mut ended = 0;
        while pair.outstanding() > 0 {
            pair.wait().await;
            ended += pair.reap(|_, status| status.unwrap());
        }
        assert_eq!(ended as u64, many);
        let channel = Channel::open(device).unwrap();
        let (result, all) = channel.read(0, IoBuf::zeroed(many as usize * 512)).await;
        result.unwrap();
        let all = all.into_one().unwrap();
        assert!(all.chunks(512).enumerate().all(|(n, block)| block.iter().all(|b| *b == n as u8)));
    });
}

#[test]
fn a_file_takes_256_requests_and_one_more_waits_until_one_ends() {
    under_every_engine(|path, _| async move {
        let options = FileOptions::new(&path).writable(true).create(SIZE).block_size(512);
        let device: Arc<dyn Device> = File::open(options).await.unwrap();
        assert_eq!(device.geometry().depth(), 256);
        let mut pair = QueuePair::open(&device).unwrap();
        for many in [256, 257] {
            let writes = (0..many).map(|n| pair.request(Operation::Write, n, 1, filled(512, 1)));
            let writes = writes.collect();
            assert_eq!(taken_at_once(&device, &mut pair, writes).await, 256, "of {many}");
        }
    });
}

#[test]
fn a_file_opened_for_reading_is_never_changed() {
    under_every_engine(|path, _| async move {
        let options = FileOptions::new(&path).writable(true).create(SIZE);
        drop(File::open(options).await.unwrap());
        let channel = Channel::open(File::open(FileOptions::new(&path)).await.unwrap()).unwrap();
        assert!(!channel.geometry().writable());
        assert_eq!(channel.write(0, IoBuf::zeroed(4096)).await.0.unwrap_err().kind, IoErrorKind::ReadOnly);
        channel.read(0, IoBuf::zeroed(4096)).await.0.unwrap();
    });
}

#[test]
fn a_writer_keeps_all_others_out_and_is_named() {
    under_every_engine(|path, kind| async move {
        if matches!(kind, EngineKind::Sim(_)) {
            return;
        }
        let writer = File::open(FileOptions::new(&path).writable(true).create(SIZE)).await.unwrap();
        for second in [FileOptions::new(&path), FileOptions::new(&path).writable(true)] {
            let Err(error @ OpenError::Busy { .. }) = File::open(second).await else { panic!("kept out") };
            let said = error.to_string();
            assert!(
                said.contains("disk") && said.contains("in use") && said.contains("close it here"),
                "{said}"
            );
        }
        drop(File::open(FileOptions::new(&path).unlocked()).await.unwrap());
        drop(writer);
        let reader = File::open(FileOptions::new(&path)).await.unwrap();
        let another = File::open(FileOptions::new(&path)).await.unwrap();
        assert!(matches!(
            File::open(FileOptions::new(&path).writable(true)).await,
            Err(OpenError::Busy { .. })
        ));
        drop((reader, another));
        File::open(FileOptions::new(&path).writable(true)).await.unwrap();
    });
}

/// Opens that are given up at any moment, many at a time, and one that is wanted at once afterwards.
#[test]
fn an_abandoned_open_blocks_no_later_open() {
    under_every_engine(|path, kind| async move {
        let options = || FileOptions::new(&path).writable(true).create(SIZE);
        for round in 0..60 {
            let mut opens: Vec<_> = (0..1 + round % 4).map(|_| Box::pin(File::open(options()))).collect();
            for _ in 0..round % 7 {
                opens.retain_mut(|open| poll_once(open.as_mut()).is_none());
                yield_now().await;
            }
            // Some have ended and were not looked at.
            drop(opens);
            let file = File::open(options()).await;
            let file = file.unwrap_or_else(|error| panic!("{kind}: {error}"));
            let refused = File::open(options()).await.unwrap_err();
            assert!(
                matches!(refused, OpenError::Busy { .. }),
                "{refused}: one that is kept keeps others out"
            );
            drop(file);
        }
    });
}

#[test]
fn what_cannot_be_opened_is_refused_by_name() {
    under_every_engine(|path, _| async move {
        let missing = path.with_extension("missing");
        let Err(error) = File::open(FileOptions::new(&missing)).await else { panic!("not there") };
        assert!(error.to_string().contains("missing"), "{error}");
        let tiny = FileOptions::new(path.with_extension("tiny")).writable(true).create(512).block_size(4096);
        let Err(error) = File::open(tiny).await else { panic!("too small") };
        assert!(matches!(error, OpenError::Geometry { .. }), "{error}");
    });
}

#[test]
fn reads_dropped_in_flight_end_by_themselves_and_their_lane_waits_for_them() {
    under_every_engine(|path, _| async move {
        let file = File::open(FileOptions::new(&path).writable(true).create(SIZE)).await.unwrap();
        let channel = Channel::open(file).unwrap();
        for n in 0..20 {
            let mut read = Box::pin(channel.read(n * 4096, IoBuf::zeroed(4096)));
            let _ = common::poll_once(read.as_mut());
        }
        channel.close().await;
        let table = spindle_block::LaneTable::current().unwrap();
        assert_eq!((table.stats().lanes, table.stats().in_flight), (0, 0));
    });
}

#[test]
fn buffers_that_direct_transfers_cannot_use_are_bounced() {
    under_every_engine(|path, _| async move {
        let file =
            File::open(FileOptions::new(&path).writable(true).create(SIZE).block_size(4096)).await.unwrap();
        let channel = Channel::open(file).unwrap();
        let mut whole = filled(4096 + 24, 5);
        let odd = whole.split_off(24);
        assert!(!odd.as_ptr().addr().is_multiple_of(512));
        let (result, back) = channel.write(4096, odd).await;
        result.unwrap();
        assert_eq!(back.len(), 4096);
        let parts = vec![IoBuf::zeroed(100), IoBuf::zeroed(3996), IoBuf::zeroed(4096)];
        let (result, back) = channel.read(4096, parts).await;
        result.unwrap();
        let lengths: Vec<usize> = back.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [100, 3996, 4096]);
        let bytes: Vec<u8> = back.iter().flat_map(|part| part.iter().copied()).collect();
        assert!(bytes[..4096].iter().all(|b| *b == 5) && bytes[4096..].iter().all(|b| *b == 0));
    });
}

#[test]
fn a_simulated_disk_works_on_a_thread_like_on_a_hand_stepped_table() {
    under_every_engine(|_, _| async move {
        let device = SimDisk::new("sim", Disk::new(DiskOptions::new(SIZE)), 5).unwrap();
        let channel = Channel::open(Faulty::new("layer", device)).unwrap();
        exercise(&channel, 5, 20, 4, true).await;
        channel.close().await;
    });
}

#[test]
fn channels_of_one_thread_share_a_lane_and_many_futures_share_a_channel() {
    under_every_engine(|_, _| async move {
        let disk = Malloc::new("Malloc0", 512, 64).unwrap();
        let (a, b) = (Channel::open(disk.clone()).unwrap(), Channel::open(disk).unwrap());
        let table = spindle_block::LaneTable::current().unwrap();
        assert_eq!(table.stats().lanes, 1);
        let mut all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for n in 0..64 {
            let channel = if n % 2 == 0 { &a } else { &b };
            all.push(Box::pin(async move { channel.write(n * 512, filled(512, n as u8)).await.0.unwrap() }));
        }
        join_all(all).await;
        let (_, back) = b.read(0, IoBuf::zeroed(64 * 512)).await;
        assert!(back.into_one().unwrap().chunks(512).enumerate().all(|(n, part)| part[0] == n as u8));
    });
}

#[test]
fn a_channel_opened_away_from_a_thread_is_refused_with_the_way_out() {
    let Err(error) = Channel::open(Malloc::new("Malloc0", 512, 1).unwrap()) else { panic!("no thread here") };
    assert!(matches!(error, OpenError::NotOnThread { .. }));
    assert!(error.to_string().contains("Runtime::run"), "{error}");
}
