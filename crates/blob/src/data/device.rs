//! A blob as a block device.
//!
//! Two handles on the same lane code. The device from [`Blob::device`](crate::Blob::device) stands for one opening: it keeps the
//! blob open, and after that opening is closed its requests end as removed. The library's own requests use
//! the blob itself as device; each thread keeps a channel for them until the blob is closed.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::{Channel, Claim, Device, DeviceState, Geometry, Lane, LaneCx, OpenError, Operation};

use super::lane::BlobLane;
use crate::error::BlobError;
use crate::md::Opened;
use crate::shared::BlobShared;

impl BlobShared {
    /// Its shape as a device.
    fn shape(&self) -> Geometry {
        let below = self.store.device.device().geometry();
        let writable = !self.store.read_only && !self.read_only.load(Ordering::Acquire);
        let shape = below.with_boundary(0).with_unmap_reads_zero(false);
        let shape = shape.with_writable(below.writable() && writable).with_depth(u32::MAX);
        // A blob without clusters is a device of one block that refuses every request.
        shape.with_blocks((self.bytes() >> below.block_shift()).max(1)).unwrap_or(shape)
    }
}

impl Device for BlobShared {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.shape()
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.lanes)
    }

    fn supports(&self, operation: Operation) -> bool {
        BlobLane::does(operation)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        BlobLane::open(self, None, cx)
    }
}

impl Device for Opened {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn geometry(&self) -> Geometry {
        self.shared.shape()
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.shared.lanes)
    }

    fn claim(&self) -> Option<&Claim> {
        Some(&self.shared.claim)
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        vec![self.shared.store.device.device().clone()]
    }

    fn supports(&self, operation: Operation) -> bool {
        BlobLane::does(operation)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        BlobLane::open(self.shared.clone(), Some(self), cx)
    }
}

impl BlobShared {
    /// This thread's own channel to the blob, opened on first use and kept until the blob is closed.
    pub(crate) fn channel(self: &Arc<BlobShared>) -> Result<Rc<Channel>, BlobError> {
        if let Some(channel) = self.known_channel() {
            return Ok(channel);
        }
        let opened = |source| self.store.open_error(source);
        if spindle_reactor::Thread::current().is_none() {
            return Err(opened(OpenError::NotOnThread { device: self.name.clone() }));
        }
        // Kept in the thread's extension, which an exit drops.
        let channel = Rc::new(Channel::open_unheld(self.clone()).map_err(opened)?);
        self.keep_channel(&channel);
        Ok(channel)
    }
}
