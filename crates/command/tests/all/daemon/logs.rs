//! What the daemon says of itself, and where.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Daemon, spindle, text};

const SERVE: [&str; 3] = ["serve", "-r", "rpc.sock"];

/// Reads a file until it contains something.
fn until_said(path: &Path, what: &str) -> String {
    for _ in 0..10_000 {
        let said = fs::read_to_string(path).unwrap_or_default();
        if said.contains(what) {
            return said;
        }
        pause();
    }
    panic!("{}: '{what}' is not said: {:?}", path.display(), fs::read_to_string(path));
}

#[expect(clippy::disallowed_methods, reason = "a test on plain OS threads waits for a process")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// Sends SIGHUP; below nohup, where it stays ignored, by the call that has its effect.
fn hang_up(daemon: &Daemon) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1 {
        let call = daemon.call(&["spdk_kill_instance", r#"{"sig_name": "SIGHUP"}"#]);
        assert!(call.status.success(), "{call:?}");
    } else {
        kill_process(Pid::from_raw(daemon.pid() as i32).unwrap(), Signal::HUP).unwrap();
    }
}

#[test]
fn a_hangup_reopens_the_log_and_the_daemon_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let daemon = Daemon::start(folder.path(), &[&SERVE[..], &["--log-file", "it.log"]].concat(), "control");
    until_said(&path("it.log"), "serving");
    for round in 0..3 {
        let old = path(&format!("it.log.{round}"));
        fs::rename(path("it.log"), &old).unwrap();
        hang_up(&daemon);
        until_said(&path("it.log"), "reopened");
        assert!(daemon.call(&["spdk_get_version"]).status.success());
    }
    let before = fs::read_to_string(path("it.log.2")).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    assert!(fs::read_to_string(path("it.log")).unwrap().contains("ended in order"));
    assert_eq!(fs::read_to_string(path("it.log.2")).unwrap(), before);
}

#[test]
fn flags_and_levels_that_are_set_by_calls_decide_what_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let daemon = Daemon::start(folder.path(), &[&SERVE[..], &["--log-format", "human"]].concat(), "control");
    let call = |arguments: &[&str]| daemon.call(arguments);
    call(&["bdev_get_bdevs"]);
    call(&["log_set_flag", r#"{"flag": "rpc"}"#]);
    call(&["bdev_get_bdevs", r#"{"name": "nope"}"#]);
    call(&["log_set_print_level", r#"{"level": "NOTICE"}"#]);
    call(&["notify_get_types"]);
    call(&["log_set_print_level", r#"{"level": "INFO"}"#]);
    call(&["log_enable_timestamps", r#"{"enabled": false}"#]);
    call(&["spdk_get_version"]);
    drop(daemon);
    let said = fs::read_to_string(&log).unwrap();
    let calls: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once("info rpc: ")?.1)).collect();
    assert_eq!(calls[0], "log_set_flag: done");
    assert!(calls[1].starts_with("bdev_get_bdevs: refused with -19: No such device"), "{said}");
    assert_eq!(
        calls[2..],
        ["log_set_print_level: done", "log_enable_timestamps: done", "spdk_get_version: done"]
    );
    assert!(
        said.ends_with("\ninfo rpc: log_enable_timestamps: done\ninfo rpc: spdk_get_version: done\n"),
        "{said}"
    );
}

#[test]
fn without_a_terminal_every_line_of_the_log_is_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &[&SERVE[..], &["-L", "all"]].concat(), "control");
    daemon.call(&["bdev_get_bdevs"]);
    daemon.end(Signal::TERM);
    let said = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(said.lines().count() >= 4, "{said}");
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let members: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(members.len(), 4, "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["message"].is_string(), "{line}");
    }
    let quiet = Daemon::start(folder.path(), &[&SERVE[..], &["--silence-noticelog"]].concat(), "control");
    quiet.end(Signal::TERM);
    assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), said);
}

#[test]
fn a_log_that_cannot_be_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, says) in [
        (["--log-file", "no/such/log"], "the log no/such/log cannot be opened"),
        (["-L", "nope"], "there is no log flag 'nope'"),
    ] {
        let run = spindle(folder.path()).args(SERVE).args(arguments).output().unwrap();
        assert!(!run.status.success() && text(&run.stderr).contains(says), "{}", text(&run.stderr));
    }
}
