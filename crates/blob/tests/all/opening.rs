//! A device belongs to one store at a time, and to none once no handle of its store is left.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::future::Future;
use std::task::Poll;

use spindle_blob::{BlobError, BlobOptions, Blobstore, BsType, InitOptions, LoadOptions};
use support::{disk, run_on, slow_device, small};

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

/// No handle is left then to unload it with.
#[test]
fn a_store_whose_load_was_abandoned_is_released() {
    for turns in 0..40 {
        run_on("sim:7", async move || {
            let disk = disk(8);
            let device = slow_device(&disk, 7);
            let made = drop_after(turns, Blobstore::init(device.clone(), small())).await;
            let store = match made {
                Some(store) => store.unwrap(),
                None => {
                    // The store is initialized nevertheless.
                    spindle_reactor::sleep(std::time::Duration::from_secs(1)).await;
                    Blobstore::load(device.clone(), LoadOptions::default()).await.unwrap()
                }
            };
            store.create_blob(BlobOptions::thick(2)).await.unwrap();
            store.unload().await.unwrap();
            match drop_after(turns, Blobstore::load(device.clone(), LoadOptions::default())).await {
                Some(store) => store.unwrap().unload().await.unwrap(),
                None => spindle_reactor::sleep(std::time::Duration::from_secs(1)).await,
            }
            let again = Blobstore::load(device, LoadOptions::default()).await;
            assert_eq!(again.unwrap().blobs().await.unwrap().len(), 1, "{turns}");
        });
    }
}

/// The result of a future within so many turns of its thread.
async fn drop_after<F: Future>(turns: u32, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = turns;
    std::future::poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}
