//! Memory for I/O: uniquely owned buffers, their pools, and shared memory.
//!
//! An [`IoBuf`] has one owner and may be sent anywhere; a device takes it by value, so no other code can
//! touch it while the device does. [`SharedMem`] is the opposite: memory that several cores, or a guest,
//! touch at once; it never becomes a slice and is accessed by copying only.
//!
//! `unsafe` lives in `segment` (the allocation and its count), `io_buf` (the slices) and `shared` (the
//! map and the copy routine).

mod buffers;
mod io_buf;
mod pool;
mod segment;
mod shared;

pub use buffers::Buffers;
pub use io_buf::IoBuf;
pub use pool::{OutOfBuffers, Pool};
pub use shared::{Leaving, SharedMem};

/// No memory is available for a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a buffer of {bytes} bytes: ask for less, or free some")]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub bytes: usize,
}

/// Every buffer begins at a multiple of this, as direct file I/O requires: one page.
pub const ALIGNMENT: usize = 4096;
