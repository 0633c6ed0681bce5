//! Closing files, which may take long: the kernel frees what a deleted file held, or asks a server.
//!
//! So a worker thread does it, on whatever thread the last handle is dropped. Not by io_uring's operation:
//! that closes on the thread that entered the kernel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::socket_file::SocketFile;

/// An open file, and the locks on the layers below it.
#[derive(Debug)]
pub(crate) struct OpenFd {
    fd: OwnedFd,
    _locks: Vec<OwnedFd>,
}

impl OpenFd {
    pub(crate) fn new(fd: OwnedFd, locks: Vec<OwnedFd>) -> OpenFd {
        OpenFd { fd, _locks: locks }
    }
}

impl AsFd for OpenFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Closes files on threads that may wait.
pub(crate) trait Closer: Send + Sync {
    /// Closes what is given, later.
    fn close(self: Arc<Self>, closing: PendingClose);
}

/// An open file. Dropping it gives it to a worker to close.
pub(crate) struct FileFd {
    /// `Some` until dropped.
    fd: Option<OpenFd>,
    /// The number of the job that opened it.
    job: u64,
    pool: Arc<dyn Closer>,
}

impl FileFd {
    pub(crate) fn new(fd: OpenFd, job: u64, pool: Arc<dyn Closer>) -> FileFd {
        FileFd { fd: Some(fd), job, pool }
    }
}

impl AsFd for FileFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken by the drop only").as_fd()
    }
}

impl Drop for FileFd {
    fn drop(&mut self) {
        let job = self.job;
        self.fd.take().into_iter().for_each(|fd| self.pool.clone().close(PendingClose::File { fd, job }));
    }
}

/// The files of a socket's path with one owner. Dropping it gives them to a worker to remove.
pub(crate) struct OwnedSocketFile {
    /// `Some` until dropped.
    file: Option<SocketFile>,
    pool: Arc<dyn Closer>,
}

impl OwnedSocketFile {
    pub(crate) fn new(file: SocketFile, pool: Arc<dyn Closer>) -> OwnedSocketFile {
        OwnedSocketFile { file: Some(file), pool }
    }
}

impl Drop for OwnedSocketFile {
    fn drop(&mut self) {
        self.file.take().into_iter().for_each(|file| self.pool.clone().close(PendingClose::SocketFile(file)));
    }
}

/// What a worker closes, by dropping it.
pub(crate) enum PendingClose {
    /// With the number of the job that opened it.
    File {
        fd: OpenFd,
        job: u64,
    },
    SocketFile(SocketFile),
}

/// The files waiting to be closed, numbered in the order in which they were dropped.
#[derive(Default)]
pub(crate) struct Closes {
    next: u64,
    /// Not closed yet, oldest first.
    pending: Vec<u64>,
}

impl Closes {
    /// Notes a dropped file; returns its number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.next += 1;
        self.pending.push(self.next);
        self.next
    }

    /// Notes that a file was closed.
    pub(crate) fn end(&mut self, number: u64) {
        self.pending.retain(|pending| *pending != number);
    }

    /// The number of the last one dropped.
    pub(crate) fn last(&self) -> u64 {
        self.next
    }

    /// True if a file with a number up to `last` is not closed yet.
    pub(crate) fn any_up_to(&self, last: u64) -> bool {
        self.pending.first().is_some_and(|first| *first <= last)
    }
}
