//! Threads that wait cost nothing: a turn of a reactor looks only at those that have something to do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use spindle_reactor::*;

const THREADS: u64 = 3000;

/// The turns that each thread named `idle` has had.
async fn turns_of_the_idle() -> Vec<u64> {
    let dump = Handle::current().unwrap().dump().await;
    let threads = dump.reactors.iter().flat_map(|reactor| &reactor.threads);
    threads.filter(|thread| thread.name == "idle").map(|thread| thread.turns.0 + thread.turns.1).collect()
}

#[test]
fn threads_that_wait_have_no_turns_while_others_work() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(1), EngineKind::Sim(2)] {
        let runtime = Runtime::builder().reactors(1).engine(kind).watchdog(None).build().unwrap();
        runtime
            .run(async || {
                let here = Thread::current().unwrap();
                let idle: Vec<Thread> =
                    (0..THREADS).map(|_| Thread::create_on("idle", here.cores()).unwrap()).collect();
                for (place, thread) in idle.iter().enumerate() {
                    let wait = async move || match place % 3 {
                        0 => std::future::pending().await,
                        1 => sleep(Duration::from_secs(3600)).await,
                        _ => {
                            let _timed = Poller::timed("hourly", Duration::from_secs(3600), || Busy::No);
                            std::future::pending::<()>().await;
                        }
                    };
                    drop(thread.spawn(wait));
                }
                let busy = Thread::create_on("busy", here.cores()).unwrap();
                // All of them wait by then.
                busy.run(async || ()).await.unwrap();
                let before = turns_of_the_idle().await;
                for _ in 0..1000 {
                    busy.run(async || yield_now().await).await.unwrap();
                }
                let after = turns_of_the_idle().await;
                assert_eq!(before.len() as u64, THREADS);
                assert_eq!(before, after, "turns of threads that wait");
            })
            .unwrap();
    }
}

#[test]
fn a_thread_whose_deadline_moves_is_woken_at_the_one_that_counts_in_the_end() {
    for seed in 0..20 {
        let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(seed)).build().unwrap();
        let woken = runtime.run(async || {
            let here = Thread::current().unwrap();
            let threads: Vec<Thread> =
                (0..20).map(|_| Thread::create_on("sleeper", here.cores()).unwrap()).collect();
            let mut sleepers = Vec::new();
            for thread in &threads {
                sleepers.push(thread.spawn(async || {
                    let long = Duration::from_millis(random() % 50 + 50);
                    let began = now();
                    // A shorter wait beside it is given up again and again, and one ends in time.
                    let beside = spawn_local(async move {
                        for _ in 0..5 {
                            let short = Duration::from_millis(random() % 40 + 1);
                            let _ = timeout(short, sleep(short * 2)).await;
                            drop(timeout(short / 2, std::future::pending::<()>()));
                        }
                    });
                    sleep(long).await;
                    let slept = now() - began;
                    beside.await.unwrap();
                    (long, slept)
                }));
            }
            let mut woken = Vec::new();
            for sleeper in sleepers {
                woken.push(sleeper.await.unwrap());
            }
            woken
        });
        for (long, slept) in woken.unwrap() {
            let late = Duration::from_millis(1);
            assert!(slept >= long && slept < long + late, "seed {seed}: slept {slept:?} of {long:?}");
        }
    }
}

#[test]
fn threads_exit_when_the_last_thing_they_wait_for_goes_from_wherever_it_goes() {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Epoll).build().unwrap();
    runtime
        .run(async || {
            let here = Thread::current().unwrap();
            for last in ["task", "poller", "hold", "timer", "nothing"] {
                let thread = Thread::create_on(last, here.cores()).unwrap();
                let setting_up = thread.run(async move || match last {
                    "task" => drop(spawn_local(async {
                        for _ in 0..20 {
                            yield_now().await;
                        }
                    })),
                    "poller" => {
                        let own: Rc<RefCell<Option<Poller>>> = Rc::default();
                        let (stops, calls) = (own.clone(), Cell::new(0));
                        let poller = Poller::timed("ends itself", Duration::from_micros(50), move || {
                            calls.set(calls.get() + 1);
                            if calls.get() == 3 {
                                drop(stops.borrow_mut().take());
                            }
                            Busy::Yes
                        });
                        *own.borrow_mut() = Some(poller);
                    }
                    "hold" => {
                        let hold = Hold::channel("device");
                        drop(spawn_local(async move {
                            sleep(Duration::from_millis(2)).await;
                            drop(hold);
                        }));
                    }
                    "timer" => drop(spawn_local(sleep(Duration::from_millis(2)))),
                    _ => {}
                });
                setting_up.await.unwrap();
                thread.exit();
                thread.joined().await;
            }
        })
        .unwrap();
}
