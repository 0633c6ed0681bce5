//! A blob as a block device.
//!
//! Two handles on the same lane code. The device from [`Blob::device`] stands for one opening: it keeps the
//! blob open, and after that opening is closed its requests end as removed. The library's own requests use
//! the blob itself as device; each thread keeps a channel for them until the blob is closed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::{Channel, Claim, Device, DeviceState, Geometry, Lane, LaneCx, OpenError, Operation};

use crate::blob::{Blob, Opened};
use crate::error::BlobError;
use crate::lane::BlobLane;
use crate::shared::{BlobShared, locked};

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

impl Blob {
    /// The blob as a block device, which keeps it open. Its lanes serve reads, writes, write zeroes, unmaps
    /// and flushes as [`BlobChannel`](crate::BlobChannel) does; after [`close`](Self::close) requests end as
    /// [`Removed`](spindle_block::IoErrorKind::Removed).
    ///
    /// Always the same device for one opening of the blob. It may be claimed; all openings share the claim.
    pub fn device(&self) -> Arc<dyn Device> {
        self.opened.clone()
    }
}

/// A thread's own channels to blobs; stored in the thread's extensions.
#[derive(Default)]
struct BlobChannels {
    open: RefCell<BTreeMap<usize, Rc<Channel>>>,
    /// The last one used, which is usually the next one used.
    last: RefCell<Option<(usize, Rc<Channel>)>>,
}

impl BlobChannels {
    #[inline]
    fn get(&self, key: usize) -> Option<Rc<Channel>> {
        if let Some((last, channel)) = &*self.last.borrow()
            && *last == key
        {
            return Some(channel.clone());
        }
        let found = self.open.borrow().get(&key).cloned()?;
        *self.last.borrow_mut() = Some((key, found.clone()));
        Some(found)
    }

    fn remove(&self, key: usize) {
        // Dropped while nothing is borrowed: the blob may go with it.
        let last = self.last.take();
        let open = self.open.borrow_mut().remove(&key);
        drop((last, open));
    }
}

fn key_of(blob: &Arc<BlobShared>) -> usize {
    Arc::as_ptr(blob) as usize
}

impl BlobShared {
    /// This thread's own channel to the blob, opened on first use and kept until the blob is closed.
    pub(crate) fn channel(self: &Arc<BlobShared>) -> Result<Rc<Channel>, BlobError> {
        let opened = |source| self.store.open_error(source);
        if spindle_reactor::Thread::current().is_none() {
            return Err(opened(OpenError::NotOnThread { device: self.name.clone() }));
        }
        let channels = spindle_reactor::extension::<BlobChannels>();
        let key = key_of(self);
        if let Some(channel) = channels.get(key) {
            return Ok(channel);
        }
        // Kept in the thread's extension, which an exit drops.
        let channel = Rc::new(Channel::open_unheld(self.clone()).map_err(opened)?);
        channels.open.borrow_mut().insert(key, channel.clone());
        Ok(channel)
    }

    /// Closes every thread's own channel to the blob. A later request opens it again.
    pub(crate) fn close_channels(self: &Arc<BlobShared>) {
        let threads = locked(&self.threads).clone();
        for thread in threads {
            let blob = self.clone();
            // A thread that is gone has closed its channels.
            let _ = thread.send_msg(move || {
                spindle_reactor::extension::<BlobChannels>().remove(key_of(&blob));
            });
        }
    }
}
