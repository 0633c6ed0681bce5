//! The lane table, stepped by hand without a reactor: what layers and callers can count on.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use common::{Hand, HandDevice, block_on_ready, geometry, poll_once};
use spindle_block::{
    Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable, MAX_DEPTH, Null, OpenError,
    Operation, Status, Submit,
};
use spindle_mem::{Buffers, IoBuf};

/// Forwards everything, moved by some blocks, and writes down what came back.
struct Shift {
    below: Arc<dyn Device>,
    by: u64,
    geometry: Geometry,
}

impl Shift {
    fn over(below: Arc<dyn Device>, by: u64) -> Arc<dyn Device> {
        let geometry = below.geometry();
        Arc::new(Shift { below, by, geometry })
    }
}

impl Device for Shift {
    fn name(&self) -> &str {
        "shift"
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(ShiftLane { below: cx.open(&self.below)?, by: self.by }))
    }
}

struct ShiftLane {
    below: LaneId,
    by: u64,
}

impl Lane for ShiftLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let start = io.start();
        io.set_start(start + self.by);
        cx.forward(self.below, io, [start, self.by]);
        Submit::Taken
    }
    fn complete(&mut self, mut io: Io, saved: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        assert_eq!(io.start(), saved[0] + saved[1], "each layer gets its own frame back");
        io.set_start(saved[0]);
        cx.done(io, status);
    }
}

#[test]
fn each_layer_gets_back_what_it_saved() {
    let table = LaneTable::default();
    let mut device: Arc<dyn Device> = Null::new("null", geometry(1000));
    for by in 1..=MAX_DEPTH as u64 {
        device = Shift::over(device, by);
    }
    let mut pair = table.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Read, 7, 1, IoBuf::zeroed(512));
    pair.submit(io);
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.start(), status)));
    assert_eq!(seen, [(7, Ok(()))]);
}

#[test]
fn a_stack_deeper_than_a_request_has_frames_is_refused_at_open() {
    let table = LaneTable::default();
    let mut device: Arc<dyn Device> = Null::new("null", geometry(1000));
    for _ in 0..=MAX_DEPTH {
        device = Shift::over(device, 1);
    }
    assert!(matches!(table.queue_pair(&device), Err(OpenError::TooDeep { max: MAX_DEPTH, .. })));
    assert_eq!(table.stats().lanes, 0, "what was opened on the way is closed again");
}

#[test]
fn one_device_has_one_lane_per_table_however_often_it_is_opened() {
    let table = LaneTable::default();
    let null: Arc<dyn Device> = Null::new("null", geometry(1000));
    let a = table.channel(null.clone()).unwrap();
    let b = table.channel(null.clone()).unwrap();
    let c = table.channel(Shift::over(null.clone(), 1)).unwrap();
    assert_eq!(table.stats().lanes, 2);
    drop((a, b));
    assert_eq!(table.stats().lanes, 2, "the lane above still holds it");
    let d = c.clone();
    drop(c);
    assert_eq!(table.stats().lanes, 2);
    drop(d);
    assert_eq!(table.stats().lanes, 0);
}

#[test]
fn requests_refused_as_full_are_offered_again_in_order() {
    let (device, hand) = HandDevice::make(geometry(1000), 2);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    for start in 0..6 {
        let io = pair.request(Operation::Flush, start, 0, Buffers::None);
        pair.submit(io);
    }
    pair.reap(|_, _| {});
    assert_eq!(hand.held(), [0, 1], "the lane holds two and refused the third");
    // Even when the later one completes first, those that wait come in the order they were submitted.
    hand.complete(1, Ok(()));
    assert_eq!(hand.held(), [0, 2]);
    hand.complete(0, Ok(()));
    assert_eq!(hand.held(), [2, 3]);
    let late = pair.request(Operation::Flush, 6, 0, Buffers::None);
    pair.submit(late);
    hand.complete(2, Ok(()));
    hand.complete(3, Ok(()));
    hand.complete(4, Ok(()));
    hand.complete(5, Ok(()));
    assert_eq!(hand.held(), [6], "a newcomer goes behind those that wait");
    hand.complete(6, Ok(()));
    let mut order = Vec::new();
    pair.reap(|io, _| order.push(io.start()));
    assert_eq!(order, [1, 0, 2, 3, 4, 5, 6]);
}

#[test]
fn a_request_dropped_by_a_layer_reaches_its_maker_as_aborted_and_is_counted() {
    let (device, hand) = HandDevice::make(geometry(1000), 8);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&Shift::over(device, 3)).unwrap();
    let io = pair.request(Operation::Read, 7, 1, IoBuf::zeroed(512));
    pair.submit(io);
    pair.reap(|_, _| unreachable!());
    assert_eq!(hand.held(), [10]);
    hand.drop_all();
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.start(), status, io.buffers().len())));
    assert_eq!(seen, [(7, Err(IoErrorKind::Aborted), 512)], "through the layers above, with its buffers");
    assert_eq!(table.stats().aborted, 1);
    assert_eq!(table.stats().in_flight, 0);
}

#[test]
fn a_lane_stays_until_the_requests_in_it_have_ended() {
    let (device, hand) = HandDevice::make(geometry(1000), 8);
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(read.as_mut()).is_none());
    drop(read);
    let mut close = Box::pin(channel.close());
    assert!(poll_once(close.as_mut()).is_none(), "the detached read is still inside");
    assert_eq!(table.stats().lanes, 1);
    hand.complete(0, Ok(()));
    assert!(poll_once(close.as_mut()).is_some());
    assert_eq!(table.stats().lanes, 0);
}

#[test]
fn a_dropped_future_leaves_its_request_and_buffers_with_the_device() {
    let (device, hand) = HandDevice::make(geometry(1000), 8);
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let mut read = Box::pin(channel.read(512, IoBuf::zeroed(1024)));
    assert!(poll_once(read.as_mut()).is_none());
    drop(read);
    assert_eq!(hand.buffer_bytes(), 1024);
    hand.complete(1, Ok(()));
    assert_eq!(table.stats().in_flight, 0);
    assert_eq!(table.stats().aborted, 0, "detached is not aborted");
    // Its place is free for the next.
    let mut again = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(again.as_mut()).is_none());
    hand.complete(0, Ok(()));
    let (result, buffers) = poll_once(again.as_mut()).unwrap();
    result.unwrap();
    assert_eq!(buffers.len(), 512);
    assert_eq!(table.stats().slots, 1);
}

#[test]
fn quiesce_waits_for_what_was_made_before_it_also_if_dropped_and_for_nothing_made_later() {
    let (device, hand) = HandDevice::make(geometry(1000), 1);
    let table = LaneTable::default();
    let channel = table.channel(Shift::over(device, 1)).unwrap();
    let read = |block: u64| Box::pin(channel.read(block * 512, IoBuf::zeroed(512)));
    let (mut dropped, mut queued) = (read(0), read(10));
    assert!(poll_once(dropped.as_mut()).is_none());
    drop(dropped);
    assert!(poll_once(queued.as_mut()).is_none(), "it waits for room");
    let mut quiet = Box::pin(channel.quiesce());
    assert!(poll_once(quiet.as_mut()).is_none());
    let mut later = read(20);
    assert!(poll_once(later.as_mut()).is_none());
    hand.complete(1, Ok(()));
    assert!(poll_once(quiet.as_mut()).is_none(), "the queued one is under way");
    hand.complete(11, Err(IoErrorKind::Aborted));
    assert!(poll_once(quiet.as_mut()).is_some());
    assert!(poll_once(later.as_mut()).is_none());
    let mut all = Box::pin(channel.quiesce());
    assert!(poll_once(all.as_mut()).is_none());
    hand.complete(21, Ok(()));
    assert!(poll_once(all.as_mut()).is_some());
}

#[test]
fn a_future_dropped_after_its_request_ended_frees_its_place() {
    let (device, hand) = HandDevice::make(geometry(1000), 8);
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    for _ in 0..3 {
        let mut read = Box::pin(channel.read(512, IoBuf::zeroed(512)));
        assert!(poll_once(read.as_mut()).is_none());
        hand.complete(1, Ok(()));
        drop(read);
    }
    assert_eq!(table.stats().slots, 1);
}

#[test]
fn a_channel_checks_bounds_and_alignment_before_the_device_sees_anything() {
    let (device, hand) = HandDevice::make(geometry(10), 8);
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let (result, buffers) = block_on_ready(channel.read(10 * 512, IoBuf::zeroed(512)));
    let error = result.unwrap_err();
    assert_eq!(error.kind, IoErrorKind::OutOfRange);
    assert_eq!(buffers.len(), 512, "refused buffers come back too");
    let said = error.to_string();
    for part in ["read", "512 bytes", "offset 5120", "hand", "geometry"] {
        assert!(said.contains(part), "{said}");
    }
    let kind = |result: Result<(), spindle_block::IoError>| result.unwrap_err().kind;
    assert_eq!(kind(block_on_ready(channel.read(1, IoBuf::zeroed(512))).0), IoErrorKind::Unaligned);
    assert_eq!(kind(block_on_ready(channel.write(0, IoBuf::zeroed(100))).0), IoErrorKind::Unaligned);
    assert_eq!(kind(block_on_ready(channel.unmap(u64::MAX - 511, 1024))), IoErrorKind::OutOfRange);
    assert_eq!(kind(block_on_ready(channel.write_zeroes(512, u64::MAX - 511))), IoErrorKind::OutOfRange);
    assert!(hand.held().is_empty());
}

#[test]
fn a_read_only_device_is_never_asked_to_change() {
    let (device, hand) = HandDevice::make(geometry(10).with_writable(false), 8);
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let kind = |result: Result<(), spindle_block::IoError>| result.unwrap_err().kind;
    assert_eq!(kind(block_on_ready(channel.write(0, IoBuf::zeroed(512))).0), IoErrorKind::ReadOnly);
    assert_eq!(kind(block_on_ready(channel.unmap(0, 512))), IoErrorKind::ReadOnly);
    assert_eq!(kind(block_on_ready(channel.write_zeroes(0, 512))), IoErrorKind::ReadOnly);
    assert!(hand.held().is_empty());
}

/// Cuts every request into pieces of two blocks.
struct Cutter(Arc<dyn Device>);

impl Device for Cutter {
    fn name(&self) -> &str {
        "cutter"
    }
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(CutterLane(cx.open(&self.0)?)))
    }
}

struct CutterLane(LaneId);

impl Lane for CutterLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let mut split = cx.split(io);
        while split.left() > 0 {
            let child = cx.child(&mut split, 2);
            cx.forward(self.0, child, [0, 0]);
            // Pieces that come back to the lane, and pieces that do not.
            if split.left() > 0 {
                cx.forward_piece(&mut split, self.0, 2);
            }
        }
        cx.join(split);
        Submit::Taken
    }
}

fn cut_read(parts: Buffers, order: &[u64], fail: &[u64]) -> (Status, Buffers) {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let cutter: Arc<dyn Device> = Arc::new(Cutter(device));
    let mut pair = table.queue_pair(&cutter).unwrap();
    let io = pair.request(Operation::Read, 10, 5, parts);
    pair.submit(io);
    pair.reap(|_, _| unreachable!());
    assert_eq!(hand.held(), [10, 12, 14]);
    for (n, start) in order.iter().enumerate() {
        assert_eq!(pair.reap(|_, _| {}), 0, "the parent waits for all its pieces");
        let status = if fail.contains(start) { Err(IoErrorKind::Device { errno: n as i32 }) } else { Ok(()) };
        hand.complete_with(*start, status, *start as u8);
    }
    let mut got = None;
    pair.reap(|mut io, status| got = Some((status, io.take_buffers())));
    assert_eq!(table.stats().in_flight, 0);
    got.expect("the parent came back")
}

#[test]
fn a_split_request_completes_when_all_its_pieces_did_with_its_buffer_whole() {
    for order in [[10, 12, 14], [14, 12, 10], [12, 14, 10]] {
        let (status, buffers) = cut_read(IoBuf::zeroed(5 * 512).into(), &order, &[]);
        assert_eq!(status, Ok(()));
        let whole = buffers.into_one().expect("one buffer went in, one comes out");
        let expected: Vec<u8> = [10, 10, 12, 12, 14].iter().flat_map(|&b| [b; 512]).collect();
        assert_eq!(&whole[..], &expected[..]);
    }
}

#[test]
fn a_split_list_of_buffers_comes_back_as_the_same_list() {
    let list = vec![IoBuf::zeroed(3 * 512), IoBuf::zeroed(2 * 512)];
    let (status, buffers) = cut_read(list.into(), &[12, 10, 14], &[]);
    assert_eq!(status, Ok(()));
    let lengths: Vec<usize> = buffers.iter().map(|part| part.len()).collect();
    assert_eq!(lengths, [3 * 512, 2 * 512]);
    let bytes: Vec<u8> = buffers.iter().flat_map(|part| part.iter().copied()).collect();
    let expected: Vec<u8> = [10, 10, 12, 12, 14].iter().flat_map(|&b| [b; 512]).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn the_first_error_of_a_piece_is_the_parents() {
    let (status, buffers) = cut_read(IoBuf::zeroed(5 * 512).into(), &[12, 10, 14], &[10, 14]);
    assert_eq!(status, Err(IoErrorKind::Device { errno: 1 }));
    assert_eq!(buffers.len(), 5 * 512, "a failed request returns its buffers as well");
}

#[test]
fn a_piece_that_was_dropped_fails_its_parent_as_aborted() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let cutter: Arc<dyn Device> = Arc::new(Cutter(device));
    let channel = table.channel(cutter).unwrap();
    let mut write = Box::pin(channel.write(0, IoBuf::zeroed(4 * 512)));
    assert!(poll_once(write.as_mut()).is_none());
    hand.complete(0, Ok(()));
    hand.drop_all();
    table.step();
    let (result, buffers) = poll_once(write.as_mut()).unwrap();
    assert_eq!(result.unwrap_err().kind, IoErrorKind::Aborted);
    assert_eq!(buffers.len(), 4 * 512);
}

#[test]
fn aborting_a_request_that_waits_for_room_ends_it_at_once_and_keeps_the_others_order() {
    let (device, hand) = HandDevice::make(geometry(100), 1);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    let mut ids = Vec::new();
    for start in 0..4 {
        let io = pair.request(Operation::Flush, start, 0, Buffers::None);
        ids.push(io.id());
        pair.submit(io);
    }
    pair.reap(|_, _| unreachable!());
    pair.abort(ids[2]);
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.start(), status)));
    assert_eq!(seen, [(2, Err(IoErrorKind::Aborted))]);
    for start in [0, 1, 3] {
        assert_eq!(hand.held(), [start]);
        hand.complete(start, Ok(()));
    }
}

#[test]
fn a_wakeup_that_submits_at_once_finds_the_table_free() {
    // The waker runs the next request inside `wake`: allowed, because no part of the table is borrowed.
    struct Again(RefCell<Option<Box<dyn Fn()>>>);
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let channel = Rc::new(table.channel(device).unwrap());
    let again = Rc::new(Again(RefCell::new(None)));
    let inner = channel.clone();
    *again.0.borrow_mut() = Some(Box::new(move || {
        let mut next = Box::pin(inner.read(512, IoBuf::zeroed(512)));
        assert!(poll_once(next.as_mut()).is_none());
    }));
    let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    common::poll_with(
        read.as_mut(),
        &common::local_waker(move || {
            if let Some(f) = &*again.0.borrow() {
                f();
            }
        }),
    );
    hand.complete(0, Ok(()));
    assert_eq!(hand.held(), [1], "the read made by the waker is under way");
}

#[test]
fn a_pair_dropped_with_requests_in_flight_leaks_none_of_them() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    for start in 0..3 {
        let io = pair.request(Operation::Read, start, 1, IoBuf::zeroed(512));
        pair.submit(io);
    }
    table.step();
    hand.complete(0, Ok(()));
    drop(pair);
    assert_eq!(table.stats().lanes, 1);
    hand.complete(1, Ok(()));
    hand.complete(2, Ok(()));
    assert_eq!(table.stats().lanes, 0);
    let mut pair = table.queue_pair(&device).unwrap();
    assert_eq!(pair.reap(|_, _| {}), 0, "the next pair does not get the old one's requests");
    assert_eq!(table.stats().slots, 3);
}

#[test]
fn a_device_that_lies_on_itself_is_refused() {
    struct Circle(RefCellSync, Geometry);
    type RefCellSync = std::sync::Mutex<Option<Arc<dyn Device>>>;
    impl Device for Circle {
        fn name(&self) -> &str {
            "circle"
        }
        fn geometry(&self) -> Geometry {
            self.1
        }
        fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
            let below = self.0.lock().unwrap().clone().unwrap();
            cx.open(&below)?;
            unreachable!("the table refuses")
        }
    }
    let circle = Arc::new(Circle(Default::default(), geometry(1)));
    *circle.0.lock().unwrap() = Some(Shift::over(circle.clone(), 0));
    let table = LaneTable::default();
    let error = table.channel(circle.clone()).unwrap_err();
    assert!(error.to_string().contains("lies on itself"), "{error}");
    assert_eq!(table.stats().lanes, 0);
    *circle.0.lock().unwrap() = None;
}

#[test]
fn hands_are_polled_by_notification() {
    let (device, hand): (_, Rc<Hand>) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let _channel = table.channel(device).unwrap();
    let before = hand.polls();
    hand.notify();
    assert_eq!(hand.polls(), before + 1);
}
