//! The system's allocator, and counts of what each OS thread asks of it. A module of tests that hold the law of no
//! allocation, each in a separate binary.
#![allow(dead_code, reason = "no test uses all of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Blocks that an OS thread has taken, and given back.
pub type Blocks = (u64, u64);

thread_local! {
    static BLOCKS: Cell<Blocks> = const { Cell::new((0, 0)) };
}

struct Counting;

fn count(taken: u64, returned: u64) {
    // Gone while the OS thread ends; nothing is counted then.
    let _ = BLOCKS.try_with(|blocks| {
        let before = blocks.get();
        blocks.set((before.0 + taken, before.1 + returned));
    });
}

// SAFETY: every call is handed to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, 1);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, 1);
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What the calling OS thread has taken and given back so far.
pub fn blocks() -> Blocks {
    BLOCKS.get()
}

/// The number of blocks that `work` takes on the calling OS thread.
pub fn taken_by(work: impl FnOnce()) -> u64 {
    let before = blocks().0;
    work();
    blocks().0 - before
}
