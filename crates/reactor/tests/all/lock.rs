//! What checked locks find, each by SPDK's code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

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
    assert_eq!(text.matches("thread 1 (app_thread) on core").count(), 2, "who takes and who holds: {text}");
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
fn a_panic_under_a_lock_poisons_it_until_somebody_says_that_the_value_is_whole() {
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
