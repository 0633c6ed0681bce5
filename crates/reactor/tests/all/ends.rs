//! Ends of tasks, threads, reactors and runtimes: when they happen, and what is reported.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spindle_engine::Bell;
use spindle_reactor::*;

use crate::on_one_reactor;

const MS: Duration = Duration::from_millis(1);

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn start(reactors: usize) -> Running {
    Runtime::builder().reactors(reactors).engine(EngineKind::Epoll).build().unwrap().start().unwrap()
}

/// Waits on a plain OS thread until `seen` is true.
fn wait_for(mut seen: impl FnMut() -> bool) {
    let bell = Bell::new().unwrap();
    while !seen() {
        assert!(bell.now().as_nanos() < LONG.as_nanos() as u64, "not within {LONG:?}");
        bell.wait(Some(MS));
    }
}

#[test]
fn a_runtime_dropped_on_its_own_thread_ends_and_does_not_wait_for_itself() {
    let running = start(2);
    let handle = running.handle();
    let thread = handle.create_thread("holds its runtime", "[0-1023]").unwrap();
    thread.spawn(async move || drop(running)).wait().unwrap();
    wait_for(|| thread.is_gone());
    assert!(matches!(handle.create_thread("late", "[0]"), Err(CreateError::Stopping { .. })));
}

#[test]
fn a_stop_ends_a_runtime_that_was_started_beside_another_program() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(1)] {
        let running = Runtime::builder().reactors(2).engine(kind).build().unwrap().start().unwrap();
        let thread = running.handle().create_thread("worker", "[0-1023]").unwrap();
        let waits = thread.spawn(std::future::pending::<()>);
        running.handle().stop(3);
        assert!(waits.wait().is_err());
        wait_for(|| thread.is_gone());
    }
}

#[test]
fn a_reactor_that_has_ended_is_in_no_dump_and_in_no_report() {
    let running = start(2);
    let handle = running.handle();
    let threads = [(); 2].map(|()| handle.create_thread("one each", "[0-1023]").unwrap());
    let place = |thread: &Thread| thread.spawn(async || reactor_index()).wait().unwrap();
    let held = threads.iter().find(|thread| place(thread) == 1).unwrap();
    let free = Arc::new(AtomicBool::new(false));
    let (until, (tell, told)) = (free.clone(), std::sync::mpsc::channel());
    let hold = move || {
        tell.send(()).unwrap();
        wait_for(|| until.load(Ordering::Relaxed));
    };
    held.send_msg(hold).unwrap();
    // A stop drops messages that were not called yet.
    told.recv().unwrap();
    handle.stop(0);
    let others_end = || threads.iter().all(|thread| thread == held || thread.is_gone());
    wait_for(|| others_end() && !handle.stalls().is_empty());
    // Long enough for the watchdog to look several times.
    Bell::new().unwrap().wait(Some(100 * MS));
    let dump = handle.dump().wait(MS);
    let stalls = handle.stalls();
    free.store(true, Ordering::Relaxed);
    let indexes: Vec<_> = dump.reactors.iter().map(|reactor| reactor.index).collect();
    assert_eq!(indexes, [1], "{dump}");
    assert!(dump.reactors[0].held_by.is_some(), "{dump}");
    assert!(stalls.iter().all(|stall| stall.reactor == 1), "{stalls:?}");
    wait_for(|| held.is_gone());
    wait_for(|| handle.dump().wait(MS).reactors.is_empty());
}

#[test]
fn a_channel_that_outlives_its_thread_is_still_counted_down() {
    type Kept = (IoDevice<u32>, IoChannel<u32>);
    thread_local!(static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) });
    let mut runner = ThreadRunner::new("by hand", EngineKind::Epoll).unwrap();
    let keep = || {
        let device = IoDevice::register("device", || Ok::<_, Infallible>(7));
        let channel = device.channel().unwrap();
        KEPT.with(|kept| *kept.borrow_mut() = Some((device, channel)));
    };
    runner.thread().send_msg(keep).unwrap();
    let is_kept = || KEPT.with(|kept| kept.borrow().is_some());
    runner.run_until(is_kept);
    drop(runner);
    let (device, channel) = KEPT.with(RefCell::take).unwrap();
    assert_eq!(device.channels(), 1);
    drop(channel);
    assert_eq!(device.channels(), 0);
}

#[test]
fn a_watchdog_that_never_looks_and_one_that_always_does_end_with_their_runtime() {
    for limit in [Duration::MAX, Duration::ZERO] {
        let runtime = Runtime::builder().reactors(2).engine(EngineKind::Epoll).watchdog(Some(limit));
        let ended = runtime.build().unwrap().run(async || sleep(5 * MS).await);
        ended.unwrap();
    }
}

#[test]
fn a_main_that_takes_a_stop_upon_itself_ends_in_its_own_time_and_with_its_own_result() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(1)] {
        let runtime = Runtime::builder().reactors(1).engine(kind).build().unwrap();
        let result = runtime.run(async || {
            let handle = Handle::current().unwrap();
            let stop = handle.stop_requested();
            let asks = spawn_local(async move { handle.stop(9) });
            let by = stop.await;
            asks.await.unwrap();
            // What an orderly end takes is still there.
            sleep(MS).await;
            by
        });
        assert_eq!(result.unwrap(), "stop");
    }
}

#[test]
fn a_main_that_awaits_the_end_of_its_own_thread_is_told_so() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(1)] {
        let runtime = Runtime::builder().reactors(1).engine(kind).build().unwrap();
        let ended = runtime.run(async || {
            let own = Thread::current().unwrap();
            own.exit();
            own.joined().await;
        });
        let error = ended.unwrap_err();
        assert!(error.to_string().contains("thread 1 (app_thread) awaits its own end"), "{error}");
    }
}

#[test]
fn a_stop_ends_a_main_whose_thread_was_asked_to_exit_with_the_code_of_the_stop() {
    let runtime = Runtime::builder().reactors(2).engine(EngineKind::Epoll).build().unwrap();
    let ended = runtime.run(async || {
        let (own, handle) = (Thread::current().unwrap(), Handle::current().unwrap());
        let other = Thread::create("waits for it", "[0-1023]").unwrap();
        own.exit();
        other.spawn(async move || {
            sleep(5 * MS).await;
            handle.stop(130);
        });
        other.run(async move || own.joined().await).await
    });
    assert!(matches!(ended, Err(RunError::Stopped { code: 130, .. })), "{ended:?}");
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
