//! What a layer may do beyond passing requests on: make its own, feed itself, be aborted, be polled.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::common;

use std::sync::Arc;

use common::{HandDevice, block_on_ready, geometry, poll_once};
use spindle_block::load::{ChannelLoad, PairLoad, Pattern};
use spindle_block::{
    Busy, Cx, Device, Effect, Faulty, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable, Malloc,
    Null, Offset, OpenError, Operation, Status, Submit,
};
use spindle_mem::{Buffers, IoBuf};

/// A device that keeps every write twice: in its place and in the mirrored one, by a second request.
struct Twice(Arc<dyn Device>);

impl Device for Twice {
    fn name(&self) -> &str {
        "twice"
    }
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(TwiceLane {
            below: cx.open(&self.0)?,
            last: self.geometry().blocks() - 1,
            waiting: Vec::new(),
        }))
    }
}

struct TwiceLane {
    below: LaneId,
    last: u64,
    waiting: Vec<(u64, Io)>,
}

const COPY: u64 = 1;
const ORIGINAL: u64 = 0;

impl Lane for TwiceLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.below, io, [ORIGINAL, 0]);
        Submit::Taken
    }
    fn complete(&mut self, io: Io, [which, number]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        if which == COPY {
            let at = self.waiting.iter().position(|(n, _)| *n == number).unwrap();
            let (_, original) = self.waiting.swap_remove(at);
            assert_eq!(cx.finish(io).len(), 512, "its own request gives its own buffer back");
            cx.done(original, status);
        } else if io.operation() == Operation::Write && status.is_ok() {
            let copy = IoBuf::copy_from(io.buffers().iter().next().unwrap());
            let number = io.start();
            let own = cx.create(Operation::Write, self.last - number, 1, copy.into());
            self.waiting.push((number, io));
            cx.forward(self.below, own, [COPY, number]);
        } else {
            cx.done(io, status);
        }
    }
}

#[test]
fn a_layer_makes_further_requests_and_its_callers_wait_for_them() {
    let disk = Malloc::new("Malloc0", 512, 8).unwrap();
    let table = LaneTable::default();
    let channel = table.channel(Arc::new(Twice(disk.clone()))).unwrap();
    let mut data = IoBuf::zeroed(512);
    data.fill(7);
    block_on_ready(channel.write(512, data)).0.unwrap();
    let below = table.channel(disk).unwrap();
    let mirrored = block_on_ready(below.read(6 * 512, IoBuf::zeroed(512))).1.into_one().unwrap();
    assert!(mirrored.iter().all(|b| *b == 7));
    drop((channel, below));
    assert_eq!(table.stats().lanes, 0, "its own requests hold no lane open once finished");
}

#[test]
fn a_failed_request_of_a_layers_own_fails_the_one_it_was_made_for() {
    let faulty = Faulty::new("faulty", Malloc::new("Malloc0", 512, 8).unwrap());
    let table = LaneTable::default();
    let channel = table.channel(Arc::new(Twice(faulty.clone()))).unwrap();
    faulty.inject(&[Operation::Write], 2, 1, Effect::Fail);
    let (result, _) = block_on_ready(channel.write(512, IoBuf::zeroed(512)));
    assert_eq!(result.unwrap_err().kind, IoErrorKind::Device { errno: 5 });
}

/// Sends every request round and round.
struct Wheel(Arc<dyn Device>);

impl Device for Wheel {
    fn name(&self) -> &str {
        "wheel"
    }
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(WheelLane(cx.open(&self.0)?)))
    }
}

struct WheelLane(LaneId);

impl Lane for WheelLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.0, io, [0, 0]);
        Submit::Taken
    }
    fn complete(&mut self, io: Io, _saved: [u64; 2], _status: Status, cx: &mut Cx<'_>) {
        cx.forward(self.0, io, [0, 0]);
    }
}

#[test]
fn a_layer_that_feeds_itself_does_not_keep_the_thread() {
    let table = LaneTable::default();
    let counted = Faulty::new("counted", Null::new("null", geometry(8)));
    counted.inject(&[Operation::Read], u64::MAX, 1, Effect::Fail);
    let channel = table.channel(Arc::new(Wheel(counted.clone()))).unwrap();
    let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(read.as_mut()).is_none(), "the call returns although the request never ends");
    let turns = counted.seen();
    assert!(turns > 0 && turns < 10_000, "{turns} turns in one call");
    assert_eq!(table.step(), Busy::Yes);
    assert!(counted.seen() > turns, "and goes on in the next");
}

#[test]
fn an_abort_passes_the_layers_to_the_lane_that_holds_the_request() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let part: Arc<dyn Device> = Offset::new("part", device, 10, 50).unwrap();
    let mut pair = table.queue_pair(&part).unwrap();
    let io = pair.request(Operation::Read, 5, 1, IoBuf::zeroed(512));
    let id = io.id();
    pair.submit(io);
    table.step();
    assert_eq!(hand.held(), [15]);
    pair.abort(id);
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.start(), status)));
    assert_eq!(seen, [(5, Err(IoErrorKind::Aborted))]);
    assert_eq!(table.stats().aborted, 0, "aborted on demand is not dropped");
}

#[test]
fn an_abort_of_a_finished_request_affects_no_other() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Read, 5, 1, IoBuf::zeroed(512));
    let id = io.id();
    pair.submit(io);
    table.step();
    hand.complete(5, Ok(()));
    let mut back = None;
    pair.reap(|io, _| back = Some(io));
    pair.recycle(back.unwrap());
    let next = pair.request(Operation::Read, 6, 1, IoBuf::zeroed(512));
    assert_ne!(next.id(), id, "the slot is the same, the name is not");
    pair.submit(next);
    table.step();
    pair.abort(id);
    assert_eq!(hand.held(), [6]);
}

#[test]
fn a_table_that_goes_with_requests_inside_takes_them_along() {
    let (device, hand) = HandDevice::make(geometry(100), 2);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    for start in 0..4 {
        let io = pair.request(Operation::Read, start, 1, IoBuf::zeroed(512));
        pair.submit(io);
    }
    table.step();
    drop(pair);
    drop(table);
    assert_eq!(hand.held(), [0, 1], "what the device holds it may hold on to");
    hand.drop_all();
}

#[test]
fn requests_made_and_never_submitted_cost_nothing() {
    let table = LaneTable::default();
    let null: Arc<dyn Device> = Null::new("null", geometry(8));
    let mut pair = table.queue_pair(&null).unwrap();
    let channel = table.channel(null.clone()).unwrap();
    for _ in 0..10 {
        drop(pair.request(Operation::Read, 0, 1, IoBuf::zeroed(512)));
        drop(channel.read(0, IoBuf::zeroed(512)));
        table.step();
    }
    assert!(table.stats().slots <= 2);
    assert_eq!(table.stats().aborted, 0);
    assert_eq!(pair.reap(|_, _| {}), 0);
}

#[test]
fn a_pair_refuses_what_lies_outside_without_asking_the_device() {
    let (device, hand) = HandDevice::make(geometry(8), 8);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    let wrong = [
        (7, 2, 1024, IoErrorKind::OutOfRange),
        (u64::MAX, 1, 512, IoErrorKind::OutOfRange),
        (0, 1, 1024, IoErrorKind::Unaligned),
    ];
    for (start, count, bytes, kind) in wrong {
        let io = pair.request(Operation::Write, start, count, IoBuf::zeroed(bytes));
        pair.submit(io);
        let mut seen = None;
        pair.reap(|_, status| seen = Some(status));
        assert_eq!(seen, Some(Err(kind)));
    }
    assert!(hand.held().is_empty());
}

#[test]
fn loads_make_exactly_the_requests_asked_for() {
    let table = LaneTable::default();
    let counted = Faulty::new("counted", Null::new("null", geometry(100)));
    let pattern = Pattern::random(&geometry(100), 512, 1).unwrap();
    for (depth, requests) in [(1, 10), (32, 10), (32, 1000), (7, 0)] {
        counted.inject(&[Operation::Read], u64::MAX, 1, Effect::Fail);
        let mut pair =
            PairLoad::new(table.queue_pair(&dyn_of(&counted)).unwrap(), Operation::Read, depth, pattern);
        block_on_ready(pair.round(requests)).unwrap();
        block_on_ready(pair.round(requests)).unwrap();
        assert_eq!(counted.seen(), 2 * requests, "pair, depth {depth}");
        counted.inject(&[Operation::Read], u64::MAX, 1, Effect::Fail);
        let channel = table.channel(dyn_of(&counted)).unwrap();
        let mut channel = ChannelLoad::new(channel, Operation::Read, depth, pattern);
        block_on_ready(channel.round(requests)).unwrap();
        block_on_ready(channel.round(requests)).unwrap();
        assert_eq!(counted.seen(), 2 * requests, "channel, depth {depth}");
    }
    counted.inject(&[Operation::Read], 5, 1, Effect::Fail);
    let mut pair = PairLoad::new(table.queue_pair(&dyn_of(&counted)).unwrap(), Operation::Read, 4, pattern);
    assert_eq!(block_on_ready(pair.round(10)), Err(IoErrorKind::Device { errno: 5 }));
    assert_eq!(counted.seen(), 10, "an error does not end the round");
}

fn dyn_of(device: &Arc<Faulty>) -> Arc<dyn Device> {
    device.clone()
}

#[test]
fn patterns_stay_inside_the_device_and_touch_all_of_it() {
    let device = geometry(103);
    for mut pattern in
        [Pattern::random(&device, 1024, 9).unwrap(), Pattern::sequential(&device, 1024).unwrap()]
    {
        let mut touched = [false; 51];
        for _ in 0..2000 {
            let start = pattern.next_start();
            assert_eq!(start % 2, 0);
            touched[start as usize / 2] = true;
        }
        assert!(touched.iter().all(|t| *t));
    }
    assert_eq!(Pattern::random(&device, 100, 0).unwrap_err(), IoErrorKind::Unaligned);
    assert_eq!(Pattern::random(&device, 512 * 104, 0).unwrap_err(), IoErrorKind::OutOfRange);
}

#[test]
fn a_request_without_buffers_may_be_split_too() {
    struct Halves(Arc<dyn Device>);
    impl Device for Halves {
        fn name(&self) -> &str {
            "halves"
        }
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
            Ok(Box::new(HalvesLane(cx.open(&self.0)?)))
        }
    }
    struct HalvesLane(LaneId);
    impl Lane for HalvesLane {
        fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
            let half = io.count() / 2;
            let mut split = cx.split(io);
            let first = cx.child(&mut split, half);
            cx.forward(self.0, first, [0, 0]);
            // A piece may be done on the spot.
            let second = cx.child(&mut split, u64::MAX);
            cx.done(second, Ok(()));
            cx.join(split);
            Submit::Taken
        }
    }
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let channel = table.channel(Arc::new(Halves(device))).unwrap();
    let mut unmap = Box::pin(channel.unmap(0, 10 * 512));
    assert!(poll_once(unmap.as_mut()).is_none());
    assert_eq!(hand.held(), [0]);
    hand.complete(0, Ok(()));
    poll_once(unmap.as_mut()).unwrap().unwrap();
    // Nothing to split: the parent has no pieces but empty ones.
    let mut pair = table.queue_pair(channel.device()).unwrap();
    let io = pair.request(Operation::Flush, 0, 0, Buffers::None);
    pair.submit(io);
    table.step();
    hand.complete(0, Ok(()));
    assert_eq!(pair.reap(|_, status| status.unwrap()), 1);
}

/// Writes go to both devices below, reads to the first.
struct Mirror([Arc<dyn Device>; 2]);

impl Device for Mirror {
    fn name(&self) -> &str {
        "mirror"
    }
    fn geometry(&self) -> Geometry {
        self.0[0].geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(MirrorLane([cx.open(&self.0[0])?, cx.open(&self.0[1])?])))
    }
}

struct MirrorLane([LaneId; 2]);

impl Lane for MirrorLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if io.operation() == Operation::Read {
            cx.forward(self.0[0], io, [0, 0]);
            return Submit::Taken;
        }
        let split = cx.split(io);
        for leg in self.0 {
            let write = cx.mirror(&split);
            cx.forward(leg, write, [0, 0]);
        }
        cx.join(split);
        Submit::Taken
    }
}

/// Notes where the data of each request lies.
struct Places(Geometry, Arc<std::sync::Mutex<Vec<usize>>>);

impl Device for Places {
    fn name(&self) -> &str {
        "places"
    }
    fn geometry(&self) -> Geometry {
        self.0
    }
    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(PlacesLane(self.1.clone())))
    }
}

struct PlacesLane(Arc<std::sync::Mutex<Vec<usize>>>);

impl Lane for PlacesLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        self.0.lock().unwrap().extend(io.buffers().iter().map(|part| part.as_ptr().addr()));
        cx.done(io, Ok(()));
        Submit::Taken
    }
}

#[test]
fn one_write_goes_to_two_devices_without_a_copy_and_gives_its_buffers_back_as_they_were() {
    let seen = Arc::default();
    let leg = || -> Arc<dyn Device> { Arc::new(Places(geometry(100), Arc::clone(&seen))) };
    let table = LaneTable::default();
    let channel = table.channel(Arc::new(Mirror([leg(), leg()]))).unwrap();
    let (one, two) = (IoBuf::copy_from(&[1; 512]), IoBuf::copy_from(&[2; 1024]));
    let places = [one.as_ptr().addr(), two.as_ptr().addr()];
    let (written, mut buffers) = block_on_ready(channel.write(0, Buffers::from(vec![one, two])));
    written.unwrap();
    assert_eq!(*seen.lock().unwrap(), [places, places].concat());
    buffers.parts_mut().iter_mut().for_each(|part| part[0] = 9);
    let back: Vec<usize> = buffers.iter().map(|part| part.as_ptr().addr()).collect();
    assert_eq!(back, places, "and they can be written again where they are");
}

#[test]
fn a_write_to_two_devices_waits_for_both_and_fails_with_either() {
    for failed in [None, Some(0), Some(1)] {
        let (one, first) = HandDevice::make(geometry(100), 8);
        let (two, second) = HandDevice::make(geometry(100), 8);
        let table = LaneTable::default();
        let channel = table.channel(Arc::new(Mirror([one, two]))).unwrap();
        let mut write = Box::pin(channel.write(512, IoBuf::zeroed(1024)));
        assert!(poll_once(write.as_mut()).is_none());
        for (leg, hand) in [&second, &first].into_iter().enumerate() {
            assert_eq!((hand.held(), hand.buffer_bytes()), (vec![1], 1024));
            assert!(poll_once(write.as_mut()).is_none());
            let status = if failed == Some(leg) { Err(IoErrorKind::Medium) } else { Ok(()) };
            hand.complete(1, status);
        }
        let (result, buffers) = poll_once(write.as_mut()).expect("both legs have ended");
        assert_eq!(result.err().map(|error| error.kind), failed.map(|_| IoErrorKind::Medium));
        assert_eq!(buffers.len(), 1024);
    }
}

/// Panics at the request for block 3.
struct Bomb(Geometry);

impl Device for Bomb {
    fn name(&self) -> &str {
        "bomb"
    }
    fn geometry(&self) -> Geometry {
        self.0
    }
    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(BombLane))
    }
}

struct BombLane;

impl Lane for BombLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        assert_ne!(io.start(), 3, "a bug in a module");
        cx.done(io, Ok(()));
        Submit::Taken
    }
}

#[test]
fn a_layer_that_panics_loses_the_request_it_held_and_nothing_else() {
    let table = LaneTable::default();
    let channel = table.channel(Arc::new(Bomb(geometry(8)))).unwrap();
    for _ in 0..5 {
        let mut read = Box::pin(channel.read(3 * 512, IoBuf::zeroed(512)));
        let poll = std::panic::AssertUnwindSafe(|| poll_once(read.as_mut()));
        assert!(std::panic::catch_unwind(poll).is_err());
        drop(read);
        table.step();
    }
    block_on_ready(channel.read(0, IoBuf::zeroed(512))).0.unwrap();
    assert_eq!((table.stats().aborted, table.stats().in_flight, table.stats().slots), (5, 0, 1));
    drop(channel);
    assert_eq!(table.stats().lanes, 0);
}

#[test]
fn a_task_that_waits_for_a_request_a_pair_or_a_close_is_woken() {
    use std::cell::Cell;
    use std::rc::Rc;
    let wakes = Rc::new(Cell::new(0));
    let counter = wakes.clone();
    let waker = common::local_waker(move || counter.set(counter.get() + 1));
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();

    let mut pair = table.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Read, 1, 1, IoBuf::zeroed(512));
    pair.submit(io);
    let mut wait = Box::pin(pair.wait());
    assert!(common::poll_with(wait.as_mut(), &waker).is_none());
    hand.complete(1, Ok(()));
    assert_eq!(wakes.get(), 1);
    assert!(common::poll_with(wait.as_mut(), &waker).is_some());
    drop(wait);
    drop(pair);

    let channel = table.channel(device).unwrap();
    let mut read = Box::pin(channel.read(512, IoBuf::zeroed(512)));
    assert!(common::poll_with(read.as_mut(), &waker).is_none());
    hand.complete(1, Ok(()));
    assert_eq!(wakes.get(), 2);
    assert!(common::poll_with(read.as_mut(), &waker).is_some());

    let mut detached = Box::pin(channel.read(512, IoBuf::zeroed(512)));
    assert!(poll_once(detached.as_mut()).is_none());
    drop((read, detached));
    let mut close = Box::pin(channel.close());
    assert!(common::poll_with(close.as_mut(), &waker).is_none());
    hand.complete(1, Ok(()));
    assert_eq!(wakes.get(), 3);
    assert!(common::poll_with(close.as_mut(), &waker).is_some());
}
