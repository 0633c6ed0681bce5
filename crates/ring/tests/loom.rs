//! The lock-free parts under loom, which tries every interleaving the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spindle-ring --test loom`.
#![cfg(loom)]

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;
use spindle_ring::{Closed, Inbox, Sleep, express, spsc};

#[test]
fn a_ring_hands_over_every_value_once_and_in_order_around_its_end() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring::<Box<usize>>(2);
        let sender = thread::spawn(move || {
            for number in 0..3 {
                let mut value = Box::new(number as usize);
                while let Err(back) = producer.push(number, value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!((value.0, *value.1), (expected as u64, expected));
        }
        sender.join().unwrap();
        assert!(consumer.pop().is_none());
    });
}

#[test]
fn what_is_left_in_a_ring_is_dropped_with_it() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    loom::model(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = spsc::ring(2);
        let values = [Counted(dropped.clone()), Counted(dropped.clone())];
        let sender = thread::spawn(move || {
            for value in values {
                assert!(producer.push(0, value).is_ok());
            }
        });
        drop(consumer.pop());
        drop(consumer);
        sender.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    });
}

/// A sender that goes from express to bulk and back, as it may: to express only when the last value in bulk was
/// taken.
#[test]
fn values_that_go_by_express_and_by_bulk_in_turn_stay_in_order() {
    loom::model(|| {
        let (mut sender, mut receiver) = express::pair(2, 1);
        let sender = thread::spawn(move || {
            sender.push_express(0, 0).unwrap();
            let last = sender.push_bulk(0, 1).unwrap();
            match sender.has_taken(last) {
                true => sender.push_express(0, 2).unwrap(),
                false => {
                    let _ = sender.push_bulk(0, 2);
                }
            }
        });
        let mut taken = Vec::new();
        for _ in 0..2 {
            receiver.take(1, |_, value| taken.push(value));
            thread::yield_now();
        }
        sender.join().unwrap();
        receiver.take(2, |_, value| taken.push(value));
        // The third has no room if the second was still there.
        assert!(taken.starts_with(&[0, 1]) && taken.iter().is_sorted(), "{taken:?}");
        assert!(receiver.is_empty());
    });
}

/// What a reactor shares with those that send to it.
struct Mailbox {
    sleep: Sleep,
    unpark: Notify,
}

impl Mailbox {
    fn new() -> Arc<Mailbox> {
        Arc::new(Mailbox { sleep: Sleep::new(), unpark: Notify::new() })
    }

    /// The end of a sender's turn.
    fn settle(&self) {
        if self.sleep.wake() {
            self.unpark.notify();
        }
    }

    /// A message in the middle of a turn: the flag is only glanced at.
    fn send(&self, producer: &mut spsc::Producer<usize>, value: usize) {
        producer.push(0, value).unwrap();
        if self.sleep.seems_asleep() {
            self.settle();
        }
    }

    /// A receiver with nothing to do: sleeps unless something came meanwhile.
    fn rest(&self, consumers: &[spsc::Consumer<usize>]) {
        self.sleep.prepare();
        if consumers.iter().all(spsc::Consumer::is_empty) {
            // A lost wake-up leaves both asleep, which loom reports as a deadlock.
            self.unpark.wait();
        }
        self.sleep.cancel();
    }
}

fn receive(consumers: &mut [spsc::Consumer<usize>]) -> usize {
    consumers.iter_mut().map(|consumer| std::iter::from_fn(|| consumer.pop()).count()).sum()
}

#[test]
fn no_wake_up_is_lost_between_a_look_and_the_sleep() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let (mut producer, consumer) = spsc::ring(2);
        let mut consumers = [consumer];
        let senders = mailbox.clone();
        let sender = thread::spawn(move || {
            senders.send(&mut producer, 1);
            senders.send(&mut producer, 2);
            senders.settle();
        });
        let mut received = 0;
        while received < 2 {
            received += receive(&mut consumers);
            if received < 2 {
                mailbox.rest(&consumers);
            }
            thread::yield_now();
        }
        sender.join().unwrap();
    });
}

#[test]
fn two_senders_wake_one_receiver_without_loss() {
    loom::model(|| {
        let mailbox = Mailbox::new();
        let mut consumers = Vec::new();
        let mut senders = Vec::new();
        for number in 0..2 {
            let (mut producer, consumer) = spsc::ring(1);
            consumers.push(consumer);
            let mailbox = mailbox.clone();
            senders.push(thread::spawn(move || {
                mailbox.send(&mut producer, number);
                mailbox.settle();
            }));
        }
        let mut received = 0;
        while received < 2 {
            received += receive(&mut consumers);
            if received < 2 {
                mailbox.rest(&consumers);
            }
            thread::yield_now();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_value_pushed_while_an_inbox_closes_is_taken_or_given_back() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new());
        let senders = inbox.clone();
        let sender = thread::spawn(move || senders.push(7) == Err(Closed(7)));
        let mut taken = VecDeque::new();
        inbox.drain(&mut taken);
        inbox.close(&mut taken);
        let given_back = sender.join().unwrap();
        assert_eq!(taken.len() + usize::from(given_back), 1);
    });
}

#[test]
fn no_wake_up_is_lost_between_an_inbox_and_the_sleep() {
    loom::model(|| {
        let (mailbox, inbox) = (Mailbox::new(), Arc::new(Inbox::new()));
        let senders: Vec<_> = (0..2)
            .map(|number| {
                let (mailbox, inbox) = (mailbox.clone(), inbox.clone());
                thread::spawn(move || {
                    inbox.push(number).unwrap();
                    mailbox.settle();
                })
            })
            .collect();
        let mut received = VecDeque::new();
        while received.len() < 2 {
            inbox.drain(&mut received);
            if received.len() < 2 {
                mailbox.sleep.prepare();
                if inbox.is_empty() {
                    mailbox.unpark.wait();
                }
                mailbox.sleep.cancel();
            }
            thread::yield_now();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// How a message ended, as its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Handled,
    Dropped,
}

/// Where a sender is told.
struct Told {
    mailbox: Arc<Mailbox>,
    ends: Inbox<End>,
}

impl Told {
    fn new() -> Arc<Told> {
        Arc::new(Told { mailbox: Mailbox::new(), ends: Inbox::new() })
    }

    fn tell(&self, end: End) {
        self.ends.push(end).unwrap();
        self.mailbox.settle();
    }

    /// Waits until told, as a thread does that awaits its call.
    fn wait(&self) -> End {
        let mut ends = VecDeque::new();
        loop {
            self.ends.drain(&mut ends);
            if let Some(end) = ends.pop_front() {
                return end;
            }
            self.mailbox.sleep.prepare();
            if self.ends.is_empty() {
                self.mailbox.unpark.wait();
            }
            self.mailbox.sleep.cancel();
            thread::yield_now();
        }
    }
}

/// The obligation to answer that every call carries: kept by whoever handles it, or by its drop.
struct Obligation(Option<Arc<Told>>);

impl Obligation {
    fn handle(mut self) {
        self.0.take().unwrap().tell(End::Handled);
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|told| told.tell(End::Dropped));
    }
}

#[test]
fn a_call_from_outside_is_answered_once_whenever_its_receiver_exits() {
    loom::model(|| {
        let (inbox, told) = (Arc::new(Inbox::new()), Told::new());
        let (into, hears) = (inbox.clone(), told.clone());
        let sender = thread::spawn(move || {
            // Refused, it comes back and is dropped here, which tells us, too.
            let refused = into.push(Obligation(Some(hears.clone()))).is_err();
            let end = hears.wait();
            assert!(!refused || end == End::Dropped);
        });
        let mut taken = VecDeque::new();
        inbox.drain(&mut taken);
        taken.drain(..).for_each(Obligation::handle);
        // What came since the last look is dropped.
        inbox.close(&mut taken);
        drop(taken);
        sender.join().unwrap();
        assert!(told.ends.is_empty(), "answered once");
    });
}

#[test]
fn a_call_by_a_ring_is_answered_once_whenever_its_receiver_exits() {
    loom::model(|| {
        let (mut producer, mut consumer) = spsc::ring(1);
        let told = Told::new();
        let hears = told.clone();
        let sender = thread::spawn(move || {
            assert!(producer.push(0, Obligation(Some(hears.clone()))).is_ok());
            // The sender's reactor ends; what nobody takes any more is dropped with the last half.
            drop(producer);
            hears.wait()
        });
        consumer.pop().into_iter().for_each(|(_, call)| call.handle());
        drop(consumer);
        sender.join().unwrap();
        assert!(told.ends.is_empty(), "answered once");
    });
}
