//! The common suite over every engine (files, time and waking, sockets, cancelling, overflow), and what only some have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closing;
mod disk;
mod simulation;
mod socket_file;
#[path = "../suite/mod.rs"]
mod suite;

use std::fs;

use spindle_engine::{Engine, EngineKind, OpenOptions, available_cores, spawn_pinned};
use suite::{Bench, suite, with_every_test};

with_every_test!(suite!(#[cfg(test)] io_uring, [EngineKind::IoUring];));
with_every_test!(suite!(#[cfg(test)] epoll, [EngineKind::Epoll];));
with_every_test!(suite!(#[cfg(test)] sim, (0..20).map(EngineKind::Sim);));

#[test]
fn workers_do_not_stay_on_the_core_of_the_reactor_that_starts_them() {
    let status =
        |task: &str| fs::read_to_string(format!("/proc/self/task/{task}/status")).unwrap_or_default();
    let cores = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap_or_default().trim().to_owned()
    };
    let here = fs::read_link("/proc/thread-self").unwrap();
    let all = cores(&status(here.file_name().unwrap().to_str().unwrap()));
    let engine = Engine::open(EngineKind::Epoll).unwrap();
    let core = available_cores().affinity.lowest();
    // Opens a file, which the first worker of this engine does; it stays as long as the engine.
    let open = {
        let engine = engine.clone();
        move || drop(Bench::with(engine).open(OpenOptions::new("/proc/self/exe")))
    };
    spawn_pinned("reactor", core, open).unwrap().join().unwrap();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = status(task.unwrap().file_name().to_str().unwrap());
        if status.starts_with("Name:\tengine_io") {
            assert_eq!(cores(&status), all, "{status}");
        }
    }
    drop(engine);
}

/// In a child under strace, which answers the first call of each kind with EINTR.
const INTERRUPTED: &str = "SPINDLE_TEST_INTERRUPTED";

#[test]
#[ignore = "runs in a child whose first calls are interrupted"]
fn auto_still_takes_io_uring() {
    if std::env::var_os(INTERRUPTED).is_none() {
        return;
    }
    let engine = Engine::open(EngineKind::Auto).unwrap();
    assert_eq!((engine.kind(), engine.fallback_reason()), (EngineKind::IoUring, None));
    engine.driver(0).unwrap();
}

#[test]
fn a_signal_at_the_first_call_to_the_ring_neither_fails_the_engine_nor_changes_the_choice() {
    if Engine::open(EngineKind::Auto).unwrap().kind() != EngineKind::IoUring {
        eprintln!("skipped: there is no io_uring here");
        return;
    }
    let test = std::env::current_exe().unwrap();
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        let inject = format!("inject={call}:error=EINTR:when=1");
        let mut strace = std::process::Command::new("strace");
        strace
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])
            .arg(&test);
        strace.args(["--ignored", "--exact", "auto_still_takes_io_uring"]).env(INTERRUPTED, "1");
        match strace.output() {
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("ptrace") => {
                eprintln!("skipped: strace may not trace here");
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && said.contains("1 passed"), "{call}: {said}");
            }
            Err(_) => eprintln!("skipped: there is no strace here"),
        }
    }
}
