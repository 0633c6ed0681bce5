//! A warm pool allocates nothing, counted by the allocator itself. One test in this binary: the count is
//! of the whole process.
#![cfg(not(sanitized))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spindle_mem::Pool;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_warm_pool_lends_splits_joins_and_takes_back_without_allocating_on_either_thread() {
    let pool = Pool::new("warm", 1 << 20);
    assert!(allocations(|| drop(pool.get(8192))) > 0, "a cold pool allocates, or the count is blind");
    let lend = |_| {
        let mut front = pool.get(8192).expect("within the budget");
        let back = front.split_off(4096);
        front.join(back).expect("they touch")
    };
    assert_eq!(allocations(|| (0..1000).map(lend).for_each(drop)), 0, "dropped on the same thread");

    // A slot under a lock, since a channel may allocate when a side first blocks.
    let (slot, stop) = (Mutex::new(None), AtomicBool::new(false));
    let there_and_back = |n| {
        for round in 0..n {
            *slot.lock().expect("no panic") = Some(lend(round));
            while slot.lock().expect("no panic").is_some() {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(slot.lock().expect("no panic").take());
                std::thread::yield_now();
            }
        });
        there_and_back(10);
        assert_eq!(allocations(|| there_and_back(1000)), 0, "dropped on another thread");
        stop.store(true, Ordering::Relaxed);
    });
}
