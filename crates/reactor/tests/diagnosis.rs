//! What a runtime says of itself: what holds a core, what everything waits for, what a stop waits for.

use std::cell::Cell;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spindle_engine::{Bell, EngineKind};
use spindle_reactor::{
    Builder, Busy, Handle, Lock, LockAction, Mode, Poller, ReactorDump, RunError, Runtime, Thread, Wake,
    sleep, spawn_local, yield_now,
};

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(20);

/// Holds the OS thread until `free` is set: what a task must not do.
fn hold(free: &AtomicBool) {
    while !free.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Waits on a plain OS thread until `seen` finds something.
fn wait_for<T>(mut seen: impl FnMut() -> Option<T>) -> T {
    let bell = Bell::new().expect("a descriptor");
    for _ in 0..2000 {
        if let Some(value) = seen() {
            return value;
        }
        bell.wait(Some(Duration::from_millis(10)));
    }
    panic!("it never happened");
}

#[test]
fn a_task_that_holds_its_core_is_named_by_its_spawn_point_while_it_does() {
    let running = Runtime::builder().reactors(1).build().unwrap().start().unwrap();
    let handle = running.handle();
    let free = Arc::new(AtomicBool::new(false));
    let held = free.clone();
    let thread = handle.create_thread("greedy", "[0-1023]").unwrap();
    let line = line!() + 1;
    let task = thread.spawn(async move || hold(&held));
    let stall = wait_for(|| handle.stalls().pop());
    assert!(
        stall.call.starts_with("the task spawned at ")
            && stall.call.contains(&format!("diagnosis.rs:{line}:"))
    );
    assert_eq!(stall.thread, (thread.id(), Some("greedy".to_owned())));
    assert!(stall.held >= Duration::from_millis(10));
    free.store(true, Ordering::Relaxed);
    task.wait().unwrap();
}

#[test]
fn a_dump_from_outside_describes_a_held_reactor_by_what_holds_it() {
    let running = Runtime::builder().reactors(1).watchdog(None).build().unwrap().start().unwrap();
    let handle = running.handle();
    let thread = handle.create_thread("greedy", "[0-1023]").unwrap();
    let (free, entered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (held, inside) = (free.clone(), entered.clone());
    thread
        .send_msg(move || {
            inside.store(true, Ordering::Relaxed);
            hold(&held);
        })
        .unwrap();
    wait_for(|| entered.load(Ordering::Relaxed).then_some(()));
    let dump = handle.dump().wait(Duration::from_millis(20));
    assert_eq!(dump.reactors[0].held_by.as_deref(), Some("a message on thread 1 (greedy)"));
    free.store(true, Ordering::Relaxed);
    let dump = handle.dump().wait(LONG);
    assert_eq!((&dump.reactors[0].held_by, dump.reactors[0].threads.len()), (&None, 1));
    assert!(handle.stalls().is_empty(), "the watch is off");
}

#[test]
fn reactors_that_share_a_core_have_names_of_their_own_and_so_have_their_os_threads() {
    let core = spindle_engine::available_cores().affinity.iter().next().unwrap();
    let list = format!("[{core}]");
    let running = Runtime::builder().cores(&list).reactors(2).build().unwrap().start().unwrap();
    let handle = running.handle();
    let os_name = |_| {
        let thread = handle.create_thread("asked", &list).unwrap();
        thread.spawn(async || std::thread::current().name().map(str::to_owned)).wait().unwrap().unwrap()
    };
    let expected = [format!("reactor_{core}.1"), format!("reactor_{core}.2")];
    assert_eq!([0, 1].map(os_name), expected);
    let dump = handle.dump().wait(LONG);
    assert_eq!(dump.reactors.iter().map(|reactor| reactor.name.as_str()).collect::<Vec<_>>(), expected);
    for name in expected {
        assert!(dump.to_string().contains(&format!("{name} on core {core}, adaptive: ")), "{dump}");
    }
}

#[test]
fn a_dump_says_of_every_task_what_it_waits_for_and_since_when() {
    let runtime = Runtime::builder().engine(EngineKind::Sim(3)).build().unwrap();
    let dump = runtime.run(async || {
        let other = Thread::create("other", "[1]").unwrap();
        let asked = other.clone();
        spawn_local(async move { asked.run(async || sleep(Duration::from_secs(5)).await).await });
        let sleeper = spawn_local(sleep(Duration::from_secs(7)));
        spawn_local(sleeper);
        let ended = other.clone();
        spawn_local(async move { ended.joined().await });
        spawn_local(std::future::pending::<()>());
        sleep(Duration::from_secs(1)).await;
        Handle::current().unwrap().dump().await
    });
    let dump = dump.unwrap();
    let waits: Vec<&str> =
        dump.reactors[0].threads[0].tasks.iter().map(|task| task.waits_for.as_str()).collect();
    let expected =
        ["a call to thread 2", "a timer at 7s", "the task spawned at ", "the end of thread 2", "a waker"];
    for what in expected {
        assert!(waits.iter().any(|wait| wait.starts_with(what)), "{what} in {waits:?}");
    }
    assert_eq!(dump.reactors[1].threads[0].tasks[0].waits_for, "a timer at 5s");
    let slept = &dump.reactors[0].threads[0].tasks.iter().find(|task| task.waits_for == "a timer at 7s");
    assert_eq!(slept.unwrap().waits_since, Duration::from_secs(1));
}

#[test]
fn busy_time_goes_to_the_thread_that_used_it() {
    let running = Runtime::builder().reactors(1).watchdog(None).build().unwrap().start().unwrap();
    let handle = running.handle();
    let (busy, idle) = (handle.create_thread("busy", "[0-1023]"), handle.create_thread("idle", "[0-1023]"));
    let block = async || Bell::new().expect("a descriptor").wait(Some(Duration::from_millis(50)));
    busy.unwrap().spawn(block).wait().unwrap();
    idle.unwrap().spawn(async || ()).wait().unwrap();
    let dump = handle.dump().wait(LONG);
    let times: Vec<Duration> = dump.reactors[0].threads.iter().map(|thread| thread.busy).collect();
    // Not that the other took less: the kernel may have taken the core from it.
    assert!(times[0] >= Duration::from_millis(50), "{times:?}");
    assert!(dump.reactors[0].busy >= times[0]);
}

#[test]
fn a_poller_is_known_by_the_time_of_its_calls() {
    const CALL: Duration = Duration::from_micros(50);
    let running = Runtime::builder().reactors(1).watchdog(None).build().unwrap().start().unwrap();
    let thread = running.handle().create_thread("polls", "[0-1023]").unwrap();
    let polls = thread.spawn(async || {
        let long_call = || {
            Bell::new().expect("a descriptor").wait(Some(CALL));
            Busy::Yes
        };
        let idle = Poller::active("idle", Wake::Event("messages"), || Busy::No);
        let active = Poller::active("active", Wake::Spin, long_call);
        let slow = Poller::timed("slow", Duration::from_millis(1), long_call);
        while active.runs().0 < 600 || slow.runs().0 < 5 {
            yield_now().await;
        }
        let dump = Handle::current().unwrap().dump().await.to_string();
        let line = dump.lines().find(|line| line.contains("poller active (")).unwrap();
        assert!(line.contains(" runs in ") && !line.contains("busy in 0ns"), "{dump}");
        (active.times(), slow.times(), idle.times())
    });
    let (active, slow, idle) = polls.wait().unwrap();
    // What is measured stands for all calls but the last 250, and for all of a slow one. A reading that is
    // taken off is far shorter than what a call takes beside its wait.
    assert!(active.1 >= CALL * 350 && active.0 == active.1, "{active:?}");
    assert!(slow.1 >= CALL * 5 && slow.0 == slow.1, "{slow:?}");
    assert_eq!(idle.1, Duration::ZERO, "it never found something to do");
}

#[test]
fn a_dump_names_what_wakes_each_poller_and_the_one_that_keeps_its_reactor_awake() {
    let runtime = Runtime::builder().engine(EngineKind::Sim(1)).reactors(2).build().unwrap();
    let line = line!() + 8;
    let dumps = runtime.run(async move || {
        let ms = Duration::from_millis(1);
        let every = Poller::active("every", Wake::Every(ms), || Busy::No);
        let timed = Poller::timed("timed", 2 * ms, || Busy::Yes);
        let found = Rc::new(Cell::new(Busy::Yes));
        let busy = {
            let found = found.clone();
            Poller::active("finds", Wake::Event("doorbells"), move || found.get())
        };
        let spins = Poller::active("spins", Wake::Spin, || Busy::No);
        let handle = Handle::current().unwrap();
        let first = handle.dump().await;
        spins.pause();
        let second = handle.dump().await;
        found.set(Busy::No);
        sleep(ms).await;
        let third = handle.dump().await;
        drop((every, timed, busy));
        [first, second, third]
    });
    let [first, second, third] = dumps.unwrap();
    let pollers = &first.reactors[0].threads[0].pollers;
    let known: Vec<_> =
        pollers.iter().map(|poller| (poller.name.as_str(), poller.kind, poller.woken_by.as_str())).collect();
    let expected = [
        ("every", "active", "a timer every 1ms"),
        ("finds", "active", "doorbells"),
        ("spins", "active", "nothing, it spins"),
        ("timed", "timed", "a timer every 2ms"),
    ];
    assert_eq!(known, expected);
    let text = first.to_string();
    assert!(text.contains("poller finds (active, woken by doorbells), made at "), "{text}");
    let spins =
        format!("  kept awake by thread 1 app_thread: poller spins, made at {}: spins", pollers[2].made_at);
    assert!(pollers[2].made_at.contains("tests/diagnosis.rs:") && text.contains(&spins), "{text}");
    let finds = |line| format!("poller finds, made at {}:{line}:13: found something to do", file!());
    assert!(first.reactors[0].threads[0].keeps_awake.contains(&finds(line)), "{text}");
    assert_eq!(second.reactors[0].threads[0].keeps_awake, [finds(line)], "the other is paused");
    assert!(third.reactors[0].threads[0].keeps_awake.is_empty(), "{third}");
    assert!(!third.to_string().contains("kept awake"), "{third}");
}

#[test]
fn a_poller_with_a_period_of_0_spins_and_is_named_for_it() {
    let runtime = Runtime::builder().engine(EngineKind::Sim(1)).reactors(1).build().unwrap();
    let dump = runtime.run(async || {
        let every = Poller::active("every", Wake::Every(Duration::ZERO), || Busy::No);
        let timed = Poller::timed("timed", Duration::ZERO, || Busy::No);
        sleep(Duration::from_micros(1)).await;
        assert!(every.runs().0 > 0 && timed.runs().0 > 0);
        Handle::current().unwrap().dump().await
    });
    let dump = dump.unwrap();
    let thread = &dump.reactors[0].threads[0];
    assert_eq!(thread.pollers.len(), 2);
    for poller in &thread.pollers {
        assert_eq!((poller.kind, poller.woken_by.as_str()), ("active", "nothing, it spins"));
        let named = format!("poller {}, made at {}: spins", poller.name, poller.made_at);
        assert!(thread.keeps_awake.contains(&named), "{dump}");
    }
}

#[test]
fn a_mode_is_switched_while_the_reactor_runs() {
    let running = Runtime::builder().reactors(1).mode(Mode::Poll).build().unwrap().start().unwrap();
    let handle = running.handle();
    let sleeps = || handle.dump().wait(LONG).reactors[0].sleeps;
    assert_eq!(
        (handle.dump().wait(LONG).reactors[0].mode, sleeps()),
        (Mode::Poll, 0),
        "polling never sleeps"
    );
    handle.set_mode(Mode::Interrupt);
    // Each question wakes it, and then it sleeps again.
    wait_for(|| (sleeps() > 3).then_some(()));
    assert!(handle.set_reactor_mode(0, Mode::Poll) && !handle.set_reactor_mode(1, Mode::Poll));
    wait_for(|| (handle.dump().wait(LONG).reactors[0].mode == Mode::Poll).then_some(()));
    let before = sleeps();
    (0..10).for_each(|_| drop(handle.dump().wait(LONG)));
    assert_eq!(sleeps(), before);
}

#[test]
fn an_adaptive_reactor_keeps_polling_for_a_while_unless_it_shares_its_core() {
    let cores = spindle_engine::available_cores().set;
    let turns_of = |runtime: Builder| {
        let running = runtime.engine(EngineKind::Epoll).build().unwrap().start().unwrap();
        let handle = running.handle();
        let threads = [(); 2].map(|()| handle.create_thread("one each", "[0-1023]").unwrap());
        for _ in 0..50 {
            threads.iter().for_each(|thread| thread.spawn(async || ()).wait().unwrap());
        }
        let dump = handle.dump().wait(LONG);
        let sum = |of: fn(&ReactorDump) -> u64| dump.reactors.iter().map(of).sum::<u64>();
        (sum(|reactor| reactor.turns.1), sum(|reactor| reactor.sleeps))
    };
    let (idle, sleeps) =
        turns_of(Runtime::builder().cores(&format!("[{}]", cores.lowest().unwrap())).reactors(2));
    assert!(idle <= 2 * sleeps, "on one core: {idle} idle turns, {sleeps} sleeps");
    if cores.len() > 1 {
        // Other processes may take the core of a reactor that polls, but hardly ten times.
        let kept_polling = || {
            let (idle, sleeps) = turns_of(Runtime::builder().reactors(2));
            idle > 5 * sleeps
        };
        assert!((0..10).any(|_| kept_polling()), "on two cores: it sleeps at once");
    }
}

#[test]
fn a_runtime_with_nothing_to_do_stays_asleep_after_it_was_woken() {
    for kind in [EngineKind::Auto, EngineKind::Epoll] {
        let running = Runtime::builder().reactors(2).engine(kind).build().unwrap().start().unwrap();
        let handle = running.handle();
        let sleeps = || handle.dump().wait(LONG).reactors.iter().map(|reactor| reactor.sleeps).sum::<u64>();
        let before = sleeps();
        Bell::new().unwrap().wait(Some(Duration::from_millis(200)));
        let slept = sleeps() - before;
        assert!(slept < 20, "{slept} sleeps while nothing happened");
    }
}

#[test]
fn a_task_that_only_yields_is_polled_once_a_turn() {
    let runtime = Runtime::builder().engine(EngineKind::Sim(1)).reactors(1).build().unwrap();
    let (polls, turns) = runtime
        .run(async || {
            let turns = std::rc::Rc::new(std::cell::Cell::new(0));
            let counted = turns.clone();
            let _poller = Poller::active("counts turns", Wake::Event("messages"), move || {
                counted.set(counted.get() + 1);
                Busy::No
            });
            for _ in 0..100 {
                yield_now().await;
            }
            (100, turns.get())
        })
        .unwrap();
    assert!((polls - 1..=polls + 1).contains(&turns), "{turns} turns for {polls} polls");
}

/// Runs this test binary again for one of the functions below, which do something only then.
fn child(name: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("SPINDLE_CHILD", name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
}

fn is_child(name: &str) -> bool {
    std::env::var("SPINDLE_CHILD").is_ok_and(|child| child == name)
}

/// Reads standard error until it contains `text`.
fn read_until(child: &mut Child, text: &str) -> String {
    let mut seen = Vec::new();
    let stderr = child.stderr.as_mut().expect("piped");
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_eq!(
            stderr.read(&mut byte).expect("readable"),
            1,
            "{text:?} not in {}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().expect("sh");
    assert!(sent.success());
}

/// Signals until the child ends: signals that come together are one request.
fn end_by_signals(mut child: Child, name: &str) -> (ExitStatus, String) {
    while child.try_wait().expect("a child").is_none() {
        signal(&child, name);
    }
    end(child)
}

fn end(mut child: Child) -> (ExitStatus, String) {
    let mut rest = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut rest).expect("text");
    (child.wait().expect("a child"), rest)
}

#[test]
fn child_whose_main_hangs() {
    if !is_child("child_whose_main_hangs") {
        return;
    }
    let result = Runtime::builder().reactors(1).build().unwrap().run(async || {
        eprintln!("hanging now");
        hold(&AtomicBool::new(false));
    });
    unreachable!("{result:?}");
}

#[test]
fn a_second_signal_ends_a_process_whose_first_reactor_hangs_and_the_stop_says_why() {
    let mut child = child("child_whose_main_hangs");
    read_until(&mut child, "hanging now");
    let report = read_until(&mut child, "blocking calls on an OS thread of their own");
    assert!(report.contains("has been held for") && report.contains("the task spawned at"), "{report}");
    signal(&child, "USR1");
    let dump = read_until(&mut child, "does not answer, held by the task spawned at");
    assert!(dump.contains("reactor_") && dump.contains(" on core "), "{dump}");
    signal(&child, "TERM");
    let (status, rest) = end_by_signals(child, "INT");
    assert!(rest.contains("second signal: ending at once"), "{rest}");
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
}

#[test]
fn child_that_sleeps() {
    if !is_child("child_that_sleeps") {
        return;
    }
    let result = Runtime::builder().reactors(2).build().unwrap().run(async || {
        let there = Thread::create("there", "[0-1023]").unwrap();
        let call = spawn_local(async move { there.run(async || sleep(LONG).await).await });
        let handle = Handle::current().unwrap();
        while !handle.dump().await.to_string().contains("a timer at") {
            yield_now().await;
        }
        eprintln!("sleeping now");
        call.await
    });
    assert!(matches!(result, Err(RunError::Stopped { by: "SIGTERM", code: 143 })), "{result:?}");
    eprintln!("stopped in order");
    std::process::exit(result.unwrap_err().exit_code().into());
}

#[test]
fn sigusr1_prints_every_thread_and_what_its_tasks_wait_for_and_sigterm_stops_in_order() {
    let mut child = child("child_that_sleeps");
    read_until(&mut child, "sleeping now");
    signal(&child, "USR1");
    let dump = read_until(&mut child, "waits for a timer");
    assert!(dump.contains("app_thread") && dump.contains("waits for a call to thread 2"), "{dump}");
    signal(&child, "TERM");
    let (status, rest) = end(child);
    assert!(rest.contains("stopped in order") && status.code() == Some(143), "{status}: {rest}");
}

#[test]
fn child_whose_stop_hangs() {
    if !is_child("child_whose_stop_hangs") {
        return;
    }
    struct Stubborn;
    impl Drop for Stubborn {
        fn drop(&mut self) {
            hold(&AtomicBool::new(false));
        }
    }
    let _ = Runtime::builder().reactors(1).watchdog(None).build().unwrap().run(async || {
        let stubborn = Stubborn;
        spawn_local(async move {
            let _stubborn = stubborn;
            std::future::pending::<()>().await;
        });
        yield_now().await;
    });
}

#[test]
fn a_stop_that_hangs_says_which_thread_holds_it() {
    let mut child = child("child_whose_stop_hangs");
    let report = read_until(&mut child, "a second signal ends at once");
    assert!(report.contains("the stop waits for reactor_") && report.contains("(app_thread)"), "{report}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn child_that_aborts_on_a_lock_fault() {
    if !is_child("child_that_aborts_on_a_lock_fault") {
        return;
    }
    let runtime = Runtime::builder().reactors(1).on_lock_fault(LockAction::Abort).build().unwrap();
    let _ = runtime.run(async || {
        let lock = Lock::new("twice", 0);
        lock.with(|_| lock.with(|_| ()));
    });
}

#[test]
fn a_lock_fault_aborts_the_process_where_the_runtime_was_told_so() {
    let (status, report) = end(child("child_that_aborts_on_a_lock_fault"));
    assert!(report.contains("lock twice, code 2 (Deadlock)"), "{report}");
    assert!(std::os::unix::process::ExitStatusExt::signal(&status).is_some(), "aborted, not ended: {status}");
}

#[test]
fn child_whose_task_panics() {
    if !is_child("child_whose_task_panics") {
        return;
    }
    let result = Runtime::builder().reactors(1).build().unwrap().run(async || {
        for _ in 0..20 {
            let task = spawn_local(async { panic!("on purpose") });
            assert!(task.await.is_err());
            sleep(Duration::from_millis(10)).await;
        }
        Handle::current().unwrap().stop(7);
        std::future::pending::<()>().await;
    });
    std::process::exit(match result {
        Err(RunError::Stopped { code, .. }) => code.into(),
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_process_whose_standard_error_is_never_read_outlives_the_panic_of_a_task() {
    let mut child = child("child_whose_task_panics");
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn child_whose_tasks_panic_often() {
    if !is_child("child_whose_tasks_panic_often") {
        return;
    }
    // The library's own report of a panic would wait.
    std::panic::set_hook(Box::new(|_| ()));
    let result = Runtime::builder().reactors(1).build().unwrap().run(async || {
        for _ in 0..2000 {
            assert!(spawn_local(async { panic!("on purpose") }).await.is_err());
        }
        7
    });
    std::process::exit(result.unwrap());
}

#[test]
fn a_process_whose_standard_error_is_full_and_never_read_goes_on() {
    let mut child = child("child_whose_tasks_panic_often");
    let ended = wait_for(|| child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(7));
}

#[test]
fn child_whose_report_of_a_panic_takes_long() {
    if !is_child("child_whose_report_of_a_panic_takes_long") {
        return;
    }
    // As a backtrace that is looked up in large files.
    std::panic::set_hook(Box::new(|_| Bell::new().unwrap().wait(Some(Duration::from_millis(300)))));
    let runtime = Runtime::builder().reactors(1).watchdog(Some(Duration::from_millis(50))).build().unwrap();
    let stalls = runtime.run(async || {
        assert!(spawn_local(async { panic!("on purpose") }).await.is_err());
        Handle::current().unwrap().stalls()
    });
    let stalls = stalls.unwrap();
    assert!(stalls.is_empty(), "{stalls:?}");
    std::process::exit(7);
}

#[test]
fn the_report_of_a_panic_is_not_counted_as_time_of_the_call_that_panicked() {
    let mut child = child("child_whose_report_of_a_panic_takes_long");
    let ended = wait_for(|| child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(7));
}

#[test]
fn child_that_stops_itself_and_hangs() {
    if !is_child("child_that_stops_itself_and_hangs") {
        return;
    }
    let _ = Runtime::builder().reactors(1).watchdog(None).build().unwrap().run(async || {
        Handle::current().unwrap().stop(3);
        hold(&AtomicBool::new(false));
    });
}

#[test]
fn a_stop_that_was_asked_for_otherwise_leaves_the_first_signal_orderly_and_gives_the_second_its_code() {
    let mut child = child("child_that_stops_itself_and_hangs");
    let report = read_until(&mut child, "a second signal ends at once");
    assert!(report.contains("the stop waits for reactor_"), "{report}");
    signal(&child, "TERM");
    let (status, rest) = end_by_signals(child, "INT");
    assert!(rest.contains("second signal: ending at once"), "{rest}");
    assert_eq!(status.code(), Some(3), "{status}");
}
