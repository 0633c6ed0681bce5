//! Process signals: alone in this binary, since they belong to the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use spindle_engine::{Engine, EngineKind, Signal, SignalError, Signals};

fn raise(signal: libc::c_int) {
    // SAFETY: sends a signal to this thread, which the handler under test takes.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// What the process does on SIGUSR1 now.
fn handler() -> libc::sighandler_t {
    // SAFETY: asking for the action with a null new one changes nothing.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut now), 0);
        now.sa_sigaction
    }
}

/// One test, because signals are the process's and tests run side by side.
#[test]
fn signals_are_counted_wake_their_owner_and_go_back_when_dropped() {
    let before = handler();
    let engine = Engine::open(EngineKind::Epoll).unwrap();
    let mut driver = engine.driver(0).unwrap();
    let asked = [Signal::Interrupt, Signal::User1];
    let signals = Signals::take("first", &asked, driver.unparker()).unwrap();
    assert_ne!(handler(), before);

    match Signals::take("second", &[Signal::Terminate], driver.unparker()) {
        Err(SignalError::Held { holder }) => assert_eq!(holder, "first"),
        other => panic!("{other:?}"),
    }

    raise(libc::SIGUSR1);
    raise(libc::SIGUSR1);
    raise(libc::SIGINT);
    let far = driver.now() + Duration::from_secs(3600);
    driver.park(Some(far));
    assert!(driver.now() < far, "the signal ended the sleep");
    assert_eq!(signals.arrived(Signal::User1), 2);
    assert_eq!(signals.arrived(Signal::User1), 0);
    assert_eq!(signals.arrived(Signal::Interrupt), 1);
    assert_eq!(signals.arrived(Signal::Terminate), 0);

    drop(signals);
    assert_eq!(handler(), before);
    let again = Signals::take("second", &[Signal::Terminate], driver.unparker()).unwrap();
    raise(libc::SIGTERM);
    assert_eq!(again.arrived(Signal::Terminate), 1);
}
