//! Bugs that were found, each as the test that failed first.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spindle_engine::{Address, Completion, Listener, Op, Output};
use spindle_mem::IoBuf;
use spindle_reactor::*;

fn on_one_reactor(test: impl Fn(Runtime)) {
    test(Runtime::builder().reactors(1).engine(EngineKind::Epoll).build().unwrap());
    for seed in 0..10 {
        test(Runtime::builder().reactors(1).engine(EngineKind::Sim(seed)).build().unwrap());
    }
}

/// With sockets, on every engine.
fn with_sockets(test: impl Fn(Runtime)) {
    for kind in [EngineKind::Auto, EngineKind::Epoll].into_iter().chain((0..10).map(EngineKind::Sim)) {
        test(Runtime::builder().reactors(1).engine(kind).build().unwrap());
    }
}

async fn listen() -> Listener {
    let address = Box::new(Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0))));
    match op(Op::Listen { address, backlog: 8 }).await.0 {
        Ok(Output::Listener(listener)) => listener,
        other => panic!("{other:?}"),
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
            let _oldest = Poller::active("oldest", Wake::Event("messages"), move || {
                seen.set(calls.replace(0).max(seen.get()));
                Busy::No
            });
            let older =
                Rc::new(RefCell::new(Some(Poller::active("older", Wake::Event("messages"), || Busy::No))));
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
                let poller = Poller::active("fails", Wake::Event("messages"), move || {
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

#[test]
fn a_runtime_ends_although_a_connection_and_bytes_are_still_waited_for() {
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            let listener = listen().await;
            let Ok(Output::Pair(ours, theirs)) = op(Op::Pair).await.0 else { panic!("no pair") };
            let accept = spawn_local(op(Op::Accept { listener }));
            let recv = spawn_local(op(Op::Recv { socket: ours, buffers: IoBuf::zeroed(8).into() }));
            sleep(Duration::from_millis(1)).await;
            assert!(!accept.is_finished() && !recv.is_finished());
            theirs
        });
        ended.unwrap();
    });
}

#[test]
fn an_accept_that_was_given_up_does_not_take_the_next_connection() {
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            let listener = listen().await;
            let given_up = timeout(Duration::from_millis(1), op(Op::Accept { listener: listener.clone() }));
            assert!(given_up.await.is_err());
            // What the engine still had of it has come back by then.
            sleep(Duration::from_millis(1)).await;
            let address = Box::new(listener.address().clone());
            let connect = spawn_local(op(Op::Connect { address }));
            let accepted = op(Op::Accept { listener }).await.0.unwrap();
            assert!(matches!(accepted, Output::Socket(_)), "{accepted:?}");
            connect.await.unwrap().0.unwrap();
        });
        ended.unwrap();
    });
}

#[test]
fn a_panic_where_a_completion_goes_ends_nothing_else() {
    struct Panics;
    impl OpSink for Panics {
        fn complete(&self, _key: u64, _completion: Completion) {
            panic!("on purpose");
        }
    }
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            submit_op(Op::Pair, &(Rc::new(Panics) as Rc<dyn OpSink>), 0);
            sleep(Duration::from_millis(5)).await;
            op(Op::Pair).await.0.is_ok()
        });
        assert!(ended.unwrap());
    });
}

thread_local! {
    static KEPT: RefCell<Option<std::pin::Pin<Box<Sleep>>>> = const { RefCell::new(None) };
}

#[test]
fn a_timers_waker_may_drop_another_timer_and_panic() {
    struct DropsTheOther;
    impl std::task::Wake for DropsTheOther {
        fn wake(self: Arc<Self>) {
            KEPT.take();
            panic!("on purpose");
        }
    }
    on_one_reactor(|runtime| {
        let ended = runtime.run(async || {
            let mut other = Box::pin(sleep(Duration::from_secs(1000)));
            let mut first = Box::pin(sleep(Duration::from_millis(1)));
            let noop = &mut std::task::Context::from_waker(std::task::Waker::noop());
            assert!(other.as_mut().poll(noop).is_pending());
            KEPT.set(Some(other));
            let waker = Arc::new(DropsTheOther).into();
            assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            sleep(Duration::from_millis(5)).await;
            KEPT.take().is_none()
        });
        assert!(ended.unwrap(), "the waker was called");
    });
}

#[test]
fn the_waker_of_a_timer_may_drop_another_timer_when_it_is_dropped() {
    struct DropsTheOther;
    impl std::task::Wake for DropsTheOther {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for DropsTheOther {
        fn drop(&mut self) {
            KEPT.take();
        }
    }
    on_one_reactor(|runtime| {
        let ended = runtime.run(async || {
            let noop = &mut std::task::Context::from_waker(std::task::Waker::noop());
            for poll_again in [false, true] {
                let mut other = Box::pin(sleep(Duration::from_secs(1000)));
                let mut first = Box::pin(sleep(Duration::from_secs(1000)));
                assert!(other.as_mut().poll(noop).is_pending());
                KEPT.set(Some(other));
                let waker = Arc::new(DropsTheOther).into();
                assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
                drop(waker);
                // The timer has the last of them.
                match poll_again {
                    true => assert!(first.as_mut().poll(noop).is_pending()),
                    false => drop(first),
                }
                assert!(KEPT.take().is_none(), "the waker was dropped");
            }
        });
        ended.unwrap();
    });
}

#[test]
fn a_device_whose_part_panics_when_dropped_can_be_unregistered() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    on_one_reactor(|runtime| {
        let ended = runtime.run(async || {
            let device = IoDevice::register("panics", || Ok::<_, std::convert::Infallible>(Panics));
            drop(device.channel().unwrap());
            device.unregister().await.unwrap();
        });
        ended.unwrap();
    });
}

#[test]
fn a_runtime_ends_although_a_thread_that_has_exited_left_an_accept() {
    struct Ignores;
    impl OpSink for Ignores {
        fn complete(&self, _key: u64, _completion: Completion) {}
    }
    with_sockets(|runtime| {
        let ended = runtime.run(async || {
            let worker = Handle::current().unwrap().create_thread("worker", "[0-1023]").unwrap();
            let submitted = worker.spawn(async || {
                let listener = listen().await;
                submit_op(Op::Accept { listener }, &(Rc::new(Ignores) as Rc<dyn OpSink>), 0);
            });
            submitted.await.unwrap();
            worker.exit();
            worker.joined().await;
        });
        ended.unwrap();
    });
}

#[test]
fn what_others_own_ends_although_a_connection_is_still_waited_for() {
    async fn accepts() {
        let listener = listen().await;
        let _ = op(Op::Accept { listener }).await;
    }
    for kind in [EngineKind::Auto, EngineKind::Epoll, EngineKind::Sim(1)] {
        let running = Runtime::builder().reactors(1).engine(kind).build().unwrap().start().unwrap();
        let worker = running.handle().create_thread("worker", "[0-1023]").unwrap();
        let waits = worker.spawn(accepts);
        worker.spawn(async || sleep(Duration::from_millis(5)).await).wait().unwrap();
        drop(running);
        assert!(waits.wait().is_err());

        let mut runner = ThreadRunner::new("by hand", kind).unwrap();
        let waits = runner.thread().spawn(accepts);
        for _ in 0..100 {
            runner.step();
        }
        drop(runner);
        assert!(waits.wait().is_err());
    }
}
