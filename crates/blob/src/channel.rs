//! A thread's handle on an open blob.

use spindle_block::Channel;
use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;
use crate::transfer::{BlobCommand, BlobTransfer};

/// The current thread's handle on an open blob, as [`block::Channel`](spindle_block::Channel) is on a device:
/// a channel of the blob's [device](Blob::device), for a thread that makes many requests. It stays on its
/// thread, which does not exit while the channel is open.
///
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_blob::BlobChannel>();
/// ```
///
/// It keeps the blob open. After [`Blob::close`], requests are refused.
///
/// Nothing happens before a request is first polled. Dropping its future afterwards detaches the request: it
/// goes on, each of its pieces may still be written, and its memory returns to its pool when the device has
/// returned it.
pub struct BlobChannel {
    blob: Blob,
    channel: Channel,
}

impl BlobChannel {
    /// The blob.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Fills `buffers` from byte `offset` on and comes back with them. What was never written reads zero.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the device fails, or a parent is missing.
    #[inline]
    pub fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> BlobTransfer<'_> {
        BlobTransfer::new(&self.blob, self.channel.read(offset, buffers))
    }

    /// Stores `buffers` from byte `offset` on and comes back with them. When it has succeeded the data can be
    /// read back; it is durable after a later [`flush`](Self::flush), or at once with [`BlobTransfer::fua`]. Each
    /// block of a write that a crash interrupts is old or new.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the blob is read-only, the store is out of space
    /// ([`BlobError::OutOfSpace`]), or the device fails. Some of the range may have been written then.
    #[inline]
    pub fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> BlobTransfer<'_> {
        BlobTransfer::new(&self.blob, self.channel.write(offset, buffers))
    }

    /// As [`Blob::write_zeroes`].
    ///
    /// # Errors
    /// As there.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> BlobCommand<'_> {
        BlobCommand::new(&self.blob, self.channel.write_zeroes(offset, len))
    }

    /// As [`Blob::unmap`].
    ///
    /// # Errors
    /// As there.
    pub fn unmap(&self, offset: u64, len: u64) -> BlobCommand<'_> {
        BlobCommand::new(&self.blob, self.channel.unmap(offset, len))
    }

    /// As [`Blob::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&self) -> BlobCommand<'_> {
        BlobCommand::new(&self.blob, self.channel.flush())
    }
}

impl Blob {
    /// Opens a channel to the blob on the Spindle thread that runs the caller.
    ///
    /// # Errors
    /// The blob was closed, or the store's device cannot be opened on this thread.
    pub fn channel(&self) -> Result<BlobChannel, BlobError> {
        self.check_open()?;
        let store = &self.opened.shared.store;
        let channel = Channel::open(self.device()).map_err(|source| store.open_error(source))?;
        Ok(BlobChannel { blob: self.clone(), channel })
    }

    /// As [`BlobChannel::read`], on a channel that this thread keeps until the blob is closed.
    ///
    /// # Errors
    /// As there, and as [`channel`](Self::channel).
    pub async fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> (Result<(), BlobError>, Buffers) {
        match self.own_channel() {
            Ok(channel) => BlobTransfer::new(self, channel.read(offset, buffers)).await,
            Err(error) => (Err(error), buffers.into()),
        }
    }

    /// As [`BlobChannel::write`], on a channel that this thread keeps until the blob is closed.
    ///
    /// # Errors
    /// As there, and as [`channel`](Self::channel).
    pub async fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> (Result<(), BlobError>, Buffers) {
        match self.own_channel() {
            Ok(channel) => BlobTransfer::new(self, channel.write(offset, buffers)).await,
            Err(error) => (Err(error), buffers.into()),
        }
    }

    /// Makes `len` bytes from byte `offset` on read zero. Where nothing is allocated and no parent has data,
    /// nothing is written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        BlobCommand::new(self, self.own_channel()?.write_zeroes(offset, len)).await
    }

    /// Declares `len` bytes from byte `offset` on unused. Whole clusters of a thin blob without parent are
    /// freed, durably, and read zero. In other clusters the device gets the unmap, and its
    /// [promise](spindle_block::Geometry::unmap_reads_zero) says what they read. Ranges that read through to
    /// a parent stay.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn unmap(&self, offset: u64, len: u64) -> Result<(), BlobError> {
        BlobCommand::new(self, self.own_channel()?.unmap(offset, len)).await
    }

    /// Makes every write durable that had succeeded before, from any thread. Runs to its end even if the
    /// future is dropped.
    ///
    /// # Errors
    /// The device fails: any write since the last flush may be lost, the maps of new clusters too. This and
    /// every later flush fails then, and the store refuses changes of its metadata until it is loaded again.
    pub async fn flush(&self) -> Result<(), BlobError> {
        BlobCommand::new(self, self.own_channel()?.flush()).await
    }

    fn own_channel(&self) -> Result<std::rc::Rc<Channel>, BlobError> {
        self.check_open()?;
        self.opened.shared.channel()
    }
}

impl std::fmt::Debug for BlobChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobChannel({:?})", self.blob)
    }
}
