//! What the daemon says of itself, and where.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::clients::{Nbd, Rpc};
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
fn a_stop_in_order_warns_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&SERVE[..], &["--log-file", "it.log", "--nbd", "unix:nbd.sock"]].concat();
    let daemon = Daemon::start(folder.path(), &arguments, "control");
    for call in [
        ["bdev_malloc_create", r#"{"name": "M0", "block_size": 512, "num_blocks": 65536}"#],
        ["bdev_lvol_create_lvstore", r#"{"bdev_name": "M0", "lvs_name": "lvs", "cluster_sz": 65536}"#],
        ["bdev_lvol_create", r#"{"lvs_name": "lvs", "lvol_name": "v", "size_in_mib": 1}"#],
        ["nbd_export", r#"{"bdev_name": "lvs/v"}"#],
    ] {
        assert!(daemon.call(&call).status.success(), "{call:?}");
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let said = fs::read_to_string(folder.path().join("it.log")).unwrap();
    // The system may allow fewer open files than all clients would take: that is a warning of the start.
    let warned = said.lines().any(|line| line.contains("WARNING") && !line.contains("LimitNOFILE"));
    assert!(said.contains("ended in order") && !warned, "{said}");
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
fn each_flag_says_what_its_part_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::File::create(path("disk.img")).unwrap().set_len(8 << 20).unwrap();
    fs::File::create(path("other.img")).unwrap().set_len(8 << 20).unwrap();
    fs::write(path("key"), "secret").unwrap();
    fs::set_permissions(path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let arguments = [&SERVE[..], &["--nbd", "unix:nbd.sock", "-L", "all"]].concat();
    let daemon = Daemon::start(folder.path(), &arguments, "data");
    let mut rpc = Rpc::connect(&path("rpc.sock")).unwrap();
    let disk = json!({"name": "disk", "filename": "disk.img", "block_size": 512});
    for (method, params) in [
        ("bdev_aio_create", disk.clone()),
        ("bdev_uring_create", json!({"name": "uring", "filename": "other.img", "block_size": 512})),
        ("bdev_malloc_create", json!({"name": "malloc", "num_blocks": 2048, "block_size": 512})),
        ("bdev_null_create", json!({"name": "null", "num_blocks": 2048, "block_size": 512})),
        ("bdev_split_create", json!({"base_bdev": "malloc", "split_count": 2})),
        ("bdev_passthru_create", json!({"base_bdev_name": "mallocp0", "name": "passthru"})),
        (
            "bdev_delay_create",
            json!({"base_bdev_name": "mallocp1", "name": "delay", "avg_read_latency": 0, "p99_read_latency": 0,
                   "avg_write_latency": 0, "p99_write_latency": 0}),
        ),
        ("bdev_lvol_create_lvstore", json!({"bdev_name": "disk", "lvs_name": "lvs", "cluster_sz": 65536})),
        ("bdev_lvol_create", json!({"lvs_name": "lvs", "lvol_name": "vol", "size_in_mib": 1})),
        ("bdev_aio_delete", json!({"name": "disk"})),
        ("bdev_aio_create", disk),
        ("bdev_wait_for_examine", Value::Null),
        ("keyring_file_add_key", json!({"name": "key", "path": path("key")})),
        ("nbd_export", json!({"bdev_name": "null"})),
        ("notify_get_types", Value::Null),
        ("framework_get_reactors", Value::Null),
    ] {
        rpc.done(method, &params).unwrap();
    }
    drop(Nbd::connect(&path("nbd.sock"), "null").unwrap());
    let flags = rpc.done("log_get_flags", &Value::Null).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let said = fs::read_to_string(path("log")).unwrap();
    let parts: BTreeSet<String> = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["part"].as_str().unwrap().to_owned())
        .collect();
    for flag in flags.as_object().unwrap().keys() {
        // There is no partition here.
        assert!(parts.contains(flag) || flag == "vbdev_gpt", "{flag}: {said}");
    }
    assert!(said.contains("export \\\"null\\\" is there") && said.contains("uses export"), "{said}");
}

#[test]
fn a_log_file_gets_what_the_flags_ask_for_as_standard_error_does() {
    let folder = tempfile::tempdir().unwrap();
    let args = [&SERVE[..], &["--log-file", "it.log", "-L", "rpc"]].concat();
    let daemon = Daemon::start(folder.path(), &args, "control");
    assert!(daemon.call(&["spdk_get_version"]).status.success());
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let said = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(said("it.log").contains("spdk_get_version: done"), "{}", said("it.log"));
    assert_eq!(said("it.log"), said("log"));
}

#[test]
fn a_dump_is_a_line_of_the_log_in_its_form() {
    for (form, call) in [("json", true), ("json", false), ("human", true), ("human", false)] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let quiet = ["--log-format", form, "--silence-noticelog"];
        let daemon = Daemon::start(folder.path(), &[&SERVE[..], &quiet].concat(), "control");
        match call {
            true => {
                let called = daemon.call(&["spdk_kill_instance", r#"{"sig_name": "SIGUSR1"}"#]);
                assert!(called.status.success(), "{called:?}");
            }
            false => kill_process(Pid::from_raw(daemon.pid() as i32).unwrap(), Signal::USR1).unwrap(),
        }
        until_said(&log, "app_thread");
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
        let said = fs::read_to_string(&log).unwrap();
        if form == "json" {
            let line: Value = serde_json::from_str(said.trim_end()).unwrap();
            assert_eq!((&line["part"], &line["level"]), (&json!("runtime"), &json!("NOTICE")));
            assert!(line["message"].as_str().unwrap().lines().count() > 1, "{said}");
        } else {
            assert!(said.lines().count() > 1 && !said.starts_with('{'), "{said}");
        }
    }
}

#[test]
fn a_log_that_cannot_be_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    for (arguments, says) in [
        (["--log-file", "no/such/log"], "the log no/such/log cannot be opened"),
        (["--log-file", "fifo"], "a FIFO that nothing reads; start its reader first"),
        (["-L", "nope"], "there is no log flag 'nope'"),
    ] {
        let run = spindle(folder.path()).args(SERVE).args(arguments).output().unwrap();
        assert!(!run.status.success() && text(&run.stderr).contains(says), "{}", text(&run.stderr));
    }
}

/// The lines of a log at a level, of a part.
fn lines_of(log: &Path, level: &str, part: &str) -> Vec<String> {
    let said = fs::read_to_string(log).unwrap();
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted = lines.filter(|line| line["level"] == level && line["part"] == part);
    wanted.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_disk_that_fails_is_one_line_of_the_log_however_many_requests_fail() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let disk = fs::File::create(path("disk.img")).unwrap();
    disk.set_len(8 << 20).unwrap();
    let arguments = [&SERVE[..], &["--nbd", "unix:nbd.sock"]].concat();
    let daemon = Daemon::start(folder.path(), &arguments, "data");
    let mut rpc = Rpc::connect(&path("rpc.sock")).unwrap();
    rpc.done("bdev_aio_create", &json!({"name": "disk", "filename": "disk.img", "block_size": 512})).unwrap();
    rpc.done("nbd_export", &json!({"bdev_name": "disk"})).unwrap();
    disk.set_len(1 << 20).unwrap();
    let mut client = Nbd::connect(&path("nbd.sock"), "disk").unwrap();
    for block in 0..50 {
        assert_eq!(client.read_fails((4 << 20) + block * 512, 512).unwrap(), 5);
    }
    drop(client);
    let said = lines_of(&path("log"), "ERROR", "bdev");
    let [said] = &said[..] else { panic!("{said:?}") };
    for words in ["read of 512 bytes at offset 4194304 of disk.img", "give it its size back"] {
        assert!(said.contains(words), "{said}");
    }
    drop(daemon);
}

#[test]
fn a_store_that_refuses_changes_says_so_in_the_log_once_and_where_stores_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut rpc = Rpc::connect(&path("rpc.sock")).unwrap();
    let volume =
        |name: &str| json!({"lvs_name": "s", "lvol_name": name, "size_in_mib": 1, "thin_provision": true});
    for (method, params) in [
        ("bdev_malloc_create", json!({"name": "M", "num_blocks": 65536, "block_size": 512})),
        ("bdev_error_create", json!({"base_name": "M"})),
        ("bdev_lvol_create_lvstore", json!({"bdev_name": "EE_M", "lvs_name": "s", "cluster_sz": 65536})),
        ("bdev_lvol_create", volume("v")),
    ] {
        rpc.done(method, &params).unwrap();
    }
    let listed = rpc.done("bdev_lvol_get_lvstores", &Value::Null).unwrap();
    assert!(listed[0].get("refuses_changes").is_none(), "{listed}");
    let fails = json!({"name": "EE_M", "io_type": "write", "error_type": "failure", "num": 1000});
    rpc.done("bdev_error_inject_error", &fails).unwrap();
    for name in ["w", "x", "y"] {
        rpc.call("bdev_lvol_create", &volume(name)).unwrap().unwrap_err();
    }
    let why = rpc.done("bdev_lvol_get_lvstores", &Value::Null).unwrap()[0]["refuses_changes"].clone();
    let said = lines_of(&path("log"), "ERROR", "blob");
    assert_eq!(said, [why.as_str().unwrap()]);
    let cleared = json!({"name": "EE_M", "io_type": "clear", "error_type": "failure"});
    rpc.done("bdev_error_inject_error", &cleared).unwrap();
    // As the reason says: the bdev is deleted and created again.
    for word in why.as_str().unwrap().split(|c: char| !c.is_alphanumeric() && c != '_') {
        assert!(!word.starts_with("bdev_") || is_method(&mut rpc, word), "{why}");
    }
    rpc.done("bdev_error_delete", &json!({"name": "EE_M"})).unwrap();
    rpc.done("bdev_error_create", &json!({"base_name": "M"})).unwrap();
    rpc.done("bdev_wait_for_examine", &Value::Null).unwrap();
    rpc.done("bdev_lvol_create", &volume("z")).unwrap();
    drop(daemon);
}

fn is_method(rpc: &mut Rpc, name: &str) -> bool {
    let all = rpc.done("rpc_get_methods", &Value::Null).unwrap();
    all.as_array().unwrap().iter().any(|method| method == name)
}

#[test]
fn a_start_that_fails_for_a_store_that_was_not_loaded_names_the_store_and_the_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let disk = |name: &str| json!({"name": name, "filename": format!("{name}.img"), "block_size": 4096});
    for (name, volume) in [("A", "a"), ("B", "b")] {
        fs::File::create(path(&format!("{name}.img"))).unwrap().set_len(8 << 20).unwrap();
        let daemon = Daemon::start(folder.path(), &SERVE, "control");
        let mut rpc = Rpc::connect(&path("rpc.sock")).unwrap();
        rpc.done("bdev_aio_create", &disk(name)).unwrap();
        let store = json!({"bdev_name": name, "lvs_name": "z", "cluster_sz": 65536});
        rpc.done("bdev_lvol_create_lvstore", &store).unwrap();
        rpc.done("bdev_lvol_create", &json!({"lvs_name": "z", "lvol_name": volume, "size_in_mib": 1}))
            .unwrap();
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
    for last in [
        json!({"method": "nbd_export", "params": {"bdev_name": "z/b"}}),
        json!({"method": "bdev_set_qos_limit", "params": {"name": "z/b", "rw_ios_per_sec": 1000}}),
    ] {
        let create = |name: &str| json!({"method": "bdev_aio_create", "params": disk(name)});
        let calls = [create("A"), create("B"), json!({"method": "bdev_wait_for_examine"}), last];
        let config = json!({"subsystems": [{"subsystem": "bdev", "config": calls}]});
        fs::write(path("config.json"), config.to_string()).unwrap();
        let run = spindle(folder.path()).args(SERVE).args(["-c", "config.json"]).output().unwrap();
        let said = text(&run.stderr);
        assert!(!run.status.success(), "{said}");
        for words in ["z/b", "on bdev \\\"B\\\" is not loaded", "bdev_lvol_rename_lvstore"] {
            assert!(said.contains(words) || said.contains(&words.replace('\\', "")), "{said}: {words}");
        }
    }
}
