//! The futures of a channel's requests.
//!
//! A request is checked and put into a pooled [`Io`] when it is made, and submitted at the first poll. It belongs
//! to the thread of its channel.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use spindle_mem::Buffers;

use crate::path::queues::Queues;
use crate::path::side_queues::Detached;
use crate::request::io::ReturnTo;
use crate::{Channel, Io, IoError, IoErrorKind, IoId, Operation};

/// Where the request of a future is.
enum State {
    /// Made from inside a lane, while the table moves requests: waits until the table has finished.
    Early(Early),
    /// Not submitted.
    New(Io),
    /// In flight.
    Waiting(IoId),
    /// The result was returned.
    Over,
}

/// What a request needs to be made later.
struct Early {
    buffers: Buffers,
    fua: bool,
    aux: u64,
}

/// What [`Transfer`] and [`Command`] have in common.
struct Request<'a> {
    channel: &'a Channel,
    /// As asked, for the error.
    offset: u64,
    len: u64,
    operation: Operation,
    /// The error found before submission.
    refused: Option<IoErrorKind>,
    state: State,
}

impl<'a> Request<'a> {
    /// The buffers go into a pooled request at once and are not moved again until they come back.
    #[inline(always)]
    fn new(
        channel: &'a Channel,
        operation: Operation,
        offset: u64,
        len: u64,
        buffers: Buffers,
    ) -> Request<'a> {
        let (refused, start, count) = match channel.check(operation, offset, len) {
            Ok((start, count)) => (None, start, count),
            Err(kind) => (Some(kind), 0, 0),
        };
        let state = match channel.table.inner.try_borrow_mut() {
            Ok(mut inner) => State::New(inner.queues.make(ReturnTo::Lane, operation, start, count, buffers)),
            Err(_) => State::Early(Early { buffers, fua: false, aux: 0 }),
        };
        Request { channel, operation, offset, len, refused, state }
    }

    /// Makes a request that came too early.
    #[cold]
    fn make(&mut self, early: Early, queues: &mut Queues) -> Io {
        let place = self.channel.check(self.operation, self.offset, self.len);
        self.refused = self.refused.or(place.err());
        let (start, count) = place.unwrap_or_default();
        let mut io = queues.make(ReturnTo::Lane, self.operation, start, count, early.buffers);
        io.set_fua(early.fua);
        io.set_aux(early.aux);
        io
    }

    fn set_fua(&mut self) {
        match &mut self.state {
            State::New(io) => io.set_fua(true),
            State::Early(early) => early.fua = true,
            State::Waiting(_) | State::Over => {}
        }
    }

    fn set_aux(&mut self, aux: u64) {
        match &mut self.state {
            State::New(io) => io.set_aux(aux),
            State::Early(early) => early.aux = aux,
            State::Waiting(_) | State::Over => {}
        }
    }

    /// The result and the buffers. The error becomes the caller's type here: converting it later copies the
    /// result each time, and waits for the data just copied to arrive.
    #[inline(always)]
    fn poll_map<E>(
        &mut self,
        cx: &mut Context<'_>,
        convert: impl FnOnce(IoError) -> E,
    ) -> Poll<(Result<(), E>, Buffers)> {
        let Poll::Ready(io) = self.poll_ended(cx) else { return Poll::Pending };
        let status = self.refused.map_or(io.slot().status, Err);
        let operation = io.operation();
        let buffers = self.channel.table.inner.borrow_mut().queues.recycle(io);
        Poll::Ready(match status {
            Ok(()) => (Ok(()), buffers),
            Err(kind) => (Err(convert(self.error(operation, kind))), buffers),
        })
    }

    // Inlined: this is most of what a request costs its maker.
    #[inline(always)]
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Io> {
        let table = &self.channel.table;
        let Ok(mut inner) = table.inner.try_borrow_mut() else {
            // Polled from inside a lane: nothing can be submitted before that returns.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let mut state = std::mem::replace(&mut self.state, State::Over);
        if let State::Early(early) = state {
            state = State::New(self.make(early, &mut inner.queues));
        }
        let (id, more) = match state {
            State::New(mut io) if self.refused.is_none() => {
                let id = io.id();
                io.slot_mut().return_to = ReturnTo::Future;
                inner.queues.waiters[id.index as usize].begin();
                // Set first: if a lane panics, dropping this future still detaches the request.
                self.follow(State::Waiting(id));
                let (opener, user) = (self.channel.opener.get(), self.channel.user.get());
                inner.queues.submit(self.channel.lane, opener, user, io);
                let more = table.turn(&mut inner);
                if inner.queues.yields(self.len) {
                    drop(inner);
                    table.after(more);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                (id, more)
            }
            State::New(io) => return Poll::Ready(io),
            State::Waiting(id) => {
                self.follow(State::Waiting(id));
                (id, false)
            }
            State::Early(_) | State::Over => {
                panic!("a request's future was polled after it had given its result")
            }
        };
        let ended = inner.queues.waiters[id.index as usize].settle(cx);
        if ended.is_some() {
            self.follow(State::Over);
        }
        drop(inner);
        table.after(more);
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// Replaces a state that holds nothing, of a request in flight or over: the code that would drop it is a call.
    #[inline(always)]
    fn follow(&mut self, state: State) {
        std::mem::forget(std::mem::replace(&mut self.state, state));
    }

    fn id(&self) -> Option<IoId> {
        match self.state {
            State::Waiting(id) => Some(id),
            State::Early(_) | State::New(_) | State::Over => None,
        }
    }

    fn abort(&self) {
        if let Some(id) = self.id() {
            self.channel.table.abort(self.channel.lane, id);
        }
    }

    #[cold]
    fn error(&self, operation: Operation, kind: IoErrorKind) -> IoError {
        let device = Arc::from(self.channel.device().name());
        IoError { device, operation, offset: self.offset, len: self.len, kind }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let State::Waiting(id) = self.state {
            let shift = self.channel.geometry().block_shift();
            let changes = self.operation.changes_data().then_some((self.offset >> shift, self.len >> shift));
            self.channel.table.detach(Detached { id, lane: self.channel.lane, changes });
        }
    }
}

/// A read or write: resolves to the result and the buffers. See [`Channel`] for what dropping it does.
#[must_use = "a transfer does nothing until it is awaited"]
pub struct Transfer<'a> {
    request: Request<'a>,
}

impl<'a> Transfer<'a> {
    #[inline(always)]
    pub(crate) fn new(
        channel: &'a Channel,
        operation: Operation,
        offset: u64,
        buffers: Buffers,
    ) -> Transfer<'a> {
        let len = buffers.len() as u64;
        Transfer { request: Request::new(channel, operation, offset, len, buffers) }
    }

    /// A transfer whose buffers are longer or shorter than its range.
    pub(crate) fn of_len(
        channel: &'a Channel,
        operation: Operation,
        offset: u64,
        len: u64,
        buffers: Buffers,
    ) -> Transfer<'a> {
        Transfer { request: Request::new(channel, operation, offset, len, buffers) }
    }

    /// Its id in the thread's table, while it is in flight.
    pub fn id(&self) -> Option<IoId> {
        self.request.id()
    }

    /// Asks for an early end; it ends, aborted or not. No effect before the first poll.
    pub fn abort(&self) {
        self.request.abort();
    }

    /// As a future's `poll`, with the error converted before the result is returned: for a layer that has errors
    /// of its own.
    #[inline(always)]
    pub fn poll_map<E>(
        &mut self,
        cx: &mut Context<'_>,
        convert: impl FnOnce(IoError) -> E,
    ) -> Poll<(Result<(), E>, Buffers)> {
        self.request.poll_map(cx, convert)
    }

    /// Asks that a write be durable when it completes (force unit access).
    pub fn fua(mut self) -> Self {
        self.request.set_fua();
        self
    }
}

impl Future for Transfer<'_> {
    type Output = (Result<(), IoError>, Buffers);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.request.poll_map(cx, |error| error)
    }
}

/// A request without data: resolves to the result. See [`Channel`] for what dropping it does.
#[must_use = "a command does nothing until it is awaited"]
pub struct Command<'a> {
    request: Request<'a>,
}

impl<'a> Command<'a> {
    pub(crate) fn new(channel: &'a Channel, operation: Operation, offset: u64, len: u64) -> Command<'a> {
        Command { request: Request::new(channel, operation, offset, len, Buffers::None) }
    }

    pub(crate) fn copy(channel: &'a Channel, offset: u64, from: u64, len: u64) -> Command<'a> {
        let mut command = Command::new(channel, Operation::Copy, offset, len);
        let request = &mut command.request;
        match channel.check(Operation::Copy, from, len) {
            Ok((source, _)) => request.set_aux(source),
            Err(kind) => request.refused = request.refused.or(Some(kind)),
        }
        command
    }

    /// Asks that zeroes or an unmap be durable when it completes (force unit access).
    pub fn fua(mut self) -> Self {
        self.request.set_fua();
        self
    }

    /// Its id in the thread's table, while it is in flight.
    pub fn id(&self) -> Option<IoId> {
        self.request.id()
    }

    /// Asks for an early end; it ends, aborted or not. No effect before the first poll.
    pub fn abort(&self) {
        self.request.abort();
    }

    /// The byte found by a seek.
    pub(crate) async fn found(mut self) -> Result<u64, IoError> {
        let io = poll_fn(|cx| self.request.poll_ended(cx)).await;
        let status = self.request.refused.map_or(io.slot().status, Err);
        let (operation, block) = (io.operation(), io.aux());
        drop(self.request.channel.table.inner.borrow_mut().queues.recycle(io));
        match status {
            Ok(()) => Ok(block << self.request.channel.geometry().block_shift()),
            Err(kind) => Err(self.request.error(operation, kind)),
        }
    }
}

impl Future for Command<'_> {
    type Output = Result<(), IoError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.request.poll_map(cx, |error| error).map(|(result, _none)| result)
    }
}
