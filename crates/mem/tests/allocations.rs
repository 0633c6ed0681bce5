//! A warm pool allocates nothing, counted by the allocator itself for each thread: the test harness
//! allocates on its own.
#![cfg(not(sanitized))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use spindle_mem::Pool;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
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
        let dropper = scope.spawn(|| {
            allocations(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(slot.lock().expect("no panic").take());
                    std::thread::yield_now();
                }
            })
        });
        there_and_back(10);
        let lending = allocations(|| there_and_back(1000));
        stop.store(true, Ordering::Relaxed);
        let dropping = dropper.join().expect("no panic");
        assert_eq!((lending, dropping), (0, 0), "lent here, dropped on another thread");
    });
}
