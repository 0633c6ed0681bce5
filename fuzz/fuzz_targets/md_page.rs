//! One metadata page, sealed: its descriptors, as a chain of one page and as an extent page.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spindle_format::chain::{ChainDecoder, MapShape, decode_extent_page, to_pages};
use spindle_format::init::{DeviceShape, InitOptions, plan};
use spindle_format::page::Page;
use spindle_format::{BlobMetadata, Flags, PAGE_SIZE, PageIdx};

fuzz_target!(|input: &[u8]| {
    let mut bytes = [0; PAGE_SIZE];
    let len = input.len().min(PAGE_SIZE);
    bytes[..len].copy_from_slice(&input[..len]);
    let mut page = Page::view(&bytes).expect("4096 bytes are a page").clone();
    page.seal();
    let device = DeviceShape { size: 64 << 20, block_size: 512, physical_block_size: 512 };
    let geometry = plan(&device, &InitOptions::default()).expect("the defaults fit 64 MiB").geometry;
    let root = PageIdx(7);
    for descriptor in page.descriptors(root, geometry.page_offset(root)) {
        let _ = format!("{descriptor:?}");
    }
    let _ = decode_extent_page(&page, root, &geometry);
    let mut decoder = ChainDecoder::new(&geometry);
    if decoder.page(&page, root).is_err() {
        return;
    }
    let Ok(parts) = decoder.finish(geometry.page_place(root)) else { return };
    let MapShape::Rle(list) = parts.map else { return };
    assert!(list.allocated_from(0).all(|(_, cluster)| geometry.is_data_cluster(cluster.0)));
    let blob = BlobMetadata { flags: parts.flags, xattrs: parts.xattrs, internal: parts.internal, map: list };
    let mut again = ChainDecoder::new(&geometry);
    for (at, page) in to_pages(page.id(), &blob).iter().enumerate() {
        again.page(page, PageIdx(at as u32)).expect("what was written can be read");
    }
    let again = again.finish(geometry.page_place(root)).expect("what was written is whole");
    // The flag that says which shape the map has follows the map.
    let flags = Flags { invalid: blob.flags.invalid & !Flags::EXTENT_TABLE, ..blob.flags };
    assert_eq!((again.flags, again.xattrs, again.internal), (flags, blob.xattrs, blob.internal));
    let MapShape::Rle(list) = again.map else { panic!("a run-length list stays one") };
    assert_eq!(list, blob.map);
});
