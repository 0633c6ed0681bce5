//! What a lane may do while it is called: pass requests on, complete them, make and split them.
//!
//! A [`Cx`] lives for one call. Everything it does is queued and happens after the call returned, so a
//! lane is never entered twice.

use std::marker::PhantomData;
use std::rc::Weak;
use std::sync::Arc;

use spindle_mem::Buffers;
use spindle_reactor::Time;

use crate::path::meter::NOT_ARRIVED;
use crate::path::queues::{Queues, is_abandoned};
use crate::request::io::{MAX_LAYERS, ReturnTo};
use crate::request::joins::Place;
use crate::request::waiter::Waiter;
use crate::{Device, Io, IoErrorKind, IoId, LaneId, Operation, Status};

/// A request being cut into pieces; end it with [`Cx::join`]. One that is dropped instead ends as
/// [`Lost`](IoErrorKind::Lost) when its pieces are back. It belongs to the call in which it was made:
/// ```compile_fail
/// fn keeps(io: spindle_block::Io, cx: &mut spindle_block::Cx<'_>) -> spindle_block::Split<'static> {
///     cx.split(io)
/// }
/// ```
#[must_use = "a split request fails without `Cx::join`"]
#[derive(Debug)]
pub struct Split<'call> {
    pub(crate) key: u32,
    /// The request, until [`Cx::join`].
    parent: Option<Io>,
    /// Pieces so far.
    pieces: u32,
    start: u64,
    left: u64,
    /// Bytes of buffers in the pieces so far, and those of a block.
    bytes: u64,
    block: u64,
    call: PhantomData<&'call ()>,
}

impl Split<'_> {
    /// First block that no piece has taken yet.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Blocks that no piece has taken yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The byte of the parent's buffers where the next piece begins.
    #[inline]
    fn offset(&self) -> u32 {
        u32::try_from(self.bytes).unwrap_or(u32::MAX)
    }

    /// Makes a request the next piece of its parent.
    #[inline]
    fn settle(&self, waiters: &mut [Waiter], piece: &mut Io, place: Place) {
        let Some(parent) = self.parent.as_ref().map(Io::slot) else { return };
        let slot = piece.slot_mut();
        slot.operation = parent.operation;
        slot.fua = parent.fua;
        slot.aux = parent.aux + (self.start - parent.start);
        slot.return_to = ReturnTo::Join { key: self.key, part: self.pieces };
        slot.place = place;
        Queues::derive(waiters, piece, parent);
    }
}

impl Drop for Split<'_> {
    fn drop(&mut self) {
        // Without a table no layer is left to complete it to.
        if let Some(parent) = self.parent.take()
            && let Some(home) = parent.slot().home.as_ref().and_then(Weak::upgrade)
        {
            home.take_unjoined(self.key, parent.into_slot());
        }
    }
}

/// What a lane may do during one call.
pub struct Cx<'a> {
    pub(crate) queues: &'a mut Queues,
    pub(crate) this: u32,
}

impl<'a> Cx<'a> {
    /// Passes a request to a lane below. It comes back through `complete`, with `saved`.
    #[inline]
    pub fn forward(&mut self, lower: LaneId, mut io: Io, saved: [u64; 2]) {
        let slot = io.slot_mut();
        let depth = usize::from(slot.depth);
        if depth == MAX_LAYERS {
            // Opening refuses deeper stacks, so only a lane that forwards in a circle comes here.
            return self.done(io, Err(IoErrorKind::Unsupported));
        }
        let frame = &mut slot.frames[depth];
        (frame.held, frame.saved) = (slot.held, saved);
        slot.depth += 1;
        self.queues.send_to(lower, io);
    }

    /// As [`forward`](Self::forward), for a lane that has nothing to do when the request comes back: its `complete` is
    /// not called.
    #[inline]
    pub fn relay(&mut self, lower: LaneId, mut io: Io) {
        let slot = io.slot_mut();
        let depth = usize::from(slot.depth);
        if depth < MAX_LAYERS {
            slot.relayed |= 1 << depth;
        }
        self.forward(lower, io, [0, 0]);
    }

    /// Completes a request: the layer above, or its maker, receives the status. It moves away, so that no lane can
    /// complete a request twice:
    /// ```compile_fail,E0382
    /// fn answers_twice(io: spindle_block::Io, cx: &mut spindle_block::Cx<'_>) {
    ///     cx.done(io, Ok(()));
    ///     cx.done(io, Ok(()));
    /// }
    /// ```
    #[inline]
    pub fn done(&mut self, mut io: Io, status: Status) {
        io.slot_mut().status = status;
        self.queues.send_up(io);
    }

    /// Makes a request of this lane that serves no other request (background work). The lane must forward it;
    /// it comes back through `complete`, where [`finish`](Self::finish) ends it. The range is not checked.
    pub fn create(&mut self, operation: Operation, start: u64, count: u64, buffers: Buffers) -> Io {
        let io = self.queues.make(ReturnTo::Lane, operation, start, count, buffers);
        self.adopt(io)
    }

    /// As [`create`](Self::create), for a request that this lane holds: aborting that one aborts this one.
    pub fn create_for(
        &mut self,
        io: &Io,
        operation: Operation,
        start: u64,
        count: u64,
        buffers: Buffers,
    ) -> Io {
        let mut made = self.queues.make(ReturnTo::Lane, operation, start, count, buffers);
        Queues::derive(&mut self.queues.waiters, &mut made, io.slot());
        self.adopt(made)
    }

    /// Ends a request that this lane [created](Self::create), and gives its buffers back. One that came to the lane is
    /// for [`done`](Self::done): here it ends as [`Lost`](IoErrorKind::Lost), with its buffers.
    pub fn finish(&mut self, io: Io) -> Buffers {
        let slot = io.slot();
        if slot.return_to != ReturnTo::Lane || slot.depth != 0 {
            self.queues.lose(io);
            return Buffers::None;
        }
        self.queues.leave(&io);
        self.queues.recycle(io)
    }

    /// Starts to cut a request into pieces. It completes, without another call to this lane, when
    /// [`join`](Self::join) was called and all pieces are done; the first error wins.
    #[inline]
    pub fn split(&mut self, mut io: Io) -> Split<'a> {
        let (start, left) = (io.start(), io.count());
        // The buffers hold exactly the blocks, so the size of a block follows.
        let block = (io.buffers().len() as u64).checked_div(left).unwrap_or(0);
        let key = self.queues.joins.open(&mut io);
        Split { key, parent: Some(io), pieces: 0, start, left, bytes: 0, block, call: PhantomData }
    }

    /// Cuts off the next `count` blocks, or the rest if less is left, with their part of the buffers. The
    /// piece is a request like its parent, held by this lane, to be forwarded or completed. A compare and
    /// write cannot be cut.
    #[inline]
    pub fn child(&mut self, split: &mut Split<'_>, count: u64) -> Io {
        let io = self.cut(split, count);
        self.adopt(io)
    }

    /// Cuts off as [`child`](Self::child) does, and passes the piece to a lane below. The piece does not come
    /// back through `complete`: this lane answers for the parent, and saves nothing for the piece.
    #[inline]
    pub fn forward_piece(&mut self, split: &mut Split<'_>, lower: LaneId, count: u64) {
        let io = self.cut(split, count);
        self.queues.send_to(lower, io);
    }

    #[inline]
    pub(crate) fn cut(&mut self, split: &mut Split<'_>, count: u64) -> Io {
        let count = count.min(split.left);
        let mut io = self.queues.make_blank(split.start, count);
        let bytes = count * split.block;
        let Queues { joins, waiters, .. } = &mut *self.queues;
        let slot = io.slot_mut();
        let cut = joins.cut(split.key, bytes as usize, &mut slot.buffers);
        let place = Place { offset: split.offset(), cut, shares: false, passes: false, runs: 0 };
        split.settle(waiters, &mut io, place);
        split.pieces += 1;
        split.start += count;
        split.left -= count;
        split.bytes += bytes;
        io
    }

    /// Makes a request for all blocks that no piece has taken yet. It shares the parent's data, read-only and
    /// without a copy: for a write that goes to several devices unchanged. As with [`child`](Self::child),
    /// the parent waits for it. A lane that writes into its buffers changes a copy, which is discarded.
    pub fn mirror(&mut self, split: &Split<'_>) -> Io {
        let mut io = self.queues.make_blank(split.start, split.left);
        let Queues { joins, waiters, .. } = &mut *self.queues;
        let slot = io.slot_mut();
        joins.share(split.key, &mut slot.buffers);
        let place = Place { offset: split.offset(), cut: false, shares: true, passes: false, runs: 0 };
        split.settle(waiters, &mut io, place);
        self.adopt(io)
    }

    /// Ends the cutting. A parent without pieces completes with success.
    #[inline]
    pub fn join(&mut self, mut split: Split<'_>) {
        let (key, parent) = (split.key, split.parent.take());
        // Nothing is left to drop.
        std::mem::forget(split);
        if let Some(parent) = parent.and_then(|parent| self.queues.joins.close(key, parent)) {
            self.queues.send_up(parent);
        }
    }

    /// True if no future and no queue pair waits for a request that this lane holds, or for the request that
    /// it serves.
    pub fn is_abandoned(&self, io: &Io) -> bool {
        is_abandoned(io.slot(), &self.queues.waiters, &self.queues.pairs)
    }

    /// True if the device of a lane that passed on a request that this lane holds, or the request that it is a piece of,
    /// was removed.
    pub fn is_orphaned(&self, io: &Io) -> bool {
        self.queues.is_orphaned(io.slot())
    }

    /// Polls this lane in a later turn of its thread.
    pub fn poll_soon(&mut self) {
        if let Some(state) = self.queues.lanes.get_mut(self.this as usize)
            && !state.soon
        {
            state.soon = true;
            self.queues.soon.push_back(self.this);
        }
    }

    /// The time: read once for each pass of the lane table, and again after 32 requests.
    pub fn now(&mut self) -> Time {
        self.queues.clock.now()
    }

    /// Polls this lane at that time. Of several times the earliest counts, once.
    pub fn poll_at(&mut self, time: Time) {
        let this = self.this();
        self.queues.alarms.set(this, time);
        self.queues.wait_until(Some(time));
    }

    /// Lets a request pass a held range and, if it is a reset, a frozen gate.
    pub(crate) fn let_pass(&mut self, id: IoId) {
        self.queues.passes.push(id);
    }

    /// Forgets a request that has ended.
    pub(crate) fn let_pass_no_more(&mut self, id: IoId) {
        self.queues.passes.retain(|known| *known != id);
    }

    /// Opens one more device below this lane after the call has returned; the result arrives in
    /// [`Lane::opened`](crate::Lane::opened).
    pub fn open(&mut self, device: Arc<dyn Device>) {
        let this = self.this();
        self.queues.opening.push_back((this, device));
    }

    /// Closes a device that this lane had opened. Requests under way there come back as usual; the lane must
    /// forward no more.
    pub fn close(&mut self, lower: LaneId) {
        let this = self.this();
        self.queues.closing.push_back((this, lower));
    }

    /// The lane that is called.
    pub fn this(&self) -> LaneId {
        let generation = self.queues.lanes.get(self.this as usize).map_or(0, |state| state.generation);
        LaneId::new(self.this, generation)
    }

    /// Asks a lane below to end a request early that this lane made. The table itself finds the pieces of
    /// other requests.
    pub fn abort(&mut self, lower: LaneId, id: IoId) {
        self.queues.aborts.push((lower.index, id));
    }

    /// Makes this lane answer for a request as if the request had been submitted to it; it did not come from
    /// outside.
    #[inline]
    fn adopt(&mut self, mut io: Io) -> Io {
        let slot = io.slot_mut();
        slot.held = self.queues.enter(self.this);
        slot.frames[0].arrived = NOT_ARRIVED;
        io
    }
}
