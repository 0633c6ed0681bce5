//! Which of the three masks of a store.

use std::fmt;

/// The kind of a mask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MaskKind {
    /// Metadata pages in use.
    UsedPages,
    /// Clusters that belong to metadata or to a blob.
    UsedClusters,
    /// Metadata pages that are the root of a blob.
    UsedBlobIds,
}

impl MaskKind {
    /// All three, in the order in which an unload writes them.
    pub const IN_WRITE_ORDER: [MaskKind; 3] =
        [MaskKind::UsedPages, MaskKind::UsedBlobIds, MaskKind::UsedClusters];

    pub(crate) fn code(self) -> u8 {
        match self {
            MaskKind::UsedPages => 0,
            MaskKind::UsedClusters => 1,
            MaskKind::UsedBlobIds => 2,
        }
    }
}

impl fmt::Display for MaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MaskKind::UsedPages => "used metadata pages",
            MaskKind::UsedClusters => "used clusters",
            MaskKind::UsedBlobIds => "used blob ids",
        })
    }
}
