//! The store taken through the steps of `tests/fixtures/steps` is SPDK's own, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use spindle_blob::{BlobOptions, Blobstore, BsType, InitOptions, LayoutOptions};
use spindle_engine::sim::{Disk, Image};
use support::{device, disk_of, fill, fixture, run_everywhere};

fn equals(disk: &Disk, step: &str) {
    let ours = disk.snapshot().visible().clone();
    assert_eq!(
        ours.first_difference(&fixture(&format!("steps/{step}"))),
        None,
        "first byte that differs in {step}"
    );
}

#[test]
fn every_step_is_what_spdk_wrote() {
    run_everywhere(async || {
        let disk = disk_of(Image::from_bytes(&vec![0xAA; 64 << 20]));
        let layout = LayoutOptions { bs_type: BsType::LVOLSTORE, ..LayoutOptions::default() };
        let options = InitOptions { layout, ..InitOptions::default() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        equals(&disk, "1-init");

        let a = store.create_blob(BlobOptions::thick(3)).await.unwrap();
        let blob_a = store.open_blob(a).await.unwrap();
        blob_a.set_xattr("name", *b"blob-a\0").await.unwrap();
        blob_a.sync().await.unwrap();
        equals(&disk, "2-thick");

        let b = store.create_blob(BlobOptions::thin(20)).await.unwrap();
        let blob_b = store.open_blob(b).await.unwrap();
        equals(&disk, "3-thin-created");

        fill(&blob_b, 512 * 4096, 4096, 0x5A).await;
        equals(&disk, "4-thin-written");

        let snapshot = store.snapshot(b, Vec::new()).await.unwrap();
        equals(&disk, "5-snapshot");

        store.clone_blob(snapshot, Vec::new()).await.unwrap();
        equals(&disk, "6-clone");

        blob_a.close().await.unwrap();
        blob_b.close().await.unwrap();
        store.set_super_blob(Some(a)).await.unwrap();
        store.unload().await.unwrap();
        equals(&disk, "7-unloaded");

        Blobstore::load(device(&disk), Default::default()).await.unwrap();
        equals(&disk, "8-loaded");
    });
}
