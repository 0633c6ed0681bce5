//! What the tests share: a device whose completions the test makes by hand, and one-shot polling.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

pub mod model;
pub mod plain;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use spindle_block::{
    Busy, Cx, Device, DeviceState, Geometry, HeldRange, Io, IoErrorKind, IoId, Lane, LaneCx, LaneTable,
    Notifier, OpenError, Operation, QueuePair, Status, Submit,
};

/// A writable device of 512-byte blocks.
pub fn geometry(blocks: u64) -> Geometry {
    Geometry::new(512, blocks).unwrap()
}

/// Polls once; the output if it is there.
pub fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    poll_with(future, Waker::noop())
}

/// Polls once with a waker.
pub fn poll_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(waker)) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The output of a future that must be ready at once.
pub fn block_on_ready<F: Future>(future: F) -> F::Output {
    poll_once(Box::pin(future).as_mut()).expect("ready at the first poll")
}

thread_local! {
    static WAKERS: RefCell<Vec<Rc<dyn Fn()>>> = const { RefCell::new(Vec::new()) };
}

struct LocalWaker(ThreadId, usize);

impl Wake for LocalWaker {
    fn wake(self: Arc<Self>) {
        assert_eq!(self.0, std::thread::current().id());
        let f = WAKERS.with(|all| all.borrow()[self.1].clone());
        f();
    }
}

/// A waker that calls `f` on this OS thread.
pub fn local_waker(f: impl Fn() + 'static) -> Waker {
    let index = WAKERS.with(|all| {
        all.borrow_mut().push(Rc::new(f));
        all.borrow().len() - 1
    });
    Waker::from(Arc::new(LocalWaker(std::thread::current().id(), index)))
}

thread_local! {
    static HANDS: RefCell<Vec<Rc<Hand>>> = const { RefCell::new(Vec::new()) };
}

/// A device that holds at most `room` requests until the test completes them. For one OS thread.
pub struct HandDevice {
    geometry: Geometry,
    key: usize,
    state: DeviceState,
}

/// The test's grip on a [`HandDevice`].
pub struct Hand {
    room: usize,
    held: RefCell<Vec<Io>>,
    given_up: RefCell<Vec<(IoId, HeldRange)>>,
    orders: RefCell<Vec<(u64, Status, Option<u8>)>>,
    notifier: RefCell<Option<Notifier>>,
    polls: Cell<usize>,
}

impl HandDevice {
    pub fn make(geometry: Geometry, room: usize) -> (Arc<dyn Device>, Rc<Hand>) {
        let hand = Rc::new(Hand {
            room,
            held: RefCell::default(),
            given_up: RefCell::default(),
            orders: RefCell::default(),
            notifier: RefCell::default(),
            polls: Cell::default(),
        });
        let key = HANDS.with(|hands| {
            hands.borrow_mut().push(hand.clone());
            hands.borrow().len() - 1
        });
        (Arc::new(HandDevice { geometry, key, state: DeviceState::new() }), hand)
    }
}

impl Device for HandDevice {
    fn name(&self) -> &str {
        "hand"
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn supports(&self, _operation: Operation) -> bool {
        true
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let hand = HANDS.with(|hands| hands.borrow()[self.key].clone());
        *hand.notifier.borrow_mut() = Some(cx.notifier());
        Ok(Box::new(HandLane(hand, self)))
    }
}

struct HandLane(Rc<Hand>, Arc<HandDevice>);

impl Lane for HandLane {
    fn submit(&mut self, io: Io, _cx: &mut Cx<'_>) -> Submit {
        let mut held = self.0.held.borrow_mut();
        if held.len() == self.0.room {
            return Submit::Full(io);
        }
        held.push(io);
        Submit::Taken
    }
    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        self.0.polls.set(self.0.polls.get() + 1);
        for (start, status, fill) in self.0.orders.take() {
            let mut held = self.0.held.borrow_mut();
            let at = held.iter().position(|io| io.start() == start).expect("the request is held");
            let mut io = held.remove(at);
            if let Some(byte) = fill {
                io.buffers_mut().iter_mut().for_each(|part| part.fill(byte));
            }
            self.0.given_up.borrow_mut().retain(|(id, _)| *id != io.id());
            cx.done(io, status);
        }
        Busy::Yes
    }
    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        let mut held = self.0.held.borrow_mut();
        if let Some(at) = held.iter().position(|io| io.id() == id) {
            cx.done(held.remove(at), Err(IoErrorKind::Aborted));
        }
    }
    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        for io in self.0.held.borrow().iter() {
            let mut given_up = self.0.given_up.borrow_mut();
            let known = given_up.iter().any(|(id, _)| *id == io.id());
            if io.operation().changes_data() && !known && cx.is_abandoned(io) {
                given_up.push((io.id(), self.1.state.hold_range(io.start(), io.count())));
            }
        }
    }
}

impl Hand {
    /// Starts of the requests held, in the order they came.
    pub fn held(&self) -> Vec<u64> {
        self.held.borrow().iter().map(Io::start).collect()
    }
    /// Bytes in the buffers of the requests held.
    pub fn buffer_bytes(&self) -> usize {
        self.held.borrow().iter().map(|io| io.buffers().len()).sum()
    }
    /// Completes the first held request that starts at `start`.
    pub fn complete(&self, start: u64, status: Status) {
        self.orders.borrow_mut().push((start, status, None));
        self.notify();
    }
    /// The same, with its buffers filled.
    pub fn complete_with(&self, start: u64, status: Status, fill: u8) {
        self.orders.borrow_mut().push((start, status, Some(fill)));
        self.notify();
    }
    /// Takes the first held request that starts at `start` away from the lane.
    pub fn take(&self, start: u64) -> Io {
        let mut held = self.held.borrow_mut();
        let at = held.iter().position(|io| io.start() == start).expect("the request is held");
        held.remove(at)
    }
    /// Drops what is held.
    pub fn drop_all(&self) {
        drop(self.held.take());
    }
    pub fn notify(&self) {
        self.notifier.borrow().as_ref().expect("the lane is open").notify();
    }
    pub fn polls(&self) -> usize {
        self.polls.get()
    }
}

/// Runs a future on a hand-stepped table.
pub fn run_on<T>(table: &LaneTable, future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    for _ in 0..10_000_000 {
        if let Some(output) = poll_once(future.as_mut()) {
            return output;
        }
        table.step();
    }
    panic!("the future waits for something that no step brings");
}

/// Submits requests and returns how many of them the device's lane takes before one ends: a freeze waits for those, and
/// the others wait in front of it. All of them have ended, successfully, when this returns.
pub async fn taken_at_once(device: &Arc<dyn Device>, pair: &mut QueuePair, requests: Vec<Io>) -> usize {
    let all = requests.len();
    requests.into_iter().for_each(|io| pair.submit(io));
    // The engine reports nothing before the thread's next turn.
    pair.reap(|io, status| panic!("{io:?} ended as {status:?} without the engine"));
    let mut freeze = Box::pin(device.state().unwrap().freeze());
    assert!(poll_once(freeze.as_mut()).is_none());
    // Until now nothing can have ended: the lane learns that it is frozen before.
    LaneTable::current().unwrap().step();
    let frozen = freeze.await;
    let taken = pair.reap(|_, status| status.unwrap());
    assert_eq!(pair.outstanding(), all - taken);
    drop(frozen);
    let mut ended = taken;
    while pair.outstanding() > 0 {
        pair.wait().await;
        ended += pair.reap(|_, status| status.unwrap());
    }
    assert_eq!(ended, all);
    taken
}
