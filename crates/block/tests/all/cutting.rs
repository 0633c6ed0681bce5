//! Requests larger than a device takes, or across its boundary, reach it in pieces.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use spindle_block::{
    Channel, Cx, Device, DeviceState, Geometry, GeometryError, Io, IoError, IoErrorKind, Lane, LaneCx,
    LaneId, LaneTable, Layer, LayerParts, Limits, Malloc, Null, Offset, OpenError, Operation, Status, Submit,
};
use spindle_mem::{Buffers, IoBuf};

use crate::common::model::{Random, exercise};
use crate::common::plain::Plain;
use crate::common::{block_on_ready, poll_once};

/// Passes on what is small enough, notes it, and fails on anything else.
struct Small {
    parts: LayerParts,
    shape: Geometry,
    pieces: AtomicU64,
    seen: Mutex<Vec<(Operation, u64, u64)>>,
}

impl Small {
    fn over(below: Arc<dyn Device>, most: u32, boundary: u32) -> Arc<Small> {
        let shape = below.geometry().with_max_transfer(most).unwrap();
        Small::shaped(below, shape.with_boundary(boundary).with_cuts_at_boundary(boundary > 0))
    }

    fn shaped(below: Arc<dyn Device>, shape: Geometry) -> Arc<Small> {
        let (pieces, seen) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Small { parts: LayerParts::new("small", below), shape, pieces, seen })
    }

    fn take_seen(&self) -> Vec<(Operation, u64, u64)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Layer for Small {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }
    fn geometry(&self) -> Geometry {
        self.shape
    }
    fn lane(self: Arc<Self>, below: LaneId, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(SmallLane { below, device: self }))
    }
}

struct SmallLane {
    below: LaneId,
    device: Arc<Small>,
}

/// Fails if a request breaks one of a device's limits.
fn obeys(io: &Io, shape: &Geometry) {
    assert!(io.count() <= u64::from(shape.most_of(io.operation())), "{io:?} is too large for {shape:?}");
    if !io.operation().moves_data() {
        return;
    }
    let (first, last) = (io.start(), io.start() + io.count() - 1);
    let unit = u64::from(shape.write_unit());
    let boundary = match (io.operation(), shape.cuts_at_boundary()) {
        (Operation::Write, _) if unit > 1 => {
            assert!(first % unit == 0 && io.count() == unit, "{io:?} is no write unit of {shape:?}");
            0
        }
        (_, true) => u64::from(shape.boundary()),
        _ => 0,
    };
    assert!(boundary == 0 || first / boundary == last / boundary, "{io:?} crosses a boundary of {shape:?}");
    assert_eq!(io.buffers().len() as u64, io.count() * u64::from(shape.block_size()));
    let runs = io.buffers().parts();
    assert!(runs.len() as u64 <= u64::from(shape.max_segments()), "{} runs for {shape:?}", runs.len());
    assert!(runs.iter().all(|run| run.len() as u64 <= u64::from(shape.max_segment_bytes())), "{shape:?}");
}

impl Lane for SmallLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if io.count() > 0 {
            obeys(&io, &self.device.shape);
            self.device.pieces.fetch_add(1, Ordering::Relaxed);
            self.device.seen.lock().unwrap().push((io.operation(), io.start(), io.count()));
        }
        cx.forward(self.below, io, [0, 0]);
        Submit::Taken
    }
}

#[test]
fn a_device_gets_no_transfer_larger_than_it_takes_and_none_across_its_boundary() {
    for (seed, (most, boundary)) in
        [(1, 0), (3, 0), (u32::MAX, 4), (5, 8), (8, 8), (64, 1)].into_iter().enumerate()
    {
        let table = LaneTable::default();
        let small = Small::over(Malloc::new("below", 512, 256).unwrap(), most, boundary);
        let channel = table.channel(small.clone()).unwrap();
        block_on_ready(exercise(&channel, seed as u64, 40, 4, true));
        assert_eq!((table.stats().in_flight, table.stats().aborted), (0, 0));
        assert!(small.pieces.load(Ordering::Relaxed) > 200);
    }
}

#[test]
fn one_block_at_the_limit_is_one_piece_and_one_past_it_two() {
    for (count, pieces) in [(7, 1), (8, 2), (14, 2), (15, 3)] {
        let table = LaneTable::default();
        let small = Small::over(Malloc::new("below", 512, 64).unwrap(), 7, 0);
        let channel = table.channel(small.clone()).unwrap();
        block_on_ready(channel.write(512, IoBuf::zeroed(count * 512))).0.unwrap();
        assert_eq!(small.pieces.load(Ordering::Relaxed), pieces, "{count} blocks");
    }
}

/// Runs an unmap, zeroing or copy of the first blocks to its end.
fn ranged(channel: &Channel, operation: Operation, blocks: u64) -> Result<(), IoError> {
    let len = blocks * 512;
    block_on_ready(match operation {
        Operation::Unmap => channel.unmap(0, len),
        Operation::WriteZeroes => channel.write_zeroes(0, len),
        Operation::Copy => channel.copy(0, 32 * 512, len),
        _ => unreachable!("{operation} is none of these"),
    })
}

#[test]
fn unmaps_zeroes_and_copies_have_a_limit_each_and_are_cut_one_block_past_it() {
    let shape = Geometry::new(512, 64).unwrap().with_unmap_reads_zero(true).with_max_unmap(7).unwrap();
    let shape = shape.with_max_write_zeroes(5).unwrap().with_max_copy(3).unwrap();
    for (operation, most) in [(Operation::Unmap, 7), (Operation::WriteZeroes, 5), (Operation::Copy, 3)] {
        let table = LaneTable::default();
        let below = Malloc::new("below", 512, 64).unwrap();
        let small = Small::shaped(below, shape);
        let channel = table.channel(small.clone()).unwrap();
        let data: Vec<u8> = (0..64 * 512).map(|at| 1 + (at >> 9) as u8).collect();
        for (blocks, pieces) in [(most, 1), (most + 1, 2), (2 * most, 2), (2 * most + 1, 3)] {
            block_on_ready(channel.write(0, IoBuf::copy_from(&data))).0.unwrap();
            small.take_seen();
            ranged(&channel, operation, blocks).unwrap();
            let mut seen = small.take_seen();
            seen.sort();
            assert_eq!(seen.len(), pieces, "{blocks} blocks of {operation}");
            let covered = seen.iter().fold(0, |next, (what, start, count)| {
                assert_eq!((*what, *start), (operation, next));
                next + count
            });
            assert_eq!(covered, blocks);
            let found = block_on_ready(channel.read(0, IoBuf::zeroed(data.len()))).1.to_vec();
            let (len, mut expected) = (blocks as usize * 512, data.clone());
            match operation {
                Operation::Copy => expected.copy_within(32 * 512..32 * 512 + len, 0),
                _ => expected[..len].fill(0),
            }
            assert!(found == expected, "{blocks} blocks of {operation}");
        }
        assert_eq!((table.stats().in_flight, table.stats().aborted), (0, 0));
    }
}

#[test]
fn a_device_whose_only_limit_is_one_of_ranges_is_not_cut_into_transfers() {
    let shape = Geometry::new(512, 64).unwrap().with_max_copy(1).unwrap();
    let table = LaneTable::default();
    let small = Small::shaped(Malloc::new("below", 512, 64).unwrap(), shape);
    let channel = table.channel(small.clone()).unwrap();
    block_on_ready(channel.write(0, IoBuf::zeroed(64 * 512))).0.unwrap();
    ranged(&channel, Operation::Unmap, 64).unwrap();
    assert_eq!(small.take_seen(), [(Operation::Write, 0, 64), (Operation::Unmap, 0, 64)]);
}

#[test]
fn what_was_cut_comes_back_whole_and_a_difference_is_told_by_its_place_in_the_whole() {
    let table = LaneTable::default();
    let channel = table.channel(Small::over(Malloc::new("below", 512, 64).unwrap(), 3, 4)).unwrap();
    let data: Vec<u8> = (0..20 * 512).map(|at| (at >> 9) as u8).collect();
    let (written, back) = block_on_ready(channel.write(512, IoBuf::copy_from(&data)));
    written.unwrap();
    let back = back.into_one().unwrap();
    assert!(back[..] == data[..], "one buffer went in, and the same came back");
    block_on_ready(channel.compare(512, back)).0.unwrap();
    let mut other = data.clone();
    other[13 * 512 + 5] ^= 1;
    let found = block_on_ready(channel.compare(512, IoBuf::copy_from(&other))).0.unwrap_err();
    assert_eq!(found.kind, IoErrorKind::Miscompare { offset: 13 * 512 + 5 });
    // What is emulated passes the lock of its own range in pieces, too.
    for (from, ends) in [(&other, Err(IoErrorKind::Miscompare { offset: 13 * 512 + 5 })), (&data, Ok(()))] {
        let both = IoBuf::copy_from(&[&from[..], &from[..]].concat());
        let mut request = Box::pin(channel.compare_and_write(512, both));
        let ended = (0..20).find_map(|_| {
            let ended = poll_once(request.as_mut());
            table.step();
            ended
        });
        assert_eq!(ended.unwrap().0.map_err(|error| error.kind), ends);
    }
}

#[test]
fn limits_and_statistics_count_the_pieces() {
    let table = LaneTable::default();
    let small = Small::over(Malloc::new("below", 512, 64).unwrap(), 4, 0);
    let state = DeviceState::clone(small.parts.state());
    let channel = table.channel(small).unwrap();
    let _arrives = state.keep_statistics(true);
    let _arrives = state.set_limits(Limits { operations: Some(1_000_000), ..Limits::default() });
    table.step();
    for _ in 0..5 {
        let mut write = Box::pin(channel.write(0, IoBuf::zeroed(16 * 512)));
        while poll_once(write.as_mut()).is_none() {
            table.advance(std::time::Duration::from_millis(1));
            table.step();
        }
    }
    let counted = state.statistics();
    assert_eq!((counted.write.operations, counted.write.bytes), (20, 5 * 16 * 512));
    assert_eq!(counted.in_flight, 0);
}

/// A shape with limits of every kind.
fn any_shape(random: &mut Random, blocks: u64) -> Geometry {
    let one_in = |random: &mut Random, of: u64| random.below(of) == 0;
    let mut shape = Geometry::new(512, blocks).unwrap().with_unmap_reads_zero(true);
    if one_in(random, 2) {
        shape = shape.with_boundary(1 + random.below(9) as u32).with_cuts_at_boundary(true);
    }
    if one_in(random, 2) {
        shape = shape.with_max_transfer(1 + random.below(12) as u32).unwrap();
    }
    if one_in(random, 3) {
        shape = shape.with_max_unmap(1 + random.below(9) as u32).unwrap();
        shape = shape.with_max_write_zeroes(1 + random.below(9) as u32).unwrap();
        shape = shape.with_max_copy(1 + random.below(9) as u32).unwrap();
    }
    if one_in(random, 3) {
        shape = shape.with_write_unit(1 + random.below(4) as u32).unwrap_or(shape);
    }
    if one_in(random, 2) {
        let bytes = if one_in(random, 3) { u32::MAX } else { 1 + random.below(3000) as u32 };
        shape = shape.with_max_segments(1 + random.below(8) as u32, bytes).unwrap_or(shape);
    }
    shape
}

/// Memory in runs of any lengths.
fn any_memory(random: &mut Random, bytes: usize) -> Buffers {
    if random.below(3) == 0 {
        return IoBuf::zeroed(bytes).into();
    }
    let (mut list, mut left) = (Vec::new(), bytes);
    while left > 0 {
        let run = 1 + random.below((left as u64).min(2000)) as usize;
        list.push(IoBuf::zeroed(run));
        left -= run;
    }
    list.into()
}

fn run_lengths(io: &Io) -> Vec<usize> {
    io.buffers().iter().map(<[u8]>::len).collect()
}

#[test]
fn the_pieces_obey_every_limit_and_are_the_request_and_its_memory_comes_back_as_it_was() {
    let (mut cut, mut refused) = (0, 0);
    for seed in 0..600 {
        let random = &mut Random(seed);
        let shape = any_shape(random, 120);
        let small = Small::shaped(Malloc::new("below", 512, 120).unwrap(), shape);
        let table = LaneTable::default();
        let mut pair = table.queue_pair(&(small.clone() as Arc<dyn Device>)).unwrap();
        for _ in 0..10 {
            let operations = [Operation::Read, Operation::Write, Operation::Compare, Operation::Unmap];
            let operations = [&operations[..], &[Operation::WriteZeroes, Operation::Copy]].concat();
            let operation = operations[random.below(6) as usize];
            let unit = u64::from(shape.write_unit());
            let (mut start, mut count) = (random.below(100), 1 + random.below(20));
            if random.below(3) > 0 {
                (start, count) = (start / unit * unit, count.div_ceil(unit) * unit);
            }
            count = count.min(120 - start);
            let whole = start % unit == 0 && count % unit == 0;
            let memory = match operation.moves_data() {
                true => any_memory(random, count as usize * 512),
                false => Buffers::None,
            };
            let io = pair.request(operation, start, count, memory);
            let lengths = run_lengths(&io);
            pair.submit(io);
            let mut end: Option<Status> = None;
            pair.reap(|io, status| {
                assert_eq!((io.start(), io.count(), run_lengths(&io)), (start, count, lengths.clone()));
                end = Some(status);
            });
            let mut seen = small.take_seen();
            match end.expect("it has ended") {
                Ok(()) => {
                    cut += u32::from(seen.len() > 1);
                    seen.sort_by_key(|(_, start, _)| *start);
                    let mut next = start;
                    for (what, start, count) in seen {
                        assert_eq!((what, start), (operation, next), "seed {seed}");
                        next += count;
                    }
                    assert_eq!(next, start + count);
                }
                Err(kind) => {
                    refused += 1;
                    assert!(seen.is_empty(), "seed {seed}: nothing of a refused request reaches the device");
                    let unit = shape.write_unit();
                    let named = match kind {
                        IoErrorKind::WriteUnit { blocks } => !whole && blocks == unit,
                        IoErrorKind::Segments { most } => most == shape.max_segments(),
                        _ => false,
                    };
                    assert!(named, "seed {seed}: {kind:?} for {shape:?}");
                }
            }
        }
    }
    assert!(cut > 1000 && refused > 100, "{cut} were cut, {refused} refused");
}

#[test]
fn data_passes_limits_of_runs_and_of_write_units_unchanged() {
    let base = Geometry::new(512, 256).unwrap().with_unmap_reads_zero(true);
    let shapes = [
        base.with_max_segments(1, u32::MAX),
        base.with_max_segments(2, 700),
        base.with_max_segments(64, 16),
        base.with_max_segments(3, 512).unwrap().with_max_transfer(2),
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        let table = LaneTable::default();
        let small = Small::shaped(Malloc::new("below", 512, 256).unwrap(), shape.unwrap());
        let channel = table.channel(small).unwrap();
        // With one run in a request, every run has whole blocks.
        block_on_ready(exercise(&channel, seed as u64, 40, 4, seed != 0));
        assert_eq!((table.stats().in_flight, table.stats().aborted), (0, 0));
    }
}

#[test]
fn at_a_limit_of_runs_a_transfer_is_whole_and_one_past_it_cut_or_refused() {
    let shape = Geometry::new(512, 64).unwrap().with_max_segments(4, 1024).unwrap();
    let table = LaneTable::default();
    let small = Small::shaped(Malloc::new("below", 512, 64).unwrap(), shape);
    let channel = table.channel(small.clone()).unwrap();
    for (bytes, pieces) in [(4 * 1024, 1), (4 * 1024 + 512, 2), (8 * 1024, 2)] {
        block_on_ready(channel.write(0, IoBuf::zeroed(bytes))).0.unwrap();
        assert_eq!(small.take_seen().len(), pieces, "{bytes} bytes");
    }
    let runs = |lengths: &[usize]| lengths.iter().map(|len| IoBuf::zeroed(*len)).collect::<Vec<_>>();
    block_on_ready(channel.write(0, runs(&[128; 4]))).0.unwrap();
    let past = block_on_ready(channel.write(0, runs(&[128, 128, 128, 64, 64]))).0.unwrap_err();
    assert_eq!(past.kind, IoErrorKind::Segments { most: 4 });
    assert!(past.to_string().contains("more runs of memory than the device takes, 4"), "{past}");
}

#[test]
fn a_write_unit_is_written_whole_and_nothing_of_a_write_that_is_not() {
    let shape = Geometry::new(512, 64).unwrap().with_boundary(2).with_cuts_at_boundary(true);
    let shape = shape.with_write_unit(4).unwrap().with_unmap_reads_zero(true);
    let table = LaneTable::default();
    let small = Small::shaped(Malloc::new("below", 512, 64).unwrap(), shape);
    let channel = table.channel(small.clone()).unwrap();
    // Across the boundary: the unit stands in its place, as in SPDK.
    block_on_ready(channel.write(4 * 512, IoBuf::zeroed(8 * 512))).0.unwrap();
    assert_eq!(small.take_seen(), [(Operation::Write, 4, 4), (Operation::Write, 8, 4)]);
    for (start, count) in [(1, 4), (4, 3), (4, 5), (2, 2)] {
        let refused = block_on_ready(channel.write(start * 512, IoBuf::zeroed(count * 512))).0.unwrap_err();
        assert_eq!(refused.kind, IoErrorKind::WriteUnit { blocks: 4 });
        assert!(refused.to_string().contains("units of 4 blocks"), "{refused}");
        assert!(small.take_seen().is_empty());
    }
    block_on_ready(channel.read(512, IoBuf::zeroed(3 * 512))).0.unwrap();
    assert_eq!(small.take_seen(), [(Operation::Read, 1, 1), (Operation::Read, 2, 2)]);
}

#[test]
fn limits_that_nothing_could_obey_are_refused_with_the_numbers() {
    let shape = Geometry::new(4096, 64).unwrap();
    let small = |runs, bytes, needed| Err(GeometryError::SegmentsTooSmall { runs, bytes, needed });
    assert!(shape.with_max_segments(2, 2048).is_ok() && shape.with_max_segments(1, u32::MAX).is_ok());
    assert_eq!(shape.with_max_segments(2, 2047), small(2, 2047, 4096));
    assert_eq!(shape.with_max_segments(0, u32::MAX), small(0, u32::MAX, 4096));
    assert_eq!(shape.with_max_segments(100, 63), small(64, 63, 4096), "never more than 64 that are cut");
    assert_eq!(shape.with_max_segments(100, 4096).unwrap().max_segments(), 64);
    let limited = shape.with_max_transfer(4).unwrap();
    assert!(limited.with_write_unit(4).is_ok());
    assert_eq!(limited.with_write_unit(5), Err(GeometryError::UnitTooLarge { most: 4, unit: 5 }));
    assert_eq!(shape.with_write_unit(0), Err(GeometryError::WriteUnit));
    assert_eq!(shape.with_max_unmap(0), Err(GeometryError::MaxOf(Operation::Unmap)));
    assert_eq!(shape.with_max_write_zeroes(0), Err(GeometryError::MaxOf(Operation::WriteZeroes)));
    assert_eq!(shape.with_max_copy(0), Err(GeometryError::MaxOf(Operation::Copy)));
    assert_eq!(shape.with_max_segments(2, 4096).unwrap().with_write_unit(3), small(2, 4096, 3 * 4096));
}

#[test]
fn a_part_begins_with_a_write_unit_and_leaves_a_boundary_that_it_lies_across_to_its_device() {
    let shape = Geometry::new(512, 64).unwrap().with_boundary(8).with_cuts_at_boundary(true);
    let small = Small::shaped(Null::new("below", shape), shape.with_write_unit(2).unwrap());
    let part: Arc<dyn Device> = Offset::new("part", small.clone(), 8, 8).unwrap();
    assert_eq!((part.geometry().boundary(), part.geometry().write_unit()), (8, 2));
    let part: Arc<dyn Device> = Offset::new("part", small.clone(), 4, 16).unwrap();
    assert_eq!((part.geometry().boundary(), part.geometry().cuts_at_boundary()), (0, false));
    let table = LaneTable::default();
    let channel = table.channel(part).unwrap();
    block_on_ready(channel.read(0, IoBuf::zeroed(6 * 512))).0.unwrap();
    assert_eq!(small.take_seen(), [(Operation::Read, 4, 4), (Operation::Read, 8, 2)]);
    let within = Offset::new("part", small, 3, 8).map(drop).unwrap_err().to_string();
    assert!(within.contains("block 3") && within.contains("2 blocks"), "{within}");
}

#[test]
fn zeroes_and_copies_that_are_made_of_writes_are_made_of_whole_units() {
    let shape = Geometry::new(512, 2048).unwrap().with_write_unit(3).unwrap();
    let disk: Arc<dyn Device> = Malloc::with_geometry("below", shape).unwrap();
    let small = Small::shaped(disk, shape);
    let plain = Plain::over(small);
    let table = LaneTable::default();
    let channel = table.channel(plain).unwrap();
    let run = |mut request: spindle_block::Command<'_>| {
        (0..100).find_map(|_| {
            let ended = poll_once(std::pin::Pin::new(&mut request));
            table.step();
            ended
        })
    };
    run(channel.write_zeroes(3 * 512, 900 * 512)).unwrap().unwrap();
    run(channel.copy(300 * 512, 3 * 512, 600 * 512)).unwrap().unwrap();
    let refused = run(channel.write_zeroes(512, 3 * 512)).unwrap().unwrap_err();
    assert_eq!(refused.kind, IoErrorKind::WriteUnit { blocks: 3 });
}
