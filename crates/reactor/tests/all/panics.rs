//! Panics in destructors and in panic payloads: waiters get the error, and nothing else ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spindle_engine::Op;
use spindle_reactor::*;

use crate::on_one_reactor;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn everywhere(test: impl Fn(Runtime)) {
    test(Runtime::builder().reactors(2).engine(EngineKind::Epoll).build().unwrap());
    for seed in 0..10 {
        test(Runtime::builder().reactors(2).engine(EngineKind::Sim(seed)).build().unwrap());
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// Panics when it is dropped, with something that panics when it is dropped.
struct PanicsTwice;

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        panic_any(PanicsWhenDropped);
    }
}

async fn holds<T>(what: T) {
    let _held = what;
    pending::<()>().await;
}

fn worker() -> Thread {
    Thread::create("worker", "[0-1023]").unwrap()
}

#[test]
fn a_stop_ends_although_what_main_holds_panics_when_it_is_dropped() {
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            Handle::current().unwrap().stop(7);
            holds(PanicsWhenDropped).await;
        });
        assert!(matches!(ended, Err(RunError::Stopped { code: 7, .. })), "{ended:?}");
    });
}

#[test]
fn who_waits_for_a_task_that_is_cancelled_hears_of_it_although_its_destructor_panics() {
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let other = worker().spawn(async || holds(PanicsWhenDropped).await);
            let local = spawn_local(holds(PanicsWhenDropped));
            sleep(Duration::from_millis(1)).await;
            other.abort();
            local.abort();
            let ended = (timeout(LONG, other).await, timeout(LONG, local).await);
            assert!(
                matches!(ended, (Ok(Err(RunError::Cancelled)), Ok(Err(RunError::Cancelled)))),
                "{ended:?}"
            );
        });
        ended.unwrap();
    });
}

#[test]
fn the_panic_of_a_task_is_no_reason_of_another_that_it_cancels_meanwhile() {
    type Shared = Rc<RefCell<Option<JoinHandle<()>>>>;
    /// Cancels a task when dropped.
    struct Cancels(Shared);
    impl Drop for Cancels {
        fn drop(&mut self) {
            self.0.borrow().as_ref().unwrap().abort();
        }
    }
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let other = Shared::default();
            *other.borrow_mut() = Some(spawn_local(pending()));
            let cancels = Cancels(other.clone());
            let fails = spawn_local(async move {
                let _cancels = cancels;
                panic!("on purpose");
            });
            assert!(matches!(timeout(LONG, fails).await, Ok(Err(RunError::Panicked(_)))));
            let other = other.take().unwrap();
            assert!(matches!(timeout(LONG, other).await, Ok(Err(RunError::Cancelled))));
        });
        ended.unwrap();
    });
}

#[test]
fn what_a_panic_carries_may_panic_when_dropped_and_ends_nothing_else() {
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let other = worker();
            let panicked = other.run(async || panic_any(PanicsWhenDropped)).await;
            assert!(matches!(panicked, Err(RunError::Panicked(_))), "{panicked:?}");
            other.send_msg(|| panic_any(PanicsWhenDropped)).unwrap();
            let dropped = PanicsTwice;
            other.send_msg(move || drop(dropped)).unwrap();
            let fails = async || {
                let poller = Poller::active("fails", Wake::Spin, || panic_any(PanicsWhenDropped));
                sleep(Duration::from_millis(1)).await;
                drop(poller);
            };
            assert!(timeout(LONG, other.run(fails)).await.is_ok());
            let cancelled = other.spawn(async || holds(PanicsTwice).await);
            cancelled.abort();
            assert!(matches!(timeout(LONG, cancelled).await, Ok(Err(RunError::Cancelled))));
            assert_eq!(timeout(LONG, other.run(async || 5)).await.unwrap().unwrap(), 5);
        });
        ended.unwrap();
    });
}

#[test]
fn the_answer_to_a_call_that_was_given_up_may_use_the_runtime_when_it_is_dropped() {
    /// Calls its thread when dropped, and gives that call up too.
    struct Calls(Thread);
    impl Drop for Calls {
        fn drop(&mut self) {
            let mut call = self.0.run(async || ());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = std::pin::Pin::new(&mut call).poll(&mut context);
        }
    }
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let (other, asked) = (worker(), worker());
            for _ in 0..50 {
                let calls = Calls(asked.clone());
                let mut call = Box::pin(other.run(async move || calls));
                std::future::poll_fn(|cx| {
                    assert!(call.as_mut().poll(cx).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
                yield_now().await;
                drop(call);
            }
            other.run(async || ()).await.unwrap();
        });
        ended.unwrap();
    });
}

#[test]
fn a_poller_that_panicked_keeps_neither_its_core_awake_nor_its_thread_alive() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(1)] {
        let running = Runtime::builder().reactors(1).engine(kind).build().unwrap().start().unwrap();
        let handle = running.handle();
        let (tell, told) = std::sync::mpsc::channel();
        let worker = handle.create_thread("worker", "[0-1023]").unwrap();
        worker
            .send_msg(move || {
                let fails = Poller::active("fails", Wake::Spin, || panic!("on purpose"));
                let watch = spawn_local(async move {
                    let _fails = fails;
                    sleep(Duration::from_millis(20)).await;
                    let before = Handle::current().unwrap().dump().await;
                    sleep(Duration::from_millis(50)).await;
                    let after = Handle::current().unwrap().dump().await;
                    tell.send(after.reactors[0].sleeps - before.reactors[0].sleeps).unwrap();
                });
                drop(watch);
                // Never dropped: no task can wait for it any more.
                std::mem::forget(Poller::active("fails too", Wake::Every(LONG), || panic!("on purpose")));
                let panics = PanicsWhenDropped;
                drop(Poller::timed("panics when dropped", LONG, move || {
                    let _ = &panics;
                    Busy::No
                }));
            })
            .unwrap();
        assert!(told.recv().unwrap() > 0, "it slept");
        worker.exit();
        let waits = running.handle().create_thread("waits", "[0-1023]").unwrap();
        let ended = waits.spawn(async move || timeout(LONG, worker.joined()).await).wait().unwrap();
        ended.unwrap();
    }
}

/// Polls a future once more after it has given its result.
async fn polled_again<F: Future + Unpin + 'static>(mut future: F) {
    let _result = (&mut future).await;
    let _again = future.await;
}

#[test]
fn a_future_that_has_given_its_result_panics_when_it_is_polled_again_and_waits_for_nothing() {
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let worker = Thread::create("worker", "[0-1023]").unwrap();
            let again = [
                spawn_local(polled_again(spawn_local(async {}))),
                spawn_local(polled_again(worker.spawn(async || ()))),
                spawn_local(polled_again(worker.run(async || ()))),
                spawn_local(polled_again(Box::pin(op(Op::Pair)))),
            ];
            for task in again {
                match timeout(LONG, task).await.unwrap() {
                    Err(RunError::Panicked(panicked)) => {
                        assert!(
                            panicked.message.contains("polled again after it has given its result"),
                            "{panicked}"
                        );
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        ended.unwrap();
    });
}

#[test]
fn a_poller_whose_captures_panic_when_dropped_does_not_end_its_reactor() {
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
fn a_device_whose_part_panics_when_dropped_can_be_unregistered() {
    on_one_reactor(|runtime| {
        let ended = runtime.run(async || {
            let device = IoDevice::register("panics", || Ok::<_, Infallible>(PanicsWhenDropped));
            drop(device.channel().unwrap());
            device.unregister().await.unwrap();
        });
        ended.unwrap();
    });
}
