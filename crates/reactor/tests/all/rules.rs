//! SPDK's rules for threads and pollers, as far as they are kept: `docs/threading.md` names these tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spindle_reactor::*;

use crate::on_one_reactor;

const MS: Duration = Duration::from_millis(1);

/// Runs `main` on simulated reactors, by several seeds.
fn simulated(reactors: usize, main: impl AsyncFn() + Clone + Send + 'static) {
    for seed in 0..10 {
        let runtime = Runtime::builder().engine(EngineKind::Sim(seed)).reactors(reactors).build().unwrap();
        let main = main.clone();
        runtime.run(async move || main().await).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn active_pollers_run_newest_first_each_once_a_turn() {
    simulated(1, async || {
        let called = Rc::new(RefCell::new(Vec::new()));
        let pollers = ["first", "second", "third"].map(|name| {
            let called = called.clone();
            Poller::active(name, Wake::Spin, move || {
                called.borrow_mut().push(name);
                Busy::No
            })
        });
        sleep(Duration::from_micros(1)).await;
        drop(pollers);
        let called = called.borrow();
        assert!(called.len() >= 3 && called.len().is_multiple_of(3), "{called:?}");
        assert!(called.chunks(3).all(|turn| turn == ["third", "second", "first"]), "{called:?}");
    });
}

#[test]
fn a_poller_made_by_a_poller_is_called_from_the_next_turn_on_and_one_may_drop_itself() {
    simulated(1, async || {
        let (calls, made) = (Rc::new(Cell::new((0, 0))), Rc::new(RefCell::new(None)));
        let own = Rc::new(RefCell::new(None));
        let (counts, makes, drops) = (calls.clone(), made.clone(), own.clone());
        *own.borrow_mut() = Some(Poller::active("once", Wake::Spin, move || {
            let (own_calls, _) = counts.get();
            counts.set((own_calls + 1, 0));
            let counts = counts.clone();
            *makes.borrow_mut() = Some(Poller::active("made", Wake::Spin, move || {
                let (own_calls, calls) = counts.get();
                counts.set((own_calls, calls + 1));
                Busy::No
            }));
            let own = drops.borrow_mut().take();
            drop(own);
            Busy::No
        }));
        yield_now().await;
        assert_eq!(calls.get(), (1, 0));
        sleep(Duration::from_micros(1)).await;
        let (own_calls, made_calls) = calls.get();
        assert!(own_calls == 1 && made_calls > 0, "{own_calls} {made_calls}");
        drop(made.borrow_mut().take());
    });
}

#[test]
fn what_a_poller_captured_is_dropped_with_its_handle_or_when_the_pollers_have_been_called() {
    simulated(1, async || {
        let captured = Rc::new(());
        let idle =
            |wake| {
                let captured = captured.clone();
                Poller::active("idle", wake, move || {
                    if Rc::strong_count(&captured) > 0 { Busy::No } else { Busy::Yes }
                })
            };
        let mut pollers: Vec<Poller> = (0..5).map(|_| idle(Wake::Spin)).collect();
        yield_now().await;
        // Wherever in the list they are, and before the list is looked over.
        for left in (0..5).rev() {
            drop(pollers.remove(left / 2));
            assert_eq!(Rc::strong_count(&captured), left + 1);
        }
        // While all are being called, by one called before the others, with others made and stopped meanwhile.
        let others = Rc::new(RefCell::new(vec![idle(Wake::Spin), idle(Wake::Spin)]));
        let (stops, inner) = (others.clone(), captured.clone());
        let stopper = Poller::active("stopper", Wake::Spin, move || {
            let (others, captured) = (stops.take(), inner.clone());
            drop(Poller::active("made", Wake::Spin, move || {
                if Rc::strong_count(&captured) > 0 { Busy::No } else { Busy::Yes }
            }));
            if others.is_empty() { Busy::No } else { Busy::Yes }
        });
        assert_eq!(Rc::strong_count(&captured), 4);
        yield_now().await;
        yield_now().await;
        assert_eq!((Rc::strong_count(&captured), others.borrow().len()), (2, 0));
        drop(stopper);
        assert_eq!(Rc::strong_count(&captured), 1);
    });
}

#[test]
fn a_paused_poller_is_not_called_and_a_timed_one_waits_a_whole_period_when_it_is_resumed() {
    simulated(1, async || {
        let calls = Rc::new(Cell::new(0));
        let counts = calls.clone();
        let timed = Poller::timed("timed", MS * 10, move || {
            counts.set(counts.get() + 1);
            Busy::Yes
        });
        sleep(MS * 6).await;
        timed.pause();
        timed.pause();
        sleep(MS * 20).await;
        assert_eq!(calls.get(), 0, "paused");
        timed.resume();
        timed.resume();
        sleep(MS * 9).await;
        assert_eq!(calls.get(), 0, "a whole period");
        sleep(MS * 2).await;
        assert_eq!(calls.get(), 1);
        sleep(MS * 10).await;
        assert_eq!(calls.get(), 2);
    });
}

#[test]
fn ids_start_at_1_and_are_never_used_again() {
    simulated(2, async || {
        assert_eq!(Thread::current().unwrap().id(), 1);
        for id in 2..20 {
            let thread = Thread::create("short", "[0-1]").unwrap();
            assert_eq!(thread.id(), id);
            thread.exit();
            thread.exit();
            thread.joined().await;
            assert!(thread.is_gone());
            thread.exit();
        }
    });
}

#[test]
fn threads_are_placed_round_robin_on_the_cores_they_may_run_on() {
    simulated(3, async || {
        let core = |cores: &str| Thread::create("placed", cores).unwrap().core();
        let first = core("[0-2]");
        assert_eq!(
            [core("[0-2]"), core("[0-2]"), core("[0-2]")].map(|core| (core + 3 - first) % 3),
            [1, 2, 0]
        );
        assert_eq!([core("0x4"), core("0x4"), core("[1]")], [2, 2, 1]);
    });
}

#[test]
fn a_thread_that_exits_still_handles_messages_and_may_start_pollers_and_open_channels() {
    simulated(2, async || {
        let thread = Thread::create("exits", "[1]").unwrap();
        let device: IoDevice<u32> = IoDevice::register("device", || Ok::<_, std::convert::Infallible>(7));
        let ticks = Arc::new(AtomicUsize::new(0));
        let held = thread.spawn(async || sleep(MS * 10).await);
        thread.exit();
        let counts = ticks.clone();
        let late = thread.run(async move || {
            let channel = device.channel().unwrap();
            let poller = Poller::timed("late", MS, move || {
                counts.fetch_add(1, Ordering::Relaxed);
                Busy::No
            });
            sleep(MS * 5).await;
            drop(poller);
            *channel
        });
        assert_eq!(late.await.unwrap(), 7);
        assert!(ticks.load(Ordering::Relaxed) >= 4);
        held.await.unwrap();
        thread.joined().await;
        assert!(matches!(thread.run(async || ()).await, Err(RunError::Gone { .. })));
    });
}

#[test]
fn an_exit_says_in_a_dump_what_it_waits_for() {
    /// What a layer keeps on its thread.
    #[derive(Default)]
    struct Kept(RefCell<Option<(Poller, IoChannel<u32>)>>);

    simulated(2, async || {
        let thread = Thread::create("exits", "[1]").unwrap();
        let device: IoDevice<u32> = IoDevice::register("disk", || Ok::<_, std::convert::Infallible>(7));
        let keep = thread.run(async move || {
            let poller = Poller::timed("kept", MS, || Busy::No);
            *extension::<Kept>().0.borrow_mut() = Some((poller, device.channel().unwrap()));
        });
        keep.await.unwrap();
        let pending = thread.spawn(std::future::pending::<()>);
        thread.exit();
        thread.run(async || ()).await.unwrap();
        let waits_for = async || {
            let dump = Handle::current().unwrap().dump().await;
            let threads = dump.reactors.iter().flat_map(|reactor| &reactor.threads);
            threads.into_iter().find(|thread| thread.exiting).unwrap().waits_for.join(", ")
        };
        assert_eq!(waits_for().await, "1 task, 1 poller, 1 channel of device disk");
        pending.abort();
        assert!(matches!(pending.await, Err(RunError::Cancelled)));
        assert_eq!(waits_for().await, "1 poller, 1 channel of device disk");
        thread.send_msg(|| drop(extension::<Kept>().0.borrow_mut().take())).unwrap();
        thread.joined().await;
    });
}

#[test]
fn a_message_to_the_own_thread_waits_for_its_next_turn() {
    simulated(1, async || {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inner, outer) = (seen.clone(), seen.clone());
        let here = Thread::current().unwrap();
        let again = here.clone();
        here.send_msg(move || {
            again.send_msg(move || inner.lock().unwrap().push("inner")).unwrap();
            outer.lock().unwrap().push("outer");
        })
        .unwrap();
        sleep(MS).await;
        assert_eq!(*seen.lock().unwrap(), ["outer", "inner"], "not called in place");
    });
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/threading.md")).unwrap();
    let mut named = 0;
    for word in page.split('`').skip(1).step_by(2) {
        let (folder, name) = word.split_once("::").or_else(|| word.split_once('/')).unwrap_or_default();
        let tests = root.join("crates/reactor/tests");
        let [alone, together] =
            [&tests, &tests.join("all")].map(|tests| tests.join(folder).with_extension("rs"));
        if folder == "compile_fail" {
            named += 1;
            assert!(name == "x" || root.join("tests").join(word).with_extension("stderr").exists(), "{word}");
        } else if let Ok(tests) =
            std::fs::read_to_string(alone).or_else(|_| std::fs::read_to_string(together))
        {
            named += 1;
            assert!(matches!(name, "x" | "*") || tests.contains(&format!("\nfn {name}()")), "{word}");
        }
    }
    assert!(named > 50, "{named}");
}

#[test]
fn a_poller_that_stops_an_older_one_is_itself_called_once_a_turn() {
    on_one_reactor(|runtime| {
        let most = runtime.run(async || {
            let (calls, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (counted, seen) = (calls.clone(), most.clone());
            // Called last in each turn, being the oldest.
            let _oldest = Poller::active("oldest", Wake::Event("messages"), move || {
                seen.set(calls.replace(0).max(seen.get()));
                Busy::No
            });
            let older =
                Rc::new(RefCell::new(Some(Poller::active("older", Wake::Event("messages"), || Busy::No))));
            let _newest = Poller::active("newest", Wake::Spin, move || {
                drop(older.borrow_mut().take());
                counted.set(counted.get() + 1);
                Busy::No
            });
            sleep(Duration::from_micros(100)).await;
            most.get()
        });
        assert_eq!(most.unwrap(), 1);
    });
}
