//! Timers: what their wakers may do to other timers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use spindle_reactor::*;

use crate::on_one_reactor;

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
