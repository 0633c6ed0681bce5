//! Where io_uring is forbidden, as in many containers, `auto` takes epoll and all tests pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use spindle_engine::{Engine, EngineError, EngineKind};
use suite::{suite, with_every_test};

const DENIED: &str = "SPINDLE_TEST_IO_URING_DENIED";

with_every_test!(suite!(#[ignore = "runs in a child under seccomp"] under_seccomp, [EngineKind::Auto];));

#[test]
#[ignore = "runs in a child under seccomp"]
fn auto_took_epoll_and_says_why() {
    if std::env::var_os(DENIED).is_none() {
        return;
    }
    let engine = Engine::open(EngineKind::Auto).unwrap();
    assert_eq!(engine.kind(), EngineKind::Epoll);
    let why = engine.fallback_reason().expect("a reason");
    assert!(why.contains("io_uring"), "{why}");
    match Engine::open(EngineKind::IoUring) {
        Err(error @ EngineError::NoUring { .. }) => assert!(error.to_string().contains("auto"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_suite_passes_where_a_filter_answers_eperm() {
    run_suite_under_filter(libc::EPERM);
}

#[test]
fn the_suite_passes_where_a_filter_answers_enosys() {
    run_suite_under_filter(libc::ENOSYS);
}

fn run_suite_under_filter(errno: i32) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--quiet"]).env(DENIED, "1");
    // SAFETY: between fork and exec only system calls that are async-signal-safe are made.
    unsafe { child.pre_exec(move || deny_io_uring(errno)) };
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("0 failed") && !said.contains(" 0 passed"), "{said}");
}

/// Installs a filter that answers the three io_uring calls with `errno` and allows all else.
fn deny_io_uring(errno: i32) -> io::Result<()> {
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let first = libc::SYS_io_uring_setup as u32;
    let last = libc::SYS_io_uring_register as u32;
    let mut program = [
        // The number of the system call is the first field of what the filter sees.
        jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, first, 0, 2),
        jump(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, last, 1, 0),
        jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program outlive the calls.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
