//! An external snapshot that open blobs read, and the end of that.
//!
//! Held by what stands behind such a blob, and by nobody else. The blob's lanes, and those of its clones, open the
//! device below them when they first read it; when it is let go of, on whatever thread, they are told to close it.

use std::sync::{Arc, Mutex};
use std::task::Waker;

use spindle_block::Device;

use crate::shared::locked;

/// The device of an external snapshot.
pub(crate) struct Outside {
    pub(crate) device: Arc<dyn Device>,
    /// Has the lanes polled that have it open.
    readers: Mutex<Vec<Waker>>,
}

impl Outside {
    /// A device that a blob is to read.
    pub(crate) fn new(device: Arc<dyn Device>) -> Arc<Outside> {
        Arc::new(Outside { device, readers: Mutex::default() })
    }

    /// The waker is used when no blob reads it any more. Kept once, however often it comes.
    pub(crate) fn add_reader(&self, waker: &Waker) {
        let mut readers = locked(&self.readers);
        if !readers.iter().any(|known| known.will_wake(waker)) {
            readers.push(waker.clone());
        }
    }

    /// The lanes behind that waker have closed.
    pub(crate) fn remove_reader(&self, waker: &Waker) {
        locked(&self.readers).retain(|known| !known.will_wake(waker));
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let readers = std::mem::take(&mut *locked(&self.readers));
        readers.into_iter().for_each(Waker::wake);
    }
}
