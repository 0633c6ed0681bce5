//! What a writing load has to put right before it works on a store, as data.

use crate::change::Change;
use crate::ids::BlobId;

/// One thing a writing load has to put right. Its changes are carried out in order, repair after repair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repair {
    /// What it puts right and why.
    pub reason: RepairReason,
    /// The writes.
    pub changes: Vec<Change>,
}

/// What a repair puts right.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RepairReason {
    /// A snapshot was fully made when the program died; its marker is taken off.
    FinishSnapshot {
        /// The snapshot.
        snapshot: BlobId,
    },
}
