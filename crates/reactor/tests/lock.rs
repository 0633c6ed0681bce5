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
