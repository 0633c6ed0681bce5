//! What closures, parcels and queues promise on one OS thread and on two.
#![cfg(not(loom))]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use spindle_ring::{Call, Closed, Inbox, Parcel, StaticRef, express, spsc};

#[test]
fn a_call_and_a_parcel_take_56_bytes() {
    assert_eq!((size_of::<Call>(), size_of::<Parcel>()), (56, 56));
}

fn runs_and_drops_once<const WORDS: usize>() {
    let alive = Arc::new(());
    let ran = Arc::new(AtomicUsize::new(0));
    let make = || {
        let (alive, ran, words) = (alive.clone(), ran.clone(), [7u64; WORDS]);
        Call::new(move || {
            let _held = &alive;
            ran.fetch_add(words.iter().sum::<u64>() as usize, Ordering::Relaxed);
        })
    };
    make().call();
    drop(make());
    assert_eq!(ran.load(Ordering::Relaxed), 7 * WORDS, "run once");
    assert_eq!(Arc::strong_count(&alive), 1, "captures dropped once, run or not");
}

#[test]
fn a_call_runs_once_and_drops_its_captures_inline_or_boxed() {
    runs_and_drops_once::<1>();
    runs_and_drops_once::<3>();
    runs_and_drops_once::<4>();
    runs_and_drops_once::<64>();
}

#[test]
fn a_call_that_panics_drops_its_captures_once() {
    let alive = Arc::new(());
    let held = alive.clone();
    let call = Call::new(move || {
        let _held = held;
        panic!("as asked");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| call.call())).is_err());
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn captures_keep_their_alignment() {
    #[repr(align(64))]
    struct Aligned(u8);
    let value = Aligned(3);
    Call::new(move || {
        let value = &value;
        assert_eq!((value as *const Aligned as usize % 64, value.0), (0, 3));
    })
    .call();
}

#[test]
fn a_parcel_gives_its_value_to_the_type_that_was_put_in_only() {
    let parcel = Parcel::new(String::from("here"));
    let parcel = parcel.take::<u64>().expect_err("not a number");
    assert_eq!(parcel.take::<String>().ok().as_deref(), Some("here"));
}

#[test]
fn a_dropped_parcel_drops_its_value() {
    let alive = Arc::new(());
    drop(Parcel::new(alive.clone()));
    drop(Parcel::new((alive.clone(), [0u64; 9])));
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_ring_carries_values_between_os_threads_in_order() {
    let (mut producer, mut consumer) = spsc::ring(64);
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            for mut value in 0..20_000u64 {
                while let Err(back) = producer.push(value, value) {
                    value = back;
                    std::hint::spin_loop();
                }
            }
        });
        for expected in 0..20_000 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => std::hint::spin_loop(),
                }
            };
            assert_eq!(value, (expected, expected), "tag and value");
        }
        sender.join().expect("no panic");
    });
}

#[test]
fn express_overtakes_bulk_and_bulk_never_express() {
    let (mut sender, mut receiver) = express::pair(4, 4);
    let taken = RefCell::new(Vec::new());
    let keep = |front: spsc::Front<'_, char>| {
        taken.borrow_mut().push(front.take());
        true
    };
    sender.push_bulk(0, 'a').unwrap();
    let last = sender.push_bulk(0, 'b').unwrap();
    sender.push_express(0, 'c').unwrap();
    assert!(receiver.take(&mut 1, keep));
    assert_eq!(*taken.borrow(), ['c', 'a']);
    assert!(!sender.has_taken(last) && !receiver.is_empty());
    sender.push_express(0, 'd').unwrap();
    assert!(receiver.take(&mut 0, keep));
    assert!(receiver.take(&mut 9, keep));
    assert_eq!(*taken.borrow(), ['c', 'a', 'd', 'b']);
    assert!(sender.has_taken(last) && receiver.is_empty());
    assert!(!receiver.take(&mut 9, |_| true));
}

#[test]
fn a_budget_bounds_what_is_taken_out_of_bulk() {
    let (mut sender, mut receiver) = express::pair(1, 8);
    for number in 0..8 {
        sender.push_bulk(number, number).unwrap();
    }
    assert_eq!(sender.push_bulk(8, 8), Err(8));
    let mut taken = Vec::new();
    for _ in 0..2 {
        receiver.take(&mut 3, |front| {
            taken.push(front.take());
            true
        });
    }
    assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn who_wants_no_more_gets_nothing_more_out_of_bulk() {
    let (mut sender, mut receiver) = express::pair(2, 4);
    sender.push_express(0, 'a').unwrap();
    for value in ['b', 'c', 'd'] {
        sender.push_bulk(0, value).unwrap();
    }
    let mut take_until = |last| {
        let mut taken = Vec::new();
        receiver.take(&mut 9, |front| {
            taken.push(front.take());
            taken.last() != Some(&last)
        });
        taken
    };
    assert_eq!(take_until('a'), ['a']);
    assert_eq!(take_until('c'), ['b', 'c']);
    sender.push_express(0, 'e').unwrap();
    assert_eq!(take_until('e'), ['e'], "what came by express before it stops bulk, too");
    assert_eq!(take_until('-'), ['d']);
}

#[test]
fn what_was_popped_is_dropped_once_also_if_its_receiver_panics() {
    let alive = Arc::new(());
    let (mut sender, mut receiver) = express::pair(2, 4);
    for number in 0..3 {
        assert!(sender.push_bulk(number, alive.clone()).is_ok());
    }
    for moved_out in [true, false] {
        let take = |front: spsc::Front<'_, Arc<()>>| {
            let _held = moved_out.then(|| front.take());
            panic!("as asked");
        };
        assert!(catch_unwind(AssertUnwindSafe(|| receiver.take(&mut 9, take))).is_err());
    }
    assert_eq!(Arc::strong_count(&alive), 2, "one is left in the ring");
    drop((sender, receiver));
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_tag_keeps_its_63_bits() {
    let (mut producer, mut consumer) = spsc::ring::<Call>(2);
    assert!(producer.push((1 << 63) - 1, Call::new(|| ())).is_ok());
    assert_eq!(consumer.pop().map(|(tag, _)| tag), Some((1 << 63) - 1));
}

#[test]
fn a_static_reference_reads_as_it_was_set() {
    static HERE: u32 = 7;
    let reference = StaticRef::new();
    assert_eq!(reference.get(), None);
    reference.set(Some(&HERE));
    assert_eq!(reference.get(), Some(&7));
    reference.set(None);
    assert_eq!(reference.get(), None);
}

#[test]
fn a_closed_inbox_gives_values_back_and_keeps_what_came_before() {
    let inbox = Inbox::new();
    inbox.push(0, 1).expect("open");
    let mut taken = VecDeque::new();
    inbox.close(&mut taken);
    assert_eq!((taken, inbox.push(0, 2)), (VecDeque::from([1]), Err(Closed(2))));
}

#[test]
fn a_flood_of_one_line_of_an_inbox_delays_no_other_line() {
    let inbox = Inbox::new();
    (0..1000).for_each(|number| inbox.push(5, number).expect("open"));
    inbox.push(0, -1).expect("open");
    let mut taken = VecDeque::new();
    inbox.take(16, &mut taken);
    assert_eq!((taken.len(), inbox.len(), taken.contains(&-1)), (16, 985, true));
    inbox.take(usize::MAX, &mut taken);
    taken.retain(|number| *number >= 0);
    assert!(taken.into_iter().eq(0..1000), "each line in order");
}

proptest! {
    #[test]
    fn a_ring_behaves_as_a_bounded_queue(capacity in 1usize..9, pushes in proptest::collection::vec(any::<bool>(), 0..200)) {
        let (mut producer, mut consumer) = spsc::ring(capacity);
        let mut model = VecDeque::new();
        for (number, push) in pushes.into_iter().enumerate() {
            if push {
                let full = model.len() == capacity.next_power_of_two();
                prop_assert_eq!(producer.push(number as u64 * 3, number), if full { Err(number) } else { Ok(()) });
                if !full {
                    model.push_back(number);
                }
            } else {
                prop_assert_eq!(consumer.pop(), model.pop_front().map(|number| (number as u64 * 3, number)));
            }
            prop_assert_eq!(consumer.is_empty(), model.is_empty());
        }
    }
}
