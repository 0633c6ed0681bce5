//! The system's allocator, whose large allocations fail when a test says so. A module of tests in a separate binary.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Set while large allocations fail.
pub static NONE_LEFT: AtomicBool = AtomicBool::new(false);

/// From this size on allocations fail: smaller ones are not the data of requests.
pub static LARGE: AtomicUsize = AtomicUsize::new(64 << 10);

struct Failing;

fn fails(layout: Layout) -> bool {
    layout.size() >= LARGE.load(Ordering::Relaxed) && NONE_LEFT.load(Ordering::Relaxed)
}

// SAFETY: every call is handed to the system's allocator unchanged, or refused as an allocator may.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails(layout) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if fails(layout) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static FAILING: Failing = Failing;
