//! Transfers larger than a device takes, or across its boundary, reach it in pieces.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_block::{
    Cx, Device, DeviceState, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable, Layer, Limits,
    Malloc, OpenError, Operation, Submit,
};
use spindle_mem::IoBuf;

use crate::common::model::exercise;
use crate::common::{block_on_ready, poll_once};

/// Passes on what is small enough, and fails on anything else.
struct Small {
    below: Arc<dyn Device>,
    state: DeviceState,
    most: u32,
    boundary: u32,
    pieces: AtomicU64,
}

impl Small {
    fn over(below: Arc<dyn Device>, most: u32, boundary: u32) -> Arc<Small> {
        Arc::new(Small { below, state: DeviceState::new(), most, boundary, pieces: AtomicU64::new(0) })
    }
}

impl Layer for Small {
    fn name(&self) -> &str {
        "small"
    }
    fn below(&self) -> &Arc<dyn Device> {
        &self.below
    }
    fn state(&self) -> &DeviceState {
        &self.state
    }
    fn geometry(&self) -> Geometry {
        let shape = self.below.geometry().with_max_transfer(self.most).unwrap();
        shape.with_boundary(self.boundary).with_cuts_at_boundary(self.boundary > 0)
    }
    fn lane(self: Arc<Self>, below: LaneId, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(SmallLane { below, device: self }))
    }
}

struct SmallLane {
    below: LaneId,
    device: Arc<Small>,
}

impl Lane for SmallLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let (most, boundary) = (u64::from(self.device.most), u64::from(self.device.boundary));
        if matches!(io.operation(), Operation::Read | Operation::Write | Operation::Compare) {
            let last = io.start() + io.count() - 1;
            assert!(io.count() <= most, "{io:?} is larger than {most}");
            assert!(boundary == 0 || io.start() / boundary == last / boundary, "{io:?} crosses {boundary}");
            assert_eq!(io.buffers().len() as u64, io.count() * 512);
            self.device.pieces.fetch_add(1, Ordering::Relaxed);
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
    let state = DeviceState::clone(&small.state);
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
