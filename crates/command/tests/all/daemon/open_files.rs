//! The limit of open files of a daemon: it is raised as far as it may be, and what is left is shared among clients.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use super::clients::{Nbd, Rpc, tcp_from};
use super::support::Daemon;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A daemon with a disk, under a limit that bash sets, and its NBD address.
fn serve(folder: &Path, limit: &str) -> (Daemon, SocketAddrV4) {
    fs::File::create(folder.join("disk.img")).unwrap().set_len(1 << 20).unwrap();
    let script = format!("{limit}; exec \"$0\" serve -m 0x1 -r rpc.sock --file disk.img --nbd 127.0.0.1:0");
    let daemon = Daemon::start_command(folder, bash(folder, &script), "data");
    let uri = daemon.said.lines().find_map(|line| line.strip_prefix("data     nbd://")).expect("it says so");
    let address = uri.split('/').next().unwrap().parse().unwrap();
    (daemon, address)
}

fn bash(folder: &Path, script: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_spindle")]).current_dir(folder);
    bash
}

/// The soft and the hard limit of open files of a process.
fn limits(pid: u32) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    [words.next().unwrap(), words.next().unwrap()]
}

/// Sets the soft limit of a process whose hard limit is 64.
fn limit(pid: u32, files: u64) {
    let limit = Rlimit { current: Some(files), maximum: Some(64) };
    prlimit(Pid::from_raw(pid as i32), Resource::Nofile, limit).unwrap();
}

#[test]
fn clients_of_one_host_leave_another_host_and_the_rpc_answered_where_few_files_may_be_open() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, address) = serve(folder.path(), "ulimit -n 64");
    // As many as it takes, which are idle with an export and so are not told to make room.
    let mut idle = Vec::new();
    while let Ok(client) = Nbd::from_host(FIRST, address, "disk.img") {
        idle.push(client);
        assert!(idle.len() < 64, "more clients of one host than files");
    }
    assert!(idle.len() >= 8, "{} clients of one host are served", idle.len());
    let silent: Vec<UnixStream> = (0..100).map(|_| tcp_from(FIRST, address)).collect();
    let mut second: Vec<Nbd> = (0..4).map(|_| Nbd::from_host(SECOND, address, "disk.img").unwrap()).collect();
    for client in second.iter_mut().chain(&mut idle) {
        client.read(0, 4096).unwrap();
    }
    let mut rpc: Vec<Rpc> = (0..4).map(|_| Rpc::connect(&folder.path().join("rpc.sock")).unwrap()).collect();
    for client in &mut rpc {
        let exports = client.done("nbd_get_exports", &Value::Null).unwrap();
        assert_eq!(exports[0]["name"], "disk.img");
    }
    drop(silent);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("this process may open 64 files") && log.contains("ulimit -Hn"), "{log}");
    assert!(!log.contains("cannot be accepted"), "{log}");
}

#[test]
fn rpc_clients_leave_nbd_clients_and_disks_their_files_where_few_may_be_open() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, address) = serve(folder.path(), "ulimit -n 64");
    let log = || fs::read_to_string(folder.path().join("log")).unwrap();
    let said = log();
    let (before, _) = said.split_once(" RPC clients are served at once").expect("the log has their number");
    let most: usize = before.rsplit(' ').next().unwrap().parse().unwrap();
    let socket = folder.path().join("rpc.sock");
    let connect = || Rpc::connect(&socket).unwrap();
    let mut served: Vec<Rpc> = (0..most).map(|_| connect()).collect();
    for client in &mut served {
        client.done("spdk_get_version", &Value::Null).unwrap();
    }
    let mut next = connect();
    let silent: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let mut clients: Vec<Nbd> = (0..4).map(|_| Nbd::from_host(FIRST, address, "disk.img").unwrap()).collect();
    for client in &mut clients {
        client.read(0, 4096).unwrap();
    }
    fs::File::create(folder.path().join("other.img")).unwrap().set_len(1 << 20).unwrap();
    let other = json!({"name": "other", "filename": "other.img", "block_size": 512});
    served[0].done("bdev_aio_create", &other).unwrap();
    drop(served);
    next.done("spdk_get_version", &Value::Null).unwrap();
    drop(silent);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    assert!(!log().contains("cannot be accepted"), "{}", log());
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, address) = serve(folder.path(), "ulimit -Sn 64; ulimit -Hn 512");
    assert_eq!(limits(daemon.pid()), ["512", "512"]);
    let mut clients: Vec<Nbd> =
        (0..100).map(|_| Nbd::from_host(FIRST, address, "disk.img").unwrap()).collect();
    for client in &mut clients {
        client.read(0, 4096).unwrap();
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let quickstart = bash(folder.path(), "ulimit -Sn 64; ulimit -Hn 512; exec \"$0\" quickstart");
    let daemon = Daemon::start_command(folder.path(), quickstart, "Ready");
    assert_eq!(limits(daemon.pid()), ["512", "512"]);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_client_that_cannot_be_accepted_is_in_the_log_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, address) = serve(folder.path(), "ulimit -n 64");
    // Standard streams alone: as if the rest were open.
    limit(daemon.pid(), 3);
    let _nbd = tcp_from(FIRST, address);
    let _rpc = UnixStream::connect(folder.path().join("rpc.sock")).unwrap();
    let said = || {
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("cannot be accepted"));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    while said().len() < 2 {
        std::thread::yield_now();
    }
    limit(daemon.pid(), 64);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let said = said();
    assert!(said.len() == 2 && said.iter().all(|line| line.contains("ulimit -Hn")), "{said:?}");
    for server in [address.to_string(), "rpc.sock".to_owned()] {
        assert!(said.iter().any(|line| line.contains(&server)), "{server}: {said:?}");
    }
}
