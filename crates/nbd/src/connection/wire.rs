//! A socket with at most one receive and one send under way: bytes as they go over the wire.
//!
//! Belongs to the connection's [stream](super::stream), which waits for what it begins here. Its completions
//! arrive in one reused place. Dropping it cancels operations under way; buffers return to their pool when the
//! engine returns them.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};

use spindle_engine::{Completion, Op, Output, Shutdown, Socket};
use spindle_mem::Buffers;
use spindle_reactor::{OpId, OpSink, cancel_op, hurry_op, submit_op};

const RECEIVE: u64 = 0;
const SEND: u64 = 1;

/// The result of an operation: bytes moved, and its buffers.
pub(crate) type Moved = (io::Result<usize>, Buffers);

#[derive(Default)]
struct Arrivals {
    received: RefCell<Option<Completion>>,
    sent: RefCell<Option<Completion>>,
    task: RefCell<Option<Waker>>,
    woken: Cell<bool>,
}

impl OpSink for Arrivals {
    fn complete(&self, key: u64, completion: Completion) {
        let place = if key == RECEIVE { &self.received } else { &self.sent };
        *place.borrow_mut() = Some(completion);
        self.wake();
    }
}

impl Arrivals {
    fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(task) = self.task.borrow().as_ref()
        {
            task.wake_by_ref();
        }
    }
}

/// A socket of a connection.
pub(crate) struct Wire {
    socket: Socket,
    arrivals: Rc<Arrivals>,
    sink: Rc<dyn OpSink>,
    receiving: Option<OpId>,
    sending: Option<OpId>,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Wire {
        let arrivals = Rc::<Arrivals>::default();
        Wire { socket, sink: arrivals.clone(), arrivals, receiving: None, sending: None }
    }

    /// Sets the task to wake; call it each time the task is polled.
    pub(crate) fn belong_to(&self, cx: &Context<'_>) {
        self.arrivals.woken.set(false);
        let mut task = self.arrivals.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Polls the task again: something is ready although no operation ended.
    pub(crate) fn wake(&self) {
        self.arrivals.wake();
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Begins to receive into `buffers`. Only if no receive is under way.
    pub(crate) fn receive(&mut self, buffers: Buffers) {
        debug_assert!(self.receiving.is_none());
        let op = Op::Recv { socket: self.socket.clone(), buffers };
        self.receiving = Some(submit_op(op, &self.sink, RECEIVE));
    }

    /// Begins to send all of `buffers`. Only if no send is under way.
    pub(crate) fn send(&mut self, buffers: Buffers) {
        debug_assert!(self.sending.is_none());
        let op = Op::Send { socket: self.socket.clone(), buffers };
        self.sending = Some(submit_op(op, &self.sink, SEND));
    }

    /// As [`send`](Self::send), for a sender that does not wait for the end: a send that ends at once is reported
    /// with the next event of the reactor, and causes no wake-up.
    pub(crate) fn send_quietly(&mut self, buffers: Buffers) {
        debug_assert!(self.sending.is_none());
        let op = Op::SendQuietly { socket: self.socket.clone(), buffers };
        self.sending = Some(submit_op(op, &self.sink, SEND));
    }

    /// Asks for the end of the send under way to be reported as soon as it has ended, if it was a quiet one.
    pub(crate) fn hurry(&self) {
        self.sending.into_iter().for_each(hurry_op);
    }

    /// The finished receive, if any.
    pub(crate) fn take_received(&mut self) -> Option<Moved> {
        let completion = self.arrivals.received.borrow_mut().take()?;
        self.receiving = None;
        Some(moved(completion))
    }

    /// The finished send, if any.
    pub(crate) fn take_sent(&mut self) -> Option<Moved> {
        let completion = self.arrivals.sent.borrow_mut().take()?;
        self.sending = None;
        Some(moved(completion))
    }

    /// Cancels the receive under way.
    pub(crate) fn cancel_receive(&self) {
        self.receiving.into_iter().for_each(cancel_op);
    }

    /// Cancels operations under way. A quiet send that has ended is reported, and holds no memory any more.
    pub(crate) fn cancel(&self) {
        self.hurry();
        self.receiving.into_iter().chain(self.sending).for_each(cancel_op);
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) async fn end(&self) {
        // A peer that is gone need not be told.
        let _ = spindle_reactor::op(Op::Shutdown { socket: self.socket.clone(), how: Shutdown::Write }).await;
    }
}

fn moved(completion: Completion) -> Moved {
    let Completion { result, op, .. } = completion;
    (result.map(|output: Output| output.bytes()), op.into_buffers())
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cancel();
    }
}
