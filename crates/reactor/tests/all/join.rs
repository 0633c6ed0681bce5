//! The one handle to wait for a task, whether that runs here or on another thread; and calls with one error type.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spindle_reactor::{EngineKind, JoinHandle, RunError, Runtime, Thread, sleep, spawn_local, timeout};

/// Runs main on two reactors of each engine.
fn everywhere(main: impl AsyncFn() + Clone + Send + 'static) {
    for engine in [EngineKind::Auto, EngineKind::Epoll, EngineKind::Sim(1), EngineKind::Sim(2)] {
        let runtime = Runtime::builder().reactors(2).engine(engine).build().unwrap();
        let main = main.clone();
        runtime.run(async move || main().await).unwrap();
    }
}

fn other() -> Thread {
    Thread::create("other", 0..1024).unwrap()
}

/// A local task that does not end, and adds one when it is dropped.
fn endless(ended: &Arc<AtomicUsize>) -> JoinHandle<()> {
    let counts = Counts(ended.clone());
    spawn_local(async move {
        let _counts = counts;
        sleep(Duration::from_secs(3600)).await;
    })
}

/// Adds one when it is dropped.
struct Counts(Arc<AtomicUsize>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_task_of_this_thread_is_awaited_and_given_up_on_another() {
    everywhere(async || {
        let (answer, ended) = (spawn_local(async { 7 }), Arc::new(AtomicUsize::new(0)));
        let endless = endless(&ended);
        let there = other().try_run(async move || {
            let answer = answer.await?;
            endless.abort();
            match endless.await {
                Err(RunError::Cancelled) => Ok::<i32, RunError>(answer),
                end => panic!("{end:?}"),
            }
        });
        assert_eq!(there.await.unwrap(), 7);
        assert_eq!(ended.load(Ordering::Relaxed), 1, "dropped before its handle was told");
    });
}

#[test]
fn dropping_the_handle_of_a_local_task_elsewhere_cancels_it_here_if_asked() {
    everywhere(async || {
        let ended = Arc::new(AtomicUsize::new(0));
        let task = endless(&ended);
        let task = task.cancel_on_drop();
        other().run(async move || drop(task)).await.unwrap();
        while ended.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_micros(100)).await;
        }
    });
}

#[test]
fn a_local_task_may_give_what_cannot_be_sent_and_says_when_it_has_ended() {
    everywhere(async || {
        let shared = Rc::new(Cell::new(1));
        let given = shared.clone();
        let task = spawn_local(async move {
            given.set(2);
            given
        });
        assert!(!task.is_finished());
        while !task.is_finished() {
            sleep(Duration::from_micros(1)).await;
        }
        assert!(Rc::ptr_eq(&task.await.unwrap(), &shared));
        assert_eq!((shared.get(), Rc::strong_count(&shared)), (2, 1), "nothing keeps it");
    });
}

#[test]
fn aborting_a_local_task_here_drops_it_at_once() {
    everywhere(async || {
        let ended = Arc::new(AtomicUsize::new(0));
        let task = endless(&ended);
        assert!(timeout(Duration::ZERO, sleep(Duration::from_millis(1))).await.is_err());
        task.abort();
        assert_eq!(ended.load(Ordering::Relaxed), 1);
        assert!(matches!(task.await, Err(RunError::Cancelled)));
    });
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("its own")]
    Own,
    #[error(transparent)]
    Run(#[from] RunError),
}

#[test]
fn a_call_that_can_fail_has_one_error_type_for_its_own_failures_and_those_of_the_call() {
    everywhere(async || {
        let other = other();
        assert!(matches!(other.try_run(async || Ok::<i32, Failure>(1)).await, Ok(1)));
        assert!(matches!(other.try_run(async || Err::<(), _>(Failure::Own)).await, Err(Failure::Own)));
        let panics = async || -> Result<(), Failure> { panic!("as asked") };
        assert!(matches!(other.try_run(panics).await, Err(Failure::Run(RunError::Panicked(_)))));
        other.exit();
        other.joined().await;
        let late = other.try_run(async || Ok::<(), Failure>(())).await;
        assert!(matches!(late, Err(Failure::Run(RunError::Gone { .. }))));
    });
    let runtime = || Runtime::builder().reactors(1).build().unwrap();
    assert!(matches!(runtime().try_run(async || Err::<(), _>(Failure::Own)), Err(Failure::Own)));
    assert!(matches!(runtime().try_run(async || Ok::<i32, Failure>(3)), Ok(3)));
}

#[test]
fn cores_are_given_as_text_or_as_values() {
    let runtime = Runtime::builder().cores(0..2).engine(EngineKind::Sim(1)).build().unwrap();
    assert_eq!(runtime.cores(), [0, 1]);
    runtime
        .run(async || {
            for (thread, core) in [
                (Thread::create("number", 1), 1),
                (Thread::create("array", [1]), 1),
                (Thread::create("range", 0..=0), 0),
                (Thread::create("text", "[1]"), 1),
                (Thread::create("made text", &format!("[{}]", 0)), 0),
                (Thread::create("set", "0x2".parse::<spindle_reactor::CpuSet>().unwrap()), 1),
            ] {
                assert_eq!(thread.unwrap().core(), core);
            }
            let refused = Thread::create("refused", 4096).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "thread refused: '4096': core 4096 is out of range; the highest is 1023"
            );
        })
        .unwrap();
}
