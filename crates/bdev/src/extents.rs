//! What the ranges of a disk hold: asked by targets that can tell their clients.

use spindle_block::IoErrorKind;

use crate::LocalFuture;

/// What a range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes, or nothing is known.
    Data,
    /// Zeroes, in space of its own.
    Zero,
    /// No space of its own, in no layer: it reads as zeroes.
    Hole,
}

/// One run of a disk with the same content and depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// What it holds.
    pub content: Content,
    /// The layer that it comes from: 0 none, 1 the disk itself, 2 its parent, and so on.
    pub depth: u32,
}

/// A disk that knows where it holds what.
pub trait Extents: Send + Sync + 'static {
    /// The extents from byte `offset` on, at least one and at most `most`. They may end before `len` bytes are
    /// described, or beyond. The range lies inside the disk. Called on any thread of the runtime.
    ///
    /// What a write changes meanwhile may be described as before or as after it.
    ///
    /// # Errors
    /// As a read of the range.
    fn extents(
        &self,
        offset: u64,
        len: u64,
        most: usize,
    ) -> LocalFuture<'_, Result<Vec<Extent>, IoErrorKind>>;
}
