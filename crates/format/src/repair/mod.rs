//! The repairs that a writing load must make before it works on a store, as data.
//!
//! The loader has already applied every repair to the [`Store`](crate::Store) it returns; a read-only load
//! leaves it at that, a writing one carries out the changes in order. Each repair may be interrupted at any
//! write: the next load finds the same half-done state or the finished one.

mod copy;
pub(crate) mod writes;

pub use copy::{CopyPages, PageCopy, SectorSums};

use crate::change::Change;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use std::fmt;

/// A repair for a writing load. Its changes are carried out in order, repair after repair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repair {
    /// What it repairs and why.
    pub reason: RepairReason,
    /// The writes. Empty if no metadata page was free that they need or allocation is blocked: the state in memory
    /// is right even then, and the next load will find the same damage again.
    pub changes: Vec<Change>,
}

impl Repair {
    /// True if it would finish a resize and cannot. In a store left in order no resize is half done, so that one with
    /// such a repair must not be marked as left in order: the next load would take the blob for damaged.
    pub fn leaves_resize(&self) -> bool {
        self.changes.is_empty() && matches!(self.reason, RepairReason::FinishResize { .. })
    }

    /// The snapshot whose marker it would remove and cannot. Without a clone that snapshot would look unfinished to the
    /// next load, which removes it.
    pub fn leaves_marker(&self) -> Option<BlobId> {
        match self.reason {
            RepairReason::FinishSnapshot { snapshot, .. } | RepairReason::KeepSnapshot { snapshot, .. } => {
                self.changes.is_empty().then_some(snapshot)
            }
            _ => None,
        }
    }
}

/// The purpose of a repair.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RepairReason {
    /// A crash tore the super block; it was identified by its CRC and its few possible values.
    TornSuperBlock,
    /// The store is marked clean although other repairs are needed; it is marked dirty before them.
    MarkDirty,
    /// A root or extent page was torn by a crash and is restored from the copy written before it.
    RestorePage {
        /// The torn page.
        page: PageIdx,
        /// The page that holds its copy.
        copy: PageIdx,
    },
    /// A copy of a page that is whole is no longer needed.
    ForgetCopy {
        /// The page that holds the copy.
        copy: PageIdx,
        /// The page it is a copy of.
        page: PageIdx,
    },
    /// A page that was being cleared or made when the program died still looks like part of a root; it is
    /// cleared, so that it is not taken for one when it is torn again.
    ClearTorn {
        /// The page, which nothing uses.
        page: PageIdx,
    },
    /// A snapshot was made except for the last step when the program died; it is finished.
    FinishSnapshot {
        /// The snapshot.
        snapshot: BlobId,
        /// The original blob.
        original: BlobId,
    },
    /// A snapshot was being made and the original does not use it yet; it is removed, its clusters are the
    /// original's.
    DropUnfinishedSnapshot {
        /// The snapshot.
        snapshot: BlobId,
        /// The original blob.
        original: BlobId,
    },
    /// A snapshot was being deleted and its clone still needs it; it is kept.
    KeepSnapshot {
        /// The snapshot.
        snapshot: BlobId,
        /// Its clone.
        clone: BlobId,
    },
    /// A snapshot was being deleted and its clone no longer needs it; the deletion is finished.
    FinishSnapshotRemoval {
        /// The snapshot.
        snapshot: BlobId,
        /// The blob that was its clone.
        clone: BlobId,
    },
    /// A clone names clusters that belong to a snapshot above it (a deletion of that snapshot was
    /// interrupted); it reads them through the snapshot instead.
    UnshareClusters {
        /// The clone.
        clone: BlobId,
        /// The clusters, which stay with the snapshot.
        clusters: Vec<ClusterIdx>,
    },
    /// A resize was interrupted: the last extent page has another size than the blob; the smaller one is
    /// used.
    FinishResize {
        /// The blob.
        blob: BlobId,
        /// Clusters that it has now.
        clusters: u64,
    },
    /// In a cleanly unloaded store, an extent page continues beyond its blob with clusters that are not the
    /// blob's, as SPDK leaves it after deleting a snapshot larger than its clone; it is cut, because SPDK
    /// would not open the blob.
    CutExtentPage {
        /// The blob.
        blob: BlobId,
        /// Clusters that it has, before and after.
        clusters: u64,
    },
}

impl fmt::Display for RepairReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepairReason::TornSuperBlock => write!(f, "restore the torn super block"),
            RepairReason::MarkDirty => write!(f, "mark the store as not clean before it is repaired"),
            RepairReason::RestorePage { page, copy } => {
                write!(f, "restore torn metadata page {page} from its copy in page {copy}")
            }
            RepairReason::ForgetCopy { copy, page } => {
                write!(f, "clear the copy of metadata page {page} in page {copy}")
            }
            RepairReason::ClearTorn { page } => {
                write!(f, "clear torn metadata page {page}, which nothing uses")
            }
            RepairReason::FinishSnapshot { snapshot, original } => {
                write!(f, "finish snapshot {snapshot} of blob {original}")
            }
            RepairReason::DropUnfinishedSnapshot { snapshot, original } => {
                write!(f, "drop unfinished snapshot {snapshot} of blob {original}")
            }
            RepairReason::KeepSnapshot { snapshot, clone } => {
                write!(f, "keep snapshot {snapshot}, whose deletion was cut off: clone {clone} needs it")
            }
            RepairReason::FinishSnapshotRemoval { snapshot, clone } => {
                write!(f, "finish deleting snapshot {snapshot}: blob {clone} no longer needs it")
            }
            RepairReason::UnshareClusters { clone, clusters } => {
                let count = clusters.len();
                write!(f, "let clone {clone} read {count} clusters through its snapshot, which owns them")
            }
            RepairReason::CutExtentPage { blob, clusters } => {
                write!(f, "cut an extent page of blob {blob} after its {clusters} clusters")
            }
            RepairReason::FinishResize { blob, clusters } => {
                write!(f, "finish resizing blob {blob} to {clusters} clusters")
            }
        }
    }
}
