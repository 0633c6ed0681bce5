//! Law: once warm, a request allocates nothing, whatever the depth, with and without futures.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod common;
#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};

use common::geometry;
use counting_allocator::taken_by;
use spindle_block::load::InPieces;
use spindle_block::{
    Channel, Device, LaneTable, Malloc, Null, Offset, Operation, QueuePair, Status, Transfer,
};
use spindle_mem::{Buffers, IoBuf};

/// The devices a warm path is held against, a remapping layer among them.
fn devices() -> Vec<Arc<dyn Device>> {
    let malloc = Malloc::new("Malloc0", 512, 1024).unwrap();
    vec![Null::new("null", geometry(1024)), malloc.clone(), Offset::new("part", malloc, 8, 512).unwrap()]
}

#[test]
fn the_counter_counts() {
    assert_eq!(taken_by(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn a_warm_queue_pair_allocates_nothing_at_any_depth() {
    fn rounds(pair: &mut QueuePair, rounds: usize, mut at: u64) {
        for _ in 0..rounds {
            pair.cycle(|mut io, status| {
                status.unwrap();
                at = (at + 7) % 500;
                io.set_start(at);
                Some(io)
            });
        }
    }
    for device in devices() {
        for depth in [1, 32, 128] {
            let table = LaneTable::default();
            let mut pair = table.queue_pair(&device).unwrap();
            for n in 0..depth {
                let operation = if n % 2 == 0 { Operation::Read } else { Operation::Write };
                let io = pair.request(operation, n, 1, IoBuf::zeroed(512));
                pair.submit(io);
            }
            rounds(&mut pair, 3, 0);
            let n = taken_by(|| rounds(&mut pair, 200, 1));
            assert_eq!(n, 0, "{} at depth {depth}", device.name());
        }
    }
}

/// Keeps `slots.len()` transfers in flight and renews each that ended.
fn channel_rounds<'a>(channel: &'a Channel, slots: &mut [Pin<&mut Option<Transfer<'a>>>], rounds: u64) {
    let cx = &mut Context::from_waker(Waker::noop());
    for round in 0..rounds {
        for slot in slots.iter_mut() {
            let Some(transfer) = slot.as_mut().as_pin_mut() else { unreachable!("always one in flight") };
            let std::task::Poll::Ready((result, buffers)) = transfer.poll(cx) else { continue };
            result.unwrap();
            slot.set(Some(channel.write((round % 500) * 512, buffers)));
        }
    }
}

/// Submits what has ended again, so many times; returns how many requests that were.
fn cycles(pair: &mut QueuePair, times: usize) -> usize {
    let again = |io, status: Status| {
        status.unwrap();
        Some(io)
    };
    (0..times).map(|_| pair.cycle(again)).sum()
}

#[test]
fn a_warm_channel_allocates_nothing_at_any_depth() {
    for device in devices() {
        for depth in [1, 32, 128] {
            let table = LaneTable::default();
            let channel = table.channel(device.clone()).unwrap();
            let mut transfers: Vec<Option<Transfer<'_>>> =
                (0..depth).map(|n| Some(channel.read(n * 512, IoBuf::zeroed(512)))).collect();
            let mut slots: Vec<_> = transfers.iter_mut().map(Pin::new).collect();
            channel_rounds(&channel, &mut slots, 3);
            let n = taken_by(|| channel_rounds(&channel, &mut slots, 200));
            assert_eq!(n, 0, "{} at depth {depth}", device.name());
        }
    }
}

#[test]
fn requests_that_wait_on_a_slow_device_allocate_nothing_either() {
    use spindle_block::SimDisk;
    use spindle_engine::sim::{Disk, DiskOptions};
    // Reads only: what the simulated disk itself allocates for writes is no part of the path.
    let device = SimDisk::new("sim", Disk::new(DiskOptions::new(1024 * 512)), 1).unwrap();
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let mut spare = Some(Buffers::from(IoBuf::zeroed(512)));
    let mut round = || {
        let mut read = pin!(channel.read(512, spare.take().unwrap()));
        loop {
            if let Some((result, buffers)) = common::poll_once(read.as_mut()) {
                result.unwrap();
                spare = Some(buffers);
                return;
            }
            table.step();
        }
    };
    (0..10).for_each(|_| round());
    assert_eq!(taken_by(|| (0..100).for_each(|_| round())), 0);
}

#[test]
fn cutting_and_joining_allocate_nothing_once_warm_in_one_buffer_and_in_lists() {
    let null: Arc<dyn Device> = Null::new("null", geometry(1024));
    for pieces in [2, 3, 8] {
        // Twice, so that pieces are cut again.
        let cut = InPieces::of(InPieces::of(null.clone(), pieces), 2);
        for parts in [1, 2, 5, 8] {
            let table = LaneTable::default();
            let mut pair = table.queue_pair(&cut).unwrap();
            for _ in 0..4 {
                let buffers: Buffers = match parts {
                    1 => IoBuf::zeroed(8 * 512).into(),
                    // Runs that end within blocks, and within pieces.
                    _ => {
                        let len = 8 * 512 / parts;
                        let mut list: Vec<IoBuf> = (1..parts).map(|_| IoBuf::zeroed(len)).collect();
                        list.push(IoBuf::zeroed(8 * 512 - (parts - 1) * len));
                        list.into()
                    }
                };
                let io = pair.request(Operation::Write, 0, 8, buffers);
                pair.submit(io);
            }
            let lengths = |io: &spindle_block::Io| io.buffers().iter().map(<[u8]>::len).collect::<Vec<_>>();
            // Until every list has had every length.
            cycles(&mut pair, 200);
            assert_eq!(
                taken_by(|| assert!(cycles(&mut pair, 100) > 0)),
                0,
                "{parts} runs in {pieces} pieces"
            );
            pair.cycle(|io, _| {
                let lengths = lengths(&io);
                assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (parts, 8 * 512), "the same runs");
                None
            });
        }
    }
}

#[test]
fn transfers_cut_for_any_limit_of_their_device_allocate_nothing_once_warm() {
    let shape = geometry(1024);
    let shapes = [
        shape.with_boundary(3).with_cuts_at_boundary(true),
        shape.with_max_transfer(3).unwrap(),
        shape.with_write_unit(2).unwrap(),
        shape.with_max_segments(2, u32::MAX).unwrap(),
        shape.with_max_segments(3, 700).unwrap(),
    ];
    for shape in shapes {
        let null: Arc<dyn Device> = Null::new("null", shape);
        for parts in [1, 2, 8] {
            let table = LaneTable::default();
            let mut pair = table.queue_pair(&null).unwrap();
            for n in 0..4 {
                let list: Vec<IoBuf> = (0..parts).map(|_| IoBuf::zeroed(8 * 512 / parts)).collect();
                let buffers = if parts == 1 { IoBuf::zeroed(8 * 512).into() } else { Buffers::from(list) };
                let io = pair.request(Operation::Write, 8 * n, 8, buffers);
                pair.submit(io);
            }
            cycles(&mut pair, 200);
            assert_eq!(taken_by(|| assert!(cycles(&mut pair, 100) > 0)), 0, "{parts} runs, {shape:?}");
        }
    }
}

#[test]
fn statistics_and_limits_allocate_nothing_on_the_way_of_a_request() {
    use spindle_block::{HistogramOptions, Limits};
    let null = Null::new("null", geometry(1024));
    let state = null.state().unwrap().clone();
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(null as Arc<dyn Device>)).unwrap();
    let _on = state.keep_statistics(true);
    let _histogram = state.keep_histogram(Some(HistogramOptions::default()));
    let _limits = state.set_limits(Limits { operations: Some(u64::MAX), ..Limits::default() });
    table.step();
    for n in 0..8 {
        let io = pair.request(Operation::Read, n, 1, IoBuf::zeroed(512));
        pair.submit(io);
    }
    let mut rounds = |rounds: usize| {
        for _ in 0..rounds {
            table.advance(std::time::Duration::from_micros(1));
            cycles(&mut pair, 1);
        }
    };
    rounds(10);
    assert_eq!(taken_by(|| rounds(100)), 0);
    assert!(state.statistics().read.operations >= 800);
}

#[test]
fn requests_that_wait_for_limits_allocate_nothing_once_warm() {
    use spindle_block::Limits;
    let limits = [
        Limits { operations: Some(2000), ..Limits::default() },
        Limits { bytes: Some(1 << 20), written_bytes: Some(1 << 19), ..Limits::default() },
    ];
    for limits in limits {
        let null = Null::new("null", geometry(1024));
        let state = null.state().unwrap().clone();
        let table = LaneTable::default();
        let mut pairs = [0, 1].map(|_| table.queue_pair(&(null.clone() as Arc<dyn Device>)).unwrap());
        let _limits = state.set_limits(limits);
        table.step();
        for (pair, blocks) in pairs.iter_mut().zip([1, 8]) {
            for n in 0..8 {
                let operation = if n % 2 == 0 { Operation::Read } else { Operation::Write };
                let io = pair.request(operation, n, blocks, IoBuf::zeroed(blocks as usize * 512));
                pair.submit(io);
            }
        }
        let mut ended = 0;
        let mut rounds = |rounds: usize| {
            for _ in 0..rounds {
                table.advance(std::time::Duration::from_millis(1));
                table.step();
                for pair in &mut pairs {
                    ended += cycles(pair, 1);
                }
            }
        };
        rounds(500);
        assert_eq!(taken_by(|| rounds(500)), 0, "{limits:?}");
        assert!(ended > 500, "{ended} ended");
    }
}
