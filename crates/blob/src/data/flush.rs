//! Flushes of a lane: one at a time; requests that come meanwhile share the next.
//!
//! Every flush is a flush of the store and counts by the rules of [`crate::shared::Flushing`]: a failure poisons the
//! store, and a success counts only when the flushes that overlapped it have ended too.

use spindle_block::{Cx, Io, IoError, IoErrorKind, Operation, Status};
use spindle_mem::Buffers;

use super::lane::BlobLane;
use crate::error::BlobError;
use crate::ordering::Point;

/// The requests that wait for a flush.
#[derive(Default)]
pub(super) struct LaneFlushes {
    stage: Stage,
    /// Requests that the flush under way serves.
    served: Vec<Io>,
    /// Requests that came since it began.
    next: Vec<Io>,
}

#[derive(Clone, Copy, Default)]
enum Stage {
    #[default]
    Idle,
    /// The device is flushing; the flush's number in the store.
    UnderWay(u64),
    /// It has succeeded; all flushes up to this number must end, too.
    Settling(u64),
}

impl BlobLane {
    /// Adds a request that ends with a flush: a flush, or a write that must be durable.
    pub(super) fn flush(&mut self, io: Io, cx: &mut Cx<'_>) {
        self.flushes.next.push(io);
        if matches!(self.flushes.stage, Stage::Idle) {
            self.begin_flush(cx);
        }
    }

    fn begin_flush(&mut self, cx: &mut Cx<'_>) {
        if self.flushes.next.is_empty() {
            return;
        }
        std::mem::swap(&mut self.flushes.served, &mut self.flushes.next);
        if self.removed {
            return self.end_flush(Err(IoErrorKind::Removed), cx);
        }
        if let Err(error) = self.blob.store.check_poison() {
            self.here.note_failure(&error);
            return self.end_flush(Err(error.kind()), cx);
        }
        self.flushes.stage = Stage::UnderWay(self.blob.store.flushing.begin());
        let flush = cx.create(Operation::Flush, 0, 0, Buffers::None);
        cx.forward(self.below, flush, [0, 0]);
    }

    /// Handles the end of the flush in the device.
    pub(super) fn flush_ended(&mut self, io: Io, status: Status, cx: &mut Cx<'_>) {
        drop(cx.finish(io));
        let Stage::UnderWay(number) = self.flushes.stage else { return };
        let store = self.blob.store.clone();
        if let Err(kind) = status {
            let device = store.name.clone();
            let error =
                BlobError::Io(IoError { device, operation: Operation::Flush, offset: 0, len: 0, kind });
            // Set before overlapping flushes learn of this one's end.
            store.poison(&error);
            self.here.note_failure(&error);
        }
        let begun = store.flushing.end(number);
        if status.is_err() || !store.order.keeps(Point::FailedFlushLasts) {
            return self.end_flush(status, cx);
        }
        self.flushes.stage = Stage::Settling(begun);
        self.settle(cx);
    }

    /// Ends the flush if those that overlapped it have ended.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        let Stage::Settling(begun) = self.flushes.stage else { return };
        let store = &self.blob.store;
        if self.here.is_settled(begun) {
            let status = store.check_poison().map_err(|error| {
                self.here.note_failure(&error);
                error.kind()
            });
            self.end_flush(status, cx);
        }
    }

    fn end_flush(&mut self, status: Status, cx: &mut Cx<'_>) {
        self.flushes.stage = Stage::Idle;
        for io in self.flushes.served.drain(..) {
            cx.done(io, status);
        }
        self.begin_flush(cx);
    }

    /// The lane closes: the result of a flush under way will not arrive, so it may have failed.
    pub(super) fn give_up_flush(&mut self) {
        if let Stage::UnderWay(number) = self.flushes.stage {
            let aborted = IoErrorKind::Aborted;
            let device = self.blob.store.name.clone();
            let (operation, offset, len) = (Operation::Flush, 0, 0);
            self.blob.store.poison(&BlobError::Io(IoError { device, operation, offset, len, kind: aborted }));
            self.blob.store.flushing.end(number);
        }
    }
}
