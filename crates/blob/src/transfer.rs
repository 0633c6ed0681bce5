//! The future of a read or write of a blob.
//!
//! Most ranges lie in one cluster that is known: such a request is the device's own, looked up and submitted in
//! one poll, and nothing is allocated for it. Everything else is done in steps, by a boxed future. Belongs to
//! the thread of its channel.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;
use crate::local::Local;

/// What a read or write comes back with: the result, and the memory.
pub(crate) type Done = (Result<(), BlobError>, Buffers);

/// A read or write in steps.
pub(crate) type Steps<'a> = Pin<Box<dyn Future<Output = Done> + 'a>>;

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A read or write: resolves to the result and the buffers. See [`BlobChannel`](crate::BlobChannel).
#[must_use = "a transfer does nothing until it is awaited"]
pub struct Transfer<'a> {
    blob: &'a Blob,
    local: &'a Rc<Local>,
    direction: Direction,
    /// Was polled.
    begun: bool,
    offset: u64,
    state: State<'a>,
}

enum State<'a> {
    /// In one cluster. It has the buffers from the beginning, so that they need not be moved again, and its
    /// place from the first poll on.
    Direct(spindle_block::Transfer<'a>),
    /// In several, or one that is not known.
    Steps(Steps<'a>),
    /// Not to be had.
    Refused(Box<(BlobError, Buffers)>),
    /// The result was given out.
    Over,
}

impl<'a> Transfer<'a> {
    #[inline]
    pub(crate) fn new(
        blob: &'a Blob,
        local: &'a Rc<Local>,
        direction: Direction,
        offset: u64,
        buffers: Buffers,
    ) -> Transfer<'a> {
        let channel = local.channel();
        let request = match direction {
            Direction::Read => channel.read_unplaced(buffers),
            Direction::Write => channel.write_unplaced(buffers),
        };
        Transfer { blob, local, direction, begun: false, offset, state: State::Direct(request) }
    }

    /// The first look at the map: the request gets its place, or becomes something else.
    #[inline]
    fn begin(&mut self) {
        self.begun = true;
        let State::Direct(request) = &mut self.state else { return };
        match self.blob.place_of(self.direction, self.offset, request.bytes()) {
            Some(at) if request.place(at) => {}
            _ => self.begin_otherwise(),
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_otherwise(&mut self) {
        let State::Direct(request) = &mut self.state else { return };
        let (len, buffers) = (request.bytes(), request.take_buffers());
        self.state = match self.blob.check(self.direction, self.offset, len) {
            Ok(()) => State::Steps(self.blob.in_steps(self.local, self.direction, self.offset, buffers)),
            Err(error) => State::Refused(Box::new((error, buffers))),
        };
    }
}

impl Future for Transfer<'_> {
    type Output = Done;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        if !self.begun {
            self.begin();
        }
        match &mut self.state {
            State::Direct(request) => request.poll_as(cx),
            _ => self.poll_other(cx),
        }
    }
}

impl Transfer<'_> {
    #[cold]
    #[inline(never)]
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let polled = match std::mem::replace(&mut self.state, State::Over) {
            State::Steps(mut steps) => {
                let polled = steps.as_mut().poll(cx);
                self.state = State::Steps(steps);
                polled
            }
            State::Refused(refused) => {
                let (error, buffers) = *refused;
                Poll::Ready((Err(error), buffers))
            }
            State::Direct(_) | State::Over => panic!("a transfer was polled after it had given its result"),
        };
        if polled.is_ready() {
            self.state = State::Over;
        }
        polled
    }
}
