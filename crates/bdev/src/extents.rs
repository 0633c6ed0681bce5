//! The contents of a disk's ranges, for targets that can report them to clients.

use spindle_block::IoErrorKind;

use crate::LocalFuture;

/// The content of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes, or nothing is known.
    Data,
    /// Zeroes, in allocated space.
    Zero,
    /// No space in any layer: it reads as zeroes.
    Hole,
}

/// One run of a disk with the same content and depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Its content.
    pub content: Content,
    /// The layer that holds it: 0 none, 1 the disk itself, 2 its parent, and so on.
    pub depth: u32,
}

/// A disk that can report its extents.
pub trait Extents: Send + Sync + 'static {
    /// The extents from byte `offset` on, at least one and at most `most`. They may end before or after `len`
    /// bytes. The range lies inside the disk. Called on any thread of the runtime.
    ///
    /// A concurrent write may be included or not.
    ///
    /// # Errors
    /// As for a read of the range.
    fn extents(
        &self,
        offset: u64,
        len: u64,
        most: usize,
    ) -> LocalFuture<'_, Result<Vec<Extent>, IoErrorKind>>;
}
