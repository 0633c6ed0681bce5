//! Io devices and channels: one part per thread, counted, visited in order, gone before the device is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// A part that says on which thread it was made, counts the living ones, and notes where it died.
struct Part {
    thread: u64,
    /// Not `Send`, as a real one would not be.
    used: Rc<Cell<u32>>,
    living: Arc<AtomicUsize>,
    died: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::Relaxed);
        let here = Thread::current().map_or(0, |thread| thread.id());
        self.died.lock().unwrap().push((self.thread, here));
    }
}

type Died = Arc<Mutex<Vec<(u64, u64)>>>;

fn device() -> (IoDevice<Part>, Arc<AtomicUsize>, Died) {
    let (living, died) = (Arc::new(AtomicUsize::new(0)), Died::default());
    let (count, dead) = (living.clone(), died.clone());
    let device = IoDevice::register("counted", move || {
        count.fetch_add(1, Ordering::Relaxed);
        let thread = Thread::current().unwrap().id();
        Ok::<_, Infallible>(Part { thread, used: Rc::default(), living: count.clone(), died: dead.clone() })
    });
    (device, living, died)
}

fn thread(name: &str) -> Thread {
    Thread::create_on(name, CpuSet::first(1024)).unwrap()
}

/// A thread that keeps a channel until it is told to let go.
struct Keeper {
    thread: Thread,
    let_go: Arc<Mutex<Option<std::task::Waker>>>,
    done: JoinHandle<()>,
}

impl Keeper {
    async fn of(device: &IoDevice<Part>, name: &str) -> Keeper {
        let (thread, let_go) = (thread(name), Arc::<Mutex<Option<std::task::Waker>>>::default());
        let (device, waiting) = (device.clone(), let_go.clone());
        let done = thread.spawn(async move || {
            let _channel = device.channel().unwrap();
            let mut woken = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut woken, true) {
                    return std::task::Poll::Ready(());
                }
                *waiting.lock().unwrap() = Some(cx.waker().clone());
                std::task::Poll::Pending
            })
            .await;
        });
        while let_go.lock().unwrap().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        Keeper { thread, let_go, done }
    }

    async fn let_go(self) {
        self.let_go.lock().unwrap().take().unwrap().wake();
        self.done.await.unwrap();
    }
}

#[test]
fn a_thread_has_one_part_however_many_channels_and_it_dies_there_with_the_last() {
    everywhere(|runtime| {
        let result = runtime.run(async || {
            let (device, living, died) = device();
            for name in ["one", "two"] {
                let (device, living) = (device.clone(), living.clone());
                let before = living.load(Ordering::Relaxed);
                let worker = thread(name);
                let ran = worker.run(async move || {
                    let first = device.channel().unwrap();
                    let second = device.channel().unwrap();
                    let third = second.clone();
                    first.used.set(7);
                    assert_eq!((second.used.get(), third.thread), (7, Thread::current().unwrap().id()));
                    assert_eq!(living.load(Ordering::Relaxed), before + 1);
                    drop(first);
                    drop(third);
                    assert_eq!((living.load(Ordering::Relaxed), device.channels()), (before + 1, 1));
                    drop(second);
                    assert_eq!((living.load(Ordering::Relaxed), device.channels()), (before, 0));
                    assert_eq!(device.channel().unwrap().used.get(), 0, "a new one");
                });
                ran.await.unwrap();
            }
            died.lock().unwrap().clone()
        });
        let died = result.unwrap();
        assert_eq!(died.len(), 4);
        assert!(died.iter().all(|(made, died)| made == died), "each on its own thread: {died:?}");
    });
}

#[test]
fn every_part_is_visited_once_in_the_order_of_thread_ids() {
    everywhere(|runtime| {
        let (visited, ids) = runtime
            .run(async || {
                let (device, ..) = device();
                let (first, second) = (Keeper::of(&device, "a").await, Keeper::of(&device, "b").await);
                let without = thread("without a channel");
                let third = Keeper::of(&device, "c").await;
                let visited = Arc::new(Mutex::new(Vec::new()));
                let seen = visited.clone();
                let visit = device.for_each_channel(async move |part: &Part| {
                    assert_eq!(part.thread, Thread::current().unwrap().id(), "there");
                    yield_now().await;
                    seen.lock().unwrap().push(part.thread);
                    Ok::<_, Infallible>(())
                });
                visit.await.unwrap();
                let ids = [&first, &second, &third].map(|keeper| keeper.thread.id());
                assert!(!ids.contains(&without.id()));
                for keeper in [first, second, third] {
                    keeper.let_go().await;
                }
                (visited.lock().unwrap().clone(), ids.to_vec())
            })
            .unwrap();
        assert_eq!(visited, ids);
    });
}

#[test]
fn an_error_ends_a_visit_and_says_on_which_thread() {
    everywhere(|runtime| {
        runtime
            .run(async || {
                let (device, ..) = device();
                let (first, second) = (Keeper::of(&device, "a").await, Keeper::of(&device, "b").await);
                let calls = Arc::new(AtomicUsize::new(0));
                let counted = calls.clone();
                let visit = device.for_each_channel(async move |_: &Part| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Err("no")
                });
                match visit.await {
                    Err(VisitError::Visitor { thread, error: "no" }) => assert_eq!(thread, first.thread.id()),
                    other => panic!("{other:?}"),
                }
                assert_eq!(calls.load(Ordering::Relaxed), 1);
                let panics = device
                    .for_each_channel(async |_: &Part| -> Result<(), Infallible> { panic!("as asked") });
                let ended = panics.await;
                assert!(matches!(ended, Err(VisitError::Thread { .. })), "{ended:?}");
                first.let_go().await;
                second.let_go().await;
                let nobody =
                    device.for_each_channel(async |_: &Part| -> Result<(), Infallible> { panic!("nobody") });
                nobody.await.unwrap();
            })
            .unwrap();
    });
}

#[test]
fn unregistering_completes_when_the_last_part_is_gone_and_new_channels_are_refused_at_once() {
    everywhere(|runtime| {
        runtime
            .run(async || {
                let (device, living, _) = device();
                let (first, second) = (Keeper::of(&device, "a").await, Keeper::of(&device, "b").await);
                let (gone, alive) = (device.clone(), living.clone());
                let unregistered = spawn_local(async move {
                    gone.unregister().await.unwrap();
                    alive.load(Ordering::Relaxed)
                });
                sleep(Duration::from_millis(1)).await;
                assert!(matches!(device.channel(), Err(ChannelError::Unregistered { .. })));
                let visit = device.for_each_channel(async |_: &Part| Ok::<_, Infallible>(())).await;
                assert!(matches!(visit, Err(VisitError::Unregistered { .. })), "{visit:?}");
                assert!(!unregistered.is_finished());
                first.let_go().await;
                assert!(!unregistered.is_finished(), "one is left");
                second.let_go().await;
                assert_eq!(unregistered.await.unwrap(), 0, "every part is dropped before it completes");
                device.unregister().await.unwrap();
            })
            .unwrap();
    });
}

#[test]
fn unregistering_waits_for_a_visit_under_way() {
    everywhere(|runtime| {
        runtime
            .run(async || {
                let (device, ..) = device();
                let keeper = Keeper::of(&device, "a").await;
                let (tell, told) = (Arc::new(AtomicUsize::new(0)), device.clone());
                let slow = tell.clone();
                let visit = spawn_local(async move {
                    let visit = told.for_each_channel(async move |_: &Part| {
                        slow.store(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(20)).await;
                        slow.store(2, Ordering::Relaxed);
                        Ok::<_, Infallible>(())
                    });
                    visit.await.unwrap();
                });
                while tell.load(Ordering::Relaxed) == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                keeper.let_go().await;
                device.unregister().await.unwrap();
                assert_eq!(tell.load(Ordering::Relaxed), 2);
                visit.await.unwrap();
            })
            .unwrap();
    });
}

#[test]
fn unregistering_inside_a_visit_is_refused_where_it_would_wait_for_itself_and_works_where_not() {
    everywhere(|runtime| {
        runtime
            .run(async || {
                let (device, ..) = device();
                let (here, keeper) = (device.channel().unwrap(), Keeper::of(&device, "a").await);
                for by_itself in [true, false] {
                    let (visited, answers) = (device.clone(), Arc::new(AtomicUsize::new(0)));
                    let answered = answers.clone();
                    let visit = device.for_each_channel(async move |part: &Part| {
                        // Not only in its first poll.
                        yield_now().await;
                        let refused = match by_itself {
                            true => visited.unregister().await,
                            false => {
                                let there = visited.clone();
                                let other = spawn_local(async move { there.unregister().await });
                                timeout(Duration::from_millis(1), other).await.map_or(Ok(()), |r| r.unwrap())
                            }
                        };
                        match refused {
                            Err(UnregisterError::Visiting { thread, .. }) => {
                                assert!(by_itself && thread == part.thread);
                                assert!(visited.channel().is_ok(), "it is still in use");
                            }
                            Ok(()) => assert!(!by_itself),
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, Infallible>(())
                    });
                    visit.await.unwrap();
                    assert_eq!(answers.load(Ordering::Relaxed), 2, "both threads were visited");
                }
                drop(here);
                keeper.let_go().await;
                device.unregister().await.unwrap();
            })
            .unwrap();
    });
}

#[test]
fn an_exit_waits_for_channels_and_a_dump_names_them() {
    everywhere(|runtime| {
        runtime
            .run(async || {
                let (device, living, _) = device();
                let worker = thread("worker");
                let (there, tell) = (device.clone(), Arc::new(AtomicUsize::new(0)));
                let stop = tell.clone();
                worker
                    .send_msg(move || {
                        let channels = extension::<Kept>();
                        *channels.0.borrow_mut() = Some((there.channel().unwrap(), there.channel().unwrap()));
                        stop.store(1, Ordering::Relaxed);
                    })
                    .unwrap();
                while tell.load(Ordering::Relaxed) == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                worker.exit();
                // Behind the request to exit.
                worker.run(async || ()).await.unwrap();
                let dump = Handle::current().unwrap().dump().await;
                let thread = dump.reactors.iter().flat_map(|reactor| &reactor.threads);
                let thread = thread.clone().find(|thread| thread.name == "worker").unwrap();
                assert!(thread.exiting && !worker.is_gone());
                assert_eq!(thread.waits_for, ["2 channels of device counted"]);
                assert_eq!(thread.channels, [ChannelDump { device: "counted".to_owned(), handles: 2 }]);
                worker.send_msg(|| drop(extension::<Kept>().0.borrow_mut().take())).unwrap();
                worker.joined().await;
                assert_eq!(living.load(Ordering::Relaxed), 0);
            })
            .unwrap();
    });
}

/// Channels in an extension hold the thread like any other: they must be taken out.
#[derive(Default)]
struct Kept(std::cell::RefCell<Option<(IoChannel<Part>, IoChannel<Part>)>>);

#[test]
fn a_channel_is_refused_with_a_reason_where_there_can_be_none() {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(1)).build().unwrap();
    let other = Runtime::builder().reactors(1).engine(EngineKind::Sim(2)).build().unwrap().start().unwrap();
    let elsewhere: IoDevice<u32> = other.handle().register_io_device("elsewhere", || Ok::<_, Infallible>(1));
    assert!(matches!(elsewhere.channel(), Err(ChannelError::NotOnThread { .. })));
    runtime
        .run(async move || {
            assert!(matches!(elsewhere.channel(), Err(ChannelError::OtherRuntime { .. })));
            let failing: IoDevice<u32> = IoDevice::register("failing", || Err("no room"));
            let error = failing.channel().unwrap_err().to_string();
            assert_eq!(error, "device failing: no channel for this thread: no room");
            assert_eq!(failing.channels(), 0);
        })
        .unwrap();
}

#[test]
fn every_thread_is_visited_in_order_those_created_meanwhile_too() {
    everywhere(|runtime| {
        let (visited, expected) = runtime
            .run(async || {
                let before: Vec<u64> = (0..3).map(|n| thread(&format!("worker {n}")).id()).collect();
                let visited = Arc::new(Mutex::new(Vec::new()));
                let seen = visited.clone();
                let made = Arc::new(Mutex::new(None));
                let late = made.clone();
                let visit = Handle::current().unwrap();
                let visit = visit.for_each_thread(async move || {
                    late.lock().unwrap().get_or_insert_with(|| thread("late").id());
                    seen.lock().unwrap().push(Thread::current().unwrap().id());
                });
                visit.await.unwrap();
                let late = made.lock().unwrap().unwrap();
                let expected: Vec<u64> = [1].into_iter().chain(before).chain([late]).collect();
                (visited.lock().unwrap().clone(), expected)
            })
            .unwrap();
        assert_eq!(visited, expected);
    });
}
