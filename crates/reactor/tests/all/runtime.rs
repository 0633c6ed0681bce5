//! What runtimes, threads, messages and tasks promise, on every engine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spindle_engine::sim::World;
use spindle_engine::{Bell, Op, OpenOptions, Output};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::*;

/// Runs a test on every engine, and in simulation with many seeds.
fn everywhere(test: impl Fn(Runtime)) {
    for kind in [EngineKind::Auto, EngineKind::Epoll] {
        test(Runtime::builder().reactors(2).engine(kind).build().unwrap());
    }
    for seed in 0..20 {
        test(Runtime::builder().reactors(2).engine(EngineKind::Sim(seed)).build().unwrap());
    }
}

/// A thread on each reactor of the current runtime.
fn a_thread_each() -> Vec<Thread> {
    let count = Handle::current().unwrap().cores().len();
    (0..count).map(|n| Thread::create_on(&format!("worker {n}"), CpuSet::first(1024)).unwrap()).collect()
}

#[test]
fn simulated_reactors_go_on_the_listed_cores_and_share_them() {
    let builder = Runtime::builder().engine(EngineKind::Sim(1)).cores("[3,5]").reactors(3);
    let runtime = builder.build().unwrap();
    assert_eq!(runtime.cores(), [3, 5, 3]);
    let seen = runtime.run(async || {
        let mut seen = Vec::new();
        for thread in a_thread_each() {
            let place = thread.run(async || (reactor_index(), current_cpu())).await.unwrap();
            assert_eq!(place.1, thread.core());
            seen.push(place);
        }
        seen.sort_unstable();
        seen
    });
    assert_eq!(seen.unwrap(), [(0, 3), (1, 5), (2, 3)]);
}

#[test]
fn main_runs_on_the_app_thread_and_its_value_comes_back() {
    everywhere(|runtime| {
        let seen = runtime
            .run(async || (Thread::current().unwrap().name().to_owned(), Thread::current().unwrap().id()));
        assert_eq!(seen.unwrap(), ("app_thread".to_owned(), 1));
    });
}

#[test]
fn run_makes_the_future_there_and_brings_its_result_here() {
    everywhere(|runtime| {
        let result = runtime.run(async || {
            let mut seen = Vec::new();
            for worker in a_thread_each() {
                let name = worker.run(async || Thread::current().unwrap().name().to_owned()).await.unwrap();
                seen.push((name == worker.name(), Thread::current().unwrap().name().to_owned()));
            }
            seen
        });
        assert_eq!(result.unwrap(), vec![(true, "app_thread".to_owned()); 2]);
    });
}

#[test]
fn messages_of_one_sender_arrive_in_order_whatever_their_number() {
    everywhere(|runtime| {
        let in_order = runtime.run(async || {
            let mut all = Vec::new();
            for worker in a_thread_each() {
                let seen = Arc::new(Mutex::new(Vec::new()));
                for n in 0..2000u32 {
                    let seen = seen.clone();
                    worker.send_msg(move || seen.lock().unwrap().push(n)).unwrap();
                }
                worker.run(async || ()).await.unwrap();
                all.push(*seen.lock().unwrap() == (0..2000).collect::<Vec<_>>());
            }
            all
        });
        assert_eq!(in_order.unwrap(), [true, true]);
    });
}

#[test]
fn a_panic_in_a_called_future_is_an_error_here_and_the_thread_goes_on() {
    everywhere(|runtime| {
        let (message, after) = runtime
            .run(async || {
                let worker = a_thread_each().pop().unwrap();
                let error = worker.run(async || panic!("on purpose")).await.unwrap_err();
                (error.to_string(), worker.run(async || 7).await.unwrap())
            })
            .unwrap();
        assert!(message.contains("on purpose") && message.contains("runtime.rs"), "{message}");
        assert_eq!(after, 7);
    });
}

#[test]
fn dropping_a_call_drops_its_future_on_its_own_thread() {
    struct TellsWhere(Arc<Mutex<Vec<String>>>);
    impl Drop for TellsWhere {
        fn drop(&mut self) {
            let here = Thread::current().map_or("nowhere".to_owned(), |thread| thread.name().to_owned());
            self.0.lock().unwrap().push(here);
        }
    }
    everywhere(|runtime| {
        let dropped = runtime.run(async || {
            let worker = a_thread_each().pop().unwrap();
            let dropped = Arc::new(Mutex::new(Vec::new()));
            let tells = TellsWhere(dropped.clone());
            let call = worker.run(async move || {
                let _tells = tells;
                std::future::pending::<()>().await
            });
            assert!(timeout(Duration::from_millis(5), call).await.is_err());
            worker.run(async || ()).await.unwrap();
            let dropped = dropped.lock().unwrap().clone();
            (dropped, worker.name().to_owned())
        });
        let (dropped, name) = dropped.unwrap();
        assert_eq!(dropped, [name]);
    });
}

#[test]
fn dropping_a_join_handle_leaves_the_task_alone_or_drops_it_on_its_own_thread_if_it_was_told_to() {
    struct TellsWhere(std::sync::mpsc::Sender<Option<Thread>>);
    impl Drop for TellsWhere {
        fn drop(&mut self) {
            self.0.send(Thread::current()).unwrap();
        }
    }
    everywhere(|runtime| {
        let outcome = runtime.run(async || {
            let (tell, told) = std::sync::mpsc::channel();
            let (go, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let other = a_thread_each().pop().unwrap();
            let task = |tell: TellsWhere| {
                let (go, gone) = (go.clone(), gone.clone());
                async move || {
                    while go.load(Ordering::Relaxed) == 0 {
                        yield_now().await;
                    }
                    gone.fetch_add(1, Ordering::Relaxed);
                    drop(tell);
                }
            };
            let look = async || {
                for _ in 0..20_000 {
                    match told.try_recv() {
                        Ok(place) => return place,
                        Err(_) => sleep(Duration::from_millis(1)).await,
                    }
                }
                panic!("it was never dropped");
            };
            drop(other.spawn(task(TellsWhere(tell.clone()))).cancel_on_drop());
            assert_eq!(look().await, Some(other.clone()), "dropped there, not here");
            let (local, alone) = (task(TellsWhere(tell.clone())), task(TellsWhere(tell.clone())));
            drop(spawn_local(local()).cancel_on_drop());
            assert_eq!(look().await, Thread::current(), "the local handle means the same");
            assert_eq!(gone.load(Ordering::Relaxed), 0, "neither ran to its end");

            drop(other.spawn(alone));
            drop(spawn_local(task(TellsWhere(tell))()));
            go.store(1, Ordering::Relaxed);
            look().await;
            look().await;
            assert_eq!(gone.load(Ordering::Relaxed), 2, "both ran to their end");
            // A handle whose task has ended cancels nothing, and so does one that was awaited.
            assert_eq!(other.spawn(async || 7).cancel_on_drop().await.unwrap(), 7);
        });
        outcome.unwrap();
    });
}

#[test]
fn a_thread_exits_when_nothing_is_left_and_then_refuses_messages() {
    everywhere(|runtime| {
        let refused = runtime.run(async || {
            let worker = a_thread_each().pop().unwrap();
            let done = Arc::new(AtomicUsize::new(0));
            let counted = done.clone();
            let task = worker.spawn(async move || {
                sleep(Duration::from_millis(2)).await;
                counted.fetch_add(1, Ordering::Relaxed)
            });
            worker.exit();
            worker.joined().await;
            assert_eq!(done.load(Ordering::Relaxed), 1, "the task ended first");
            assert_eq!(task.await.unwrap(), 0);
            (worker.send_msg(|| ()), worker.run(async || ()).await.unwrap_err().to_string())
        });
        let (refused, error) = refused.unwrap();
        assert!(refused.is_err() && error.contains("exited"), "{error}");
    });
}

#[test]
fn sleeping_takes_at_least_its_time_and_equal_ends_keep_their_order() {
    everywhere(|runtime| {
        let order = runtime.run(async || {
            let order = Rc::new(std::cell::RefCell::new(Vec::new()));
            let start = now();
            // Further apart than the kernel takes the core away between two of them.
            let tasks: Vec<_> = [30, 10, 20]
                .into_iter()
                .map(|ms| {
                    let order = order.clone();
                    spawn_local(async move {
                        sleep(Duration::from_millis(ms)).await;
                        order.borrow_mut().push(ms);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert!(now() - start >= Duration::from_millis(30));
            order.borrow().clone()
        });
        assert_eq!(order.unwrap(), [10, 20, 30]);
    });
}

#[test]
fn sleeping_takes_at_least_its_time_also_after_a_long_call_in_the_same_turn() {
    let runtime = Runtime::builder().reactors(1).watchdog(None).build().unwrap();
    let slept = runtime.run(async || {
        let clock = Bell::new().unwrap();
        clock.wait(Some(Duration::from_millis(20)));
        let start = clock.now();
        sleep(Duration::from_millis(5)).await;
        clock.now() - start
    });
    assert!(slept.unwrap() >= Duration::from_millis(5));
}

#[test]
fn a_wait_ends_behind_more_waits_than_a_turn_ends_which_wake_no_task() {
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let mut others: Vec<_> = (0..30).map(|_| Box::pin(sleep(Duration::from_millis(5)))).collect();
            let noop = &mut std::task::Context::from_waker(std::task::Waker::noop());
            assert!(others.iter_mut().all(|other| other.as_mut().poll(noop).is_pending()));
            sleep(Duration::from_millis(5)).await;
            others.iter_mut().all(|other| other.as_mut().poll(noop).is_ready())
        });
        assert!(ended.unwrap(), "those that began before end before");
    });
}

#[test]
fn an_interval_of_0_ticks_once_a_turn_and_leaves_others_theirs() {
    everywhere(|runtime| {
        let outcome = runtime.run(async || {
            let (turns, ticks) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (counts, counted) = (turns.clone(), ticks.clone());
            let ticking = spawn_local(async move {
                let mut interval = interval(Duration::ZERO);
                loop {
                    interval.tick().await;
                    counted.set(counted.get() + 1);
                    assert!(counted.get() < 1000, "it holds its thread");
                }
            });
            for _ in 0..100 {
                yield_now().await;
                counts.set(counts.get() + 1);
            }
            assert!((20..500).contains(&ticks.get()), "{} ticks", ticks.get());
            ticking.abort();
        });
        outcome.unwrap();
    });
}

#[test]
fn pollers_run_until_dropped_and_timed_ones_once_a_period() {
    everywhere(|runtime| {
        runtime
            .run(async || {
                let began = now();
                let (active, timed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
                let (count_active, count_timed) = (active.clone(), timed.clone());
                let poller = Poller::active("counts", Wake::Every(Duration::from_millis(1)), move || {
                    count_active.set(count_active.get() + 1);
                    Busy::No
                });
                let ticker = Poller::timed("ticks", Duration::from_millis(2), move || {
                    count_timed.set(count_timed.get() + 1);
                    Busy::Yes
                });
                while active.get() < 3 || timed.get() < 3 {
                    sleep(Duration::from_millis(1)).await;
                }
                let spent = now() - began;
                assert!(spent >= Duration::from_millis(2) * timed.get(), "{} in {spent:?}", timed.get());
                drop((poller, ticker));
                let seen = (active.get(), timed.get());
                sleep(Duration::from_millis(5)).await;
                assert_eq!((active.get(), timed.get()), seen, "dropped pollers are not called");
            })
            .unwrap();
    });
}

#[test]
fn a_poller_that_panics_is_stopped_and_the_thread_goes_on() {
    everywhere(|runtime| {
        let runs = runtime.run(async || {
            let poller = Poller::active("fails", Wake::Spin, || panic!("on purpose"));
            sleep(Duration::from_millis(1)).await;
            poller.runs().0
        });
        assert_eq!(runs.unwrap(), 1);
    });
}

#[test]
fn plain_os_threads_send_spawn_and_wait() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(3)] {
        let running = Runtime::builder().reactors(2).engine(kind).build().unwrap().start().unwrap();
        let worker = running.handle().create_thread("worker", "[0-1]").unwrap();
        assert!(Thread::current().is_none(), "this is a plain OS thread");
        let handle = worker.spawn(async || {
            sleep(Duration::from_millis(1)).await;
            Thread::current().unwrap().name().to_owned()
        });
        assert_eq!(handle.wait().unwrap(), "worker");
        let (sender, receiver) = std::sync::mpsc::channel();
        worker.send_msg(move || sender.send(5).unwrap()).unwrap();
        assert_eq!(receiver.recv().unwrap(), 5);
    }
}

#[test]
fn what_a_runtime_still_runs_is_dropped_when_it_ends() {
    everywhere(|runtime| {
        let alive = Arc::new(());
        let held = alive.clone();
        runtime
            .run(async move || {
                let worker = a_thread_each().pop().unwrap();
                drop(worker.spawn(async move || {
                    let _held = held;
                    std::future::pending::<()>().await
                }));
                worker.run(async || ()).await.unwrap();
            })
            .unwrap();
        assert_eq!(Arc::strong_count(&alive), 1);
    });
}

#[test]
fn a_file_that_a_task_still_has_when_the_runtime_ends_is_closed_by_then() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [EngineKind::Auto, EngineKind::Epoll] {
        let path = folder.path().join("held");
        // The second runtime gets the lock too.
        for _ in 0..2 {
            let options = OpenOptions::new(&path).writable(true).locked(true).create(4096);
            let runtime = Runtime::builder().reactors(1).engine(kind).build().unwrap();
            let opened = runtime.run(async move || {
                let opened = op(Op::Open { options: Box::new(options) }).await.0;
                opened
                    .map(|file| drop(spawn_local(async move { (file, std::future::pending::<()>().await) })))
            });
            opened.unwrap().unwrap();
            let mut open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            assert!(!open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|open| open == path)), "{kind:?}");
        }
    }
}

#[test]
fn an_operation_that_failed_says_which_it_was_and_of_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-only");
    let name = path.display();
    for kind in [EngineKind::Auto, EngineKind::Epoll, EngineKind::Sim(1)] {
        let options = OpenOptions::new(&path).create(8192);
        let runtime = Runtime::builder().reactors(1).engine(kind).build().unwrap();
        let errors = runtime.run(async move || {
            let Output::File(file) = op(Op::Open { options: Box::new(options) }).await.0.unwrap() else {
                panic!("an open gives a file")
            };
            let buffers = Buffers::from(IoBuf::zeroed(512));
            let write = op(Op::Write { file: file.clone(), offset: 4096, buffers }).await.0;
            let zero = op(Op::ZeroRange { file, offset: 0, length: 1024 }).await.0;
            [write.unwrap_err(), zero.unwrap_err()]
        });
        let of = ["write of 512 bytes at offset 4096", "zero range of 1024 bytes at offset 0"];
        for (error, what) in errors.unwrap().iter().zip(of) {
            let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
            let source = source.unwrap_or_else(|| panic!("{kind:?}: no source: {error}"));
            assert_eq!(error.to_string(), format!("{what} of {name}: {source}"), "{kind:?}");
            assert_eq!((error.kind(), source.raw_os_error().is_some()), (source.kind(), true), "{kind:?}");
        }
    }
}

#[test]
fn one_seed_gives_one_history_and_another_seed_another() {
    let history = |seed| {
        let world = World::new(seed);
        let runtime = Runtime::builder().world(world.clone()).reactors(3).build().unwrap();
        runtime
            .run(async || {
                for worker in a_thread_each() {
                    drop(worker.spawn(async || sleep(Duration::from_micros(random() % 100)).await));
                }
                sleep(Duration::from_millis(1)).await;
            })
            .unwrap();
        world.trace_hash()
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}

#[test]
fn a_simulation_in_which_nothing_can_run_says_what_waits() {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(1)).build().unwrap();
    let error = runtime.run(std::future::pending::<()>).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("deadlock") && text.contains("app_thread") && text.contains("runtime.rs"),
        "{text}"
    );
}

/// An error of a layer above.
#[derive(Debug, thiserror::Error)]
#[error("it did not end well")]
struct Behind(#[source] RunError);

#[test]
fn a_stop_drops_main_and_gives_its_code() {
    everywhere(|runtime| {
        let error = runtime
            .run(async || {
                Handle::current().unwrap().stop(3);
                std::future::pending::<()>().await;
            })
            .unwrap_err();
        assert!(matches!(error, RunError::Stopped { by: "stop", code: 3 }), "{error}");
        assert_eq!(error.exit_code(), 3);
        let behind: Box<dyn std::error::Error + Send + Sync> = Box::new(Behind(error));
        assert_eq!(RunError::exit_code_of(&*behind), 3, "also behind another error");
    });
}

#[test]
fn what_is_no_stop_ends_a_process_with_1() {
    let panicked = Runtime::builder().engine(EngineKind::Sim(1)).build().unwrap();
    let error = panicked.run(async || panic!("on purpose")).unwrap_err();
    assert_eq!((error.exit_code(), RunError::exit_code_of(&std::fmt::Error)), (1, 1));
}

#[test]
fn a_thread_that_no_reactor_can_run_is_refused_with_both_core_lists() {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(1)).build().unwrap();
    let error = runtime.run(async || Thread::create("worker", "[5,7]").unwrap_err()).unwrap();
    let text = error.to_string();
    assert!(text.contains("5,7") && text.contains("reactors run on"), "{text}");
}

#[test]
fn a_runner_is_stepped_by_its_owner_and_serves_other_os_threads() {
    for kind in [EngineKind::Epoll, EngineKind::Sim(5)] {
        let mut runner = ThreadRunner::new("by hand", kind).unwrap();
        let thread = runner.thread();
        let caller = spindle_engine::spawn_pinned("caller", None, move || {
            thread
                .spawn(async || {
                    sleep(Duration::from_millis(1)).await;
                    Thread::current().unwrap().id()
                })
                .wait()
        })
        .unwrap();
        runner.run_until(|| caller.is_finished());
        assert_eq!(caller.join().unwrap().unwrap(), 1);
    }
}

#[test]
fn two_runtimes_in_one_process_call_each_other() {
    let first = Runtime::builder().reactors(1).engine(EngineKind::Epoll).build().unwrap().start().unwrap();
    let there = first.handle().create_thread("there", "[0-1023]").unwrap();
    let second = Runtime::builder().reactors(1).engine(EngineKind::Epoll).build().unwrap();
    let answer =
        second.run(async move || there.run(async || Thread::current().unwrap().name().to_owned()).await);
    assert_eq!(answer.unwrap().unwrap(), "there");
}

#[test]
fn a_reactor_that_sleeps_when_idle_may_run_on_every_core_of_the_runtime_and_one_that_polls_on_its_own() {
    let running = Runtime::builder().reactors(2).mode(Mode::Poll).build().unwrap().start().unwrap();
    let handle = running.handle();
    let all: CpuSet = handle.cores().iter().copied().collect();
    let threads: Vec<Thread> = (0..2).map(|_| handle.create_thread("worker", "[0-1023]").unwrap()).collect();
    let allowed = |thread: &Thread| {
        let asked = thread.spawn(async || spindle_engine::available_cores().affinity);
        asked.wait().unwrap()
    };
    let own = |thread: &Thread| CpuSet::from_iter([thread.core()]);
    for mode in [Mode::Poll, Mode::Interrupt, Mode::Adaptive, Mode::Interrupt, Mode::Poll] {
        handle.set_mode(mode);
        for thread in &threads {
            let expected = if mode == Mode::Interrupt { all } else { own(thread) };
            // It moves when it next has nothing to do.
            while allowed(thread) != expected {
                Bell::new().unwrap().wait(Some(Duration::from_millis(1)));
            }
        }
    }
}

#[test]
fn the_load_of_a_reactor_is_that_of_the_last_second() {
    let running = Runtime::builder().reactors(2).mode(Mode::Interrupt).build().unwrap().start().unwrap();
    let handle = running.handle();
    let [busy, idle] = [0, 1].map(|_| handle.create_thread("worker", "[0-1023]").unwrap());
    let loads = || {
        let asked = idle.spawn(async || reactor_loads()).wait().unwrap();
        (asked[busy.reactor()], asked[idle.reactor()])
    };
    let until = |done: &dyn Fn((f64, f64)) -> bool| {
        while !done(loads()) {
            Bell::new().unwrap().wait(Some(Duration::from_millis(20)));
        }
    };
    let work = busy.spawn(async || {
        loop {
            yield_now().await;
        }
    });
    until(&|(busy, idle)| busy > 0.1 && busy > 2.0 * idle);
    let shown = handle.dump().wait(Duration::from_secs(20)).reactors[busy.reactor()].load;
    assert!(shown > 0.0, "{shown}");
    work.abort();
    until(&|(busy, _)| busy < 0.05);
}

#[test]
fn what_goes_on_gives_its_results_one_by_one_until_it_is_dropped() {
    everywhere(|runtime| {
        let ended = runtime.run(async || {
            let Ok(Output::Pair(a, b)) = op(Op::Pair).await.0 else { panic!() };
            let memory = spindle_mem::Pool::new("receives", 1 << 20);
            let pool = spindle_engine::ReceivePool::new(memory.clone(), 4096);
            let mut received = results(Op::RecvMany { socket: b.clone(), pool: pool.clone() });
            assert!(timeout(Duration::from_millis(1), received.next()).await.is_err(), "nothing has come");
            for n in 0..50u8 {
                let sent = op(Op::Send { socket: a.clone(), buffers: IoBuf::copy_from(&[n]).into() }).await.0;
                assert_eq!(sent.unwrap().bytes(), 1);
                let Some(Ok(Output::Received(bytes))) = received.next().await else { panic!() };
                assert_eq!(bytes[..], [n]);
            }
            drop(received);
            // The next one gets what comes next.
            let mut received = results(Op::RecvMany { socket: b, pool });
            let sent = op(Op::Send { socket: a.clone(), buffers: IoBuf::copy_from(b"on").into() }).await.0;
            assert_eq!(sent.unwrap().bytes(), 2);
            let mut bytes = Vec::new();
            while bytes.len() < 2 {
                let Some(Ok(Output::Received(more))) = received.next().await else { panic!() };
                bytes.extend_from_slice(&more);
            }
            assert_eq!(bytes, b"on");
            drop(a);
            let end = received.next().await;
            assert!(matches!(end, Some(Ok(Output::Received(bytes))) if bytes.is_empty()));
            assert!(received.next().await.is_none() && received.next().await.is_none());
        });
        ended.unwrap();
    });
}

#[test]
fn a_runtime_stops_although_nothing_came_after_a_quiet_send() {
    struct Nothing;
    impl OpSink for Nothing {
        fn complete(&self, _: u64, _: spindle_engine::Completion) {}
    }
    everywhere(|runtime| {
        let stopped = runtime.run(async || {
            let Ok(Output::Pair(a, b)) = op(Op::Pair).await.0 else { panic!() };
            let sink: Rc<dyn OpSink> = Rc::new(Nothing);
            let buffers = IoBuf::copy_from(b"answer").into();
            submit_op(Op::SendQuietly { socket: a, buffers }, &sink, 0);
            // The peer has it, and the sender has not been told.
            let (result, _) = op(Op::Recv { socket: b, buffers: IoBuf::zeroed(6).into() }).await;
            assert!(result.unwrap().bytes() > 0);
            let buffers = IoBuf::copy_from(b"more").into();
            let Ok(Output::Pair(a, _b)) = op(Op::Pair).await.0 else { panic!() };
            submit_op(Op::SendQuietly { socket: a, buffers }, &sink, 0);
        });
        stopped.unwrap();
    });
}
