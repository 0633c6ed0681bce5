//! Unloading a store: the masks, and the super block that marks them as valid.

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

impl InUse<'_> {
    /// One of the writes of the masks, in SPDK's order: pages, blob ids, clusters. `None` after the last.
    /// Large masks take many, between which the caller can do other work.
    pub fn write(&self, number: u64, geometry: &Geometry) -> Option<Change> {
        let mut number = number;
        // Stores older than version 3 have no mask of blob ids and so no writes for it; they are recovered at
        // every load.
        for kind in MaskKind::IN_WRITE_ORDER {
            let writes = mask::writes(kind, geometry);
            if number < writes {
                let bits = match kind {
                    MaskKind::UsedPages => self.pages,
                    MaskKind::UsedBlobIds => self.blob_ids,
                    MaskKind::UsedClusters => self.clusters,
                };
                return Some(mask::write(kind, number, bits, geometry));
            }
            number -= writes;
        }
        None
    }
}

/// The writes after the masks: the super block marked clean. The flushes are an addition to SPDK: a super
/// block marked clean over lost masks would be trusted.
pub fn clean(super_block: &SuperBlock, geometry: &Geometry) -> [Change; 3] {
    let clean = SuperBlock { clean: true, ..super_block.clone() };
    [Change::Flush, clean.write(geometry), Change::Flush]
}

/// All writes of an unload.
pub fn changes(super_block: &SuperBlock, geometry: &Geometry, in_use: InUse<'_>) -> Vec<Change> {
    let masks = (0..).map_while(|number| in_use.write(number, geometry));
    masks.chain(clean(super_block, geometry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::{DeviceShape, InitOptions, InitPlan, MdPages, plan};

    #[test]
    fn a_mask_that_takes_many_writes_is_read_back_as_it_was() {
        let shape = DeviceShape { size: 20 << 30, block_size: 4096, physical_block_size: 4096 };
        let options =
            InitOptions { cluster_size: 4096, md_pages: MdPages::Count(70_000), ..InitOptions::default() };
        let InitPlan { geometry, super_block, .. } = plan(&shape, &options).unwrap();
        let every = |step: usize, kind| {
            let mut bits = Bitmap::new(geometry.mask_bits(kind));
            (0..bits.len()).step_by(step).for_each(|bit| {
                bits.set(bit);
            });
            bits
        };
        let pages = every(3, MaskKind::UsedPages);
        let blob_ids = every(7, MaskKind::UsedBlobIds);
        let clusters = every(5, MaskKind::UsedClusters);
        let in_use = InUse { pages: &pages, blob_ids: &blob_ids, clusters: &clusters };
        let changes = changes(&super_block, &geometry, in_use);
        assert!(changes.len() > 3 + 3, "the mask of clusters takes more than one");
        for (kind, bits) in [
            (MaskKind::UsedPages, &pages),
            (MaskKind::UsedBlobIds, &blob_ids),
            (MaskKind::UsedClusters, &clusters),
        ] {
            let (start, len) = geometry.bytes_of(geometry.mask(kind));
            let mut region = vec![0xEE; len as usize];
            for change in &changes {
                if let Change::Write { offset, bytes } = change
                    && (start..start + len).contains(offset)
                {
                    let at = (offset - start) as usize;
                    region[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            assert!(mask::parse(kind, &region, &geometry).unwrap() == *bits, "{kind}");
            assert_eq!(region.last(), Some(&0), "the whole region is written");
        }
    }
}
