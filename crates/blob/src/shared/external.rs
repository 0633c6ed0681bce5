//! An external snapshot that open blobs read.
//!
//! Only the [`Backing`](super::Backing) of such a blob holds it. The lanes of the blob, and those of its clones, open the device
//! below them when they first read it; when the last reference is dropped, on any thread, the lanes are told
//! to close it.

use std::sync::{Arc, Mutex};
use std::task::Waker;

use spindle_block::Device;

use crate::waiting::locked;

/// The device of an external snapshot.
pub(crate) struct ExternalSnapshot {
    pub(crate) device: Arc<dyn Device>,
    /// Wakers of the lanes that have it open.
    readers: Mutex<Vec<Waker>>,
}

impl ExternalSnapshot {
    /// The device that a blob will read.
    pub(crate) fn new(device: Arc<dyn Device>) -> Arc<ExternalSnapshot> {
        Arc::new(ExternalSnapshot { device, readers: Mutex::default() })
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
