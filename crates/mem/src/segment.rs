//! One aligned allocation and the count of buffers cut from it.
//!
//! Owned by the [`IoBuf`](crate::IoBuf)s that point into it, on any threads. Dropping the last one returns it
//! to its pool, or frees it. Not promised: on which thread that happens.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::pool::Home;
use crate::{ALIGNMENT, OutOfMemory};

/// The bookkeeping of an allocation, on the heap beside it.
struct Header {
    owners: AtomicUsize,
    /// Number of owners that only read bytes of another owner.
    copies: AtomicUsize,
    base: NonNull<u8>,
    capacity: usize,
    home: Option<Home>,
}

/// The access of an owner to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// They belong to it alone.
    Own,
    /// They belong to it, and copies may read them.
    Lent,
    /// They belong to another owner. No owner changes them while this lives.
    Copy,
}

/// A counted reference to an allocation.
pub(crate) struct Segment(NonNull<Header>, Access);

// SAFETY: the header is accessed through its atomic counts only, or by the last owner, which is alone. The
// bytes belong to the parts that are no copies, which do not overlap; they change only while no copy exists.
// Checked under ThreadSanitizer by `tests/buffers.rs`.
unsafe impl Send for Segment {}

impl Segment {
    /// Allocates zeroed memory of `capacity` bytes, freed with its last owner unless it gets a home. An error
    /// if there is no memory.
    pub(crate) fn try_allocate(capacity: usize) -> Result<Segment, OutOfMemory> {
        let layout = layout(capacity)?;
        // SAFETY: the layout's size is at least 1.
        let memory = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(memory).ok_or(OutOfMemory { bytes: capacity })?;
        let (owners, copies) = (AtomicUsize::new(1), AtomicUsize::new(0));
        let header = Header { owners, copies, base, capacity, home: None };
        Ok(Segment(NonNull::from(Box::leak(Box::new(header))), Access::Own))
    }

    /// As `try_allocate`; without memory the process ends, as everywhere in Rust.
    pub(crate) fn allocate(capacity: usize) -> Segment {
        Segment::try_allocate(capacity).unwrap_or_else(|_| match layout(capacity) {
            Ok(layout) => handle_alloc_error(layout),
            Err(error) => panic!("{error}"),
        })
    }

    fn header(&self) -> &Header {
        // SAFETY: a Segment counts as an owner, and the header lives while there is one.
        unsafe { self.0.as_ref() }
    }

    /// The first byte of the allocation.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.header().base
    }

    /// Bytes allocated.
    pub(crate) fn capacity(&self) -> usize {
        self.header().capacity
    }

    /// True if parts of both can be joined: they belong to one allocation, and both or none are copies.
    #[inline]
    pub(crate) fn goes_with(&self, other: &Segment) -> bool {
        self.0 == other.0 && (self.1 == Access::Copy) == (other.1 == Access::Copy)
    }

    /// Takes over the bytes of `other`, which joins this one.
    #[inline]
    pub(crate) fn take_over(&mut self, other: &Segment) {
        if other.1 == Access::Lent {
            self.1 = Access::Lent;
        }
    }

    /// Adds an owner of the same kind, for a part of the bytes.
    #[inline]
    pub(crate) fn share(&self) -> Segment {
        // Relaxed: the new owner is made from one that exists.
        self.header().owners.fetch_add(1, Ordering::Relaxed);
        if self.1 == Access::Copy {
            self.header().copies.fetch_add(1, Ordering::Relaxed);
        }
        Segment(self.0, self.1)
    }

    /// Adds an owner that reads the same bytes.
    pub(crate) fn lend(&mut self) -> Segment {
        if self.1 == Access::Own {
            self.1 = Access::Lent;
        }
        let header = self.header();
        header.owners.fetch_add(1, Ordering::Relaxed);
        header.copies.fetch_add(1, Ordering::Relaxed);
        Segment(self.0, Access::Copy)
    }

    /// True if no other owner reads the bytes, nor can begin to while the caller borrows this.
    #[inline]
    pub(crate) fn is_alone(&mut self) -> bool {
        self.1 == Access::Own || self.has_come_back()
    }

    #[cold]
    fn has_come_back(&mut self) -> bool {
        // Acquire: reads by copies happen before the coming writes. New copies of these bytes are made from
        // this owner, which is borrowed, or from copies that are counted.
        let alone = self.1 == Access::Lent && self.header().copies.load(Ordering::Acquire) == 0;
        if alone {
            self.1 = Access::Own;
        }
        alone
    }

    /// Sets the pool that gets the memory after its last owner.
    pub(crate) fn set_home(&mut self, home: Home) {
        // SAFETY: called by the pool before it hands the segment out, while it is the only owner.
        unsafe { self.0.as_mut() }.home = Some(home);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.1 == Access::Copy {
            // Release: reads through it happen before later writes of the owner.
            self.header().copies.fetch_sub(1, Ordering::Release);
        }
        // Release: the next user of the memory sees what this owner wrote.
        if self.header().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Acquire: sees what every former owner wrote. ThreadSanitizer does not follow fences, so it gets the
        // same order by a load, as in the standard library's own counts.
        if cfg!(sanitized) {
            self.header().owners.load(Ordering::Acquire);
        } else {
            fence(Ordering::Acquire);
        }
        // SAFETY: the count is 0, so no other reference to the header exists.
        let header = unsafe { self.0.as_mut() };
        match header.home.take() {
            Some(home) => {
                header.owners.store(1, Ordering::Relaxed);
                // The new Segment takes over the ownership that ended here.
                home.give_back(Segment(self.0, Access::Own));
            }
            // SAFETY: no other reference to the header exists, and it is not used again.
            None => unsafe { free(self.0) },
        }
    }
}

/// Frees a header and its memory.
///
/// # Safety
/// The caller is the last owner.
unsafe fn free(header: NonNull<Header>) {
    // SAFETY: made by Box::leak in `allocate`, and freed once.
    let header = unsafe { Box::from_raw(header.as_ptr()) };
    // SAFETY: `base` came from this layout.
    unsafe { dealloc(header.base.as_ptr(), layout(header.capacity).expect("it was allocated by it")) };
}

fn layout(capacity: usize) -> Result<Layout, OutOfMemory> {
    Layout::from_size_align(capacity.max(1), ALIGNMENT).map_err(|_| OutOfMemory { bytes: capacity })
}
