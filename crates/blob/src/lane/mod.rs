//! A blob's lane: on one thread, turns requests for a blob into requests for its store's device. It is the
//! only data path: the library's own reads and writes pass through it like those of a volume.
//!
//! Requests for known clusters are forwarded at once, cut where the blob's map is not in one piece; reads of
//! zeroes end here, and reads of an external snapshot go to its device. Slow work (a new cluster, clusters to
//! free) goes to a task of this thread, which owns the request and gives it back. Looking the map up and
//! sending the request happen in one call, and every sent request is counted, so that a change of the map can
//! wait for requests that used the old one.
//!
//! While the blob is frozen a write is answered `Full` and waits, with the requests behind it, until the
//! thaw. Force unit access is a flush of the store behind the write, as the write may rest on a map that no
//! flush has covered yet. Not promised: an order between requests, and that a failed one has changed nothing.

mod errand;
mod external;
mod flush;
mod tasks;
mod way;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slab::Slab;
use spindle_block::{
    Busy, Cx, Device, Io, IoErrorKind, IoId, Lane, LaneCx, LaneEvent, LaneId, OpenError, Operation, Status,
    Submit,
};

use crate::blob::Opened;
use crate::blob_local::BlobLocal;
use crate::error::BlobError;
use crate::shared::BlobShared;
use errand::{Errands, Outcome};
use external::External;
use flush::LaneFlushes;
use way::Way;

/// A flag in the saved words of a request: it must be durable when it completes.
const DURABLE: u64 = 1;

/// A flag there: the request stands for another one, in another block size.
const EXTERNAL: u64 = 2;

/// The lane of a blob on one thread.
pub(crate) struct BlobLane {
    blob: Arc<BlobShared>,
    /// The opening of its device; `None` for the library's own requests.
    opened: Option<Arc<Opened>>,
    here: Rc<BlobLocal>,
    /// Its number in `here`.
    number: u64,
    /// The lane of the store's device.
    below: LaneId,
    block_shift: u32,
    /// Requests that tasks process.
    errands: Rc<Errands>,
    /// Requests that wait for a thaw and cannot be given back to the table.
    held: VecDeque<Io>,
    flushes: LaneFlushes,
    /// Set once the device has refused write-zeroes.
    zeroes_by_hand: bool,
    /// The external snapshots open below it.
    externals: Vec<External>,
    /// Reads for which others stand.
    parked: Slab<Io>,
    /// Set once the blob is gone and the lanes below are closed.
    removed: bool,
}

impl BlobLane {
    pub(crate) fn open(
        blob: Arc<BlobShared>,
        opened: Option<Arc<Opened>>,
        cx: &mut LaneCx<'_>,
    ) -> Result<Box<dyn Lane>, OpenError> {
        let not_here = || OpenError::NotOnThread { device: blob.name.clone() };
        let here = BlobLocal::of(&blob).ok_or_else(not_here)?;
        let below = cx.open(blob.store.device.device())?;
        let number = here.add_lane(cx.notifier());
        let lane = BlobLane {
            block_shift: blob.store.io_unit.trailing_zeros(),
            blob,
            opened,
            here,
            number,
            below,
            errands: Errands::new(cx.notifier()),
            held: VecDeque::new(),
            flushes: LaneFlushes::default(),
            zeroes_by_hand: false,
            externals: Vec::new(),
            parked: Slab::new(),
            removed: false,
        };
        Ok(Box::new(lane))
    }

    /// True if blobs support an operation.
    pub(crate) fn does(operation: Operation) -> bool {
        use Operation::{Flush, Read, SeekData, SeekHole, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush | SeekData | SeekHole)
    }

    /// First byte and length of a request's range, if they fit 64 bits.
    #[inline]
    fn range(&self, io: &Io) -> Option<(u64, u64)> {
        let (start, count) = (io.start(), io.count());
        let limit = u64::MAX >> self.block_shift;
        (start <= limit && count <= limit).then(|| (start << self.block_shift, count << self.block_shift))
    }

    /// The byte of the device for a read or write within one known cluster that is let in.
    #[inline]
    fn place_of(&self, io: &Io) -> Option<u64> {
        let (offset, len) = self.range(io)?;
        if io.fua() || self.is_closed() {
            return None;
        }
        match io.operation() {
            Operation::Read => self.blob.place_of_read(offset, len),
            Operation::Write => self.blob.place_of_write(offset, len),
            _ => None,
        }
    }

    #[inline]
    fn is_closed(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.is_closed())
    }

    /// Sends a request to a byte of the device. Must be called in the call that looked up the map.
    #[inline]
    fn forward(&mut self, mut io: Io, place: u64, cx: &mut Cx<'_>) {
        let start = io.start();
        let durable = if io.fua() { DURABLE } else { 0 };
        if durable != 0 {
            io.set_fua(false);
        }
        let epoch = self.here.epochs.begin();
        io.set_start(place >> self.block_shift);
        cx.forward(self.below, io, [start, epoch << 2 | durable]);
    }

    #[cold]
    #[inline(never)]
    fn submit_otherwise(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let checked = self.check(&io);
        match io.operation() {
            Operation::Flush if checked.is_ok() => self.flush(io, cx),
            Operation::SeekData | Operation::SeekHole if checked.is_ok() => self.seek(io, cx),
            _ if checked.is_err() || io.count() == 0 => cx.done(io, checked),
            operation if operation.changes_data() && self.keeps_out() => return Submit::Full(io),
            _ => self.take(io, cx),
        }
        Submit::Taken
    }

    /// An error if the request can never succeed.
    fn check(&self, io: &Io) -> Status {
        let blob = &self.blob;
        if self.removed || self.is_closed() || blob.store.is_unloaded() {
            return Err(IoErrorKind::Removed);
        }
        if !BlobLane::does(io.operation()) {
            return Err(IoErrorKind::Unsupported);
        }
        if io.operation().changes_data() && (blob.store.read_only || blob.read_only.load(Ordering::Acquire)) {
            return Err(IoErrorKind::ReadOnly);
        }
        if io.operation() == Operation::Flush {
            return Ok(());
        }
        let (offset, len) = self.range(io).ok_or(IoErrorKind::OutOfRange)?;
        if offset.checked_add(len).is_none_or(|end| end > blob.bytes()) {
            return Err(IoErrorKind::OutOfRange);
        }
        if io.operation().moves_data() && io.buffers().len() as u64 != len {
            return Err(IoErrorKind::Unaligned);
        }
        Ok(())
    }

    /// True if changes have to wait; then this lane is polled when they need not any more.
    fn keeps_out(&self) -> bool {
        self.blob.is_frozen() && self.blob.is_frozen_yet(self.here.waker())
    }

    /// Takes a request that is inside the blob and let in: cuts it where its ways differ.
    fn take(&mut self, io: Io, cx: &mut Cx<'_>) {
        let operation = io.operation();
        let (mut offset, mut left) = (io.start() << self.block_shift, io.count() << self.block_shift);
        let (mut way, mut len) = self.way(operation, offset, left);
        if len == left {
            return self.go(io, way, cx);
        }
        if self.is_long(operation, left) {
            return self.in_steps(io);
        }
        let mut split = cx.split(io);
        loop {
            let piece = cx.child(&mut split, len >> self.block_shift);
            self.go(piece, way, cx);
            (offset, left) = (offset + len, left - len);
            if left == 0 {
                return cx.join(split);
            }
            (way, len) = self.way(operation, offset, left);
        }
    }

    /// Sends a request whose whole range has the same way.
    fn go(&mut self, mut io: Io, way: Way, cx: &mut Cx<'_>) {
        match way {
            Way::Device { place } => self.forward(io, place, cx),
            Way::Zeroes => {
                io.buffers_mut().fill(0);
                cx.done(io, Ok(()));
            }
            Way::Nothing => self.finish(io, Ok(()), cx),
            Way::Missing { parent } => {
                let error = BlobError::MissingParent { blob: self.blob.id, parent };
                self.here.note_failure(&error);
                cx.done(io, Err(error.kind()));
            }
            Way::External { outside } => self.read_external(io, &outside, cx),
            Way::New { index } => self.allocate(io, index),
            Way::Free { first, count } => self.free(io, first, count),
            Way::ZeroesByHand => self.zero_by_hand(io),
        }
    }

    /// Ends a write, after a flush if it must be durable.
    fn finish(&mut self, io: Io, status: Status, cx: &mut Cx<'_>) {
        match status.is_ok() && io.fua() {
            true => self.flush(io, cx),
            false => cx.done(io, status),
        }
    }

    /// Looks a request up again that was let in before.
    fn again(&mut self, io: Io, cx: &mut Cx<'_>) {
        let changes = io.operation().changes_data();
        match self.check(&io) {
            Err(kind) => cx.done(io, Err(kind)),
            // Newer changes of the same blocks may have been made since.
            Ok(()) if changes && cx.is_abandoned(&io) => cx.done(io, Err(IoErrorKind::Aborted)),
            Ok(()) if changes && self.keeps_out() => self.held.push_back(io),
            Ok(()) => self.take(io, cx),
        }
    }

    /// Aborts some of the requests that wait to be let in.
    fn end_held(&mut self, ends: impl Fn(&Io, &Cx<'_>) -> bool, cx: &mut Cx<'_>) {
        for _ in 0..self.held.len() {
            let Some(io) = self.held.pop_front() else { break };
            match ends(&io, cx) {
                true => cx.done(io, Err(IoErrorKind::Aborted)),
                false => self.held.push_back(io),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn complete_otherwise(&mut self, mut io: Io, durable: bool, status: Status, cx: &mut Cx<'_>) {
        io.set_fua(durable);
        match (io.operation(), status) {
            (Operation::WriteZeroes, Err(IoErrorKind::Unsupported)) => {
                self.zeroes_by_hand = true;
                self.again(io, cx);
            }
            // The device may ignore an unmap.
            (Operation::Unmap, Err(IoErrorKind::Unsupported)) => self.finish(io, Ok(()), cx),
            _ => self.finish(io, status, cx),
        }
    }
}

impl Lane for BlobLane {
    #[inline]
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match self.place_of(&io) {
            Some(place) => {
                self.forward(io, place, cx);
                Submit::Taken
            }
            None => self.submit_otherwise(io, cx),
        }
    }

    #[inline]
    fn complete(&mut self, mut io: Io, [start, mark]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        if io.operation() == Operation::Flush {
            return self.flush_ended(io, status, cx);
        }
        self.here.epochs.end(mark >> 2);
        if mark & EXTERNAL != 0 {
            return self.external_read(io, start, status, cx);
        }
        io.set_start(start);
        match (status, mark & DURABLE) {
            (Ok(()), 0) => cx.done(io, status),
            (_, durable) => self.complete_otherwise(io, durable != 0, status, cx),
        }
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        while let Some((io, outcome)) = self.errands.take() {
            match outcome {
                Outcome::Done(status) => self.finish(io, status, cx),
                Outcome::Again => self.again(io, cx),
            }
        }
        // Only those there now: requests that are still kept out come back.
        for _ in 0..self.held.len() {
            let Some(io) = self.held.pop_front() else { break };
            self.again(io, cx);
        }
        self.settle(cx);
        self.close_externals(false, cx);
        Busy::Yes
    }

    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        if let LaneEvent::Removed = event
            && !std::mem::replace(&mut self.removed, true)
        {
            self.close_externals(true, cx);
            cx.close(self.below);
        }
    }

    fn opened(&mut self, device: &Arc<dyn Device>, lower: Result<LaneId, OpenError>, cx: &mut Cx<'_>) {
        self.external_opened(device, lower, cx);
        self.close_externals(self.removed, cx);
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        self.end_held(|io, _| io.id() == id, cx);
        self.errands.abort(id);
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        self.end_held(|io, cx| cx.is_abandoned(io), cx);
        self.errands.give_up(&self.blob.lanes, |io| cx.is_abandoned(io));
    }
}

impl Drop for BlobLane {
    fn drop(&mut self) {
        self.here.remove_lane(self.number);
        self.give_up_flush();
    }
}
