//! An abort finds the request wherever it is, and whatever was made of it; layers pass nothing on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use spindle_block::{
    Busy, Channel, Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable, Notifier, Offset,
    OpenError, Operation, Status, Submit,
};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{EngineKind, Runtime, spawn_local, yield_now};

use crate::common::{HandDevice, geometry, poll_once};
use crate::modules::Pass;

/// Writes everything to both devices by separate requests, the second half also cut in two.
struct Mirror([Arc<dyn Device>; 2]);

impl Device for Mirror {
    fn name(&self) -> &str {
        "mirror"
    }
    fn geometry(&self) -> Geometry {
        self.0[0].geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let lowers = [cx.open(&self.0[0])?, cx.open(&self.0[1])?];
        Ok(Box::new(MirrorLane { lowers, waiting: None, left: 0, status: Ok(()) }))
    }
}

struct MirrorLane {
    lowers: [LaneId; 2],
    waiting: Option<Io>,
    left: u32,
    status: Status,
}

impl Lane for MirrorLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        for lower in self.lowers {
            let own = cx.create_for(&io, Operation::Unmap, io.start(), io.count(), Buffers::None);
            cx.forward(lower, own, [1, 0]);
        }
        self.waiting = Some(io);
        self.left = 2;
        Submit::Taken
    }
    fn complete(&mut self, io: Io, _saved: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        cx.finish(io);
        self.status = self.status.and(status);
        self.left -= 1;
        if self.left == 0 {
            cx.done(self.waiting.take().unwrap(), self.status);
        }
    }
}

/// Cuts in the middle.
struct Half(Arc<dyn Device>);

impl Device for Half {
    fn name(&self) -> &str {
        "half"
    }
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(HalfLane(cx.open(&self.0)?)))
    }
}

struct HalfLane(LaneId);

impl Lane for HalfLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let half = io.count() / 2;
        let mut split = cx.split(io);
        for count in [half, u64::MAX] {
            let child = cx.child(&mut split, count);
            cx.forward(self.0, child, [0, 0]);
        }
        cx.join(split);
        Submit::Taken
    }
}

#[test]
fn an_abort_reaches_the_pieces_of_pieces_and_what_lanes_made_of_the_request() {
    let (one, first) = HandDevice::make(geometry(100), 8);
    let (two, second) = HandDevice::make(geometry(100), 1);
    // The second has room for one piece only: the other waits before it.
    let part: Arc<dyn Device> = Offset::new("part", two, 50, 50).unwrap();
    let mirror = Arc::new(Mirror([Pass::over(one), Arc::new(Half(part))]));
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(mirror as Arc<dyn Device>)).unwrap();
    let other = pair.request(Operation::Unmap, 20, 4, Buffers::None);
    let io = pair.request(Operation::Unmap, 0, 4, Buffers::None);
    let id = io.id();
    drop(other);
    pair.submit(io);
    table.step();
    assert_eq!((first.held(), second.held()), (vec![0], vec![50]));
    pair.abort(id);
    assert!(first.held().is_empty() && second.held().is_empty());
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.id(), status)));
    assert_eq!(seen, [(id, Err(IoErrorKind::Aborted))]);
    assert_eq!(table.stats().in_flight, 0);
}

#[test]
fn an_abort_finds_a_request_behind_a_frozen_gate_of_a_layer_below() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let pass = Pass::over(device);
    let part: Arc<dyn Device> = Offset::new("part", pass.clone(), 0, 10).unwrap();
    let table = LaneTable::default();
    let channel = table.channel(part).unwrap();
    let mut freeze = Box::pin(pass.state.freeze());
    assert!(poll_once(freeze.as_mut()).is_none());
    table.step();
    let mut write = Box::pin(channel.write(0, IoBuf::zeroed(512)));
    assert!(poll_once(write.as_mut()).is_none());
    write.abort();
    let (result, buffers) = poll_once(write.as_mut()).unwrap();
    assert_eq!(result.unwrap_err().kind, IoErrorKind::Aborted);
    assert_eq!(buffers.len(), 512);
    assert!(hand.held().is_empty());
}

#[test]
fn an_abort_asked_for_while_the_table_runs_is_not_lost() {
    // A waker runs when no part of the table is borrowed; a lane that is called runs while all of it is.
    struct Asks(Arc<dyn Device>);
    impl Device for Asks {
        fn name(&self) -> &str {
            "asks"
        }
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
            Ok(Box::new(AsksLane(cx.open(&self.0)?)))
        }
    }
    thread_local!(static ASK: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) });
    struct AsksLane(LaneId);
    impl Lane for AsksLane {
        fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
            cx.forward(self.0, io, [0, 0]);
            if let Some(ask) = ASK.with(|ask| ask.borrow_mut().take()) {
                ask();
            }
            Submit::Taken
        }
    }
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let asks: Arc<dyn Device> = Arc::new(Asks(device));
    let table = LaneTable::default();
    let channel = table.channel(asks.clone()).unwrap();
    let mut first = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(first.as_mut()).is_none());
    let (id, from) = (first.id().unwrap(), table.clone());
    ASK.with(|ask| *ask.borrow_mut() = Some(Box::new(move || from.abort(&asks, id))));
    let mut second = Box::pin(channel.read(512, IoBuf::zeroed(512)));
    assert!(poll_once(second.as_mut()).is_none());
    assert_eq!(hand.held(), [1]);
    assert_eq!(poll_once(first.as_mut()).unwrap().0.unwrap_err().kind, IoErrorKind::Aborted);
}

/// Gives every request to a task, which gives it back when it is told to end.
struct Tasked(Geometry);

impl Device for Tasked {
    fn name(&self) -> &str {
        "tasked"
    }
    fn geometry(&self) -> Geometry {
        self.0
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(TaskedLane { back: Rc::default(), notifier: cx.notifier() }))
    }
}

struct TaskedLane {
    back: Rc<RefCell<VecDeque<Io>>>,
    notifier: Notifier,
}

impl Lane for TaskedLane {
    fn submit(&mut self, io: Io, _cx: &mut Cx<'_>) -> Submit {
        let (back, notifier) = (self.back.clone(), self.notifier.clone());
        drop(spawn_local(async move {
            poll_fn(|cx| io.poll_aborted(cx)).await;
            back.borrow_mut().push_back(io);
            notifier.notify();
        }));
        Submit::Taken
    }
    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        while let Some(io) = self.back.borrow_mut().pop_front() {
            cx.done(io, Err(IoErrorKind::Aborted));
        }
        Busy::Yes
    }
}

#[test]
fn a_request_that_a_task_holds_is_found_too() {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(3)).build().unwrap();
    runtime
        .run(async || {
            let channel = Channel::open(Pass::over(Arc::new(Tasked(geometry(8))))).unwrap();
            let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
            poll_fn(|cx| {
                assert!(read.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            for _ in 0..5 {
                yield_now().await;
            }
            read.abort();
            assert_eq!(read.await.0.unwrap_err().kind, IoErrorKind::Aborted);
        })
        .unwrap();
}

#[test]
fn a_request_that_is_submitted_again_after_an_abort_is_not_aborted_by_it() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Read, 5, 1, IoBuf::zeroed(512));
    let id = io.id();
    pair.submit(io);
    table.step();
    pair.abort(id);
    let mut back = None;
    pair.reap(|io, _| back = Some(io));
    let io = back.unwrap();
    pair.submit(io);
    table.step();
    assert_eq!(hand.held(), [5]);
    hand.complete(5, Ok(()));
    assert_eq!(pair.reap(|_, status| status.unwrap()), 1);
}
