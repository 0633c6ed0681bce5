//! A reference to a loaded store: when the last one is dropped without an unload, the store releases its
//! device.
//!
//! Every store handle and every opening of a blob has one, on any thread. The store's metadata thread does
//! the rest: it waits for work under way, closes every thread's channel to the device, and writes nothing, so
//! that the store stays as a killed program leaves it, and the next load recovers it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::metadata::Md;
use crate::shared::StoreShared;

/// Keeps a store loaded.
pub(crate) struct StoreRef(Arc<StoreShared>);

impl StoreRef {
    pub(crate) fn new(store: Arc<StoreShared>) -> Arc<StoreRef> {
        Arc::new(StoreRef(store))
    }
}

impl Drop for StoreRef {
    fn drop(&mut self) {
        let store = self.0.clone();
        if store.is_unloaded() {
            return;
        }
        store.abandoned.store(true, Ordering::Release);
        store.device.leave();
        let mut left = Left(Some(store));
        // If the metadata thread is gone, so is the store.
        let _ = self.0.md.send_msg(move || {
            // If it does not know the store, it is leaving it already.
            if let Some(Ok(md)) = left.0.take().map(|store| Md::of(&store)) {
                drop(spindle_reactor::spawn_local(async move { md.abandon().await }));
            }
        });
    }
}

/// A store without handles, sent to its metadata thread. Dropped unseen, as when the thread is gone, it releases the
/// device.
struct Left(Option<Arc<StoreShared>>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.iter().for_each(|store| store.device.let_go());
    }
}
