//! What a lane does with a request that the known-cluster path of [`super::lane`] does not take.

use std::sync::atomic::Ordering;

use spindle_block::{Cx, Io, IoErrorKind, Operation, Status, Submit};

use super::lane::BlobLane;
use super::way::Way;
use crate::error::BlobError;

impl BlobLane {
    #[cold]
    #[inline(never)]
    pub(super) fn submit_otherwise(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
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
        self.here.is_frozen()
    }

    /// Takes a request that is inside the blob and let in: cuts it where its ways differ.
    pub(super) fn take(&mut self, io: Io, cx: &mut Cx<'_>) {
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
    pub(super) fn go(&mut self, mut io: Io, way: Way, cx: &mut Cx<'_>) {
        match way {
            Way::Device { place } => self.forward(io, place >> self.block_shift, cx),
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
            Way::External { snapshot } => self.read_external(io, &snapshot, cx),
            Way::New { index } => self.allocate(io, index),
            Way::Free { first, count } => self.free(io, first, count),
            Way::ZeroesByHand => self.zero_by_hand(io),
        }
    }

    /// Ends a write, after a flush if it must be durable.
    pub(super) fn finish(&mut self, io: Io, status: Status, cx: &mut Cx<'_>) {
        match status.is_ok() && io.fua() {
            true => self.flush(io, cx),
            false => cx.done(io, status),
        }
    }

    /// Looks a request up again that was let in before.
    pub(super) fn again(&mut self, io: Io, cx: &mut Cx<'_>) {
        let changes = io.operation().changes_data();
        match self.check(&io) {
            Err(kind) => cx.done(io, Err(kind)),
            // Newer changes of the same blocks may have been made since.
            Ok(()) if changes && cx.is_abandoned(&io) => cx.done(io, Err(IoErrorKind::Aborted)),
            Ok(()) if changes && self.keeps_out() => self.held.push_back(io),
            Ok(()) => self.take(io, cx),
        }
    }

    /// Aborts some of the requests that wait to be let in, or for a cluster.
    pub(super) fn end_held(&mut self, ends: impl Fn(&Io, &Cx<'_>) -> bool, cx: &mut Cx<'_>) {
        for io in self.waiting.take_if(|io| ends(io, cx)) {
            cx.done(io, Err(IoErrorKind::Aborted));
        }
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
    pub(super) fn complete_otherwise(&mut self, mut io: Io, durable: bool, status: Status, cx: &mut Cx<'_>) {
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
