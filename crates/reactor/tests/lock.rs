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
        let _first = lock.lock();
        lock.with(|()| ());
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("lock twice, code 2 (Deadlock)") && text.contains("app_thread"), "{text}");
    assert_eq!(text.matches("tests/lock.rs").count(), 3, "spawned, taken and held: {text}");
}

#[test]
fn a_guard_held_when_its_thread_goes_off_the_core_is_code_7() {
    let reports = run(async || {
        let lock: &'static Lock<()> = Box::leak(Box::new(Lock::new("forgotten", ())));
        std::mem::forget(lock.lock());
        yield_now().await;
        yield_now().await;
        sleep(std::time::Duration::from_millis(1)).await;
        Handle::current().unwrap().lock_reports()
    });
    let reports = reports.unwrap();
    assert_eq!(reports.len(), 1, "reported once: {reports:?}");
    assert!(reports[0].contains("lock forgotten") && reports[0].contains("code 7"), "{}", reports[0]);
    assert!(reports[0].contains("app_thread") && reports[0].contains("lock.rs"), "{}", reports[0]);
}

/// Runs a test on one reactor and on two, where the second holds what the first wants.
fn with_a_lock_held_by(hold: impl AsyncFn(Thread, Arc<Lock<()>>) + Clone + Send + 'static) -> Vec<String> {
    let runs =
        [(EngineKind::Epoll, 1), (EngineKind::Epoll, 2), (EngineKind::Sim(1), 1), (EngineKind::Sim(2), 2)];
    let what_others_see = |(kind, reactors)| {
        let hold = hold.clone();
        let runtime = Runtime::builder().reactors(reactors).engine(kind).build().unwrap();
        let error = runtime.run(async move || {
            let lock = Arc::new(Lock::new("shared", ()));
            // Round robin: the second thread is on the other reactor, if there is one.
            let [taker, holder] = ["taker", "holder"].map(|name| Thread::create(name, "[0-63]").unwrap());
            hold(holder, lock.clone()).await;
            let taken = taker.run(async move || lock.with(|()| ())).await;
            taken.unwrap_err().to_string()
        });
        error.unwrap()
    };
    runs.into_iter().map(what_others_see).collect()
}

#[test]
#[expect(clippy::await_holding_invalid_type, reason = "the mistake that is tested")]
fn a_lock_held_across_an_await_is_an_error_for_others_and_no_hang() {
    let seen = with_a_lock_held_by(async |holder, lock| {
        drop(holder.spawn(async move || {
            let _guard = lock.lock();
            std::future::pending::<()>().await;
        }));
        sleep(std::time::Duration::from_millis(1)).await;
        holder.run(async || yield_now().await).await.unwrap();
    });
    for text in seen {
        assert!(text.contains("lock shared, code 7 (HeldOffCpu)") && text.contains("(holder)"), "{text}");
        assert!(text.matches("tests/lock.rs").count() == 3, "spawned, taken and held: {text}");
    }
}

#[test]
fn a_lock_whose_holder_has_exited_is_an_error_and_no_hang() {
    let seen = with_a_lock_held_by(async |holder, lock| {
        holder.run(async move || std::mem::forget(lock.lock())).await.unwrap();
        holder.exit();
        holder.joined().await;
    });
    for text in seen {
        assert!(text.contains("lock shared, code 7 (HeldOffCpu)") && text.contains("(holder)"), "{text}");
    }
}

#[test]
#[expect(clippy::await_holding_invalid_type, reason = "the mistake that is tested")]
fn a_guard_reported_as_held_off_the_core_and_dropped_later_frees_its_lock() {
    let taken = run(async || {
        let lock = Arc::new(Lock::new("late", 1));
        let held = lock.clone();
        let holds = spawn_local(async move {
            let _guard = held.lock();
            sleep(std::time::Duration::from_millis(1)).await;
        });
        holds.await.unwrap();
        Thread::create("other", "[0-63]").unwrap().run(async move || lock.with(|n| *n)).await.unwrap()
    });
    assert_eq!(taken.unwrap(), 1);
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
        for _ in 0..200 {
            let lock: &'static Lock<()> = Box::leak(Box::new(Lock::new("forgotten", ())));
            std::mem::forget(lock.lock());
            sleep(std::time::Duration::from_micros(1)).await;
        }
        Handle::current().unwrap().lock_reports().len()
    });
    let kept = kept.unwrap();
    assert!((1..=100).contains(&kept), "{kept}");
}
