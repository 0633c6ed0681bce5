//! A warm pool allocates nothing, counted by the allocator itself for each thread: the test harness
//! allocates on its own.
#![cfg(not(sanitized))]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use counting_allocator::taken_by;
use spindle_mem::Pool;

#[test]
fn a_warm_pool_lends_splits_joins_and_takes_back_without_allocating_on_either_thread() {
    let pool = Pool::new("warm", 1 << 20);
    assert!(taken_by(|| drop(pool.get(8192))) > 0, "a cold pool allocates, or the count is blind");
    let lend = |_| {
        let mut front = pool.get(8192).expect("within the budget");
        let back = front.split_off(4096);
        front.join(back).expect("they touch")
    };
    assert_eq!(taken_by(|| (0..1000).map(lend).for_each(drop)), 0, "dropped on the same thread");

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
            taken_by(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(slot.lock().expect("no panic").take());
                    std::thread::yield_now();
                }
            })
        });
        there_and_back(10);
        let lending = taken_by(|| there_and_back(1000));
        stop.store(true, Ordering::Relaxed);
        let dropping = dropper.join().expect("no panic");
        assert_eq!((lending, dropping), (0, 0), "lent here, dropped on another thread");
    });
}
