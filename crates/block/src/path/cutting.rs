//! Cuts transfers that are larger than a device takes, or that cross its boundary, in front of its lane.
//!
//! The pieces come to the lane as requests of their own: gate, ranges, limits and statistics see them, as in
//! SPDK, and not the whole. The whole waits for them with the requests that were split. A lane whose device sets
//! no limit never comes here.

use crate::path::cx::Cx;
use crate::path::lanes::Lanes;
use crate::path::meter::NOT_ARRIVED;
use crate::request::io::Held;
use crate::{Geometry, Io, Operation};

/// The largest pieces that a device takes.
#[derive(Clone, Copy)]
pub(crate) struct Cutting {
    most: u64,
    /// 0 for none.
    boundary: u64,
}

impl Cutting {
    /// None if the device takes any transfer.
    pub(crate) fn of(geometry: &Geometry) -> Option<Cutting> {
        let boundary = if geometry.cuts_at_boundary() { u64::from(geometry.boundary()) } else { 0 };
        let limited = geometry.max_transfer() != u32::MAX || boundary != 0;
        limited.then(|| Cutting { most: u64::from(geometry.max_transfer()), boundary })
    }

    /// Blocks of the piece that begins at block `start`, of `left` that are left.
    fn piece(&self, start: u64, left: u64) -> u64 {
        let most = left.min(self.most);
        match start.checked_rem(self.boundary) {
            Some(behind) => most.min(self.boundary - behind),
            None => most,
        }
    }

    /// True if a request must be cut.
    pub(crate) fn cuts(&self, io: &Io) -> bool {
        let transfers = matches!(io.operation(), Operation::Read | Operation::Write | Operation::Compare);
        transfers && self.piece(io.start(), io.count()) < io.count()
    }
}

impl Lanes {
    /// Queues the pieces of a request for its lane.
    pub(crate) fn cut(&mut self, to: u32, mut io: Io, cutting: Cutting) {
        let passes = self.queues.passes_ranges(&io);
        let slot = io.slot_mut();
        slot.arrived[usize::from(slot.depth)] = NOT_ARRIVED;
        let held = std::mem::replace(&mut slot.held, Held::NOWHERE);
        let cx = &mut Cx { queues: &mut self.queues, this: to };
        let mut split = cx.split(io);
        while split.left() > 0 {
            let count = cutting.piece(split.start(), split.left());
            let mut piece = cx.cut(&mut split, count);
            let slot = piece.slot_mut();
            slot.place.passes = passes;
            // In the whole's epoch, whose waiters wait for the pieces then.
            slot.held = held;
            cx.queues.lanes[to as usize].epochs.join(held.epoch);
            cx.queues.down.push_back(piece);
        }
        cx.join(split);
        // The whole itself is in no lane until its pieces are back.
        let queues = &mut self.queues;
        queues.lanes[to as usize].epochs.end(held.epoch, &mut queues.wakes);
        queues.look_at(to);
    }
}
