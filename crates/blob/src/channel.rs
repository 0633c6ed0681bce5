//! A thread's handle on an open blob.

use std::rc::Rc;

use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;
use crate::local::Local;
use crate::transfer::{Direction, Transfer};

/// The current thread's handle on an open blob, as [`block::Channel`](spindle_block::Channel) is on a device:
/// for a thread that makes many requests, which are found their way once. It stays on its thread.
///
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_blob::BlobChannel>();
/// ```
///
/// It keeps the blob open. Once its blob was [closed](Blob::close), requests are refused.
pub struct BlobChannel {
    blob: Blob,
    local: Rc<Local>,
}

impl BlobChannel {
    /// The blob.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Fills `buffers` from byte `offset` on and comes back with them. What was never written reads zero.
    ///
    /// Nothing happens before the first poll. Dropping the future afterwards detaches the request: its
    /// memory goes back to its pool when the device has returned it.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the device fails, or a parent is missing.
    #[inline]
    pub fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(&self.blob, &self.local, Direction::Read, offset, buffers.into())
    }

    /// Stores `buffers` from byte `offset` on and comes back with them. When it has succeeded the data can be
    /// read back; it is durable after a later [`flush`](Blob::flush). Each block of a write that a crash
    /// interrupts is old or new.
    ///
    /// Nothing happens before the first poll. Dropping the future afterwards detaches the request: each of
    /// its pieces may still be written.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the blob is read-only, the store is out of space
    /// ([`BlobError::OutOfSpace`]), or the device fails. Some of the range may have been written then.
    #[inline]
    pub fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(&self.blob, &self.local, Direction::Write, offset, buffers.into())
    }
}

impl Blob {
    /// Opens a channel to the blob on the Spindle thread that runs the caller.
    ///
    /// # Errors
    /// The blob was closed, or the store's device cannot be opened on this thread.
    pub fn channel(&self) -> Result<BlobChannel, BlobError> {
        self.check_open()?;
        let local = self.opened.shared.store.local()?;
        Ok(BlobChannel { blob: self.clone(), local })
    }

    /// As [`BlobChannel::read`], by a channel that is looked up for this request.
    ///
    /// # Errors
    /// As there, and as [`channel`](Self::channel).
    pub async fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> (Result<(), BlobError>, Buffers) {
        self.transfer(Direction::Read, offset, buffers.into()).await
    }

    /// As [`BlobChannel::write`], by a channel that is looked up for this request.
    ///
    /// # Errors
    /// As there, and as [`channel`](Self::channel).
    pub async fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> (Result<(), BlobError>, Buffers) {
        self.transfer(Direction::Write, offset, buffers.into()).await
    }

    async fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        buffers: Buffers,
    ) -> (Result<(), BlobError>, Buffers) {
        match self.opened.shared.store.local() {
            Ok(local) => Transfer::new(self, &local, direction, offset, buffers).await,
            Err(error) => (Err(error), buffers),
        }
    }
}

impl std::fmt::Debug for BlobChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobChannel({:?})", self.blob)
    }
}
