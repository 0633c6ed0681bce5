//! The speed of processing a store's metadata, without any disk: `cargo run --release -p spindle-format
//! --example load_speed [PAGES]`.
//!
//! Three stores with that many metadata pages, all not clean, so that every page is read: all free, each page
//! the root of an empty thin blob, and blobs of one root and 63 extent pages each.

use spindle_format::init::{DeviceShape, InitOptions, InitPlan, MdPages, plan};
use spindle_format::{BlobId, BlobMetadata, ClusterIdx, LoadOptions, Loader, PageIdx, chain};

fn main() {
    let pages = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(65_536);
    for (name, fill) in [("free", 0), ("roots", 1), ("extents", 64)] {
        let (plan, region) = store(pages, fill);
        let start = clock();
        let mut loader = Loader::new(plan.geometry.size(), LoadOptions::default());
        let head = plan.super_block.to_bytes();
        let base = plan.geometry.page_offset(PageIdx(0));
        while let Some(range) = loader.next_read() {
            match range.offset.checked_sub(base) {
                None => loader.supply(range, &head),
                Some(at) => loader.supply(range, &region[at as usize..at as usize + range.len]),
            }
        }
        let read = clock() - start;
        let store = loader.finish().expect("a healthy store loads");
        let all = clock() - start;
        let speed = |seconds: f64| region.len() as f64 / seconds / 1e9;
        println!(
            "{name:8} {pages} pages, {} blobs: taken in {:.1} ms, in all {:.1} ms, {:.2} GB/s",
            store.blobs.len(),
            read * 1e3,
            all * 1e3,
            speed(all)
        );
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement outside any runtime")]
fn clock() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
}

/// A store's metadata region: every `fill` pages a root, the pages behind it its extent pages.
fn store(pages: u32, fill: u32) -> (InitPlan, Vec<u8>) {
    let cluster_size = 64 << 10;
    let size = (u64::from(pages) * 520) * u64::from(cluster_size);
    let device = DeviceShape { size, block_size: 4096, physical_block_size: 4096 };
    let options = InitOptions { cluster_size, md_pages: MdPages::Count(pages), ..InitOptions::default() };
    let plan = plan(&device, &options).expect("the device is large enough");
    let mut region = vec![0; pages as usize * 4096];
    let mut put = |at: u32, bytes: &[u8; 4096]| region[at as usize * 4096..][..4096].copy_from_slice(bytes);
    let mut cluster = plan.geometry.metadata_clusters();
    for root in (0..pages).step_by(fill.max(1) as usize).filter(|_| fill > 0) {
        let id = BlobId::from_page(PageIdx(root));
        let mut blob = BlobMetadata::new_thin();
        blob.xattrs.set(b"name", format!("volume-{root}").as_bytes()).expect("a short name fits");
        blob.map.resize(u64::from(fill - 1) * 512);
        for slot in 0..(fill - 1).min(pages - root - 1) {
            let clusters: Vec<u32> = (cluster..cluster + 512).collect();
            cluster += 512;
            blob.map.set(u64::from(slot) * 512, Some(ClusterIdx(clusters[0])));
            blob.map.set_extent_page(slot, PageIdx(root + 1 + slot));
            put(root + 1 + slot, chain::extent_page(id, slot * 512, &clusters).bytes());
        }
        let mut chain = chain::to_pages(id, &blob);
        chain::link(&mut chain, &[PageIdx(root)]);
        put(root, chain[0].bytes());
    }
    (plan, region)
}
