//! The top of the I/O stack without futures: requests go in, requests come out.
//!
//! For users with many requests in flight and their own bookkeeping: a target, a load generator. Belongs to
//! the thread that opened it. A finished request may be submitted again. Dropping the pair detaches its
//! requests in flight: they go on, and their buffers return to their pools when the device returns them.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use spindle_mem::Buffers;

use crate::devices::emulation::{Emulation, is_emulated};
use crate::path::lane_state::Shape;
use crate::path::queues::{DESCRIBED, Pair};
use crate::path::table::Table;
use crate::request::io::{Held, ReturnTo};
use crate::request::waiter::remember;
use crate::{Device, Geometry, Io, IoId, LaneId, LaneTable, OpenError, Operation, Status};

/// Submits requests to a device and collects them when they are done. `!Send`.
pub struct QueuePair {
    table: Rc<Table>,
    shape: Shape,
    lane: LaneId,
    key: u32,
    opener: u32,
    user: u32,
    writable: bool,
    /// The lane for operations that the device's own lane lacks, once one was needed.
    emulation: Option<u32>,
}

impl QueuePair {
    /// Opens a device on the Spindle thread that runs the caller.
    ///
    /// # Errors
    /// [`NotOnThread`](OpenError::NotOnThread) elsewhere, and any error of the device.
    pub fn open(device: &Arc<dyn Device>) -> Result<QueuePair, OpenError> {
        match LaneTable::current() {
            Some(table) => table.queue_pair(device),
            None => Err(OpenError::NotOnThread { device: device.name().to_owned() }),
        }
    }

    /// The device's shape, as this thread was last told; not writable after [`set_read_only`](Self::set_read_only).
    #[inline]
    pub fn geometry(&self) -> Geometry {
        let geometry = self.shape.get();
        geometry.with_writable(geometry.writable() && self.writable)
    }

    /// As [`Channel::set_opener`](crate::Channel::set_opener), for requests that are submitted from now on.
    pub fn set_opener(&mut self, opener: u32) {
        self.opener = opener;
    }

    /// As [`Channel::set_user`](crate::Channel::set_user).
    pub fn set_user(&mut self, user: u32) {
        self.user = user | DESCRIBED;
    }

    /// As [`Channel::set_read_only`](crate::Channel::set_read_only): requests that change data come back as refused.
    pub fn set_read_only(&mut self) {
        self.writable = false;
    }

    /// Makes a request of `count` blocks from block `start` on. Nothing happens before it is submitted.
    pub fn request(
        &mut self,
        operation: Operation,
        start: u64,
        count: u64,
        buffers: impl Into<Buffers>,
    ) -> Io {
        self.table.inner.borrow_mut().queues.make(ReturnTo::Lane, operation, start, count, buffers.into())
    }

    /// Submits a request made by this pair, or one that came back from it. It starts at the latest with the
    /// next [`reap`](Self::reap); a request outside the device comes back with an error. One that a lane holds ends as
    /// [`Lost`](crate::IoErrorKind::Lost), for its maker: make another one of its buffers.
    #[inline]
    pub fn submit(&mut self, mut io: Io) {
        if io.slot().held != Held::NOWHERE {
            return self.lose(io);
        }
        let status = io.check(&self.geometry());
        let slot = io.slot_mut();
        slot.return_to = ReturnTo::Queue(self.key);
        slot.status = status;
        if io.operation() > Operation::Write
            && status.is_ok()
            && let Some(lane) = self.emulation_of(io.operation())
        {
            return self.submit_emulated(lane, io);
        }
        let mut inner = self.table.inner.borrow_mut();
        inner.queues.pairs[self.key as usize].outstanding += 1;
        match status {
            Ok(()) => inner.queues.submit_from(self.key, self.lane.index, self.opener, self.user, io),
            Err(_) => inner.queues.finish(io),
        }
    }

    /// Returns the lane for an operation that the device's own lane lacks.
    #[cold]
    fn emulation_of(&mut self, operation: Operation) -> Option<u32> {
        let device = self.table.inner.borrow().queues.lanes[self.lane.index as usize].device.clone()?;
        if !is_emulated(&*device, operation) {
            return None;
        }
        if self.emulation.is_none() {
            self.emulation = self.table.open(&Emulation::over(device)).ok().map(|(lane, _)| lane);
        }
        self.emulation
    }

    #[cold]
    fn submit_emulated(&mut self, lane: u32, io: Io) {
        let mut inner = self.table.inner.borrow_mut();
        inner.queues.pairs[self.key as usize].outstanding += 1;
        inner.queues.submit(lane, self.opener, self.user, io);
    }

    /// Starts what was submitted, then hands each finished request to `each`, with how it ended.
    /// Returns how many there were.
    #[inline]
    pub fn reap(&mut self, mut each: impl FnMut(Io, Status)) -> usize {
        self.table.run();
        let mut count = 0;
        // Counted first: `each` may submit again, and this call must not collect those without end.
        let mut left = self.table.inner.borrow().queues.pairs[self.key as usize].finished.len();
        while left > 0 {
            let finished = self.table.inner.borrow_mut().queues.pairs[self.key as usize].finished.pop_front();
            let Some(io) = finished else { break };
            let status = io.slot().status;
            each(io, status);
            left -= 1;
            count += 1;
        }
        count
    }

    /// Like [`reap`](Self::reap), and submits each request again unless `each` keeps it. The fastest loop, as it
    /// borrows nothing per request. Does not emulate operations that the lane lacks.
    #[inline]
    pub fn cycle(&mut self, mut each: impl FnMut(Io, Status) -> Option<Io>) -> usize {
        self.table.run();
        let mut inner = self.table.inner.borrow_mut();
        let queues = &mut inner.queues;
        let count = queues.pairs[self.key as usize].finished.len();
        for _ in 0..count {
            let Some(io) = queues.pairs[self.key as usize].finished.pop_front() else { break };
            let status = io.slot().status;
            let Some(mut io) = each(io, status) else { continue };
            let checked = io.check(&self.geometry());
            io.slot_mut().return_to = ReturnTo::Queue(self.key);
            io.slot_mut().status = checked;
            queues.pairs[self.key as usize].outstanding += 1;
            match checked {
                Ok(()) => queues.submit_from(self.key, self.lane.index, self.opener, self.user, io),
                Err(_) => queues.finish(io),
            }
        }
        count
    }

    /// Ends a request that came back; returns its buffers. One that a lane holds is not this pair's: see
    /// [`submit`](Self::submit).
    pub fn recycle(&mut self, io: Io) -> Buffers {
        if io.slot().held != Held::NOWHERE {
            self.lose(io);
            return Buffers::None;
        }
        self.table.inner.borrow_mut().queues.recycle(io)
    }

    #[cold]
    fn lose(&self, io: Io) {
        self.table.inner.borrow_mut().queues.lose(io);
        self.table.run();
    }

    /// Asks that a request end early. It still comes back, aborted or not.
    pub fn abort(&mut self, id: IoId) {
        self.table.abort(self.lane.index, id);
    }

    /// Requests submitted and not yet reaped.
    pub fn outstanding(&self) -> usize {
        let inner = self.table.inner.borrow();
        let pair = &inner.queues.pairs[self.key as usize];
        pair.outstanding as usize + pair.finished.len()
    }

    /// Waits until there is something to reap; returns at once if nothing is under way.
    pub async fn wait(&mut self) {
        self.table.run();
        poll_fn(|cx| {
            let mut inner = self.table.inner.borrow_mut();
            let pair = &mut inner.queues.pairs[self.key as usize];
            if !pair.finished.is_empty() || pair.outstanding == 0 {
                return Poll::Ready(());
            }
            remember(&mut pair.waker, cx);
            Poll::Pending
        })
        .await;
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        self.table.close_pair(self.key, self.lane);
        self.emulation.into_iter().for_each(|lane| self.table.release(lane));
    }
}

impl LaneTable {
    /// Opens a device on this table for use without futures.
    ///
    /// # Errors
    /// Any error of the device.
    pub fn queue_pair(&self, device: &Arc<dyn Device>) -> Result<QueuePair, OpenError> {
        let (lane, shape) = self.0.open(device)?;
        let mut inner = self.0.inner.borrow_mut();
        let lane = inner.id_of(lane);
        let user = inner.queues.new_user();
        let pairs = &mut inner.queues.pairs;
        let free = pairs.iter().position(|pair| !pair.open && pair.outstanding == 0);
        let key = free.unwrap_or_else(|| {
            pairs.push(Pair::default());
            pairs.len() - 1
        });
        pairs[key].open = true;
        let (table, key) = (self.0.clone(), key as u32);
        Ok(QueuePair { table, shape, lane, key, opener: 0, user, writable: true, emulation: None })
    }
}
