//! How many system calls the engines make: a count, where a time would only be noise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spindle_engine::{Address, Bell, Completion, Direct, Engine, File, Op, OpenOptions, Output, Socket};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::*;

/// The kernel's engines that this machine has.
fn engines() -> Vec<EngineKind> {
    let uring = Engine::open(EngineKind::IoUring).is_ok().then_some(EngineKind::IoUring);
    uring.into_iter().chain([EngineKind::Epoll]).collect()
}

fn pause(ms: u64) {
    Bell::new().unwrap().wait(Some(Duration::from_millis(ms)));
}

/// What the reactors have called by now.
fn calls(handle: &Handle) -> Vec<SystemCalls> {
    let dump = handle.dump().wait(Duration::from_secs(20));
    dump.reactors.iter().map(|reactor| reactor.system_calls).collect()
}

/// What each reactor called while `work` went on.
fn called(handle: &Handle, work: impl FnOnce()) -> Vec<SystemCalls> {
    let before = calls(handle);
    work();
    calls(handle).into_iter().zip(before).map(|(after, before)| after - before).collect()
}

/// A runtime of two reactors, beside this OS thread, with a thread on each.
fn two_reactors(kind: EngineKind, mode: Mode) -> (Running, [Thread; 2]) {
    let builder = Runtime::builder().engine(kind).reactors(2).mode(mode).watchdog(None);
    let running = builder.build().unwrap().start().unwrap();
    let handle = running.handle();
    (running, [0, 1].map(|_| handle.create_thread("here", "[0-1023]").unwrap()))
}

#[test]
fn an_idle_runtime_calls_nothing() {
    for kind in engines() {
        let (running, _threads) = two_reactors(kind, Mode::Adaptive);
        let handle = running.handle();
        pause(50);
        // One sleep and one wake-up for the question itself, and one of each may lie on either side of it.
        for calls in called(&handle, || pause(300)) {
            assert!(calls.wakes <= 1 && calls.drains <= 2 && calls.enters <= 2, "{kind:?}: {calls}");
            assert_eq!((calls.sockets, calls.handed_over), (0, 0), "{kind:?}: {calls}");
        }
    }
}

#[test]
fn messages_between_reactors_that_are_awake_call_nothing() {
    const MESSAGES: u64 = 10_000;
    for kind in engines() {
        let (running, [here, there]) = two_reactors(kind, Mode::Poll);
        let calls = called(&running.handle(), || {
            let answered = here.spawn(async move || {
                let arrived = Arc::new(AtomicU64::new(0));
                for _ in 0..MESSAGES {
                    let arrived = arrived.clone();
                    let arrive = move || {
                        arrived.fetch_add(1, Ordering::Relaxed);
                    };
                    there.send_msg(arrive).unwrap();
                }
                there.run(async || ()).await.unwrap();
                arrived.load(Ordering::Relaxed)
            });
            assert_eq!(answered.wait().unwrap(), MESSAGES);
        });
        assert_eq!(calls, [SystemCalls::default(); 2], "{kind:?}");
    }
}

#[test]
fn a_message_to_a_reactor_that_sleeps_is_one_write_one_read_and_one_sleep() {
    const MESSAGES: u64 = 10;
    for kind in engines() {
        let (running, [here, there]) = two_reactors(kind, Mode::Interrupt);
        let calls = called(&running.handle(), || {
            for _ in 0..MESSAGES {
                // Long enough to fall asleep, unless the machine is busy with others.
                pause(20);
                let there = there.clone();
                here.spawn(async move || there.send_msg(|| ()).unwrap()).wait().unwrap();
            }
            pause(20);
        });
        // One more of each is for the question.
        for calls in calls {
            assert!((MESSAGES / 2..=MESSAGES + 1).contains(&calls.wakes), "{kind:?}: {calls}");
            assert!(calls.drains.abs_diff(calls.wakes) <= 1, "{kind:?}: {calls}");
            assert!(calls.enters.abs_diff(calls.wakes) <= 1, "{kind:?}: {calls}");
            assert_eq!((calls.sockets, calls.handed_over), (0, 0), "{kind:?}: {calls}");
        }
    }
}

/// Answers each byte that comes with as many, and asks for the next.
struct Echo {
    socket: Socket,
    this: RefCell<Weak<Echo>>,
}

impl Echo {
    fn submit(&self, op: Op) {
        let this: Rc<dyn OpSink> = self.this.borrow().upgrade().unwrap();
        submit_op(op, &this, 0);
    }

    fn receive(&self) {
        self.submit(Op::Recv { socket: self.socket.clone(), buffers: IoBuf::zeroed(64).into() });
    }
}

impl OpSink for Echo {
    fn complete(&self, _: u64, completion: Completion) {
        let Completion { result, op, .. } = completion;
        let count = result.map_or(0, |output| output.bytes());
        if let (Op::Recv { .. }, 1..) = (&op, count) {
            self.submit(Op::SendQuietly {
                socket: self.socket.clone(),
                buffers: IoBuf::zeroed(count).into(),
            });
            self.receive();
        }
    }
}

#[test]
fn an_answer_and_the_wait_for_the_next_request_are_one_call() {
    const REQUESTS: u64 = 300;
    for kind in engines() {
        let builder = Runtime::builder().engine(kind).reactors(1).mode(Mode::Interrupt).watchdog(None);
        let running = builder.build().unwrap().start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let server = running.handle().create_thread("server", "[0-1023]").unwrap();
        let address = Box::new(Address::Unix(path.clone()));
        let serve = async move || {
            let Ok(Output::Listener(listener)) = op(Op::Listen { address, backlog: 1 }).await.0 else {
                panic!()
            };
            spawn_local(async move {
                let Ok(Output::Socket(socket)) = op(Op::Accept { listener }).await.0 else { panic!() };
                let echo = Rc::new(Echo { socket, this: RefCell::default() });
                *echo.this.borrow_mut() = Rc::downgrade(&echo);
                echo.receive();
                sleep(Duration::from_secs(3600)).await;
            });
        };
        server.spawn(serve).wait().unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(path).unwrap();
        let mut ask = || {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        };
        ask();
        let calls = called(&running.handle(), || (0..REQUESTS).for_each(|_| ask())).remove(0);
        match kind {
            // Fewer if requests come before it sleeps; a few more for the questions.
            EngineKind::IoUring => assert!(calls.enters <= REQUESTS + 5, "{calls}"),
            // One sleep. On sockets: the send, a receive in vain, and the receive.
            _ => assert!(calls.enters <= REQUESTS + 5 && calls.sockets <= 3 * REQUESTS + 5, "{calls}"),
        }
    }
}

/// Counts completed reads and wakes no task: the task polls without a wake.
#[derive(Default)]
struct Reads(Cell<u64>);

impl OpSink for Reads {
    fn complete(&self, _: u64, completion: Completion) {
        assert!(matches!(completion.result, Ok(Output::Bytes(512))), "{:?}", completion.result);
        self.0.set(self.0.get() + 1);
    }
}

/// Opens a new file of 64 KiB, whose pages the kernel has in memory.
async fn cached_file(path: std::path::PathBuf) -> File {
    let options = OpenOptions::new(path).writable(true).create(64 << 10).direct(Direct::Off);
    let file = match op(Op::Open { options: Box::new(options) }).await.0.unwrap() {
        Output::File(file) => file,
        other => unreachable!("{other:?}"),
    };
    let buffers = Buffers::from(IoBuf::zeroed(64 << 10));
    op(Op::Write { file: file.clone(), offset: 0, buffers }).await.0.unwrap();
    file
}

#[test]
fn a_read_at_a_time_takes_one_turn_and_one_call_each_on_a_reactor_that_sleeps() {
    const READS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    for kind in engines() {
        let builder = Runtime::builder().engine(kind).reactors(1).mode(Mode::Interrupt).watchdog(None);
        let running = builder.build().unwrap().start().unwrap();
        let thread = running.handle().create_thread("reads", "[0-1023]").unwrap();
        let path = folder.path().join(format!("{kind:?}"));
        let (turns, calls) = thread
            .spawn(async move || {
                let file = cached_file(path).await;
                let handle = Handle::current().unwrap();
                let before = handle.dump().await.reactors.remove(0);
                for number in 0..READS {
                    let buffers = Buffers::from(IoBuf::zeroed(512));
                    let read = Op::Read { file: file.clone(), offset: number % 128 * 512, buffers };
                    assert_eq!(op(read).await.0.unwrap().bytes(), 512);
                }
                let after = handle.dump().await.reactors.remove(0);
                let turns = after.turns.0 + after.turns.1 - before.turns.0 - before.turns.1;
                (turns, after.system_calls - before.system_calls)
            })
            .wait()
            .unwrap();
        // A few more for the questions, and some where a worker is late on a busy machine: never two for each.
        assert!((READS..2 * READS).contains(&turns), "{kind:?}: {turns} turns, {calls}");
        assert!(calls.enters < 2 * READS, "{kind:?}: {calls}");
    }
}

#[test]
fn reads_of_one_batch_enter_the_kernel_together() {
    const BATCHES: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    for kind in engines() {
        for depth in [1, 8, 32, 128] {
            let running = Runtime::builder().engine(kind).reactors(1).mode(Mode::Poll).build().unwrap();
            let running = running.start().unwrap();
            let thread = running.handle().create_thread("reads", "[0-1023]").unwrap();
            let path = folder.path().join(format!("{kind:?}{depth}"));
            let calls = thread.spawn(async move || {
                let file = cached_file(path).await;
                let reads = Rc::new(Reads::default());
                let handle = Handle::current().unwrap();
                let before = handle.dump().await.reactors[0].system_calls;
                for batch in 1..=BATCHES {
                    for number in 0..depth {
                        let buffers = Buffers::from(IoBuf::zeroed(512));
                        let read = Op::Read { file: file.clone(), offset: number * 512, buffers };
                        submit_op(read, &(reads.clone() as Rc<dyn OpSink>), 0);
                    }
                    while reads.0.get() < batch * depth {
                        yield_now().await;
                    }
                }
                handle.dump().await.reactors[0].system_calls - before
            });
            let calls = calls.wait().unwrap();
            if kind == EngineKind::Epoll {
                assert_eq!((calls.handed_over, calls.enters), (BATCHES * depth, 0), "depth {depth}: {calls}");
                continue;
            }
            // One with the whole batch; another now and then, for what the kernel did not have at hand.
            assert!((BATCHES..BATCHES * 5 / 4).contains(&calls.enters), "depth {depth}: {calls}");
            assert_eq!((calls.sockets, calls.handed_over), (0, 0), "depth {depth}: {calls}");
        }
    }
}
