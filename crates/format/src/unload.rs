//! Leaving a store: the masks, and the super block that says they can be trusted.

use crate::bitmap::Bitmap;
use crate::change::Change;
use crate::geometry::Geometry;
use crate::mask::{self, MaskKind};
use crate::super_block::SuperBlock;

/// What is in use when a store is unloaded.
#[derive(Clone, Copy, Debug)]
pub struct InUse<'a> {
    /// Metadata pages.
    pub pages: &'a Bitmap,
    /// Roots of blobs.
    pub blob_ids: &'a Bitmap,
    /// Clusters.
    pub clusters: &'a Bitmap,
}

/// What an unload writes, in SPDK's order: the masks of pages, blob ids and clusters, then the super block
/// marked clean. The flushes between are ours: a super block that says "clean" over masks that were lost
/// would be believed.
pub fn changes(super_block: &SuperBlock, geometry: &Geometry, in_use: InUse<'_>) -> Vec<Change> {
    let bits = |kind| match kind {
        MaskKind::UsedPages => in_use.pages,
        MaskKind::UsedBlobIds => in_use.blob_ids,
        MaskKind::UsedClusters => in_use.clusters,
    };
    // Stores older than version 3 have no mask of blob ids; they are recovered at every load.
    let kinds = MaskKind::IN_WRITE_ORDER.into_iter().filter(|&kind| geometry.mask(kind).len > 0);
    let mut changes: Vec<Change> = kinds.map(|kind| mask::write(kind, bits(kind), geometry)).collect();
    let clean = SuperBlock { clean: true, ..super_block.clone() };
    changes.extend([Change::Flush, clean.write(geometry), Change::Flush]);
    changes
}
