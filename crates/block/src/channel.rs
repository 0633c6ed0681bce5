//! A thread's handle on a device: async calls in bytes.
//!
//! A [`Channel`] belongs to the thread that opened it and cannot leave it. All channels of one device on
//! one thread share one lane; the lane closes when the last is dropped and its requests have ended. This
//! is the top of the I/O stack: bounds and alignment are checked here, once, and only here does a request
//! have a future. Dropping that future detaches the request: it goes on, its buffers stay owned by it
//! until the device returns them, and then go back to their pool. Requests in flight at one time may
//! complete, and reach the disk, in any order.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use spindle_mem::Buffers;
use spindle_reactor::Hold;

use crate::io::Top;
use crate::queues::Waiter;
use crate::table::{Table, remember};
use crate::{Device, Geometry, Io, IoError, IoErrorKind, IoId, LaneTable, OpenError, Operation};

/// The current thread's counted handle on a device.
///
/// It stays on its thread:
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_block::Channel>();
/// ```
/// A buffer belongs to the device until the request has ended:
/// ```compile_fail,E0382
/// # async fn example(channel: spindle_block::Channel, mut buffer: spindle_mem::IoBuf) {
/// let read = channel.read(0, buffer);
/// buffer[0] = 1; // moved into the request
/// # }
/// ```
/// and comes back with the result:
/// ```
/// # async fn example(channel: spindle_block::Channel, buffer: spindle_mem::IoBuf) {
/// let (result, buffers) = channel.read(0, buffer).await;
/// # let _ = (result, buffers);
/// # }
/// ```
pub struct Channel {
    table: Rc<Table>,
    device: Arc<dyn Device>,
    geometry: Geometry,
    lane: u32,
    /// Keeps the thread from exiting, and names the device in its dump.
    hold: Option<Hold>,
}

impl Channel {
    /// Opens a device on the Spindle thread that runs the caller. The thread does not exit while it has
    /// the channel.
    ///
    /// # Errors
    /// [`NotOnThread`](OpenError::NotOnThread) elsewhere, and whatever the device says.
    pub fn open(device: Arc<dyn Device>) -> Result<Channel, OpenError> {
        let mut channel = Channel::open_unheld(device)?;
        channel.hold = Some(Hold::channel(channel.device.name()));
        Ok(channel)
    }

    /// As [`open`](Self::open), for a layer that keeps the channel in a thread's
    /// [extension](spindle_reactor::extension): the thread may exit, which drops the channel.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_unheld(device: Arc<dyn Device>) -> Result<Channel, OpenError> {
        match LaneTable::current() {
            Some(table) => table.channel(device),
            None => Err(OpenError::NotOnThread { device: device.name().to_owned() }),
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The device's shape, as it was when the channel was opened.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Fills `buffers` from byte `offset` on; comes back with them. Nothing happens before the first
    /// poll. `Buffers` of several parts are filled in order.
    pub fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        self.transfer(Operation::Read, offset, buffers.into())
    }

    /// Stores `buffers` from byte `offset` on; comes back with them. Durable after a later
    /// [`flush`](Self::flush), or at once with [`Transfer::fua`]. Nothing happens before the first poll.
    pub fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        self.transfer(Operation::Write, offset, buffers.into())
    }

    /// Makes `len` bytes from byte `offset` on read as zeroes.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Command<'_> {
        self.command(Operation::WriteZeroes, offset, len)
    }

    /// Tells the device that `len` bytes from byte `offset` on hold nothing of use. What they read
    /// afterwards: [`Geometry::unmap_reads_zero`].
    pub fn unmap(&self, offset: u64, len: u64) -> Command<'_> {
        self.command(Operation::Unmap, offset, len)
    }

    /// Makes every write durable that had completed when this was first polled. A failed flush says that
    /// any write since the last good one may be lost.
    pub fn flush(&self) -> Command<'_> {
        self.command(Operation::Flush, 0, 0)
    }

    /// Waits until every request has ended that this thread had made of the device, by any of its channels,
    /// when this was first polled: also those whose future was dropped. Requests made later are not waited
    /// for, and not held up.
    pub async fn quiesce(&self) {
        let ending = self.table.inner.borrow_mut().queues.lanes[self.lane as usize].epochs.turn();
        poll_fn(|cx| {
            self.table.inner.borrow_mut().queues.lanes[self.lane as usize].epochs.poll_over(ending, cx)
        })
        .await;
    }

    /// Drops the handle and, if it was the last on this thread, waits until the lane's requests, detached
    /// ones included, have ended. Dropping this future closes without waiting.
    pub async fn close(self) {
        let (table, device, lane) = (self.table.clone(), self.device.clone(), self.lane);
        drop(self);
        poll_fn(|cx| table.poll_closed(lane, &device, cx)).await;
    }

    #[inline]
    fn transfer(&self, operation: Operation, offset: u64, buffers: Buffers) -> Transfer<'_> {
        let len = buffers.len() as u64;
        Transfer { request: self.request(operation, offset, len, buffers) }
    }

    fn command(&self, operation: Operation, offset: u64, len: u64) -> Command<'_> {
        Command { request: self.request(operation, offset, len, Buffers::None) }
    }

    /// The buffers go into a pooled request at once and are not moved again until they come back.
    #[inline]
    fn request(&self, operation: Operation, offset: u64, len: u64, buffers: Buffers) -> Request<'_> {
        let (refused, start, count) = match self.check(operation, offset, len) {
            Ok((start, count)) => (None, start, count),
            Err(kind) => (Some(kind), 0, 0),
        };
        // Borrowed already only if a lane makes requests by a channel of its own thread from inside the
        // table, which no lane has a reason to do.
        let io = self.table.inner.borrow_mut().queues.make(Top::Lane, operation, start, count, buffers);
        Request { channel: self, offset, len, refused, state: State::New(io) }
    }

    /// The range in blocks, if the request may be made at all.
    #[inline]
    fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(u64, u64), IoErrorKind> {
        let geometry = &self.geometry;
        if operation.changes_data() && !geometry.writable() {
            return Err(IoErrorKind::ReadOnly);
        }
        if (offset | len) & (u64::from(geometry.block_size()) - 1) != 0 {
            return Err(IoErrorKind::Unaligned);
        }
        let (start, count) = (offset >> geometry.block_shift(), len >> geometry.block_shift());
        if geometry.contains(start, count) { Ok((start, count)) } else { Err(IoErrorKind::OutOfRange) }
    }
}

impl Clone for Channel {
    fn clone(&self) -> Channel {
        // Never refused: the lane is open, and stays open while `self` holds it.
        self.table.retain(self.lane);
        Channel {
            table: self.table.clone(),
            device: self.device.clone(),
            geometry: self.geometry,
            lane: self.lane,
            hold: self.hold.clone(),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.table.release(self.lane);
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.device.name())
    }
}

impl LaneTable {
    /// Opens a device on this table. The channel holds no thread.
    ///
    /// # Errors
    /// Whatever the device says.
    pub fn channel(&self, device: Arc<dyn Device>) -> Result<Channel, OpenError> {
        let lane = self.0.open(&device)?;
        Ok(Channel { table: self.0.clone(), geometry: *device.geometry(), device, lane, hold: None })
    }
}

/// Where the request of a future is.
enum State {
    /// Not submitted.
    New(Io),
    /// Under way.
    Waiting(IoId),
    /// The result was given out.
    Over,
}

/// What [`Transfer`] and [`Command`] have in common.
struct Request<'a> {
    channel: &'a Channel,
    /// As asked, for the error.
    offset: u64,
    len: u64,
    /// Found wrong before it was submitted.
    refused: Option<IoErrorKind>,
    state: State,
}

impl Request<'_> {
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Result<(), IoError>, Buffers)> {
        let table = &self.channel.table;
        let mut inner = table.inner.borrow_mut();
        let (ended, more) = match std::mem::replace(&mut self.state, State::Over) {
            State::New(mut io) if self.refused.is_none() => {
                let id = io.id();
                io.slot_mut().top = Top::Future;
                inner.queues.waiters[id.index as usize] = Waiter::Waiting(None);
                // Said first: a lane that panics must not leave a request that nobody detaches.
                self.state = State::Waiting(id);
                inner.queues.enter(self.channel.lane, io);
                let more = table.turn(&mut inner);
                (settle(&mut inner.queues.waiters[id.index as usize], cx).ok_or(id), more)
            }
            State::New(io) => (Ok(io), false),
            State::Waiting(id) => (settle(&mut inner.queues.waiters[id.index as usize], cx).ok_or(id), false),
            State::Over => panic!("a request's future was polled after it had given its result"),
        };
        let polled = match ended {
            Ok(io) => {
                self.state = State::Over;
                let status = self.refused.map_or(io.slot().status, Err);
                let operation = io.operation();
                let result = status.map_err(|kind| self.error(operation, kind));
                Poll::Ready((result, inner.queues.recycle(io)))
            }
            Err(id) => {
                self.state = State::Waiting(id);
                Poll::Pending
            }
        };
        drop(inner);
        table.after(more);
        polled
    }

    #[cold]
    fn error(&self, operation: Operation, kind: IoErrorKind) -> IoError {
        let device = Arc::from(self.channel.device.name());
        IoError { device, operation, offset: self.offset, len: self.len, kind }
    }
}

/// The request, if it is back; else leaves the waker.
#[inline]
fn settle(place: &mut Waiter, cx: &Context<'_>) -> Option<Io> {
    if let Waiter::Waiting(waker) = place {
        remember(waker, cx);
        return None;
    }
    match std::mem::take(place) {
        Waiter::Done(io) => Some(io),
        // The place is this future's until it has taken the request out.
        _ => unreachable!("a request's place is empty although its future still waits"),
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let State::Waiting(id) = self.state {
            self.channel.table.detach(id);
        }
    }
}

/// A read or write: resolves to the result and the buffers. See [`Channel`] for what dropping it does.
#[must_use = "a transfer does nothing until it is awaited"]
pub struct Transfer<'a> {
    request: Request<'a>,
}

impl Transfer<'_> {
    /// Asks that a write be durable when it completes (force unit access).
    pub fn fua(mut self) -> Self {
        if let State::New(io) = &mut self.request.state {
            io.set_fua(true);
        }
        self
    }
}

impl Future for Transfer<'_> {
    type Output = (Result<(), IoError>, Buffers);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.request.poll(cx)
    }
}

/// A request without data: resolves to the result. See [`Channel`] for what dropping it does.
#[must_use = "a command does nothing until it is awaited"]
pub struct Command<'a> {
    request: Request<'a>,
}

impl Future for Command<'_> {
    type Output = Result<(), IoError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.request.poll(cx).map(|(result, _none)| result)
    }
}
