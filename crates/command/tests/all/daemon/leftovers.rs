//! What a killed daemon leaves: its next start takes over any of it, and its end leaves nothing.
//!
//! Volumes are in `kills.rs` and in the tests of `spindle-control`; here are the files of all other methods and options:
//! sockets with their locks, lock files of cores, the log. `save_config` writes none: its client does.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::clients::Rpc;
use super::support::Daemon;

/// With every option that makes a file.
const SERVE: [&str; 14] = [
    "serve",
    "-m",
    "0x1",
    "-r",
    "rpc.sock",
    "--nbd",
    "unix:nbd.sock",
    "--enable-cpumask-locks",
    "--core-lock-folder",
    ".",
    "--log-file",
    "it.log",
    "--log-format",
    "json",
];

/// The files that are there before, and the one that a daemon leaves on purpose.
const KEPT: [&str; 4] = ["disk.img", "it.log", "key", "log"];

/// Methods that make or remove files, or hold them, in an order in which all succeed.
fn calls() -> Vec<(&'static str, Value)> {
    vec![
        ("bdev_aio_create", json!({"name": "a", "filename": "disk.img", "block_size": 512})),
        ("bdev_malloc_create", json!({"name": "m", "num_blocks": 2048, "block_size": 512})),
        ("bdev_split_create", json!({"base_bdev": "m", "split_count": 2})),
        ("nbd_listen", json!({"address": "unix:second.sock"})),
        ("nbd_export", json!({"bdev_name": "a"})),
        ("framework_disable_cpumask_locks", Value::Null),
        ("framework_enable_cpumask_locks", Value::Null),
        ("spdk_kill_instance", json!({"sig_name": "SIGHUP"})),
        ("framework_get_config", json!({"name": "bdev"})),
        ("nbd_unexport", json!({"name": "a"})),
        ("bdev_aio_delete", json!({"name": "a"})),
    ]
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("disk.img")).unwrap().set_len(8 << 20).unwrap();
    fs::write(folder.path().join("key"), "secret").unwrap();
    folder
}

/// A start, every method, and an end in order, after which only the kept files are there and the log is whole.
fn lives_and_ends(folder: &Path, what: &str) {
    let daemon = Daemon::start(folder, &SERVE, "data");
    let mut rpc = Rpc::connect(&folder.join("rpc.sock")).unwrap();
    for (method, params) in calls() {
        let mut answer = rpc.call(method, &params).unwrap();
        // What a killed process had in the kernel holds the lock of its file for a moment longer.
        for _ in 0..5000 {
            if !matches!(answer, Err((-16, _))) {
                break;
            }
            pause();
            answer = rpc.call(method, &params).unwrap();
        }
        assert!(answer.is_ok(), "{what}: {method}: {answer:?}");
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0), "{what}");
    let mut left: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.retain(|name| !KEPT.contains(&&**name));
    assert_eq!(left, [""; 0], "{what}");
}

#[expect(clippy::disallowed_methods, reason = "a test on plain OS threads waits for the kernel")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// A socket that no process listens on.
fn dead_socket(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

#[test]
fn whatever_files_a_kill_left_the_next_start_takes_over_and_its_end_removes() {
    let dead = i32::MAX.to_ne_bytes();
    let contents: [&[u8]; 4] = [b"", &dead[..2], &dead, b"not a process id"];
    for bits in 0..16 {
        let written = if bits & (2 | 8) == 0 { 1 } else { contents.len() };
        for content in &contents[..written] {
            let folder = folder();
            let path = |name: &str| folder.path().join(name);
            // Each file is there or not: a kill between two of them leaves any of these.
            if bits & 1 != 0 {
                dead_socket(&path("rpc.sock"));
                dead_socket(&path("second.sock"));
            }
            if bits & 2 != 0 {
                fs::write(path("rpc.sock.lock"), content).unwrap();
                fs::write(path("nbd.sock.lock"), content).unwrap();
            }
            if bits & 4 != 0 {
                dead_socket(&path("nbd.sock"));
            }
            if bits & 8 != 0 {
                fs::write(path("spdk_cpu_lock_000"), content).unwrap();
            }
            lives_and_ends(folder.path(), &format!("files {bits:#b} with {content:?}"));
        }
    }
}

#[test]
fn a_daemon_killed_in_the_middle_of_any_method_leaves_what_the_next_start_takes_over() {
    for (at, (method, params)) in calls().into_iter().enumerate() {
        let folder = folder();
        let daemon = Daemon::start(folder.path(), &SERVE, "data");
        let mut rpc = Rpc::connect(&folder.path().join("rpc.sock")).unwrap();
        for (before, params) in calls().iter().take(at) {
            rpc.call(before, params).unwrap().unwrap();
        }
        // It is killed once the call is on its way.
        rpc.ask(method, &params).unwrap();
        let (status, _) = daemon.end(Signal::KILL);
        assert_eq!(status.code(), None, "{method}: it ended by itself");
        lives_and_ends(folder.path(), &format!("killed in {method}"));
    }
}
