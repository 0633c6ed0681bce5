//! Makes small stores without a Blobstore.

use super::Image;
use spindle_format::init::{DeviceShape, InitOptions, InitPlan, plan};
use spindle_format::super_block::BsType;
use spindle_format::{Bitmap, BlobId, BlobMetadata, Change, ClusterIdx, PageIdx, SuperBlock};
use spindle_format::{chain, unload};

pub const BLOCK: u64 = 4096;
pub const SIZE: u64 = 16384 * BLOCK;

/// A store of 64 clusters of 1 MiB, written with nothing but the crate's serialisers.
#[derive(Clone)]
pub struct Builder {
    pub image: Image,
    pub plan: InitPlan,
    pub pages: Bitmap,
    pub clusters: Bitmap,
    pub blob_ids: Bitmap,
}

impl Builder {
    pub fn new() -> Builder {
        let device = DeviceShape { size: SIZE, block_size: 4096, physical_block_size: 4096 };
        let options = InitOptions { bs_type: BsType::LVOLSTORE, ..InitOptions::default() };
        let plan = plan(&device, &options).unwrap();
        let mut image = Image::filled(SIZE, 0xAA);
        plan.changes.iter().for_each(|change| image.apply(change));
        let mut clusters = Bitmap::new(plan.geometry.total_clusters());
        (0..plan.geometry.metadata_clusters()).for_each(|cluster| assert!(clusters.set(cluster)));
        let pages = Bitmap::new(plan.geometry.md_pages());
        Builder { image, pages: pages.clone(), blob_ids: pages, clusters, plan }
    }

    pub fn new_blob(&mut self) -> BlobId {
        let page = self.pages.first_clear(0).unwrap();
        assert!(self.pages.set(page) && self.blob_ids.set(page));
        BlobId::from_page(PageIdx(page))
    }

    pub fn allocate(&mut self, blob: &mut BlobMetadata, index: u64) {
        let cluster = self.clusters.first_clear(0).unwrap();
        self.clusters.set(cluster);
        blob.map.set(index, Some(ClusterIdx(cluster)));
    }

    /// Gives a page to every leaf that has none and writes all of them.
    pub fn write_extents(&mut self, owner: BlobId, blob: &mut BlobMetadata) {
        let leaves = if blob.map.is_table() { blob.map.leaves().to_vec() } else { Vec::new() };
        for leaf in leaves {
            let page = leaf.page.unwrap_or_else(|| {
                let page = self.pages.first_clear(1).unwrap();
                self.pages.set(page);
                PageIdx(page)
            });
            blob.map.set_extent_page(leaf.slot, page);
            let bytes = chain::extent_page(owner, leaf.first_cluster() as u32, &leaf.clusters.to_vec());
            self.image.write(self.plan.geometry.page_offset(page), bytes.bytes());
        }
    }

    pub fn write_root(&mut self, id: BlobId, blob: &BlobMetadata) {
        let mut pages = chain::to_pages(id, blob);
        let root = id.root_page().unwrap();
        chain::link(&mut pages, &[root]);
        self.image.write(self.plan.geometry.page_offset(root), pages[0].bytes());
    }

    pub fn unload(&mut self, super_block: &SuperBlock) {
        let in_use = unload::InUse { pages: &self.pages, blob_ids: &self.blob_ids, clusters: &self.clusters };
        let changes: Vec<Change> = unload::changes(super_block, &self.plan.geometry, in_use);
        changes.iter().for_each(|change| self.image.apply(change));
    }
}
