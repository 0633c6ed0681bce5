//! What checked locks find, each by SPDK's code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use spindle_reactor::*;

fn run<T: Send + 'static>(main: impl AsyncFnOnce() -> T + Send + 'static) -> Result<T, RunError> {
    Runtime::builder().reactors(2).engine(EngineKind::Epoll).build().unwrap().run(main)
}

#[test]
fn two_cores_count_under_one_lock() {
    let total = run(async || {
        let lock = Arc::new(Lock::new("counter", 0u64));
        let count = |lock: Arc<Lock<u64>>| async move || (0..5000).for_each(|_| lock.with(|n| *n += 1));
        let workers = [0, 1].map(|n| Thread::create_on(&format!("worker {n}"), CpuSet::first(1024)).unwrap());
        let counts: Vec<_> = workers.iter().map(|worker| worker.spawn(count(lock.clone()))).collect();
        for count in counts {
            count.await.unwrap();
        }
        lock.with(|n| *n)
    });
    assert_eq!(total.unwrap(), 10_000);
}

#[test]
fn taking_a_lock_away_from_a_thread_is_code_1() {
    let panic = std::panic::catch_unwind(|| Lock::new("lonely", ()).with(|()| ())).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("lock lonely, code 1 (NotOnThread)") && text.contains("lock.rs"), "{text}");
}

#[test]
fn taking_a_lock_again_on_its_thread_is_code_2_and_names_both_places() {
    let error = run(async || {
        let lock = Lock::new("twice", ());
        lock.with(|()| lock.with(|()| ()));
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("lock twice, code 2 (Deadlock)") && text.contains("app_thread"), "{text}");
    assert_eq!(text.matches("tests/all/lock.rs").count(), 3, "spawned, taken and held: {text}");
    assert_eq!(text.matches("thread 1 (app_thread) on core").count(), 2, "the taker and the holder: {text}");
}

#[test]
fn a_thread_stepped_within_a_call_that_holds_the_lock_is_code_2_and_no_hang() {
    let report = run(async || {
        let lock = Arc::new(Lock::new("nested", ()));
        let taken = lock.clone();
        lock.with(|()| {
            let mut runner = ThreadRunner::new("inner", EngineKind::Epoll).unwrap();
            let answer = runner.thread().spawn(async move || taken.with(|()| ()));
            let mut answer = std::pin::pin!(answer);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            loop {
                runner.step();
                if let std::task::Poll::Ready(ended) = answer.as_mut().poll(&mut context) {
                    break ended.unwrap_err().to_string();
                }
            }
        })
    });
    let report = report.unwrap();
    assert!(report.contains("lock nested, code 2 (Deadlock)"), "{report}");
    assert!(report.contains("(inner) on core") && report.contains("(app_thread) on core"), "{report}");
}

#[test]
fn a_guard_lets_go_when_it_is_dropped_and_the_call_goes_on() {
    run(async || {
        let lock = Lock::new("early", 1);
        let read = lock.with_guard(|mut guard| {
            *guard += 1;
            drop(guard);
            lock.with(|value| *value)
        });
        assert_eq!((read, lock.with_guard(|guard| *guard)), (2, 2));
    })
    .unwrap();
}

#[test]
fn a_guard_that_is_forgotten_is_code_7_and_the_lock_is_free() {
    let error = run(async || {
        let lock = Arc::new(Lock::new("forgotten", 0));
        let theirs = lock.clone();
        let error = spindle_reactor::spawn_local(async move {
            theirs.with_guard(|guard| std::mem::forget(guard));
        })
        .await
        .unwrap_err();
        assert_eq!(lock.with(|value| *value), 0, "it can be taken");
        error.to_string()
    })
    .unwrap();
    for word in ["lock forgotten, code 7", "app_thread", "on core", "lock.rs"] {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

#[test]
fn a_panic_under_a_lock_poisons_it_until_the_poison_is_cleared() {
    let seen = run(async || {
        let lock = Arc::new(Lock::new("half", 1));
        let worker = Thread::create("worker", "[0-63]").unwrap();
        let breaks = lock.clone();
        let first = worker.run(async move || {
            breaks.with(|n| {
                *n = 2;
                panic!("on purpose")
            })
        });
        let _: RunError = first.await.map(|(): ()| ()).unwrap_err();
        let takes = lock.clone();
        let refused = worker.run(async move || takes.with(|n| *n)).await.unwrap_err().to_string();
        assert!(lock.is_poisoned());
        lock.clear_poison();
        (refused, lock.with(|n| *n))
    });
    let (refused, value) = seen.unwrap();
    assert!(refused.contains("lock half is poisoned") && refused.contains("clear_poison"), "{refused}");
    assert_eq!(value, 2);
}

#[test]
fn reports_are_kept_in_bounded_room() {
    let kept = run(async || {
        let lock = Arc::new(Lock::new("twice", ()));
        for _ in 0..200 {
            let again = lock.clone();
            let task = spawn_local(async move { again.with(|()| again.with(|()| ())) });
            task.await.unwrap_err();
            lock.clear_poison();
        }
        Handle::current().unwrap().lock_reports()
    });
    let kept = kept.unwrap();
    assert!((1..=100).contains(&kept.len()), "{}", kept.len());
    assert!(kept[0].contains("lock twice, code 2") && kept[0].contains("lock.rs"), "{}", kept[0]);
}

/// Holds `first` and takes `second`, when the other side holds what it holds, too.
fn take_both(
    on: &Thread,
    (first, second): (Arc<Lock<u32>>, Arc<Lock<u32>>),
    both_hold: Arc<std::sync::Barrier>,
) -> JoinHandle<()> {
    on.spawn(async move || {
        first.with(|held| {
            both_hold.wait();
            second.with(|other| *other += *held);
        });
    })
}

#[test]
fn locks_that_are_waited_for_in_a_circle_are_code_2_and_no_hang_and_both_places_are_named() {
    let runtime = Runtime::builder().reactors(2).engine(EngineKind::Epoll).check_lock_order(false);
    let runtime = runtime.build().unwrap();
    let errors = runtime.run(async || {
        let threads = [0, 1].map(|at| {
            let core = Handle::current().unwrap().cores()[at];
            Thread::create("takes both", &format!("[{core}]")).unwrap()
        });
        let (a, b) = (Arc::new(Lock::new("left", 1)), Arc::new(Lock::new("right", 1)));
        let both_hold = Arc::new(std::sync::Barrier::new(2));
        // Neither may be the app thread: main waits there.
        let here = reactor_index();
        let other = &threads[1 - here];
        let far = take_both(other, (a.clone(), b.clone()), both_hold.clone());
        let near = take_both(&threads[here], (b, a), both_hold);
        let errors = [near.await, far.await].map(|ended| ended.err().map(|error| error.to_string()));
        (errors, Handle::current().unwrap().lock_reports())
    });
    let (errors, reports) = errors.unwrap();
    // The first that sees the circle ends; its lock is poisoned, which ends the other.
    assert!(errors.iter().all(Option::is_some), "{errors:?}");
    let report = reports.first().unwrap();
    for words in ["code 2 (Deadlock)", "lock left", "lock right", "waits for lock", "in one order"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(report.matches("lock.rs:").count() >= 3, "where each was taken, and the waits: {report}");
}

#[test]
fn locks_taken_in_two_orders_are_code_2_before_anything_hangs_where_the_order_is_checked() {
    for check in [true, false] {
        let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(1)).check_lock_order(check);
        let ended = runtime.build().unwrap().run(async || {
            let (outer, inner) = (Lock::new("outer", ()), Lock::new("inner", ()));
            outer.with(|()| inner.with(|()| ()));
            outer.with(|()| inner.with(|()| ()));
            inner.with(|()| outer.with(|()| ()));
        });
        let Err(error) = ended else {
            assert!(!check);
            continue;
        };
        let text = error.to_string();
        assert!(check && text.contains("code 2 (Deadlock)") && text.contains("in one order"), "{text}");
        assert!(text.contains("lock inner") && text.contains("lock outer"), "{text}");
        assert!(text.matches("lock.rs:").count() >= 4, "this order and the other: {text}");
    }
}

#[test]
fn a_long_wait_for_a_lock_is_named_with_its_holder_by_the_watchdog_and_in_dumps() {
    let running = Runtime::builder().reactors(2).engine(EngineKind::Epoll).build().unwrap().start().unwrap();
    let handle = running.handle();
    let threads = [(); 2].map(|()| handle.create_thread("uses it", "[0-1023]").unwrap());
    let lock = Arc::new(Lock::new("busy", ()));
    let (held, (free, wait)) = (Arc::new(std::sync::Barrier::new(2)), std::sync::mpsc::channel::<()>());
    let (holds, holding) = (lock.clone(), held.clone());
    let holder = threads[0].spawn(async move || {
        holds.with(|()| {
            holding.wait();
            let _ = wait.recv();
        });
    });
    held.wait();
    let waiter = threads[1].spawn(async move || lock.with(|()| ()));
    let bell = spindle_engine::Bell::new().unwrap();
    let names_it = |text: &str| {
        ["waits for lock busy", "held by thread 1 (uses it)", "lock.rs:"]
            .iter()
            .all(|words| text.contains(words))
    };
    let deadline = bell.now() + Duration::from_secs(60);
    loop {
        let stalls = handle.stalls();
        let dump = handle.dump().wait(Duration::from_millis(20)).to_string();
        if stalls.iter().any(|stall| names_it(&stall.to_string())) && names_it(&dump) {
            break;
        }
        assert!(bell.now() < deadline, "{stalls:?}\n{dump}");
        bell.wait(Some(Duration::from_millis(10)));
    }
    free.send(()).unwrap();
    holder.wait().unwrap();
    waiter.wait().unwrap();
}
