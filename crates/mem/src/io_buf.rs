//! A uniquely owned buffer, or a part of one; or a read-only share of another's bytes.
//!
//! Owned by the holder of the value, on any thread: a future, a request on its way through the lanes, an
//! operation in the engine. Dropping the last part returns the memory to its pool. Splitting, joining and
//! dropping allocate nothing.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use crate::segment::Segment;
use crate::{Buffers, OutOfMemory};

/// A uniquely owned run of bytes, or a [share](Self::share) of another's. The unsplit buffer begins at a
/// multiple of [`ALIGNMENT`](crate::ALIGNMENT).
pub struct IoBuf {
    start: NonNull<u8>,
    len: usize,
    segment: Segment,
}

// SAFETY: either the bytes from `start` on belong to this value alone (parts of one segment never overlap),
// or no thread changes them while it lives. Segment is Send. Checked under ThreadSanitizer by
// `tests/buffers.rs`.
unsafe impl Send for IoBuf {}
// SAFETY: `&IoBuf` gives only `&[u8]`.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    /// Allocates `len` zero bytes outside of any pool. For a length from outside (a file, a peer, a command
    /// line) use [`try_zeroed`](Self::try_zeroed).
    ///
    /// # Panics
    /// If no address space is that large. Without memory the process ends.
    pub fn zeroed(len: usize) -> IoBuf {
        IoBuf::whole(Segment::allocate(len), len)
    }

    /// Allocates `len` zero bytes outside of any pool.
    ///
    /// # Errors
    /// No memory is available. If the kernel overcommits, that shows only when the bytes are first written.
    pub fn try_zeroed(len: usize) -> Result<IoBuf, OutOfMemory> {
        Ok(IoBuf::whole(Segment::try_allocate(len)?, len))
    }

    /// Allocates outside of any pool and copies `bytes` in.
    pub fn copy_from(bytes: &[u8]) -> IoBuf {
        let mut buffer = IoBuf::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// The first `len` bytes of a segment, which the caller owns whole.
    pub(crate) fn whole(segment: Segment, len: usize) -> IoBuf {
        assert!(len <= segment.capacity(), "{len} bytes of a segment of {}", segment.capacity());
        IoBuf { start: segment.base(), len, segment }
    }

    /// Keeps the bytes before `at` and returns those from `at` on.
    ///
    /// # Panics
    /// If `at` is beyond the end, as slices do.
    #[inline]
    pub fn split_off(&mut self, at: usize) -> IoBuf {
        assert!(at <= self.len, "split at {at} of {} bytes", self.len);
        // SAFETY: `at` is within the part, or at its end.
        let start = unsafe { self.start.add(at) };
        let rest = IoBuf { start, len: self.len - at, segment: self.segment.share() };
        self.len = at;
        rest
    }

    /// Returns the bytes before `at` and keeps those from `at` on.
    ///
    /// # Panics
    /// If `at` is beyond the end, as slices do.
    #[inline]
    pub fn split_to(&mut self, at: usize) -> IoBuf {
        assert!(at <= self.len, "split at {at} of {} bytes", self.len);
        let front = IoBuf { start: self.start, len: at, segment: self.segment.share() };
        // SAFETY: `at` is within the part, or at its end.
        self.start = unsafe { self.start.add(at) };
        self.len -= at;
        front
    }

    /// Appends `next`, if it follows directly in the same allocation.
    ///
    /// # Errors
    /// Both parts are returned unchanged if they do not touch.
    pub fn join(mut self, next: IoBuf) -> Result<IoBuf, (IoBuf, IoBuf)> {
        match self.touches(&next) {
            true => {
                self.len += next.len;
                self.segment.take_over(&next.segment);
                Ok(self)
            }
            false => Err((self, next)),
        }
    }

    /// Whether `next` follows directly in the same allocation.
    #[inline]
    pub(crate) fn touches(&self, next: &IoBuf) -> bool {
        // SAFETY: one past the end of the part is still within, or at the end of, its allocation.
        let end = unsafe { self.start.add(self.len) };
        self.segment.goes_with(&next.segment) && end == next.start
    }

    /// Takes over the bytes of `next`, which [touches](Self::touches) this one and goes.
    #[inline]
    pub(crate) fn grow_over(&mut self, next: &mut Buffers) -> bool {
        let Buffers::One(second) = next else { return false };
        if !self.touches(second) {
            return false;
        }
        // Not moved out: the memory of `next` may have been written a moment ago, word by word.
        self.len += second.len;
        self.segment.take_over(&second.segment);
        *next = Buffers::None;
        true
    }

    /// Returns a second buffer with the same bytes, without a copy: both can be read, on any threads. A write
    /// through either while the other lives first copies the bytes to new memory. Once the second one is
    /// dropped, the first can be written in place again.
    pub fn share(&mut self) -> IoBuf {
        IoBuf { start: self.start, len: self.len, segment: self.segment.lend() }
    }

    /// Moves to a copy of the shared bytes.
    #[cold]
    fn part(&mut self) {
        *self = IoBuf::copy_from(self);
    }

    /// Keeps the first `len` bytes; no effect if it is shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the part lies within its allocation, is initialised, and belongs to this value alone.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for IoBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        if !self.segment.is_alone() {
            self.part();
        }
        // SAFETY: the part lies within its allocation and is initialised; no other value reads or writes it,
        // and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for IoBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} B)", self.len)
    }
}
