//! An external snapshot that open blobs read.
//!
//! Only the [`Backing`](super::Backing) of such a blob holds it. The lanes of the blob, and those of its clones, open the device
//! below them when they first read it; when the last reference is dropped, on any thread, the lanes are told
//! to close it.

use std::sync::{Arc, Mutex};
use std::task::Waker;

use spindle_block::{ClaimKind, Claimed, Device, OpenError};

use crate::waiting::locked;

/// The device of an external snapshot, claimed for reading only: no writer may claim it meanwhile.
pub(crate) struct ExternalSnapshot {
    pub(crate) device: Arc<dyn Device>,
    _claimed: Claimed,
    /// Wakers of the lanes that have it open.
    readers: Mutex<Vec<Waker>>,
}

impl ExternalSnapshot {
    /// Claims the device that a blob of `store` will read.
    ///
    /// # Errors
    /// A user that may write has claimed it.
    pub(crate) fn claim(device: Arc<dyn Device>, store: &str) -> Result<Arc<ExternalSnapshot>, OpenError> {
        let holder = format!("a clone in store {store}, whose external snapshot it is");
        let _claimed = Claimed::take_as(device.clone(), ClaimKind::ReadManyWriteNone, holder)?;
        Ok(Arc::new(ExternalSnapshot { device, _claimed, readers: Mutex::default() }))
    }

    /// Adds a waker to call when no blob reads it any more. Adding it again has no effect.
    pub(crate) fn add_reader(&self, waker: &Waker) {
        let mut readers = locked(&self.readers);
        if !readers.iter().any(|known| known.will_wake(waker)) {
            readers.push(waker.clone());
        }
    }

    /// Removes the waker of closed lanes.
    pub(crate) fn remove_reader(&self, waker: &Waker) {
        locked(&self.readers).retain(|known| !known.will_wake(waker));
    }
}

impl Drop for ExternalSnapshot {
    fn drop(&mut self) {
        let readers = std::mem::take(&mut *locked(&self.readers));
        readers.into_iter().for_each(Waker::wake);
    }
}
