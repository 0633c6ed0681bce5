//! Whose a device is: one store's at a time, and nobody's when nobody has a handle of its store.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use spindle_blob::{BlobError, Blobstore, BsType, InitOptions, LoadOptions};
use support::{disk, run_on, small};

#[test]
fn a_device_has_one_store_that_may_be_written() {
    run_on("epoll", async || {
        let disk = disk(8);
        let device = support::device(&disk);
        let store = Blobstore::init(device.clone(), small()).await.unwrap();
        let another = spindle_block::Faulty::new("another name", device.clone());
        for device in [device.clone(), another] {
            let refused = Blobstore::load(device.clone(), LoadOptions::default()).await.unwrap_err();
            assert!(refused.to_string().contains("a store that this process has loaded"), "{refused}");
            let refused = Blobstore::init(device, InitOptions { force: true, ..small() }).await;
            assert!(matches!(refused, Err(BlobError::Open { .. })), "{refused:?}");
        }
        store.unload().await.unwrap();
        let wanted = LoadOptions { bs_type: Some(BsType::LVOLSTORE), ..LoadOptions::default() };
        Blobstore::load(device.clone(), wanted).await.unwrap_err();
        let reading = LoadOptions { read_only: true, ..LoadOptions::default() };
        let (_, _) = (
            Blobstore::load(device.clone(), reading.clone()).await.unwrap(),
            Blobstore::load(device.clone(), reading).await.unwrap(),
        );
        Blobstore::load(device, LoadOptions::default()).await.unwrap();
    });
}
