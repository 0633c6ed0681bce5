//! Closures with 40 bytes of captures cross a ring without allocating, counted by the allocator itself
//! for each thread: the test harness allocates on its own.
#![cfg(not(any(loom, sanitized)))]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use counting_allocator::blocks;
use spindle_ring::{Call, spsc};

static SUM: AtomicUsize = AtomicUsize::new(0);

/// A closure that captures `WORDS` words, all of which it uses.
fn call<const WORDS: usize>(word: usize) -> Call {
    let words = black_box([word; WORDS]);
    Call::new(move || {
        SUM.fetch_add(words.iter().sum(), Ordering::Relaxed);
    })
}

#[test]
fn a_million_calls_of_forty_bytes_cross_a_ring_without_allocating() {
    let (mut producer, mut consumer) = spsc::ring(256);
    let mut carry = |calls: usize, make: fn(usize) -> Call| {
        let before = blocks().0;
        for batch in 0..calls / 200 {
            (0..200).for_each(|n| producer.push(0, make(batch + n)).expect("the ring holds a batch"));
            std::iter::from_fn(|| consumer.pop()).for_each(|(_, call): (u64, Call)| call.call());
        }
        blocks().0 - before
    };
    assert_eq!(carry(1_000_000, call::<5>), 0, "40 bytes lie in the slot");
    assert_eq!(carry(1_000, call::<9>), 1_000, "72 bytes are boxed, or the count is blind");
    assert_ne!(SUM.load(Ordering::Relaxed), 0, "they ran");
}
