//! A store taken through the steps of `tests/fixtures/steps` with nothing but this crate's serialisers is
//! SPDK's own, byte for byte.

mod support;

use spindle_format::init::{DeviceShape, InitOptions, InitPlan, plan};
use spindle_format::metadata::internal;
use spindle_format::super_block::BsType;
use spindle_format::{Bitmap, BlobId, BlobMetadata, Change, ClusterIdx, Flags, PageIdx, SuperBlock};
use spindle_format::{chain, unload};
use support::Image;

const BLOCK: u64 = 4096;
const SIZE: u64 = 16384 * BLOCK;

struct Stepper {
    image: Image,
    plan: InitPlan,
    pages: Bitmap,
    clusters: Bitmap,
    blob_ids: Bitmap,
}

impl Stepper {
    fn new() -> Stepper {
        let device = DeviceShape { size: SIZE, block_size: 4096, physical_block_size: 4096 };
        let options = InitOptions { bs_type: BsType::LVOLSTORE, ..InitOptions::default() };
        let plan = plan(&device, &options).unwrap();
        let mut image = Image::filled(SIZE, 0xAA);
        plan.changes.iter().for_each(|change| image.apply(change));
        let mut clusters = Bitmap::new(plan.geometry.total_clusters());
        (0..plan.geometry.metadata_clusters()).for_each(|cluster| assert!(clusters.set(cluster)));
        let pages = Bitmap::new(plan.geometry.md_pages());
        Stepper { image, pages: pages.clone(), blob_ids: pages, clusters, plan }
    }

    fn new_blob(&mut self) -> BlobId {
        let page = self.pages.first_clear(0).unwrap();
        assert!(self.pages.set(page) && self.blob_ids.set(page));
        BlobId::from_page(PageIdx(page))
    }

    fn allocate(&mut self, blob: &mut BlobMetadata, index: u64) {
        let cluster = self.clusters.first_clear(0).unwrap();
        self.clusters.set(cluster);
        blob.map.set(index, Some(ClusterIdx(cluster)));
    }

    /// Gives a page to every leaf that has none and writes all of them.
    fn write_extents(&mut self, owner: BlobId, blob: &mut BlobMetadata) {
        for leaf in blob.map.leaves().to_vec() {
            let page = leaf.page.unwrap_or_else(|| {
                let page = self.pages.first_clear(1).unwrap();
                self.pages.set(page);
                PageIdx(page)
            });
            blob.map.set_extent_page(leaf.slot, page);
            let bytes = chain::extent_page(owner, leaf.first_cluster() as u32, &leaf.clusters);
            self.image.write(self.plan.geometry.page_offset(page), bytes.bytes());
        }
    }

    fn write_root(&mut self, id: BlobId, blob: &BlobMetadata) {
        let mut pages = chain::to_pages(id, blob);
        let root = id.root_page().unwrap();
        chain::link(&mut pages, &[root]);
        self.image.write(self.plan.geometry.page_offset(root), pages[0].bytes());
    }

    fn unload(&mut self, super_block: &SuperBlock) {
        let in_use = unload::InUse { pages: &self.pages, blob_ids: &self.blob_ids, clusters: &self.clusters };
        let changes: Vec<Change> = unload::changes(super_block, &self.plan.geometry, in_use);
        changes.iter().for_each(|change| self.image.apply(change));
    }

    fn equals(&self, step: &str) {
        let theirs = Image::fixture(&format!("steps/{step}"));
        assert_eq!(self.image.first_difference(&theirs), None, "first byte that differs in {step}");
    }
}

#[test]
fn every_step_is_what_spdk_wrote() {
    let mut store = Stepper::new();
    store.equals("1-init");

    let a = store.new_blob();
    let mut blob_a = BlobMetadata::new_thick();
    blob_a.map.resize(3);
    (0..3).for_each(|index| store.allocate(&mut blob_a, index));
    blob_a.xattrs.set(b"name", b"blob-a\0").unwrap();
    store.write_extents(a, &mut blob_a);
    store.write_root(a, &blob_a);
    store.equals("2-thick");

    let b = store.new_blob();
    let mut blob_b = BlobMetadata::new_thin();
    blob_b.map.resize(20);
    store.write_root(b, &blob_b);
    store.equals("3-thin-created");

    store.allocate(&mut blob_b, 2);
    store.write_extents(b, &mut blob_b);
    store.write_root(b, &blob_b);
    let cluster = blob_b.map.get(2).unwrap();
    store.image.write(store.plan.geometry.cluster_offset(cluster), &[0x5A; BLOCK as usize]);
    store.equals("4-thin-written");

    let s = store.new_blob();
    let mut snapshot = blob_b.clone();
    snapshot.flags.data_read_only |= Flags::READ_ONLY;
    store.write_root(s, &snapshot);
    blob_b.map.clear();
    blob_b.set_internal(internal::SNAPSHOT, &s.raw().to_le_bytes()).unwrap();
    store.write_root(b, &blob_b);
    store.equals("5-snapshot");

    let c = store.new_blob();
    store.write_root(c, &blob_b);
    store.equals("6-clone");

    let super_block = SuperBlock { super_blob: Some(a), ..store.plan.super_block.clone() };
    store.unload(&super_block);
    store.equals("7-unloaded");
    store.equals("8-loaded");
}

#[test]
fn every_step_loads_and_nothing_is_wrong_with_it() {
    let steps =
        ["1-init", "2-thick", "3-thin-created", "4-thin-written", "5-snapshot", "6-clone", "7-unloaded"];
    for (step, blobs) in steps.into_iter().zip([0, 1, 2, 2, 3, 4, 4]) {
        let store = Image::fixture(&format!("steps/{step}")).load().unwrap();
        assert_eq!(store.blobs.len(), blobs, "{step}");
        assert_eq!(store.recovered, step != "7-unloaded", "{step}");
        assert_eq!(spindle_format::check::check(&store), [], "{step}");
    }
}
