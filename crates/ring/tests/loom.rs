//! The lock-free parts under loom, which tries every interleaving the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spindle-ring --test loom`.
//!
//! What sends, receives and sleeps here is the source that the reactors run. Written for the models are the
//! loop that a receiver is, and the eventfd, which is a counter.
#![cfg(loom)]

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use spindle_ring::{Closed, Inbox, Outgoing, Parking, Port, Rings, Tagged, Unpark, spsc};

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

/// What an eventfd is to a sleeper: a counter, readable when it is not zero.
struct Event {
    count: Mutex<u64>,
    readable: Condvar,
}

impl Event {
    fn write(&self) {
        *self.count.lock().unwrap() += 1;
        self.readable.notify_one();
    }

    /// Waits until it is readable. A lost wake-up leaves all asleep, which loom reports as a deadlock.
    fn wait(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.readable.wait(count).unwrap();
        }
    }

    fn drain(&self) {
        *self.count.lock().unwrap() = 0;
    }
}

/// A driver's sleep, as `spindle_engine` has it.
struct Driver {
    parking: Parking,
    event: Event,
}

impl Driver {
    fn new() -> Arc<Driver> {
        let event = Event { count: Mutex::new(0), readable: Condvar::new() };
        Arc::new(Driver { parking: Parking::new(), event })
    }

    fn park(&self) {
        if self.parking.fall_asleep() {
            self.event.wait();
            self.event.drain();
            self.parking.wake_up();
        }
    }
}

#[derive(Clone)]
struct Unparker(Arc<Driver>);

impl Unpark for Unparker {
    fn unpark(&self) {
        if self.0.parking.unpark() {
            self.0.event.write();
        }
    }
}

#[test]
fn what_was_done_before_an_unpark_is_seen_after_the_sleep_and_no_unpark_is_lost() {
    loom::model(|| {
        let driver = Driver::new();
        let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let callers: Vec<_> = (0..2)
            .map(|number| {
                let (unparker, flags) = (Unparker(driver.clone()), flags.clone());
                thread::spawn(move || {
                    flags[number].store(true, Ordering::Relaxed);
                    unparker.unpark();
                })
            })
            .collect();
        // No more sleeps than unparks, and no sleep without an end.
        while !flags.iter().all(|flag| flag.load(Ordering::Relaxed)) {
            driver.park();
        }
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}

/// The port of a receiver of numbers; the news are numbers, too.
struct Numbers(Port<usize, usize, Unparker>);

impl AsRef<Port<usize, usize, Unparker>> for Numbers {
    fn as_ref(&self) -> &Port<usize, usize, Unparker> {
        &self.0
    }
}

/// A port and its receiver.
struct Receiver {
    ports: Arc<[Numbers; 1]>,
    driver: Arc<Driver>,
    rings: Rings<usize>,
    received: Vec<usize>,
}

impl Receiver {
    fn new() -> Receiver {
        let (port, driver) = (Port::new(), Driver::new());
        port.open(Unparker(driver.clone()));
        let ports = Arc::new([Numbers(port)]);
        Receiver { ports, driver, rings: Rings::default(), received: Vec::new() }
    }

    fn port(&self) -> &Port<usize, usize, Unparker> {
        &self.ports[0].0
    }

    /// What a turn of a reactor receives.
    fn turn(&mut self) {
        let Receiver { ports, rings, received, .. } = self;
        let (port, before) = (&ports[0].0, received.len());
        if port.has_news() {
            rings.adopt(port);
            let mut news = VecDeque::new();
            port.take_news(&mut news);
            received.extend(news);
        }
        rings.take(1, |front| {
            received.push(front.take());
            true
        });
        let mut outside = VecDeque::new();
        port.take_inbox(9, &mut outside);
        received.extend(outside.into_iter().map(|tagged| tagged.value));
        if received.len() == before {
            thread::yield_now();
        }
    }

    /// What a reactor does that has nothing to do.
    fn rest(&self) {
        if self.port().fall_asleep(&self.rings) {
            self.driver.park();
        }
        self.port().awake();
    }

    /// Turns and rests until so many numbers have come.
    fn receive(&mut self, count: usize) {
        while self.received.len() < count {
            let before = self.received.len();
            self.turn();
            if self.received.len() == before {
                self.rest();
            }
        }
    }
}

/// A sender that goes from express to bulk, has something wait, and goes back: to express only when its last
/// in bulk was taken.
#[test]
fn what_goes_in_one_flow_stays_in_order_by_whichever_ring_it_goes() {
    loom::model(|| {
        let mut receiver = Receiver::new();
        let ports = receiver.ports.clone();
        let mut outgoing = Outgoing::new(1);
        // Made before the receiver looks: another model has that.
        outgoing.send(0, &ports[0].0, 0, 0, || 0);
        receiver.turn();
        let sender = thread::spawn(move || {
            // One in bulk, which is full then, and one that waits if that was not taken.
            outgoing.send(0, &ports[0].0, 0, 0, || 1);
            outgoing.send(0, &ports[0].0, 0, 0, || 2);
            outgoing.flush(&*ports);
            outgoing.wake_receivers(&*ports);
            outgoing.send(0, &ports[0].0, 0, 0, || 3);
            (outgoing, ports)
        });
        receiver.turn();
        receiver.turn();
        let (mut outgoing, ports) = sender.join().unwrap();
        while outgoing.flush(&*ports) {
            receiver.turn();
        }
        receiver.turn();
        assert_eq!(receiver.received, [0, 1, 2, 3]);
    });
}

#[test]
fn rings_that_are_made_while_the_receiver_goes_to_sleep_are_found() {
    loom::model(|| {
        let mut receiver = Receiver::new();
        let ports = receiver.ports.clone();
        let sender = thread::spawn(move || {
            let mut outgoing = Outgoing::new(1);
            outgoing.send(0, &ports[0].0, 0, 0, || 1);
            outgoing.wake_receivers(&*ports);
        });
        receiver.receive(1);
        sender.join().unwrap();
    });
}

/// Between a glance at the flag with each value and the barrier at the end of the turn.
#[test]
fn no_wake_up_is_lost_between_a_senders_glance_and_its_settling() {
    loom::model(|| {
        let mut receiver = Receiver::new();
        let ports = receiver.ports.clone();
        let mut outgoing = Outgoing::new(1);
        outgoing.send(0, &ports[0].0, 0, 0, || 0);
        outgoing.wake_receivers(&*ports);
        receiver.turn();
        let sender = thread::spawn(move || {
            outgoing.send(0, &ports[0].0, 0, 0, || 1);
            outgoing.send(0, &ports[0].0, 0, 0, || 2);
            outgoing.wake_receivers(&*ports);
        });
        receiver.receive(3);
        assert_eq!(receiver.received, [0, 1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn what_waited_for_room_wakes_its_receiver() {
    loom::model(|| {
        let mut receiver = Receiver::new();
        let ports = receiver.ports.clone();
        let mut outgoing = Outgoing::new(1);
        // In express, in bulk, and waiting.
        (0..3).for_each(|number| outgoing.send(0, &ports[0].0, 0, 0, || number));
        outgoing.wake_receivers(&*ports);
        receiver.turn();
        let sender = thread::spawn(move || assert!(!outgoing.flush(&*ports), "there is room"));
        receiver.receive(3);
        assert_eq!(receiver.received, [0, 1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn two_senders_wake_one_receiver_without_loss() {
    // The largest model: with two preemptions, unlike the others, it takes seconds.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let mut receiver = Receiver::new();
        let connect = |number| {
            let (ports, mut outgoing) = (receiver.ports.clone(), Outgoing::new(1));
            outgoing.send(0, &ports[0].0, 0, 0, || number);
            outgoing.wake_receivers(&*ports);
            (ports, outgoing)
        };
        let senders = [0, 1].map(connect);
        receiver.turn();
        let senders = senders.map(|(ports, mut outgoing)| {
            thread::spawn(move || {
                outgoing.send(0, &ports[0].0, 0, 0, || 2);
                outgoing.wake_receivers(&*ports);
            })
        });
        receiver.receive(4);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn news_and_values_from_outside_wake_their_receiver_without_loss() {
    loom::model(|| {
        let mut receiver = Receiver::new();
        let [teller, sender] = [receiver.ports.clone(), receiver.ports.clone()];
        let teller = thread::spawn(move || teller[0].0.tell(1).unwrap());
        let sender = thread::spawn(move || sender[0].0.push(0, 0, 2).unwrap());
        receiver.receive(2);
        teller.join().unwrap();
        sender.join().unwrap();
    });
}

#[test]
fn what_comes_while_a_port_closes_is_taken_or_given_back() {
    loom::model(|| {
        let mut receiver = Receiver::new();
        let [teller, sender] = [receiver.ports.clone(), receiver.ports.clone()];
        let teller = thread::spawn(move || teller[0].0.tell(1) == Err(Closed(1)));
        let sender =
            thread::spawn(move || sender[0].0.push(0, 3, 2) == Err(Closed(Tagged { tag: 3, value: 2 })));
        receiver.turn();
        let (values, news) = receiver.port().close();
        let taken = receiver.received.len() + values.len() + news.len();
        let given_back = [teller, sender].map(|caller| usize::from(caller.join().unwrap()));
        assert_eq!(taken + given_back.iter().sum::<usize>(), 2);
    });
}

/// A message that tells how it ended.
struct Counted {
    dropped: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn rings_that_are_made_while_a_port_closes_drop_what_is_in_them() {
    loom::model(|| {
        let port = Arc::new([AsPort(Port::new())]);
        let dropped = Arc::new(AtomicUsize::new(0));
        let (ports, value) = (port.clone(), Counted { dropped: dropped.clone() });
        let sender = thread::spawn(move || {
            let mut outgoing = Outgoing::new(1);
            outgoing.send(0, &ports[0].0, 0, 0, || value);
            outgoing.wake_receivers(&*ports);
        });
        let mut rings = Rings::default();
        rings.adopt(&port[0].0);
        port[0].0.close();
        drop(rings);
        sender.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

struct AsPort(Port<Counted, (), Unparker>);

impl AsRef<Port<Counted, (), Unparker>> for AsPort {
    fn as_ref(&self) -> &Port<Counted, (), Unparker> {
        &self.0
    }
}

#[test]
fn a_value_pushed_while_an_inbox_closes_is_taken_or_given_back() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new());
        let senders = inbox.clone();
        let sender = thread::spawn(move || senders.push(0, 7) == Err(Closed(7)));
        let mut taken = VecDeque::new();
        inbox.take(9, &mut taken);
        inbox.close(&mut taken);
        let given_back = sender.join().unwrap();
        assert_eq!(taken.len() + usize::from(given_back), 1);
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
    port: Port<End, (), Unparker>,
    driver: Arc<Driver>,
}

impl Told {
    fn new() -> Arc<Told> {
        let (port, driver) = (Port::new(), Driver::new());
        port.open(Unparker(driver.clone()));
        Arc::new(Told { port, driver })
    }

    fn tell(&self, end: End) {
        self.port.push(0, 0, end).unwrap();
    }

    /// Waits until told, as a thread does that awaits its call.
    fn wait(&self) -> End {
        let (mut ends, no_rings) = (VecDeque::new(), Rings::default());
        loop {
            self.port.take_inbox(9, &mut ends);
            if let Some(end) = ends.pop_front() {
                return end.value;
            }
            if self.port.fall_asleep(&no_rings) {
                self.driver.park();
            }
            self.port.awake();
            thread::yield_now();
        }
    }
}

/// The obligation to answer that every call carries: met by its handler, or by its drop.
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
            let refused = into.push(0, Obligation(Some(hears.clone()))).is_err();
            let end = hears.wait();
            assert!(!refused || end == End::Dropped);
        });
        let mut taken = VecDeque::new();
        inbox.take(9, &mut taken);
        taken.drain(..).for_each(Obligation::handle);
        // What came since the last look is dropped.
        inbox.close(&mut taken);
        drop(taken);
        sender.join().unwrap();
        assert!(!told.port.has_mail(), "answered once");
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
            // The sender's reactor ends; messages that no half takes any more are dropped with the last half.
            drop(producer);
            hears.wait()
        });
        consumer.pop().into_iter().for_each(|(_, call)| call.handle());
        drop(consumer);
        sender.join().unwrap();
        assert!(!told.port.has_mail(), "answered once");
    });
}
