//! A small store with patches, its pages sealed again: load it, look at everything, carry out its repairs,
//! load it again.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use spindle_format::init::{DeviceShape, InitOptions, plan};
use spindle_format::resolve::resolve;
use spindle_format::{
    BlobId, BlobMetadata, ByteRange, ClusterIdx, LoadError, LoadOptions, Loader, PAGE_SIZE, PageIdx, Store,
    chain, check, crc,
};

/// Clusters of 64 KiB: the metadata fills the first few of them.
const SIZE: u64 = 2 << 20;

fn healthy() -> Vec<u8> {
    let device = DeviceShape { size: SIZE, block_size: 512, physical_block_size: 512 };
    let options = InitOptions { cluster_size: 64 << 10, ..InitOptions::default() };
    let plan = plan(&device, &options).expect("64 KiB clusters fit 2 MiB");
    let mut image = vec![0; SIZE as usize];
    plan.changes.iter().for_each(|change| change.apply(&mut image));
    let mut put = |page: u32, bytes: &[u8]| {
        let at = plan.geometry.page_offset(PageIdx(page)) as usize;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let (snapshot, clone) = (BlobId::from_page(PageIdx(0)), BlobId::from_page(PageIdx(2)));
    let mut blob = BlobMetadata::new_thin();
    blob.map.resize(20);
    blob.map.set(3, Some(ClusterIdx(plan.geometry.metadata_clusters())));
    blob.map.set_extent_page(0, PageIdx(1));
    put(1, chain::extent_page(snapshot, 0, &blob.map.leaves()[0].clusters.to_vec()).bytes());
    blob.xattrs.set(b"name", b"one\0").expect("a short name fits");
    for id in [snapshot, clone] {
        let mut pages = chain::to_pages(id, &blob);
        chain::link(&mut pages, &[id.root_page().expect("made from a page")]);
        put(id.raw() as u32, pages[0].bytes());
        blob.map.clear();
        blob.set_internal(b"SNAP", &snapshot.raw().to_le_bytes()).expect("eight bytes fit");
    }
    image
}

thread_local! {
    /// The store, and the room in which it is damaged: creating them for each input would take most of the time.
    static HEALTHY: (Vec<u8>, RefCell<Vec<u8>>) = (healthy(), RefCell::new(vec![0; SIZE as usize]));
}

fn load(image: &[u8]) -> Result<Store, LoadError> {
    let mut loader = Loader::new(image.len() as u64, LoadOptions::default());
    while let Some(range) = loader.next_read() {
        let ByteRange { offset, len } = range;
        loader.supply(range, &image[offset as usize..offset as usize + len]);
    }
    loader.finish()
}

fn damage_and_load(input: &[u8], image: &mut [u8]) {
    // Patches: page, offset in it, length with one bit for "seal", bytes.
    let mut rest = input;
    while let Some((&[page, at, at_high, len], after)) = rest.split_first_chunk::<4>() {
        let (bytes, after) = after.split_at(usize::from(len & 0x7F).min(after.len()));
        let start = usize::from(page % 40) * PAGE_SIZE;
        let at = usize::from(u16::from_le_bytes([at, at_high])) % (PAGE_SIZE - 127);
        image[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        let page: &mut [u8; PAGE_SIZE] =
            (&mut image[start..start + PAGE_SIZE]).try_into().expect("a page is a page");
        if len & 0x80 == 0 {
            crc::seal(page);
        }
        rest = after;
    }
    let Ok(store) = load(image) else { return };
    for finding in check::check(&store) {
        let _ = (finding.to_string(), finding.meaning());
    }
    for blob in store.blobs.values() {
        let map = &blob.metadata.map;
        assert!(map.allocated_from(0).all(|(_, cluster)| store.geometry.is_data_cluster(cluster.0)));
        assert!(map.extent_pages().all(|(_, page)| page.0 < store.geometry.md_pages()));
        for index in [0, 3, 511, 512, map.num_clusters()] {
            let _ = resolve(&store, blob.id, index);
        }
    }
    for change in store.repairs.iter().flat_map(|repair| &repair.changes) {
        change.apply(image);
    }
    load(image).expect("repairs leave a store that loads");
}

fuzz_target!(|input: &[u8]| HEALTHY.with(|(healthy, room)| {
    let mut image = room.borrow_mut();
    image.copy_from_slice(healthy);
    damage_and_load(input, &mut image);
}));
