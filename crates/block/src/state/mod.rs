//! What a device's lanes on all threads share: where they are, the gate, counts, limits, held ranges.
//! Used from any thread; a request that succeeds takes none of its locks.

pub(crate) mod claim;
pub(crate) mod device_state;
pub(crate) mod hindrance;
pub(crate) mod histogram;
pub(crate) mod limits;
pub(crate) mod mailbox;
pub(crate) mod ranges;
pub(crate) mod statistics;
pub(crate) mod turn;
pub(crate) mod wanted;
