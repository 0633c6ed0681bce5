//! What a daemon costs that has nothing to do: how often its reactors wake up, and its memory.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;

use super::clients::{Nbd, Rpc};
use super::support::Daemon;

/// How often the reactors of a process went to sleep.
fn sleeps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path());
    let reactors =
        threads.filter(|thread| fs::read_to_string(thread.join("comm")).unwrap().starts_with("reactor_"));
    reactors.map(|thread| figure(&fs::read_to_string(thread.join("status")).unwrap(), "voluntary_ctxt")).sum()
}

/// KiB in memory.
pub fn resident(pid: u32) -> u64 {
    figure(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmRSS")
}

fn figure(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test on plain OS threads lets a process rest")]
fn rest(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Room for as many files here and in the daemon.
pub fn allow_files(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum: limit.maximum }).unwrap();
    }
}

#[test]
fn a_thousand_silent_connections_wake_no_reactor_and_fit_into_64_mib() {
    allow_files(2048);
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &["serve", "-r", "rpc.sock", "--nbd", "unix:nbd.sock"], "data");
    let (rpc_socket, nbd_socket) = (folder.path().join("rpc.sock"), folder.path().join("nbd.sock"));
    let mut rpc = Rpc::connect(&rpc_socket).unwrap();
    rpc.done("bdev_malloc_create", &json!({"name": "M0", "num_blocks": 1024, "block_size": 512})).unwrap();
    rpc.done("nbd_export", &json!({"bdev_name": "M0"})).unwrap();
    let mut nbd: Vec<Nbd> = (0..500).map(|_| Nbd::connect(&nbd_socket, "M0").unwrap()).collect();
    let silent: Vec<UnixStream> = (0..499).map(|_| UnixStream::connect(&rpc_socket).unwrap()).collect();
    // A busy machine takes its time until all have been accepted; what wakes a reactor for good does so in every try.
    let woken_in_two_seconds = || {
        let before = sleeps(daemon.pid());
        rest(2);
        sleeps(daemon.pid()) - before
    };
    let mut woken = woken_in_two_seconds();
    for _ in 0..20 {
        if woken <= 4 {
            break;
        }
        woken = woken_in_two_seconds();
    }
    assert!(woken <= 4, "reactors woke up {woken} times in two seconds, and as often before");
    let resident = resident(daemon.pid());
    assert!(resident < 64 << 10, "{resident} KiB are in memory");
    println!("1000 silent connections: {woken} wake-ups in 2 s, {resident} KiB");
    // All of them are there.
    for client in &mut nbd {
        client.read(0, 512).unwrap();
    }
    drop(silent);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}
