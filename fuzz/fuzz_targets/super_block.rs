//! The first page of an image, sealed: parse, judge the geometry, write back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spindle_format::{ClusterIdx, Geometry, PAGE_SIZE, PageIdx, SuperBlock, crc, grow};

fuzz_target!(|input: &[u8]| {
    let Some((&[control, a, b, c, d, e, f, g, h], input)) = input.split_first_chunk::<9>() else { return };
    let device = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut page = [0; PAGE_SIZE];
    let len = input.len().min(PAGE_SIZE);
    page[..len].copy_from_slice(&input[..len]);
    if control & 1 == 0 {
        page[..8].copy_from_slice(b"SPDKBLOB");
        page[8] = 1 + control % 3;
        page[9..12].fill(0);
        crc::seal(&mut page);
    }
    let Ok(block) = SuperBlock::parse(&page) else { return };
    assert_eq!(SuperBlock::parse(&block.to_bytes()).as_ref(), Ok(&block));
    let Ok(geometry) = Geometry::from_super(&block, device) else { return };
    assert!(geometry.page_offset(PageIdx(geometry.md_pages())) <= device);
    assert!(geometry.cluster_offset(ClusterIdx(geometry.total_clusters())) <= device);
    let _ = grow::plan(&block, &geometry, device.saturating_mul(2));
});
