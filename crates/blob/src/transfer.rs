//! The futures of a blob's requests: those of its channel, with more detailed errors.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use spindle_block::IoError;
use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;

/// A read or write: resolves to the result and the buffers. See [`BlobChannel`](crate::BlobChannel).
#[must_use = "a transfer does nothing until it is awaited"]
pub struct Transfer<'a> {
    blob: &'a Blob,
    request: spindle_block::Transfer<'a>,
}

impl<'a> Transfer<'a> {
    #[inline(always)]
    pub(crate) fn new(blob: &'a Blob, request: spindle_block::Transfer<'a>) -> Transfer<'a> {
        Transfer { blob, request }
    }

    /// Asks that a write be durable when it completes (force unit access).
    pub fn fua(self) -> Self {
        Transfer { request: self.request.fua(), ..self }
    }
}

impl Future for Transfer<'_> {
    type Output = (Result<(), BlobError>, Buffers);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let blob = self.blob;
        let done = std::task::ready!(Pin::new(&mut self.request).poll(cx));
        Poll::Ready(match done {
            (Ok(()), buffers) => (Ok(()), buffers),
            (Err(error), buffers) => (Err(blob.explain(error)), buffers),
        })
    }
}

/// A request without data: resolves to the result. See [`BlobChannel`](crate::BlobChannel).
#[must_use = "a command does nothing until it is awaited"]
pub struct Command<'a> {
    blob: &'a Blob,
    request: spindle_block::Command<'a>,
}

impl<'a> Command<'a> {
    pub(crate) fn new(blob: &'a Blob, request: spindle_block::Command<'a>) -> Command<'a> {
        Command { blob, request }
    }

    /// Asks that a write of zeroes or an unmap be durable when it completes (force unit access).
    pub fn fua(self) -> Self {
        Command { request: self.request.fua(), ..self }
    }
}

impl Future for Command<'_> {
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
        match crate::blob_local::BlobLocal::known(shared).and_then(|here| here.failure()) {
            Some(failure) if failure.kind() == error.kind => failure,
            _ => BlobError::Io(error),
        }
    }
}
