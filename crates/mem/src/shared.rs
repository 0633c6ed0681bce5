//! Memory that several users touch at the same time: a RAM disk under two cores, a guest's memory.
//!
//! Owned by the device that made it and shared by reference between threads. It never becomes a slice: only
//! copies in and out, zeroing, and an address for the kernel. Two cores that touch the same bytes at once get
//! some mix of both, byte by byte; nothing else is promised about them.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Ranges at least this long are zeroed by giving their pages back to the kernel.
const GIVE_BACK: usize = 1 << 20;

const PAGE: usize = 4096;

/// Anonymous memory, zero at first and populated as it is touched.
pub struct SharedMem {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: only `copy` below touches the bytes, which the compiler cannot see through or assume anything
// about; the map itself does not change until drop. Run from two threads under ThreadSanitizer by
// `tests/buffers.rs`, where `copy` uses atomics.
unsafe impl Send for SharedMem {}
// SAFETY: as above.
unsafe impl Sync for SharedMem {}

impl SharedMem {
    /// Maps `len` zero bytes without populating them.
    ///
    /// # Errors
    /// The kernel's error, or a length of 0.
    pub fn new(len: usize) -> io::Result<SharedMem> {
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(SharedMem { base, len })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: there is no mapping of 0 bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its address, for the kernel or a guest's page tables; not for reading.
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Copies out of the memory from `offset` on.
    ///
    /// # Panics
    /// If the range is not within the memory, as slices do.
    #[inline]
    pub fn read(&self, offset: usize, target: &mut [u8]) {
        let source = self.at(offset, target.len());
        // SAFETY: `at` checked the source; the target is exclusively borrowed.
        unsafe { copy::copy(source, target.as_mut_ptr(), target.len()) }
    }

    /// Copies into the memory from `offset` on.
    ///
    /// # Panics
    /// If the range is not within the memory, as slices do.
    #[inline]
    pub fn write(&self, offset: usize, source: &[u8]) {
        let target = self.at(offset, source.len());
        // SAFETY: `at` checked the target, and no references into it exist.
        unsafe { copy::copy(source.as_ptr(), target, source.len()) }
    }

    /// Copies `len` bytes of `source`, from its byte `from` on, to `offset`. `source` may be this memory.
    ///
    /// # Panics
    /// If a range is not within its memory, as slices do, or if the two overlap.
    pub fn copy_from(&self, offset: usize, source: &SharedMem, from: usize, len: usize) {
        let (start, target) = (source.at(from, len), self.at(offset, len));
        let apart = (start as usize).abs_diff(target as usize);
        assert!(len == 0 || apart >= len, "{len} bytes at {from} and at {offset} overlap");
        // SAFETY: `at` checked both ranges, and they do not overlap.
        unsafe { copy::copy(start, target, len) }
    }

    /// Makes `len` bytes from `offset` on read zero. Long ranges return their pages to the kernel.
    ///
    /// # Panics
    /// If the range is not within the memory, as slices do.
    pub fn zero(&self, offset: usize, len: usize) {
        let start = self.at(offset, len);
        let head = start.align_offset(PAGE).min(len);
        let pages = (len - head) / PAGE * PAGE;
        // SAFETY: whole pages of this private mapping, which read zero afterwards.
        let given_back = pages >= GIVE_BACK
            && unsafe { madvise(start.add(head).cast::<c_void>(), pages, Advice::LinuxDontNeed) }.is_ok();
        let middle = if given_back { pages } else { 0 };
        // SAFETY: `at` checked the range.
        unsafe {
            if middle == 0 {
                copy::zero(start, len);
            } else {
                copy::zero(start, head);
                copy::zero(start.add(head + middle), len - head - middle);
            }
        }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "{len} bytes at {offset} of {}", self.len);
        // SAFETY: within the mapping, or at its end.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for SharedMem {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it can exist.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped");
    }
}

/// One instruction that the compiler cannot see through: as fast as memcpy, without the assumption that the
/// bytes do not change meanwhile.
#[cfg(all(target_arch = "x86_64", not(any(sanitized, loom, miri))))]
mod copy {
    use std::arch::asm;

    /// # Safety
    /// `len` bytes are valid at both addresses and do not overlap.
    #[inline]
    pub(super) unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
        // SAFETY: the caller's promise; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rsi") source => _, inout("rdi") target => _,
                options(nostack, preserves_flags));
        }
    }

    /// # Safety
    /// `len` bytes are valid at `target`.
    #[inline]
    pub(super) unsafe fn zero(target: *mut u8, len: usize) {
        // SAFETY: the caller's promise; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") target => _, in("al") 0u8,
                options(nostack, preserves_flags));
        }
    }
}

/// Relaxed atomic bytes and words, which the sanitizers can follow.
#[cfg(not(all(target_arch = "x86_64", not(any(sanitized, loom, miri)))))]
mod copy {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    const WORD: usize = size_of::<u64>();

    /// True if both ends can be walked in aligned words.
    fn in_words(source: *const u8, target: *mut u8) -> bool {
        source as usize % WORD == 0 && target as usize % WORD == 0
    }

    /// # Safety
    /// `len` bytes are valid at both addresses and do not overlap.
    pub(super) unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
        let words = if in_words(source, target) { len / WORD } else { 0 };
        for word in 0..words {
            // SAFETY: the caller's promise, and both addresses are aligned for words.
            unsafe {
                let from = AtomicU64::from_ptr(source.cast_mut().cast::<u64>().add(word));
                AtomicU64::from_ptr(target.cast::<u64>().add(word)).store(from.load(Relaxed), Relaxed);
            }
        }
        for byte in words * WORD..len {
            // SAFETY: the caller's promise.
            unsafe {
                let from = AtomicU8::from_ptr(source.cast_mut().add(byte));
                AtomicU8::from_ptr(target.add(byte)).store(from.load(Relaxed), Relaxed);
            }
        }
    }

    /// # Safety
    /// `len` bytes are valid at `target`.
    pub(super) unsafe fn zero(target: *mut u8, len: usize) {
        for byte in 0..len {
            // SAFETY: the caller's promise.
            unsafe { AtomicU8::from_ptr(target.add(byte)) }.store(0, Relaxed);
        }
    }
}
