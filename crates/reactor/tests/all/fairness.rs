//! Fairness: a thread that floods its queue does not raise another's message latency.
//!
//! In simulation latency is counted in turns, of all reactors together, so that a seed has one result. On
//! real cores it is measured and printed, and nothing is asserted of time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spindle_engine::{Bell, Completion, Op, Output, Shutdown, Socket, spawn_pinned};
use spindle_reactor::*;

/// Messages whose latency is taken in one simulated run, and in one on real cores, which may be busy with other
/// programs.
const PROBES: usize = 2000;
const REAL_PROBES: usize = 200;

/// Messages that a flood has under way at most.
const FLOOD: u64 = 20_000;

/// What else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    /// Nothing.
    None,
    /// A thread beside the prober sends more than a ring holds in each of its turns, to a thread beside the
    /// victim.
    Ring,
    /// As `Ring`, and a thread on a third core does so, too.
    TwoRings,
    /// A thread beside the prober and one beside the victim have a thousand messages between them, each of
    /// which is sent back when it is handled.
    Between,
    /// A thread beside the victim sends to itself.
    Own,
    /// A thread beside the victim has far more ready tasks than a turn takes.
    Tasks,
    /// A thread beside the victim has pollers that are always busy.
    Pollers,
    /// A plain OS thread sends to a thread beside the victim. On real cores only: it follows no seed.
    Outside,
    /// Far more timers than a turn takes end at once, on a thread beside the victim.
    Timers,
    /// A thread beside the victim has a thousand operations in flight, each of which is submitted again when
    /// its completion is handled.
    Completions,
}

const FLOODS: [Flood; 8] = [
    Flood::Ring,
    Flood::TwoRings,
    Flood::Between,
    Flood::Own,
    Flood::Tasks,
    Flood::Pollers,
    Flood::Timers,
    Flood::Completions,
];

/// Counts turns, and says when to end.
#[derive(Clone, Default)]
struct Watch {
    turns: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    /// On real cores: time instead of turns.
    clock: Option<Arc<Bell>>,
}

impl Watch {
    fn now(&self) -> u64 {
        match &self.clock {
            Some(clock) => clock.now().as_nanos(),
            None => self.turns.load(Ordering::Relaxed),
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Has a thread count the turns of a reactor, which then never sleeps.
    fn count_on(&self, reactor: usize) {
        let watch = self.clone();
        drop(thread("counter", reactor).spawn(async move || {
            let turns = watch.turns.clone();
            let _counts = Poller::active("counts turns", Wake::Spin, move || {
                turns.fetch_add(1, Ordering::Relaxed);
                Busy::No
            });
            while !watch.is_done() {
                sleep(Duration::from_millis(1)).await;
            }
        }));
    }
}

/// How many reactors there are.
fn cores() -> usize {
    Handle::current().unwrap().cores().len()
}

/// A thread on the reactor number `at`.
fn thread(name: &str, at: usize) -> Thread {
    let core = Handle::current().unwrap().cores()[at];
    Thread::create(name, &format!("[{core}]")).unwrap()
}

/// Sends to and fro for as long as the run goes on: each message that is handled sends the next.
fn send_on(to: Thread, then: Thread, watch: Watch) {
    let next = to.clone();
    let _ = to.send_msg(move || {
        if !watch.is_done() {
            send_on(then, next, watch);
        }
    });
}

/// Submits each operation again when it has completed, for as long as the run goes on.
struct SubmitsAgain(Watch, Weak<SubmitsAgain>);

impl OpSink for SubmitsAgain {
    fn complete(&self, key: u64, completion: Completion) {
        if let Some(again) = self.1.upgrade()
            && !self.0.is_done()
        {
            submit_op(completion.op, &(again as Rc<dyn OpSink>), key);
        }
    }
}

/// One end of a pair of sockets.
async fn socket() -> Socket {
    match op(Op::Pair).await.0.unwrap() {
        Output::Pair(socket, _) => socket,
        other => unreachable!("{other:?}"),
    }
}

/// An operation that completes at once.
fn at_once(socket: &Socket) -> Op {
    Op::Shutdown { socket: socket.clone(), how: Shutdown::Read }
}

/// Has a thread send more than a ring holds in each of its turns.
fn pour(from: &Thread, to: Thread, watch: Watch) {
    drop(from.spawn(async move || {
        let handled = Arc::new(AtomicU64::new(0));
        let mut sent = 0;
        while !watch.is_done() {
            for _ in 0..600 {
                let handled = handled.clone();
                let count = move || {
                    handled.fetch_add(1, Ordering::Relaxed);
                };
                to.send_msg(count).unwrap();
            }
            sent += 600;
            while sent > handled.load(Ordering::Relaxed) + FLOOD {
                yield_now().await;
            }
        }
    }));
}

/// Starts the flood, on threads beside the prober (core 0) and the victim (core 1).
fn start(flood: Flood, watch: &Watch) {
    let [here, there] = [0, 1].map(|at| thread("flood", at));
    let watch = watch.clone();
    match flood {
        Flood::None => {}
        Flood::Ring => pour(&here, there, watch),
        Flood::TwoRings => {
            pour(&here, there.clone(), watch.clone());
            pour(&thread("flood", 2 % cores()), there, watch);
        }
        Flood::Between => {
            (0..1000).for_each(|_| send_on(there.clone(), here.clone(), watch.clone()));
        }
        Flood::Own => (0..1000).for_each(|_| send_on(there.clone(), there.clone(), watch.clone())),
        Flood::Tasks => drop(there.spawn(async move || {
            for _ in 0..1000 {
                let watch = watch.clone();
                drop(spawn_local(async move {
                    while !watch.is_done() {
                        yield_now().await;
                    }
                }));
            }
        })),
        Flood::Pollers => drop(there.spawn(async move || {
            let pollers: Vec<Poller> =
                (0..100).map(|_| Poller::active("busy", Wake::Spin, || Busy::Yes)).collect();
            while !watch.is_done() {
                sleep(Duration::from_millis(1)).await;
            }
            drop(pollers);
        })),
        Flood::Outside => drop(
            spawn_pinned("flood", None, move || {
                let handled = Arc::new(AtomicU64::new(0));
                let mut sent = 0;
                while !watch.is_done() {
                    if sent < handled.load(Ordering::Relaxed) + FLOOD {
                        let handled = handled.clone();
                        let count = move || {
                            handled.fetch_add(1, Ordering::Relaxed);
                        };
                        if there.send_msg(count).is_err() {
                            // The runtime has ended.
                            break;
                        }
                        sent += 1;
                    }
                }
            })
            .unwrap(),
        ),
        Flood::Timers => drop(there.spawn(async move || {
            for _ in 0..1000 {
                let watch = watch.clone();
                drop(spawn_local(async move {
                    while !watch.is_done() {
                        sleep(Duration::from_micros(10)).await;
                    }
                }));
            }
        })),
        Flood::Completions => drop(there.spawn(async move || {
            let socket = socket().await;
            let sink = Rc::new_cyclic(|this| SubmitsAgain(watch.clone(), this.clone()));
            for key in 0..1000 {
                submit_op(at_once(&socket), &(sink.clone() as Rc<dyn OpSink>), key);
            }
            while !watch.is_done() {
                sleep(Duration::from_millis(1)).await;
            }
        })),
    }
}

/// The latencies, in order of size, of messages from a thread on core 0 to one on core 1.
async fn latencies(flood: Flood, watch: Watch, count: usize) -> Vec<u64> {
    let [prober, victim] = [0, 1].map(|at| thread("probe", at));
    start(flood, &watch);
    let (taken, probes) = (Arc::new(Mutex::new(Vec::with_capacity(count))), watch.clone());
    let seen = taken.clone();
    let probe = prober.run(async move || {
        for _ in 0..count {
            let (sent, watch, seen) = (probes.now(), probes.clone(), seen.clone());
            victim.send_msg(move || seen.lock().unwrap().push(watch.now() - sent)).unwrap();
            // After it: one at a time, so that the prober itself floods no thread.
            victim.run(async || ()).await.unwrap();
            for _ in 0..random() % 8 {
                yield_now().await;
            }
        }
    });
    probe.await.unwrap();
    watch.done.store(true, Ordering::Relaxed);
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    taken.sort_unstable();
    taken
}

/// The latencies in turns.
fn latencies_in_turns(seed: u64, flood: Flood) -> Vec<u64> {
    let runtime = Runtime::builder().engine(EngineKind::Sim(seed)).reactors(3).build().unwrap();
    let taken = runtime.run(async move || {
        let watch = Watch::default();
        watch.count_on(0);
        watch.count_on(1);
        latencies(flood, watch, PROBES).await
    });
    taken.unwrap()
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[test]
fn a_flood_raises_anothers_latency_at_most_twofold() {
    for seed in 0..5 {
        let calm = latencies_in_turns(seed, Flood::None);
        for flood in FLOODS {
            let flooded = latencies_in_turns(seed, flood);
            assert_eq!((calm.len(), flooded.len()), (PROBES, PROBES));
            let p99 = [&calm, &flooded].map(|taken| percentile(taken, 99));
            assert!(p99[1] <= 2 * p99[0], "seed {seed}, {flood:?}: p99 {p99:?} turns");
            let most = [&calm, &flooded].map(|taken| percentile(taken, 100));
            assert!(most[1] <= 4 * most[0], "seed {seed}, {flood:?}: at most {most:?} turns");
        }
    }
}

#[test]
fn on_real_cores_the_latencies_are_printed() {
    for flood in [Flood::None, Flood::Outside].into_iter().chain(FLOODS) {
        let runtime = Runtime::builder().reactors(2).mode(Mode::Poll).watchdog(None).build().unwrap();
        let taken = runtime.run(async move || {
            let watch = Watch { clock: Some(Arc::new(Bell::new().unwrap())), ..Watch::default() };
            latencies(flood, watch, REAL_PROBES).await
        });
        let taken = taken.unwrap();
        assert_eq!(taken.len(), REAL_PROBES);
        let at = |percent| percentile(&taken, percent);
        println!("{flood:?}: p50 {} ns, p90 {} ns, p99 {} ns", at(50), at(90), at(99));
    }
}

#[test]
fn what_comes_from_outside_for_one_thread_does_not_wait_for_a_flood_from_outside_to_another() {
    let mut runner = ThreadRunner::new("by hand", EngineKind::Sim(1)).unwrap();
    let flooded = runner.thread();
    let (tell, told) = std::sync::mpsc::channel();
    flooded.send_msg(move || tell.send(Handle::current().unwrap()).unwrap()).unwrap();
    runner.step();
    let other = told.recv().unwrap().create_thread("other", &format!("[{}]", flooded.core())).unwrap();

    let (handled, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    for _ in 0..20_000 {
        let handled = handled.clone();
        let count = move || {
            handled.fetch_add(1, Ordering::Relaxed);
        };
        flooded.send_msg(count).unwrap();
    }
    let answer = answered.clone();
    other.send_msg(move || answer.store(true, Ordering::Relaxed)).unwrap();
    (0..2).for_each(|_| assert_eq!(runner.step(), Busy::Yes));
    assert!(answered.load(Ordering::Relaxed), "after two turns");
    assert!(handled.load(Ordering::Relaxed) <= 16, "before the flood is over");
}

#[test]
fn a_step_takes_a_bounded_number_of_messages_and_tasks_however_many_wait() {
    let mut runner = ThreadRunner::new("by hand", EngineKind::Sim(1)).unwrap();
    let thread = runner.thread();
    let (tell, told) = std::sync::mpsc::channel();
    thread.send_msg(move || tell.send(Handle::current().unwrap()).unwrap()).unwrap();
    runner.step();
    let handle = told.recv().unwrap();

    let handled = Arc::new(AtomicU64::new(0));
    for _ in 0..20_000 {
        let handled = handled.clone();
        let count = move || {
            handled.fetch_add(1, Ordering::Relaxed);
        };
        thread.send_msg(count).unwrap();
    }
    runner.step();
    let dump = handle.dump();
    runner.step();
    let waits_for = dump.wait(Duration::ZERO).reactors[0].threads[0].waits_for.join(", ");
    let taken_over: u64 = waits_for.split(' ').next().unwrap().parse().unwrap();
    assert!(taken_over <= 64, "a turn does not even queue all that came from outside: {waits_for}");
    let mut before = handled.load(Ordering::Relaxed);
    while before < 20_000 {
        runner.step();
        let now = handled.load(Ordering::Relaxed);
        assert!((1..=8).contains(&(now - before)), "{} messages in one step", now - before);
        before = now;
    }

    // A thousand sleeps that end at one time.
    let woken = Arc::new(AtomicU64::new(0));
    let counted = woken.clone();
    let sleepers = move || {
        for _ in 0..1000 {
            let woken = counted.clone();
            drop(spawn_local(async move {
                sleep(Duration::from_millis(1)).await;
                woken.fetch_add(1, Ordering::Relaxed);
            }));
        }
    };
    thread.send_msg(sleepers).unwrap();
    let mut before = 0;
    while before < 1000 {
        if runner.step() == Busy::No {
            runner.park(None);
        }
        let now = woken.load(Ordering::Relaxed);
        assert!(now - before <= 8, "{} tasks in one step", now - before);
        before = now;
    }
}

/// Counts the completions of one thread, by their keys.
#[derive(Default)]
struct Counts(RefCell<Vec<u64>>);

impl OpSink for Counts {
    fn complete(&self, key: u64, _: Completion) {
        self.0.borrow_mut().push(key);
    }
}

/// Has `thread` submit `count` operations that complete at once, and keeps account of them in `place`.
fn submit_many(thread: &Thread, count: u64, place: &'static std::thread::LocalKey<Rc<Counts>>) {
    drop(thread.spawn(async move || {
        let socket = socket().await;
        let sink = place.with(|counts| counts.clone() as Rc<dyn OpSink>);
        for key in 0..count {
            submit_op(at_once(&socket), &sink, key);
        }
    }));
}

thread_local! {
    static FLOODED: Rc<Counts> = Rc::default();
    static MODEST: Rc<Counts> = Rc::default();
}

#[test]
fn a_step_hands_out_a_bounded_number_of_completions_and_each_thread_gets_its_own() {
    let (bell, long) = (Bell::new().unwrap(), Duration::from_secs(20));
    let mut runner = ThreadRunner::new("flooded", EngineKind::Epoll).unwrap();
    let flooded = runner.thread();
    let (tell, told) = std::sync::mpsc::channel();
    let create = move || tell.send(Thread::create("modest", "[0-1023]").unwrap()).unwrap();
    flooded.send_msg(create).unwrap();
    runner.step();
    let modest = told.recv().unwrap();
    let seen = || [&FLOODED, &MODEST].map(|place| place.with(|counts| counts.0.borrow().len()));

    submit_many(&flooded, 1000, &FLOODED);
    while seen()[0] == 0 {
        runner.step();
    }
    // Its operations complete behind hundreds that wait by now.
    submit_many(&modest, 3, &MODEST);
    let (mut steps, mut modest_after) = (0, 0);
    while seen()[0] < 1000 {
        let (before, began) = (seen(), bell.now());
        runner.park(Some(long));
        assert!(bell.now() - began < long / 2, "no sleep while completions wait");
        assert_eq!(runner.step(), Busy::Yes);
        steps += 1;
        let now = seen();
        assert!((1..=8).contains(&(now[0] - before[0])), "{} completions in one step", now[0] - before[0]);
        if before[1] < 3 {
            modest_after = steps;
        }
    }
    assert!(modest_after <= 16 && seen()[1] == 3, "{modest_after} of {steps} steps");
    let in_order = |place: &'static std::thread::LocalKey<Rc<Counts>>, count| {
        place.with(|counts| counts.0.borrow().iter().copied().eq(0..count))
    };
    assert!(in_order(&FLOODED, 1000) && in_order(&MODEST, 3), "each once, in the order in which they came");

    // What waits when the runner is dropped is handed out too.
    submit_many(&flooded, 100, &FLOODED);
    while seen()[0] == 1000 {
        runner.step();
    }
    drop(runner);
    assert_eq!(seen()[0], 1100);
}

#[test]
fn a_lone_idle_poller_is_called_several_times_in_a_turn_and_holds_up_nothing() {
    let running = Runtime::builder().reactors(2).mode(Mode::Poll).build().unwrap().start().unwrap();
    let handle = running.handle();
    let polling = handle.create_thread("polling", "[0-1023]").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let (handle_there, timed) = (handle.clone(), polling.clone());
    polling.spawn(async move || {
        let poller = Poller::active("idle", Wake::Event("nothing"), || Busy::No);
        let reactor = timed.reactor();
        let turns = async || handle_there.dump().await.reactors[reactor].turns.1;
        loop {
            let (calls, before) = (poller.runs().0, turns().await);
            // Timers, messages from the other reactor and from outside are still handled.
            sleep(Duration::from_millis(5)).await;
            let (calls, turns) = (poller.runs().0 - calls, turns().await - before);
            if calls > 4 * turns {
                break tell.send(()).unwrap();
            }
        }
    });
    for n in 0..1000 {
        assert_eq!(polling.spawn(async move || n).wait().unwrap(), n);
    }
    told.recv().unwrap();
}
