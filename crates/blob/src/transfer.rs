//! The futures of a blob's requests: those of its channel, with more detailed errors.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use spindle_block::{IoError, Operation};
use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;

/// A read or write: resolves to the result and the buffers. See [`BlobChannel`](crate::BlobChannel).
#[must_use = "a transfer does nothing until it is awaited"]
pub struct BlobTransfer<'a> {
    blob: &'a Blob,
    request: spindle_block::Transfer<'a>,
}

impl<'a> BlobTransfer<'a> {
    #[inline(always)]
    pub(crate) fn new(blob: &'a Blob, request: spindle_block::Transfer<'a>) -> BlobTransfer<'a> {
        BlobTransfer { blob, request }
    }

    /// Asks that a write be durable when it completes (force unit access).
    pub fn fua(self) -> Self {
        BlobTransfer { request: self.request.fua(), ..self }
    }
}

impl Future for BlobTransfer<'_> {
    type Output = (Result<(), BlobError>, Buffers);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let blob = self.blob;
        self.request.poll_map(cx, |error| blob.explain(error))
    }
}

/// A request without data: resolves to the result. See [`BlobChannel`](crate::BlobChannel).
#[must_use = "a command does nothing until it is awaited"]
pub struct BlobCommand<'a> {
    blob: &'a Blob,
    request: spindle_block::Command<'a>,
}

impl<'a> BlobCommand<'a> {
    pub(crate) fn new(blob: &'a Blob, request: spindle_block::Command<'a>) -> BlobCommand<'a> {
        BlobCommand { blob, request }
    }

    /// Asks that a write of zeroes or an unmap be durable when it completes (force unit access).
    pub fn fua(self) -> Self {
        BlobCommand { request: self.request.fua(), ..self }
    }
}

impl Future for BlobCommand<'_> {
    type Output = Result<(), BlobError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let blob = self.blob;
        Pin::new(&mut self.request).poll(cx).map_err(|error| blob.explain(error))
    }
}

impl Blob {
    /// The error of a failed request, with more detail than its status holds, if known.
    #[cold]
    fn explain(&self, error: IoError) -> BlobError {
        let shared = &self.opened.shared;
        if let Err(why) = self.check(error.operation, error.offset, error.len) {
            return why;
        }
        match crate::shared::BlobLocal::known(shared).and_then(|here| here.failure()) {
            Some(failure) if failure.kind() == error.kind => failure,
            _ => BlobError::Io(error),
        }
    }

    /// An error if the range must not be read or written.
    fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(), BlobError> {
        let shared = &self.opened.shared;
        self.check_open()?;
        if operation.changes_data() {
            if shared.store.read_only {
                return Err(BlobError::StoreReadOnly { store: shared.store.name.clone() });
            }
            shared.check_data()?;
        }
        let unit = shared.store.io_unit;
        if (offset | len) & u64::from(unit - 1) != 0 {
            return Err(BlobError::Unaligned { blob: shared.id, offset, len, unit });
        }
        let size = shared.bytes();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(BlobError::OutOfRange { blob: shared.id, offset, len, size });
        }
        if shared.store.is_unloaded() {
            return Err(shared.store.gone());
        }
        Ok(())
    }
}
