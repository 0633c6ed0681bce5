//! Memory that several users touch at the same time: a RAM disk under two cores, a guest's memory.
//!
//! Owned by the device that made it and shared by reference between threads. It never becomes a slice: only
//! copies in and out, zeroing, and an address for the kernel. Two cores that touch the same bytes at once get
//! some mix of both, byte by byte; nothing else is promised about them.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A piece: the memory is populated, and given back to the kernel, in pieces of this size, aligned to it. That of a
/// huge page of x86-64 and AArch64, which costs one page fault where small pages cost 512.
const PIECE: usize = 2 << 20;

/// Anonymous memory, zero at first and populated as it is touched, a piece of 2 MiB at a time where the system has
/// huge pages to give.
pub struct SharedMem {
    base: NonNull<u8>,
    len: usize,
    /// The mapping, which begins up to a piece before the memory.
    mapped: (NonNull<c_void>, usize),
    /// A bit for each piece that was written to since it was last given back; all others read zero and take no memory.
    touched: Box<[AtomicU64]>,
    /// True once its address is known elsewhere: any piece may have been written to.
    exposed: AtomicBool,
    /// Ranges that are being given back: meanwhile any piece may have been written to.
    leaving: AtomicUsize,
}

/// Whole pieces that are about to be given back to the kernel. If it is dropped instead, all pieces of the memory
/// count as written to from then on.
#[must_use = "the memory is given back by `SharedMem::give_back`"]
#[derive(Debug)]
pub struct Leaving(Range<usize>);

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
        // Shorter than a piece it is aligned to a page only.
        let before = if len < PIECE { 0 } else { PIECE };
        let size = if len == 0 { 0 } else { len.saturating_add(before) };
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        let skip = if before == 0 { 0 } else { start.as_ptr().align_offset(PIECE).min(before) };
        // SAFETY: `skip` is at most the part of the mapping before the memory.
        let base = unsafe { start.cast::<u8>().add(skip) };
        let touched = (0..len.div_ceil(PIECE).div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let (exposed, leaving) = (AtomicBool::new(false), AtomicUsize::new(0));
        let memory = SharedMem { base, len, mapped: (start, size), touched, exposed, leaving };
        if before > 0 {
            // SAFETY: within the mapping; the contents stay. A system without huge pages refuses: as well.
            let _ = unsafe { madvise(base.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
        Ok(memory)
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
        self.exposed.store(true, Ordering::Relaxed);
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
        self.touch(offset..offset + source.len());
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
        self.touch(offset..offset + len);
        // SAFETY: `at` checked both ranges, and they do not overlap.
        unsafe { copy::copy(start, target, len) }
    }

    /// Makes `len` bytes from `offset` on read zero. What was never written to stays as it is; the rest keeps its
    /// memory.
    ///
    /// # Panics
    /// If the range is not within the memory, as slices do.
    pub fn zero(&self, offset: usize, len: usize) {
        let mut done = 0;
        while done < len {
            done += self.zero_some(offset + done, len - done, usize::MAX);
        }
    }

    /// As [`zero`](Self::zero), but ends after about `most` bytes were written; returns how many of `len` read zero
    /// now, from the first on: none only if `len` is 0. For a core that has other work too.
    ///
    /// # Panics
    /// As `zero`.
    pub fn zero_some(&self, offset: usize, len: usize, most: usize) -> usize {
        self.at(offset, len);
        let end = offset + len;
        let (mut at, mut work) = (offset, 0_usize);
        while at < end && (at == offset || work < most) {
            let next = ((at / PIECE + 1) * PIECE).min(end);
            work += self.overwrite(at..next);
            at = next;
        }
        at - offset
    }

    /// Begins to give the whole pieces of a range back to the kernel, and zeroes the rest of it. The caller waits until
    /// every write that may have begun before has ended, and then calls [`give_back`](Self::give_back): until then
    /// the range holds what it held.
    ///
    /// # Panics
    /// As `zero`.
    pub fn begin_to_give_back(&self, offset: usize, len: usize) -> Leaving {
        self.at(offset, len);
        let end = offset + len;
        let first = offset.next_multiple_of(PIECE).min(end);
        let last = (end / PIECE * PIECE).max(first);
        self.zero(offset, first - offset);
        self.zero(last, end - last);
        // Counted first: a thread that sees a cleared bit also sees this count, and so trusts no bit until they are
        // valid again.
        self.leaving.fetch_add(1, Ordering::Relaxed);
        for piece in first / PIECE..last / PIECE {
            self.touched[piece / 64].fetch_and(!(1 << (piece % 64)), Ordering::Release);
        }
        Leaving(first..last)
    }

    /// Gives pieces back: they read zero afterwards and take no memory until they are written to.
    pub fn give_back(&self, leaving: Leaving) {
        let Leaving(range) = leaving;
        let start = self.at(range.start, range.len());
        // SAFETY: whole pages of this private mapping, which read zero afterwards.
        let given = unsafe { madvise(start.cast::<c_void>(), range.len(), Advice::LinuxDontNeed) };
        if given.is_err() {
            self.touch(range.clone());
            self.zero(range.start, range.len());
        }
        self.leaving.fetch_sub(1, Ordering::Release);
    }

    /// Writes zeroes to a range within one piece, unless that piece was never written to; returns the work in bytes.
    fn overwrite(&self, range: Range<usize>) -> usize {
        if !self.is_touched(range.start / PIECE) {
            return 64;
        }
        let start = self.at(range.start, range.len());
        // SAFETY: `at` checked the range.
        unsafe { copy::zero(start, range.len()) }
        range.len()
    }

    /// Notes that a range is being written to, before it is.
    #[inline]
    fn touch(&self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        for piece in range.start / PIECE..=(range.end - 1) / PIECE {
            let (word, bit) = (&self.touched[piece / 64], 1 << (piece % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    fn is_touched(&self, piece: usize) -> bool {
        let bit = self.touched[piece / 64].load(Ordering::Acquire) >> (piece % 64) & 1;
        bit == 1 || self.exposed.load(Ordering::Relaxed) || self.leaving.load(Ordering::Acquire) > 0
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
        let unmapped = unsafe { munmap(self.mapped.0.as_ptr(), self.mapped.1) };
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
