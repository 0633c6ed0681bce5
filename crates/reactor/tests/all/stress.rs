//! Everything at once: messages, calls, tasks, pollers, channels, visits, exits, cancels and panics, on
//! threads that come and go. In simulation by seeds, then the same on real reactors, more of them than cores.
//!
//! What must hold whatever happens: a message is handled once, in the order of its sender, or dropped because
//! its thread has exited; every call is answered, and truly; a visit sees each channel once; an unregistration
//! completes; and in the end nothing is left.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spindle_engine::sim::Rng;
use spindle_engine::spawn_pinned;
use spindle_reactor::*;

/// What a panic on purpose says.
const AS_ASKED: &str = "as asked";

/// How much goes on in one run.
#[derive(Clone, Copy)]
struct Size {
    threads: usize,
    actors: u64,
    /// Things that each actor does.
    steps: usize,
    /// Plain OS threads that send and call, too.
    outsiders: u64,
}

/// State shared by all actors of a run.
#[derive(Default)]
struct Run {
    /// Threads that were not asked to exit.
    threads: Mutex<Vec<Thread>>,
    /// All that were ever created.
    all: Mutex<Vec<Thread>>,
    /// The first is never unregistered before the end.
    devices: Mutex<Vec<IoDevice<Part>>>,
    sent: AtomicU64,
    handled: AtomicU64,
    dropped: AtomicU64,
    /// By sender and receiver, the last message that was handled.
    last: Mutex<BTreeMap<(u64, u64), u64>>,
    /// Parts of devices, and futures of calls, that live.
    parts: AtomicI64,
    futures: AtomicI64,
    /// What must not happen and did.
    wrong: Mutex<Vec<String>>,
}

impl Run {
    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    fn any_thread(&self, rng: &mut Rng) -> Thread {
        let threads = self.threads.lock().unwrap();
        threads[rng.below(threads.len())].clone()
    }

    /// One that may exit, or have exited.
    fn any_thread_ever(&self, rng: &mut Rng) -> Thread {
        let all = self.all.lock().unwrap();
        all[rng.below(all.len())].clone()
    }

    fn any_device(&self, rng: &mut Rng) -> IoDevice<Part> {
        let devices = self.devices.lock().unwrap();
        devices[rng.below(devices.len())].clone()
    }

    fn add_thread(&self, runtime: &Handle) {
        let thread = runtime.create_thread("worker", "[0-1023]").unwrap();
        self.threads.lock().unwrap().push(thread.clone());
        self.all.lock().unwrap().push(thread);
    }

    fn device(self: &Arc<Run>, runtime: &Handle) -> IoDevice<Part> {
        let run = self.clone();
        runtime.register_io_device("device", move || {
            run.parts.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Part { run: run.clone(), thread: Thread::current().unwrap().id() })
        })
    }
}

/// One thread's part of a device.
struct Part {
    run: Arc<Run>,
    thread: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.run.parts.fetch_sub(1, Ordering::Relaxed);
        if Thread::current().map(|thread| thread.id()) != Some(self.thread) {
            self.run.wrong(format!("the part of thread {} died elsewhere", self.thread));
        }
    }
}

/// Lives as long as the future of a call.
struct Alive(Arc<Run>);

impl Alive {
    fn new(run: &Arc<Run>) -> Alive {
        run.futures.fetch_add(1, Ordering::Relaxed);
        Alive(run.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.futures.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Travels with a message.
struct Token {
    run: Arc<Run>,
    from: u64,
    number: u64,
    to: Thread,
    handled: bool,
}

impl Token {
    fn handle(mut self) {
        self.handled = true;
        self.run.handled.fetch_add(1, Ordering::Relaxed);
        let last = self.run.last.lock().unwrap().insert((self.from, self.to.id()), self.number);
        if last >= Some(self.number) {
            self.run.wrong(format!("{last:?} of {} came before {}", self.from, self.number));
        }
        if Thread::current().as_ref() != Some(&self.to) {
            self.run.wrong(format!("a message for {:?} was handled elsewhere", self.to));
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.handled {
            self.run.dropped.fetch_add(1, Ordering::Relaxed);
            if !self.to.is_gone() {
                self.run.wrong(format!("a message for {:?} was lost", self.to));
            }
        }
    }
}

/// An actor that performs random actions.
struct Actor {
    run: Arc<Run>,
    number: u64,
    rng: Rng,
    sent: u64,
}

impl Actor {
    fn new(run: &Arc<Run>, seed: u64, number: u64) -> Actor {
        let rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
        Actor { run: run.clone(), number, rng, sent: 0 }
    }

    async fn act(&mut self, runtime: &Handle) {
        match self.rng.below(16) {
            0..4 => {
                let to = self.run.any_thread_ever(&mut self.rng);
                let many = if self.rng.below(8) == 0 { 300 } else { 3 };
                (0..many).for_each(|_| self.send(&to));
            }
            4..7 => self.call().await,
            7 => self.give_up_a_call().await,
            8 => self.spawn_and_abort().await,
            9 | 10 => self.use_a_channel().await,
            11 => self.visit().await,
            12 => self.poll().await,
            13 => self.replace_a_device(runtime).await,
            14 => self.replace_a_thread(runtime),
            _ => sleep(Duration::from_micros(self.rng.next_u64() % 50)).await,
        }
    }

    fn send(&mut self, to: &Thread) {
        self.sent += 1;
        self.run.sent.fetch_add(1, Ordering::Relaxed);
        let token = Token {
            run: self.run.clone(),
            from: self.number,
            number: self.sent,
            to: to.clone(),
            handled: false,
        };
        // Refused: the thread has exited, and the token notes it.
        let _ = to.send_msg(move || token.handle());
    }

    async fn call(&mut self) {
        let (to, then) = (self.run.any_thread(&mut self.rng), self.run.any_thread(&mut self.rng));
        let (number, kind, run) = (self.rng.next_u64(), self.rng.below(4), self.run.clone());
        let answer = to.run(async move || {
            let _alive = Alive::new(&run);
            match kind {
                0 => yield_now().await,
                1 => sleep(Duration::from_micros(number % 20)).await,
                2 => {
                    let there = then.run(async move || number).await;
                    run.judge(&then, there, Some(number), "a call of a call");
                }
                _ => panic!("{AS_ASKED}"),
            }
            number
        });
        let answer = answer.await;
        self.run.judge(&to, answer, (kind < 3).then_some(number), "a call");
    }

    async fn give_up_a_call(&mut self) {
        let (to, run) = (self.run.any_thread(&mut self.rng), self.run.clone());
        let call = to.run(async move || {
            let _alive = Alive::new(&run);
            std::future::pending::<()>().await;
        });
        let limit = Duration::from_micros(self.rng.next_u64() % 30);
        match timeout(limit, call).await {
            Err(Elapsed(_)) | Ok(Err(RunError::Gone { .. })) => {}
            Ok(other) => self.run.wrong(format!("a call without an end ended: {other:?}")),
        }
    }

    async fn spawn_and_abort(&mut self) {
        let (to, run, long) = (self.run.any_thread(&mut self.rng), self.run.clone(), self.rng.below(2) == 0);
        let task = to.spawn(async move || {
            let _alive = Alive::new(&run);
            if long {
                std::future::pending::<()>().await;
            }
        });
        let local = spawn_local(std::future::pending::<()>());
        yield_now().await;
        local.abort();
        let local = local.await;
        assert!(matches!(local, Err(RunError::Cancelled)), "{local:?}");
        task.abort();
        match task.await {
            Ok(()) if !long => {}
            Err(RunError::Cancelled | RunError::Gone { .. }) => {}
            other => self.run.wrong(format!("an aborted task: {other:?}")),
        }
    }

    async fn use_a_channel(&mut self) {
        let (to, device) = (self.run.any_thread(&mut self.rng), self.run.any_device(&mut self.rng));
        let (run, span) = (self.run.clone(), Duration::from_micros(self.rng.next_u64() % 30));
        let panics = self.rng.below(8) == 0;
        let used = to.run(async move || {
            let _alive = Alive::new(&run);
            let Ok(channel) = device.channel() else { return 0 };
            let second = channel.clone();
            sleep(span).await;
            assert!(!panics, "{AS_ASKED}");
            drop(channel);
            assert_eq!(second.thread, Thread::current().unwrap().id());
            0
        });
        let used = used.await;
        // A device that is unregistered refuses before the panic is due.
        let answers = if panics && used.is_err() { None } else { Some(0) };
        self.run.judge(&to, used, answers, "a call that uses a channel");
    }

    async fn visit(&mut self) {
        let device = self.run.any_device(&mut self.rng);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (notes, run) = (seen.clone(), self.run.clone());
        let visited = device.for_each_channel(async move |part: &Part| {
            notes.lock().unwrap().push(part.thread);
            if Thread::current().map(|thread| thread.id()) != Some(part.thread) {
                run.wrong("a part was visited elsewhere".to_owned());
            }
            yield_now().await;
            Ok::<_, Infallible>(())
        });
        match visited.await {
            Ok(()) | Err(VisitError::Unregistered { .. }) => {}
            Err(error) => self.run.wrong(format!("a visit: {error}")),
        }
        let seen = seen.lock().unwrap();
        if !seen.is_sorted_by(|one, next| one < next) {
            self.run.wrong(format!("visited twice, or out of order: {seen:?}"));
        }
    }

    async fn poll(&mut self) {
        let panics = self.rng.below(2) == 0;
        let active = Poller::active("active", Wake::Every(Duration::from_micros(5)), move || {
            assert!(!panics, "{AS_ASKED}");
            Busy::No
        });
        let timed = Poller::timed("timed", Duration::from_micros(3), || Busy::Yes);
        timed.pause();
        yield_now().await;
        timed.resume();
        sleep(Duration::from_micros(10)).await;
        drop((active, timed));
    }

    async fn replace_a_device(&mut self, runtime: &Handle) {
        let new = self.run.device(runtime);
        let old = {
            let mut devices = self.run.devices.lock().unwrap();
            let at = 1 + self.rng.below(devices.len() - 1);
            std::mem::replace(&mut devices[at], new)
        };
        if let Err(error) = old.unregister().await {
            self.run.wrong(format!("outside of any visit: {error}"));
        }
        if old.channels() > 0 {
            self.run.wrong("an unregistration completed before the last channel was gone".to_owned());
        }
    }

    fn replace_a_thread(&mut self, runtime: &Handle) {
        self.run.add_thread(runtime);
        let exits = {
            let mut threads = self.run.threads.lock().unwrap();
            let at = self.rng.below(threads.len());
            threads.swap_remove(at)
        };
        exits.exit();
    }
}

impl Run {
    /// Judges the answer of a call to `to` that must give `expected`, or panic.
    fn judge(&self, to: &Thread, answer: Result<u64, RunError>, expected: Option<u64>, what: &str) {
        match (answer, expected) {
            (Ok(value), Some(expected)) if value == expected => {}
            (Err(RunError::Panicked(panicked)), None) if panicked.message == AS_ASKED => {}
            (Err(RunError::Gone { .. }), _) if to.is_gone() => {}
            (answer, expected) => self.wrong(format!("{what} to {to:?}: {answer:?}, not {expected:?}")),
        }
    }
}

/// A plain OS thread that sends and calls.
fn outsider(run: &Arc<Run>, seed: u64, number: u64, steps: usize) {
    let mut actor = Actor::new(run, seed, number);
    for _ in 0..steps {
        let to = run.any_thread(&mut actor.rng);
        actor.send(&to);
        let value = actor.rng.next_u64();
        let answer = to.spawn(async move || value).wait();
        run.judge(&to, answer, Some(value), "a call from outside");
    }
}

/// The whole run, on the app thread.
async fn everything(seed: u64, size: Size) {
    let runtime = Handle::current().unwrap();
    let run = Arc::new(Run::default());
    (0..size.threads).for_each(|_| run.add_thread(&runtime));
    for _ in 0..3 {
        let device = run.device(&runtime);
        run.devices.lock().unwrap().push(device);
    }
    let outsiders: Vec<_> = (0..size.outsiders)
        .map(|number| {
            let run = run.clone();
            let act = move || outsider(&run, seed, 1000 + number, size.steps);
            spawn_pinned("outsider", None, act).unwrap()
        })
        .collect();
    let actors: Vec<_> = (0..size.actors)
        .map(|number| {
            let (run, runtime) = (run.clone(), runtime.clone());
            let thread = run.any_thread(&mut Rng::new(seed ^ number));
            thread.spawn(async move || {
                let mut actor = Actor::new(&run, seed, number);
                for _ in 0..size.steps {
                    actor.act(&runtime).await;
                }
            })
        })
        .collect();
    for actor in actors {
        // It held its thread, which may have been asked to exit meanwhile.
        actor.await.unwrap();
    }
    while !outsiders.iter().all(std::thread::JoinHandle::is_finished) {
        sleep(Duration::from_millis(1)).await;
    }
    outsiders.into_iter().for_each(|outsider| outsider.join().unwrap());
    let devices = std::mem::take(&mut *run.devices.lock().unwrap());
    for device in devices {
        device.unregister().await.unwrap();
    }
    let all = std::mem::take(&mut *run.all.lock().unwrap());
    all.iter().for_each(Thread::exit);
    for thread in &all {
        thread.joined().await;
    }
    assert_eq!(*run.wrong.lock().unwrap(), Vec::<String>::new());
    let [sent, handled, dropped] =
        [&run.sent, &run.handled, &run.dropped].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(sent, handled + dropped, "{handled} handled, {dropped} dropped");
    assert!(handled > 0);
    assert_eq!(run.parts.load(Ordering::Relaxed), 0, "parts of devices are left");
    assert_eq!(run.futures.load(Ordering::Relaxed), 0, "futures are left");
    assert_eq!(runtime.threads().len(), 1, "threads are left");
    let dump = runtime.dump().await;
    let threads: Vec<_> = dump.reactors.iter().flat_map(|reactor| &reactor.threads).collect();
    assert_eq!((threads.len(), &threads[0].waits_for[..]), (1, &["1 task".to_owned()][..]), "{dump}");
}

/// The whole run, or what it waits for when that never ends.
async fn everything_in_time(seed: u64, size: Size) {
    if timeout(Duration::from_secs(100), everything(seed, size)).await.is_err() {
        panic!("it does not end\n{}", Handle::current().unwrap().dump().await);
    }
}

/// Says nothing of the panics on purpose.
fn keep_quiet() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(AS_ASKED) {
            hook(info);
        }
    }));
}

#[test]
fn whatever_happens_at_once_nothing_is_lost_and_nothing_is_left_by_300_seeds() {
    keep_quiet();
    for seed in 0..300 {
        let reactors = 1 + seed as usize % 4;
        let runtime = Runtime::builder().engine(EngineKind::Sim(seed)).reactors(reactors).build().unwrap();
        let size = Size { threads: 5, actors: 6, steps: 60, outsiders: 0 };
        let ended = runtime.run(async move || everything(seed, size).await);
        ended.unwrap_or_else(|error| panic!("seed {seed}, {reactors} reactors: {error}"));
    }
}

#[test]
fn the_same_holds_on_more_reactors_than_cores_and_with_plain_os_threads() {
    keep_quiet();
    let reactors = spindle_engine::available_cores().set.len() + 2;
    for (seed, kind) in [EngineKind::Auto, EngineKind::Epoll].into_iter().enumerate() {
        let runtime = Runtime::builder().engine(kind).reactors(reactors).watchdog(None).build().unwrap();
        let size = Size { threads: 8, actors: 12, steps: 600, outsiders: 2 };
        let ended = runtime.run(async move || everything_in_time(seed as u64, size).await);
        ended.unwrap_or_else(|error| panic!("{kind}, seed {seed}: {error}"));
    }
}
