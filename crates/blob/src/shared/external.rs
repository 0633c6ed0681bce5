//! An external snapshot that open blobs read.
//!
//! Only the [`Backing`](super::Backing) of such a blob holds it. The lanes of the blob, and those of its clones, open the device
//! below them when they first read it; when the last reference is dropped, on any thread, the lanes are told
//! to close it.

use std::sync::Arc;

use spindle_block::{ClaimKind, Claimed, Device, OpenError};
use spindle_reactor::WaitList;

use crate::map::ClusterSize;

/// The device of an external snapshot, claimed for reading only: no writer may claim it meanwhile.
pub(crate) struct ExternalSnapshot {
    pub(crate) device: Arc<dyn Device>,
    _claimed: Claimed,
    /// The lanes that have it open, woken when no blob reads it any more.
    pub(crate) readers: WaitList,
}

impl ExternalSnapshot {
    /// Claims the device that a blob of `store` will read.
    ///
    /// # Errors
    /// A user that may write has claimed it.
    pub(crate) fn claim(device: Arc<dyn Device>, store: &str) -> Result<Arc<ExternalSnapshot>, OpenError> {
        let holder = format!("a clone in store {store}, whose external snapshot it is");
        let _claimed = Claimed::take_as(device.clone(), ClaimKind::ReadManyWriteNone, holder)?;
        Ok(Arc::new(ExternalSnapshot { device, _claimed, readers: WaitList::default() }))
    }
}

impl ExternalSnapshot {
    /// Clusters of this size that it has data for, the last one perhaps in part.
    pub(crate) fn clusters(&self, size: ClusterSize) -> u64 {
        self.device.geometry().bytes().div_ceil(size.get())
    }
}

impl Drop for ExternalSnapshot {
    fn drop(&mut self) {
        self.readers.wake_all();
    }
}
