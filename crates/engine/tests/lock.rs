//! One opener at a time, also across processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Command, Stdio};

use spindle_engine::{EngineKind, Op, OpenOptions};
use suite::Bench;

const FILE: &str = "SPINDLE_TEST_LOCKED_FILE";

/// The other process: holds the lock until its standard input ends.
#[test]
#[ignore = "runs in a child that holds a lock"]
fn hold() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let mut bench = Bench::new(EngineKind::Epoll).unwrap();
    let _file = bench.open(OpenOptions::new(path).writable(true).locked(true));
    println!("locked");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_error_names_the_process_that_holds_the_file() {
    let mut bench = Bench::new(EngineKind::Epoll).unwrap();
    bench.file("a", 4096);
    let path = bench.path("a");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hold", "--nocapture"])
        .env(FILE, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("locked")), "the child holds the lock");

    let options = OpenOptions::new(&path).writable(true).locked(true);
    let error = bench.error(Op::Open { options: Box::new(options.clone()) });
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains(&format!("process {}", child.id())), "{error}");

    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    bench.open(options);
}
