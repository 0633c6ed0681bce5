//! Which transfers must be cut in front of a lane: those larger than its device takes, or across its boundary.
//!
//! Part of the lane's state. The pieces come to the lane as requests of their own: gate, ranges, limits and statistics see them, as in
//! SPDK, and not the whole. The whole waits for them with the requests that were split. A lane whose device sets
//! no limit never comes here.

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
    pub(crate) fn piece(&self, start: u64, left: u64) -> u64 {
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
