//! An asynchronous operation handed to a [`Driver`](crate::Driver), and what comes back.
//!
//! An operation owns its buffers until it completes: memory that the kernel may still touch cannot be
//! reached from safe code, and a cancelled operation still comes back.

use std::io;
use std::path::PathBuf;

use spindle_mem::Buffers;

/// The submitter's name for an operation; the driver hands it back unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// SKETCH for the engine's author: shapes to keep, variants and handle types to complete.
#[derive(Debug)]
#[non_exhaustive]
pub enum Op {
    /// Open a file or block device. Output: [`Output::File`].
    Open {
        /// Where it lies.
        path: PathBuf,
    },
    /// Read `buffers.len()` bytes at `offset` bytes.
    Read {
        /// Byte offset in the file.
        offset: u64,
        /// Filled on success.
        buffers: Buffers,
    },
}

/// What a successful operation produced.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Nothing but success.
    Done,
    /// That many bytes were moved.
    Bytes(usize),
}

/// A finished operation: its token, its result, and the operation itself with its buffers.
#[derive(Debug)]
pub struct Completion {
    /// As given at submission.
    pub token: Token,
    /// What came of it.
    pub result: io::Result<Output>,
    /// The operation, with the buffers it owned.
    pub op: Op,
}
