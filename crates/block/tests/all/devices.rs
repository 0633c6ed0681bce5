//! The devices that need no engine, each beside a plain array of bytes, on a hand-stepped lane table.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::common;

use std::sync::Arc;

use common::model::exercise;
use common::{block_on_ready, geometry, run_on};
use spindle_block::{
    Channel, Device, Effect, Faulty, Geometry, GeometryError, IoErrorKind, LaneTable, Malloc, Null, Offset,
    OpenError, Operation, SimDisk,
};
use spindle_engine::sim::{Disk, DiskOptions, Fault, UnmapReads};
use spindle_mem::{Buffers, IoBuf};

fn open(device: Arc<dyn Device>) -> (LaneTable, Channel) {
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    (table, channel)
}

#[test]
fn a_ram_disk_is_an_array_of_bytes() {
    for (seed, block_size) in [(1, 512), (2, 4096), (3, 512), (4, 4096)] {
        let (table, channel) = open(Malloc::new("Malloc0", block_size, 256).unwrap());
        run_on(&table, exercise(&channel, seed, 100, 4, true));
    }
}

#[test]
fn a_simulated_disk_is_an_array_of_bytes_whatever_the_order_of_completions() {
    for seed in 0..40 {
        let options = DiskOptions {
            block: if seed % 2 == 0 { 512 } else { 4096 },
            discard: [Some(UnmapReads::Zero), Some(UnmapReads::Garbage), None][seed as usize % 3],
            ..DiskOptions::new(256 * 4096)
        };
        let (table, channel) = open(SimDisk::new("sim", Disk::new(options), seed).unwrap());
        run_on(&table, exercise(&channel, seed, 40, 4, true));
        let (table, channel) = open(SimDisk::immediate("sim", Disk::new(options)).unwrap());
        run_on(&table, exercise(&channel, seed, 40, 4, true));
    }
}

#[test]
fn a_part_of_a_part_is_an_array_of_bytes_and_touches_nothing_beside_it() {
    let whole = Malloc::new("whole", 512, 1024).unwrap();
    let (whole_table, whole_channel) = open(whole.clone());
    let mut marks = IoBuf::zeroed(1024 * 512);
    marks.fill(0x55);
    run_on(&whole_table, async { whole_channel.write(0, marks).await.0.unwrap() });
    let half = Offset::new("half", whole.clone(), 100, 512).unwrap();
    let part = Offset::new("part", half, 28, 256).unwrap();
    let (table, channel) = open(part);
    run_on(&table, exercise(&channel, 7, 100, 4, true));
    let (result, all) = block_on_ready(whole_channel.read(0, IoBuf::zeroed(1024 * 512)));
    result.unwrap();
    let all = all.into_one().unwrap();
    assert!(all[..128 * 512].iter().chain(&all[384 * 512..]).all(|b| *b == 0x55));
}

#[test]
fn a_part_that_its_device_does_not_have_is_refused_by_number() {
    let whole = Malloc::new("whole", 512, 100).unwrap();
    let Err(OpenError::Geometry { device, source }) = Offset::new("p1", whole, 90, 11) else {
        panic!("refused")
    };
    assert_eq!(device, "p1");
    assert_eq!(source, GeometryError::Beyond { from: 90, blocks: 11, of: 100 });
}

#[test]
fn two_tables_see_each_others_writes_on_one_ram_disk() {
    let disk = Malloc::new("Malloc0", 512, 8).unwrap();
    let (_here, a) = open(disk.clone());
    let (_there, b) = open(disk);
    let mut data = IoBuf::zeroed(512);
    data.fill(9);
    block_on_ready(a.write(512, data)).0.unwrap();
    let (_, back) = block_on_ready(b.read(512, IoBuf::zeroed(512)));
    assert!(back.into_one().unwrap().iter().all(|byte| *byte == 9));
}

#[test]
fn two_threads_hammering_one_block_leave_a_mix_of_their_writes_and_no_more() {
    let disk = Malloc::new("Malloc0", 4096, 2).unwrap();
    std::thread::scope(|scope| {
        for byte in [1u8, 2] {
            let disk = disk.clone();
            scope.spawn(move || {
                let (_table, channel) = open(disk);
                let mut data = IoBuf::zeroed(4096);
                for _ in 0..300 {
                    data.fill(byte);
                    let (result, back) = block_on_ready(channel.write(0, data));
                    result.unwrap();
                    let (result, back) = block_on_ready(channel.read(0, back));
                    result.unwrap();
                    data = back.into_one().unwrap();
                    assert!(data.iter().all(|b| *b == 1 || *b == 2));
                }
            });
        }
    });
    let (_table, channel) = open(disk);
    let (_, next) = block_on_ready(channel.read(4096, IoBuf::zeroed(4096)));
    assert!(next.into_one().unwrap().iter().all(|b| *b == 0), "the neighbour is untouched");
}

#[test]
fn what_was_not_flushed_to_a_simulated_disk_is_lost_in_a_crash_and_what_was_is_not() {
    let disk = Disk::new(DiskOptions::new(64 * 512));
    let (table, channel) = open(SimDisk::new("sim", disk.clone(), 3).unwrap());
    assert!(channel.geometry().volatile_cache());
    let filled = |byte: u8| {
        let mut data = IoBuf::zeroed(512);
        data.fill(byte);
        data
    };
    run_on(&table, async {
        channel.write(0, filled(1)).await.0.unwrap();
        channel.flush().await.unwrap();
        channel.write(512, filled(2)).fua().await.0.unwrap();
        channel.write(1024, filled(3)).await.0.unwrap();
    });
    let left = disk.crash(spindle_engine::sim::Crash::LoseAll, &mut |_| 0);
    let (table, channel) = open(SimDisk::new("after", Disk::from_image(left, disk.options()), 4).unwrap());
    let all = run_on(&table, async { channel.read(0, IoBuf::zeroed(3 * 512)).await.1.into_one().unwrap() });
    assert_eq!([all[0], all[512], all[1024]], [1, 2, 0]);
}

#[test]
fn a_fault_of_the_disk_is_the_error_of_that_request_and_of_no_other() {
    let disk = Disk::new(DiskOptions::new(64 * 512));
    let (table, channel) = open(SimDisk::immediate("sim", disk.clone()).unwrap());
    disk.inject(Fault::error(spindle_engine::sim::Operation::Write, 2));
    let kinds: Vec<_> = (0..3)
        .map(|n| {
            let (result, buffers) = run_on(&table, channel.write(n * 512, IoBuf::zeroed(512)));
            assert_eq!(buffers.len(), 512);
            result.map_err(|error| error.kind)
        })
        .collect();
    assert_eq!(kinds, [Ok(()), Err(IoErrorKind::Device { errno: 5 }), Ok(())]);
}

#[test]
fn one_seed_completes_in_one_order_and_another_seed_in_another() {
    let order = |seed: u64| {
        let device: Arc<dyn Device> =
            SimDisk::new("sim", Disk::new(DiskOptions::new(64 * 512)), seed).unwrap();
        let table = LaneTable::default();
        let mut pair = table.queue_pair(&device).unwrap();
        for start in 0..32 {
            let io = pair.request(Operation::Read, start, 1, IoBuf::zeroed(512));
            pair.submit(io);
        }
        let mut order = Vec::new();
        while pair.outstanding() > 0 {
            table.step();
            pair.reap(|io, _| order.push(io.start()));
        }
        order
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert_ne!(order(1), (0..32).collect::<Vec<_>>());
}

#[test]
fn the_chosen_request_fails_and_the_others_pass() {
    let below = Malloc::new("Malloc0", 512, 8).unwrap();
    let faulty = Faulty::new("faulty", below);
    let (table, channel) = open(faulty.clone());
    let write = |byte: u8| {
        let mut data = IoBuf::zeroed(512);
        data.fill(byte);
        run_on(&table, channel.write(0, data)).0.map_err(|error| error.kind)
    };
    let read = || run_on(&table, channel.read(0, IoBuf::zeroed(512))).1.into_one().unwrap()[0];
    let eio = Err(IoErrorKind::Device { errno: 5 });
    faulty.inject(&[Operation::Write], 2, 2, Effect::Fail);
    assert_eq!([write(1), write(2), write(3), write(4)], [Ok(()), eio, eio, Ok(())]);
    assert_eq!(faulty.seen(), 4);
    faulty.inject(&[Operation::Write], 1, 1, Effect::FailAfter);
    assert_eq!(write(5), eio);
    assert_eq!(read(), 5, "the device did it nevertheless");
    faulty.inject(&[Operation::Write], 1, 1, Effect::Drop);
    assert_eq!(write(6), Err(IoErrorKind::Aborted));
    assert_eq!(read(), 5);
    faulty.inject(&[Operation::Read, Operation::Write], 1, u64::MAX, Effect::NoSpace);
    assert_eq!([write(7), write(8)], [Err(IoErrorKind::NoSpace); 2]);
    faulty.clear();
    assert_eq!(write(9), Ok(()));
}

#[test]
fn the_null_device_answers_everything_inside_its_bounds() {
    let (table, channel) = open(Null::new("null", geometry(8)));
    run_on(&table, async {
        channel.write(0, IoBuf::zeroed(8 * 512)).await.0.unwrap();
        channel.unmap(0, 8 * 512).await.unwrap();
        channel.flush().await.unwrap();
        assert_eq!(
            channel.read(8 * 512, IoBuf::zeroed(512)).await.0.unwrap_err().kind,
            IoErrorKind::OutOfRange
        );
    });
}

#[test]
fn requests_of_zero_bytes_succeed_inside_the_device() {
    let (table, channel) = open(Malloc::new("Malloc0", 512, 8).unwrap());
    run_on(&table, async {
        channel.unmap(8 * 512, 0).await.unwrap();
        channel.write_zeroes(0, 0).await.unwrap();
        channel.read(512, spindle_mem::Buffers::None).await.0.unwrap();
        assert_eq!(channel.unmap(9 * 512, 0).await.unwrap_err().kind, IoErrorKind::OutOfRange);
    });
}

#[test]
fn impossible_shapes_are_refused_with_what_is_wrong() {
    assert_eq!(Geometry::new(0, 1), Err(GeometryError::BlockSize(0)));
    assert_eq!(Geometry::new(520, 1), Err(GeometryError::BlockSize(520)));
    assert_eq!(Geometry::new(1 << 17, 1), Err(GeometryError::BlockSize(1 << 17)));
    assert_eq!(Geometry::new(512, 0), Err(GeometryError::Empty));
    let (blocks, block_size) = (1 << 54, 512);
    assert_eq!(Geometry::new(block_size, blocks), Err(GeometryError::TooLarge { blocks, block_size }));
    assert_eq!(Geometry::of_bytes(4096, 5000), Err(GeometryError::Ragged { bytes: 5000, block_size: 4096 }));
    let good = Geometry::new(4096, 10).unwrap();
    assert_eq!(good.with_atomic_unit(512), Err(GeometryError::AtomicUnit(512)));
    assert_eq!(good.with_max_transfer(0), Err(GeometryError::MaxTransfer));
    assert!(
        good.contains(0, 10) && good.contains(10, 0) && !good.contains(1, 10) && !good.contains(u64::MAX, 2)
    );
}

/// A RAM disk all of whose memory has been written to: what was not is zero without work.
fn written_disk(mib: u64) -> (LaneTable, Arc<dyn Device>) {
    let disk: Arc<dyn Device> = Malloc::of_bytes("Malloc0", mib << 20).unwrap();
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&disk).unwrap();
    for start in (0..mib << 8).step_by(1 << 8) {
        let io = pair.request(Operation::Write, start, 1 << 8, IoBuf::zeroed(1 << 20));
        pair.submit(io);
        pair.reap(|_, status| status.unwrap());
    }
    drop(pair);
    (table, disk)
}

#[test]
fn long_zeroes_in_one_lane_take_turns() {
    let (table, disk) = written_disk(64);
    let mut pair = table.queue_pair(&disk).unwrap();
    for (start, count) in [(0, 40 << 8), (40 << 8, 6 << 8), (46 << 8, 10 << 8)] {
        let io = pair.request(Operation::WriteZeroes, start, count, Buffers::None);
        pair.submit(io);
    }
    let mut order = Vec::new();
    while pair.outstanding() > 0 {
        table.step();
        pair.reap(|io, status| order.push((io.count() >> 8, status)));
    }
    assert_eq!(order, [(6, Ok(())), (10, Ok(())), (40, Ok(()))]);
}

#[test]
fn however_much_is_zeroed_other_lanes_of_the_thread_get_a_turn_after_a_few_mebibytes() {
    // Requests, and the MiB of each.
    for (requests, mib) in [(1, 64), (8, 8), (40, 64), (64, 1), (32, 2), (256, 1)] {
        let (table, disk) = written_disk(64);
        let other: Arc<dyn Device> = Malloc::of_bytes("Malloc1", 1 << 20).unwrap();
        let (mut pair, mut reads) = (table.queue_pair(&disk).unwrap(), table.queue_pair(&other).unwrap());
        for operation in [Operation::WriteZeroes, Operation::Unmap] {
            for nth in 0..requests {
                let io = pair.request(operation, (nth * mib % 64) << 8, mib << 8, Buffers::None);
                pair.submit(io);
            }
            let (mut steps, mut read) = (0, 0_u64);
            while pair.outstanding() > 0 {
                let io = reads.request(Operation::Read, 0, 1, IoBuf::zeroed(4096));
                reads.submit(io);
                table.step();
                pair.reap(|_, status| status.unwrap());
                read += reads.reap(|_, status| status.unwrap()) as u64;
                steps += 1;
            }
            assert!(steps >= requests * mib / 4, "{steps} steps for {requests} requests of {mib} MiB");
            assert_eq!(read, steps, "one read in each");
        }
    }
}

#[test]
fn a_long_unmap_gives_memory_back_when_no_thread_can_be_in_an_older_write() {
    let disk: Arc<dyn Device> = Malloc::of_bytes("Malloc0", 512 << 20).unwrap();
    let (here, there) = (LaneTable::default(), LaneTable::default());
    let mut pair = here.queue_pair(&disk).unwrap();
    let other = there.channel(disk.clone()).unwrap();
    let seven = |at: u64| {
        let mut data = IoBuf::zeroed(4096);
        data.fill(7);
        block_on_ready(other.write(at << 20, data)).0.unwrap();
    };
    for at in [0, 1, 200, 299, 300] {
        seven(at);
    }
    let io = pair.request(Operation::Unmap, 1, (300 << 8) - 1, Buffers::None);
    pair.submit(io);
    here.step();
    assert_eq!(pair.reap(|_, status| status.unwrap()), 0, "the other thread has not been heard");
    // Written while it is on its way: it holds this or zero, and zeroes that come later make it zero.
    seven(100);
    there.step();
    (0..2).for_each(|_| _ = here.step());
    assert_eq!(pair.reap(|_, status| status.unwrap()), 1);
    let first = |at: u64| block_on_ready(other.read(at << 20, IoBuf::zeroed(4096))).1.to_vec()[0];
    assert_eq!([0, 1, 200, 299, 300].map(first), [7, 0, 0, 0, 7]);
    assert!([0, 7].contains(&first(100)));
    seven(200);
    block_on_ready(other.write_zeroes(100 << 20, 1 << 20)).unwrap();
    block_on_ready(other.write_zeroes(200 << 20, 1 << 20)).unwrap();
    assert_eq!([100, 200].map(first), [0, 0]);
}
