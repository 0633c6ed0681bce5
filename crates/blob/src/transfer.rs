//! The future of a read or write of a blob.
//!
//! Most ranges lie in one cluster that is known: such a request is the device's own, looked up and submitted in
//! one poll, and nothing is allocated for it. Everything else is done in steps, by a boxed future. Belongs to
//! the thread that polls it first.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use spindle_block::Channel;
use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;

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

/// A read or write: resolves to the result and the buffers. See [`Blob::read`] and [`Blob::write`].
#[must_use = "a transfer does nothing until it is awaited"]
pub struct Transfer<'a> {
    blob: &'a Blob,
    direction: Direction,
    /// Was polled.
    begun: bool,
    state: State<'a>,
}

enum State<'a> {
    /// In one cluster. Until the first poll it has the blob's offset, and the buffers, so that they need not be
    /// moved again.
    Direct(spindle_block::Transfer<Rc<Channel>>),
    /// In several, or one that is not known.
    Steps(Steps<'a>),
    /// Not to be had.
    Refused(Box<(BlobError, Buffers)>),
    /// The result was given out.
    Over,
}

impl<'a> Transfer<'a> {
    #[inline]
    pub(crate) fn new(blob: &'a Blob, direction: Direction, offset: u64, buffers: Buffers) -> Transfer<'a> {
        let state = match (blob.opened.shared.store.local(), direction) {
            (Ok(local), Direction::Read) => State::Direct(local.channel().read_owned(offset, buffers)),
            (Ok(local), Direction::Write) => State::Direct(local.channel().write_owned(offset, buffers)),
            (Err(error), _) => State::Refused(Box::new((error, buffers))),
        };
        Transfer { blob, direction, begun: false, state }
    }

    /// The first look at the map: the request gets its place, or becomes steps.
    #[inline]
    fn begin(&mut self) {
        self.begun = true;
        let State::Direct(request) = &mut self.state else { return };
        let (offset, len) = request.range();
        match self.blob.place_of(self.direction, offset, len) {
            Ok(Some(at)) if request.set_offset(at) => {}
            Ok(_) => {
                self.state = State::Steps(self.blob.in_steps(self.direction, offset, request.take_buffers()))
            }
            Err(error) => self.state = State::Refused(Box::new((error, request.take_buffers()))),
        }
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
