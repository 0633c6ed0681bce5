//! A request on its way through the layers of one thread.
//!
//! An [`Io`] is one pooled box, moved by value: its holder owns it. Layers that it passed leave frames inside
//! it, so nothing is allocated on the way and no layer is called while it runs. It belongs to the lane table
//! of one thread and never leaves that thread. Dropping it is safe and counts as
//! [`Aborted`](crate::IoErrorKind::Aborted): the layers above receive that status. Not promised: an order
//! between requests, except that a lane which was full gets its waiting requests in order.

use std::cell::Cell;
use std::fmt;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use spindle_mem::Buffers;
use spindle_reactor::Time;

use crate::request::joins::Place;
use crate::{Geometry, IoErrorKind, Operation, Status};

/// Modules that may lie above the lowest device; a deeper stack is refused.
pub const MAX_DEPTH: usize = 8;

/// Layers above the lowest device: modules, and two of the layer's own (what lanes lack, and read-only openings).
pub(crate) const MAX_LAYERS: usize = MAX_DEPTH + 2;

/// Identifies one request of one thread; not reused on that thread before the same slot has carried 2^32 more
/// requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A lane's answer to a request.
#[must_use = "a request given back as Full must be queued"]
#[derive(Debug)]
pub enum Submit {
    /// The lane holds it, or has already forwarded or completed it.
    Taken,
    /// The lane cannot take it now. The table keeps it, with those that follow, in order, and offers it
    /// again when the lane completes a request or is polled. A lane that answers this while it holds
    /// no request must notify itself later (see [`Notifier`](crate::Notifier)).
    Full(Io),
}

/// The lane that answers for a request, and the epoch of that lane in which the request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) lane: u32,
    pub(crate) epoch: u32,
}

impl Held {
    /// No lane: the request was never submitted.
    pub(crate) const NOWHERE: Held = Held { lane: u32::MAX, epoch: 0 };
}

/// A lane on a request's way down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frame {
    /// The lane, once it waits for the request.
    pub(crate) held: Held,
    /// Two words that it saved.
    pub(crate) saved: [u64; 2],
    /// When the request came to it, if it times requests.
    pub(crate) arrived: Time,
}

/// Where a request goes when no layer waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReturnTo {
    /// To `complete` of the lane that made it, once.
    Lane,
    /// To the future that waits under the slot's index.
    Future,
    /// To a queue pair.
    Queue(u32),
    /// To the request it was split from, as its `part`-th piece.
    Join { key: u32, part: u32 },
}

/// The lane table of a request's thread, as requests and notifiers see it.
pub(crate) trait Home {
    /// Takes a request that was dropped by its holder.
    fn take_dropped(&self, slot: Box<Slot>);

    /// Takes a request that was being cut into pieces when its [`Split`](crate::Split) was dropped.
    fn take_unjoined(&self, key: u32, slot: Box<Slot>);

    /// True if a request should end early; otherwise its holder is woken when it should.
    fn poll_aborted(&self, slot: &Slot, cx: &Context<'_>) -> bool;

    /// Polls a lane, now or at the end of the table's loop. `waiting` is set until then.
    fn notify(&self, lane: u32, waiting: &Rc<Cell<bool>>);
}

/// The pooled body of a request.
///
/// What every request uses lies in the first two cache lines, the frames of a low stack in the next two: with many
/// requests in flight each line more is a miss.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Slot {
    pub(crate) operation: Operation,
    pub(crate) fua: bool,
    pub(crate) depth: u8,
    /// In the pool, or on its way there: dropping it needs no completion.
    pub(crate) resting: bool,
    /// The depth at which limits have let it pass.
    pub(crate) paid: u8,
    /// The depths, a bit each, whose lanes have [relayed](crate::Cx::relay) it.
    pub(crate) relayed: u16,
    pub(crate) id: IoId,
    /// The lane that answers for it now.
    pub(crate) held: Held,
    pub(crate) return_to: ReturnTo,
    /// Those of one user share its part of a limit; see [`Channel::set_user`](crate::Channel::set_user).
    pub(crate) user: u32,
    /// The opener; see [`Channel::set_opener`](crate::Channel::set_opener).
    pub(crate) opener: u32,
    pub(crate) status: Status,
    pub(crate) start: u64,
    pub(crate) count: u64,
    pub(crate) buffers: Buffers,
    pub(crate) tag: u64,
    /// By depth. The last is that of the lowest lane, which waits for nothing.
    pub(crate) frames: [Frame; MAX_LAYERS + 1],
    pub(crate) aux: u64,
    /// When it was submitted, if it has an opener.
    pub(crate) submitted: Time,
    /// Of a piece, in its parent.
    pub(crate) place: Place,
    pub(crate) home: Option<Weak<dyn Home>>,
}

impl Slot {
    /// Moves everything out.
    fn move_out(&mut self) -> Slot {
        Slot {
            operation: self.operation,
            fua: self.fua,
            depth: self.depth,
            resting: self.resting,
            relayed: self.relayed,
            status: self.status,
            held: self.held,
            return_to: self.return_to,
            place: self.place,
            start: self.start,
            count: self.count,
            tag: self.tag,
            aux: self.aux,
            opener: self.opener,
            user: self.user,
            submitted: self.submitted,
            paid: self.paid,
            id: self.id,
            buffers: std::mem::take(&mut self.buffers),
            home: std::mem::take(&mut self.home),
            frames: self.frames,
        }
    }
}

/// A request: operation, range in blocks, buffers, and the layers that wait for it.
///
/// It belongs to its thread's lane table and stays there. Dropping it completes it as aborted.
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_block::Io>();
/// ```
pub struct Io(Box<Slot>);

impl Io {
    #[inline]
    pub(crate) fn from_slot(slot: Box<Slot>) -> Io {
        Io(slot)
    }

    #[inline]
    pub(crate) fn into_slot(self) -> Box<Slot> {
        self.0
    }

    #[inline]
    pub(crate) fn slot(&self) -> &Slot {
        &self.0
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self) -> &mut Slot {
        &mut self.0
    }

    /// The request's identity on this thread.
    #[inline]
    pub fn id(&self) -> IoId {
        self.slot().id
    }

    /// The operation.
    #[inline]
    pub fn operation(&self) -> Operation {
        self.slot().operation
    }

    /// First block of the range, as the lane that holds the request numbers them.
    #[inline]
    pub fn start(&self) -> u64 {
        self.slot().start
    }

    /// Blocks in the range; 0 for a flush.
    #[inline]
    pub fn count(&self) -> u64 {
        self.slot().count
    }

    /// Moves the range, before forwarding to a device that numbers its blocks differently.
    #[inline]
    pub fn set_start(&mut self, start: u64) {
        self.slot_mut().start = start;
    }

    /// Turns the request into another operation: a discard into zeroes, a write into a read of the same
    /// blocks. The caller remembers what it was.
    #[inline]
    pub fn set_operation(&mut self, operation: Operation) {
        self.slot_mut().operation = operation;
    }

    /// A second block number: the source of a copy, or the result of a seek.
    #[inline]
    pub fn aux(&self) -> u64 {
        self.slot().aux
    }

    /// Sets the second block number.
    #[inline]
    pub fn set_aux(&mut self, block: u64) {
        self.slot_mut().aux = block;
    }

    /// The opener: the number given to the [channel](crate::Channel::set_opener) or
    /// [pair](crate::QueuePair::set_opener), 0 if none. Pieces, and requests that a lane makes for another,
    /// have that of the request they serve.
    #[inline]
    pub fn opener(&self) -> u32 {
        self.slot().opener
    }

    /// When it was submitted, if it has an opener. The clock is read once per pass of the lane table, and
    /// after 32 requests.
    #[inline]
    pub fn submitted(&self) -> Option<Time> {
        (self.slot().opener != 0).then(|| self.slot().submitted)
    }

    /// True if a change of data must be durable when it completes (force unit access).
    #[inline]
    pub fn fua(&self) -> bool {
        self.slot().fua
    }

    /// Asks that a write, zeroes or an unmap be durable when it completes.
    #[inline]
    pub fn set_fua(&mut self, fua: bool) {
        self.slot_mut().fua = fua;
    }

    /// The maker's own mark: set when the request is made; no layer reads it.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.slot().tag
    }

    /// Sets the maker's own mark. Only the maker of the request should.
    #[inline]
    pub fn set_tag(&mut self, tag: u64) {
        self.slot_mut().tag = tag;
    }

    /// The data: filled by a read, stored by a write.
    #[inline]
    pub fn buffers(&self) -> &Buffers {
        &self.slot().buffers
    }

    /// The data, mutable: for a read.
    #[inline]
    pub fn buffers_mut(&mut self) -> &mut Buffers {
        &mut self.slot_mut().buffers
    }

    /// Takes the data out, for an engine operation that owns it until it ends; return it with
    /// [`put_buffers`](Self::put_buffers).
    #[inline]
    pub fn take_buffers(&mut self) -> Buffers {
        std::mem::take(&mut self.slot_mut().buffers)
    }

    /// Puts data in; drops the previous data.
    #[inline]
    pub fn put_buffers(&mut self, buffers: Buffers) {
        self.slot_mut().buffers = buffers;
    }

    /// Ready when the request should end early: for a task that holds it, polled beside its other work. It
    /// asks the table, so a lane must not use it while it is called.
    pub fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let slot = self.slot();
        let asked =
            slot.home.as_ref().and_then(Weak::upgrade).is_some_and(|home| home.poll_aborted(slot, cx));
        if asked { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Checks the request against the device it is for: range, writability, length of the buffers.
    ///
    /// The top of the stack does this once; the lowest devices repeat it, because their callers may be
    /// modules outside this project.
    ///
    /// # Errors
    /// [`OutOfRange`](IoErrorKind::OutOfRange), [`ReadOnly`](IoErrorKind::ReadOnly) or
    /// [`Unaligned`](IoErrorKind::Unaligned).
    #[inline]
    pub fn check(&self, geometry: &Geometry) -> Status {
        let slot = self.slot();
        if slot.operation.changes_data() && !geometry.writable() {
            return Err(IoErrorKind::ReadOnly);
        }
        if !geometry.contains(slot.start, slot.count) {
            return Err(IoErrorKind::OutOfRange);
        }
        if slot.operation == Operation::Copy && !geometry.contains(slot.aux, slot.count) {
            return Err(IoErrorKind::OutOfRange);
        }
        let bytes = slot.count << geometry.block_shift();
        if slot.operation.moves_data() && slot.buffers.len() as u64 != bytes * slot.operation.share() {
            return Err(IoErrorKind::Unaligned);
        }
        Ok(())
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = self.slot();
        f.debug_struct("Io")
            .field("id", &slot.id)
            .field("operation", &slot.operation)
            .field("start", &slot.start)
            .field("count", &slot.count)
            .finish_non_exhaustive()
    }
}

impl Drop for Slot {
    /// The request was dropped by its holder: its contents go to the table in another box. This costs an
    /// allocation, in exchange for no test in any other request.
    fn drop(&mut self) {
        if self.resting {
            return;
        }
        // Without a table no layer is left to complete it to.
        if let Some(home) = self.home.as_ref().and_then(Weak::upgrade) {
            home.take_dropped(Box::new(self.move_out()));
        }
    }
}
