//! An external snapshot that open blobs read, and the end of that.
//!
//! Held by what stands behind each of these blobs. When the last lets go of it, on whatever thread, every thread
//! closes its channel to the device, if it has one: the metadata thread asks them.

use std::sync::{Arc, Weak};

use spindle_block::Device;

use crate::local::key_of;
use crate::md::Md;
use crate::shared::StoreShared;

/// The device of an external snapshot.
pub(crate) struct Outside {
    pub(crate) device: Arc<dyn Device>,
    store: Arc<StoreShared>,
}

impl Md {
    /// A device as open blobs hold it, the same for all of them.
    pub(crate) fn outside(&self, device: Arc<dyn Device>) -> Arc<Outside> {
        let mut known = self.outside.borrow_mut();
        let known = known.entry(key_of(&device)).or_default();
        known.upgrade().unwrap_or_else(|| {
            let outside = Arc::new(Outside { device, store: self.shared.clone() });
            *known = Arc::downgrade(&outside);
            outside
        })
    }

    /// Whether no open blob reads a device any more; says so once, to who is to close it.
    pub(crate) fn is_unread(&self, device: &Arc<dyn Device>) -> bool {
        let mut known = self.outside.borrow_mut();
        let unread = known.get(&key_of(device)).is_some_and(|known| Weak::strong_count(known) == 0);
        unread && known.remove(&key_of(device)).is_some()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let (store, device) = (self.store.clone(), self.device.clone());
        // A thread that is gone has left its stores.
        let _ = self.store.md.send_msg(move || {
            if let Ok(md) = Md::of(&store)
                && md.is_unread(&device)
            {
                drop(spindle_reactor::spawn_local(async move { md.shared.close_external(&device).await }));
            }
        });
    }
}
