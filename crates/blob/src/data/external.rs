//! External snapshots below a lane: opened when first read, closed when no blob reads them any more.
//!
//! A read goes straight to the device if the device's blocks allow it; otherwise a task reads the surrounding
//! blocks. Nothing is read beyond the device's end, where the blob reads zeroes.

use std::sync::{Arc, Weak};

use spindle_block::{Cx, Device, Geometry, Io, LaneId, OpenError, Operation, Status};

use super::lane::{BlobLane, EXTERNAL};
use crate::shared::ExternalSnapshot;

/// An external snapshot and the access to it.
pub(super) struct External {
    snapshot: Weak<ExternalSnapshot>,
    /// Identifies its device, also when no blob reads it any more.
    device: *const (),
    way: Access,
}

enum Access {
    /// Being opened; these requests wait for that.
    Opening(Vec<Io>),
    Open {
        lane: LaneId,
        shape: Geometry,
    },
}

fn address(device: &Arc<dyn Device>) -> *const () {
    Arc::as_ptr(device).cast()
}

impl BlobLane {
    /// Reads from an external snapshot. Must be called in the call that looked up the map.
    pub(super) fn read_external(&mut self, io: Io, snapshot: &Arc<ExternalSnapshot>, cx: &mut Cx<'_>) {
        let is_it = |known: &&mut External| std::ptr::eq(known.snapshot.as_ptr(), Arc::as_ptr(snapshot));
        match self.externals.iter_mut().find(is_it).map(|known| &mut known.way) {
            Some(Access::Open { lane, shape }) => {
                let (lane, shape) = (*lane, *shape);
                self.read_below(io, lane, &shape, cx);
            }
            Some(Access::Opening(waiting)) => waiting.push(io),
            None => {
                let device = snapshot.device.clone();
                self.here.reads_external(snapshot);
                self.externals.push(External {
                    snapshot: Arc::downgrade(snapshot),
                    device: address(&device),
                    way: Access::Opening(vec![io]),
                });
                cx.open(device);
            }
        }
    }

    /// Reads from the lane of an external snapshot, which may have another block size.
    fn read_below(&mut self, mut io: Io, lane: LaneId, shape: &Geometry, cx: &mut Cx<'_>) {
        let (start, count) = (io.start(), io.count());
        let (offset, len) = (start << self.block_shift, count << self.block_shift);
        let shift = shape.block_shift();
        let whole = (offset | len) & (u64::from(shape.block_size()) - 1) == 0;
        if !whole || !shape.contains(offset >> shift, len >> shift) {
            return self.read_around(io);
        }
        let epoch = self.here.epochs.begin();
        if shift == self.block_shift {
            return cx.forward(lane, io, [start, epoch << 2]);
        }
        let buffers = io.take_buffers();
        let read = cx.create_for(&io, Operation::Read, offset >> shift, len >> shift, buffers);
        let parked = self.parked.insert(io);
        cx.forward(lane, read, [parked as u64, epoch << 2 | EXTERNAL]);
    }

    /// Handles the end of a read in another block size.
    pub(super) fn external_read(&mut self, io: Io, parked: u64, status: Status, cx: &mut Cx<'_>) {
        let buffers = cx.finish(io);
        let mut io = self.parked.remove(parked as usize);
        io.put_buffers(buffers);
        cx.done(io, status);
    }

    /// Handles a device below that is now open, or could not be opened.
    pub(super) fn external_opened(
        &mut self,
        device: &Arc<dyn Device>,
        opened: Result<LaneId, OpenError>,
        cx: &mut Cx<'_>,
    ) {
        let waits =
            |known: &External| known.device == address(device) && matches!(known.way, Access::Opening(_));
        let Some(at) = self.externals.iter().position(waits) else {
            // The lane was removed meanwhile.
            opened.into_iter().for_each(|lane| cx.close(lane));
            return;
        };
        let waiting = match opened {
            Ok(lane) => {
                let open = Access::Open { lane, shape: device.geometry() };
                std::mem::replace(&mut self.externals[at].way, open)
            }
            Err(source) => {
                self.here.note_failure(&self.blob.store.open_error(source));
                let Access::Opening(waiting) = self.externals.swap_remove(at).way else { return };
                let failed = self.here.failure().map_or(Ok(()), |error| Err(error.kind()));
                return waiting.into_iter().for_each(|io| cx.done(io, failed));
            }
        };
        if let Access::Opening(waiting) = waiting {
            waiting.into_iter().for_each(|io| self.again(io, cx));
        }
    }

    /// Closes the snapshots that no blob reads any more, or all.
    pub(super) fn close_externals(&mut self, all: bool, cx: &mut Cx<'_>) {
        self.externals.retain(|known| match &known.way {
            Access::Open { lane, .. } if all || known.snapshot.strong_count() == 0 => {
                cx.close(*lane);
                false
            }
            // Closed once it is open.
            _ => true,
        });
    }
}
