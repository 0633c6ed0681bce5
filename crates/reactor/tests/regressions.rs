//! Bugs that were found, each as the test that failed first.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spindle_reactor::*;

fn on_one_reactor(test: impl Fn(Runtime)) {
    test(Runtime::builder().reactors(1).engine(EngineKind::Epoll).build().unwrap());
    for seed in 0..10 {
        test(Runtime::builder().reactors(1).engine(EngineKind::Sim(seed)).build().unwrap());
    }
}

/// Sends a message to its own thread when dropped.
struct SendsWhenDropped(Thread);

impl Drop for SendsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send_msg(|| ());
    }
}

#[test]
fn a_message_that_is_dropped_at_the_end_may_send_another_to_its_own_thread() {
    on_one_reactor(|runtime| {
        let ended = runtime.run(async || {
            let me = Thread::current().unwrap();
            // More than one turn takes, so that some are left when the thread ends.
            for _ in 0..1000 {
                let sends = SendsWhenDropped(me.clone());
                me.send_msg(move || drop(sends)).unwrap();
            }
        });
        ended.unwrap();
    });
}

#[test]
fn a_poller_that_stops_an_older_one_is_itself_called_once_a_turn() {
    on_one_reactor(|runtime| {
        let most = runtime.run(async || {
            let (calls, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (counted, seen) = (calls.clone(), most.clone());
            // Called last in each turn, being the oldest.
            let _oldest = Poller::active("oldest", Wake::Event, move || {
                seen.set(calls.replace(0).max(seen.get()));
                Busy::No
            });
            let older = Rc::new(RefCell::new(Some(Poller::active("older", Wake::Event, || Busy::No))));
            let _newest = Poller::active("newest", Wake::Spin, move || {
                drop(older.borrow_mut().take());
                counted.set(counted.get() + 1);
                Busy::No
            });
            sleep(Duration::from_micros(100)).await;
            most.get()
        });
        assert_eq!(most.unwrap(), 1);
    });
}

#[test]
fn a_poller_whose_captures_panic_when_dropped_does_not_end_its_reactor() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    on_one_reactor(|runtime| {
        let ran = Arc::new(AtomicBool::new(false));
        let seen = ran.clone();
        runtime
            .run(async move || {
                let fails = PanicsWhenDropped;
                let poller = Poller::active("fails", Wake::Event, move || {
                    let _ = &fails;
                    Busy::No
                });
                // Kept past main's end, so that the runtime drops the captures.
                std::mem::forget(poller);
                let fails = PanicsWhenDropped;
                let me = Thread::current().unwrap();
                yield_now().await;
                me.send_msg(move || drop(fails)).unwrap();
                seen.store(true, Ordering::Relaxed);
            })
            .unwrap();
        assert!(ran.load(Ordering::Relaxed));
    });
}
