//! Configuration files: what is replayed when the daemon starts, and what ends the start.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::clients::Rpc;
use super::serve::certificates;
use super::support::{Daemon, spindle, text};

const SERVE: [&str; 5] = ["serve", "-m", "0x1", "-r", "rpc.sock"];

fn write(folder: &Path, config: &str) {
    std::fs::write(folder.join("config"), config).unwrap();
}

/// Starts with the configuration `config` of the folder.
fn start(folder: &Path, more: &[&str]) -> Daemon {
    Daemon::start(folder, &[&SERVE[..], &["-c", "config"], more].concat(), "control")
}

/// What the daemon says that does not start.
fn refused(folder: &Path, more: &[&str]) -> String {
    let ended = spindle(folder).args(SERVE).args(["-c", "config"]).args(more).output().unwrap();
    assert!(!ended.status.success());
    assert!(!folder.join("rpc.sock").exists());
    text(&ended.stderr)
}

fn names(daemon: &Daemon) -> Vec<String> {
    let answer = text(&daemon.call(&["bdev_get_bdevs"]).stdout);
    let mut names: Vec<String> = answer
        .lines()
        .filter_map(|line| line.trim().strip_prefix("\"name\": \""))
        .map(|rest| rest.trim_end_matches("\",").to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn calls_of_a_configuration_wait_for_what_they_name_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let calls = [
        r#"{"method": "bdev_malloc_create", "params": {"name": "m", "num_blocks": 131072, "block_size": 512}}"#,
        r#"{"method": "bdev_lvol_create_lvstore", "params": {"bdev_name": "m", "lvs_name": "s"}}"#,
        r#"{"method": "bdev_lvol_create", "params": {"lvs_name": "s", "lvol_name": "v", "size_in_mib": 4}}"#,
        r#"{"method": "nbd_export", "params": {"bdev_name": "s/v"}}"#,
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let ordered = order.map(|at| calls[at]).join(", ");
        write(
            folder.path(),
            &format!(r#"{{"subsystems": [{{"subsystem": "bdev", "config": [{ordered}]}}]}}"#),
        );
        let daemon = start(folder.path(), &[]);
        assert_eq!(names(&daemon).len(), 2, "{order:?}");
        assert!(text(&daemon.call(&["nbd_get_exports"]).stdout).contains("s/v"));
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
}

#[test]
fn a_call_may_stand_before_the_one_that_makes_what_it_names_whatever_its_error_is() {
    let latency = r#"{"delay_bdev_name": "d", "latency_type": "p99_read", "latency_us": 5}"#;
    let delay = r#"{"base_bdev_name": "m", "name": "d", "avg_read_latency": 1, "p99_read_latency": 1,
        "avg_write_latency": 1, "p99_write_latency": 1}"#;
    let store = r#"{"bdev_name": "m", "lvs_name": "s"}"#;
    let clone = r#"{"bdev": "n", "lvs_name": "s", "clone_name": "c"}"#;
    let calls = [
        [("bdev_delay_update_latency", latency), ("bdev_delay_create", delay)],
        [
            ("bdev_lvol_rename_lvstore", r#"{"old_name": "s", "new_name": "t"}"#),
            ("bdev_lvol_create_lvstore", store),
        ],
        [("bdev_lvol_clone_bdev", clone), ("bdev_lvol_create_lvstore", store)],
        [
            ("keyring_file_remove_key", r#"{"name": "k"}"#),
            ("keyring_file_add_key", r#"{"name": "k", "path": "/proc/self/environ"}"#),
        ],
        [
            ("bdev_split_delete", r#"{"base_bdev": "m"}"#),
            ("bdev_split_create", r#"{"base_bdev": "m", "split_count": 2}"#),
        ],
        [
            ("bdev_get_histogram", r#"{"name": "m"}"#),
            ("bdev_enable_histogram", r#"{"name": "m", "enable": true}"#),
        ],
        [("bdev_malloc_delete", r#"{"name": "o"}"#), ("bdev_malloc_create", &disk("o"))],
    ];
    let folder = tempfile::tempdir().unwrap();
    for [before, after] in calls {
        let others = [("bdev_malloc_create", &*disk("m")), ("bdev_malloc_create", &*disk("n"))];
        let config = [before, after].into_iter().chain(others);
        let config: Vec<_> = config
            .map(|(method, params)| format!(r#"{{"method": "{method}", "params": {params}}}"#))
            .collect();
        let config = config.join(", ");
        write(
            folder.path(),
            &format!(r#"{{"subsystems": [{{"subsystem": "bdev", "config": [{config}]}}]}}"#),
        );
        let daemon = start(folder.path(), &[]);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0), "{config}");
    }
}

/// A RAM disk of 64 MiB.
fn disk(name: &str) -> String {
    format!(r#"{{"name": "{name}", "num_blocks": 131072, "block_size": 512}}"#)
}

#[test]
fn methods_of_both_states_are_called_once_and_startup_methods_first() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        r#"{ // as SPDK's save_config writes it, with a comment
        "subsystems": [
          {"subsystem": "scheduler", "config": [{"method": "framework_set_scheduler", "params": {"name": "static"}}]},
          {"subsystem": "scheduler", "config": [{"method": "framework_wait_init"}, {"method": "framework_start_init"}]},
          {"subsystem": "accel", "config": [{"method": "accel_set_options", "params": {"small_cache_size": 128}}]},
          {"subsystem": "bdev", "config": [
            [{"method": "bdev_malloc_create", "params": {"name": "m", "num_blocks": 8, "block_size": 512}}], [],
            {"method": "bdev_raid_set_options", "params": {"process_window_size_kb": 1024}},
            {"method": "bdev_set_options", "params": {"bdev_auto_examine": false}},
            {"method": "bdev_wait_for_examine"}]},
          {"subsystem": "nvmf", "config": null}]}"#,
    );
    let daemon = start(folder.path(), &[]);
    assert_eq!(names(&daemon), ["m"]);
    let config = text(&daemon.call(&["framework_get_config", r#"{"name": "bdev"}"#]).stdout);
    assert!(config.contains("\"bdev_auto_examine\": false"), "{config}");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("'accel' is skipped") && log.contains("bdev_raid_set_options is skipped"), "{log}");
}

#[test]
fn a_configuration_with_a_fault_ends_the_start_and_names_it_unless_faults_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let good =
        r#"{"method": "bdev_malloc_create", "params": {"name": "m", "num_blocks": 8, "block_size": 512}}"#;
    let bad = [
        (r#"{"method": "bdev_no_such"}"#, "bdev_no_such: no such method"),
        (r#"{"method": "bdev_nvme_attach_controller"}"#, "NVMe controllers are not reached yet"),
        (r#"{"method": "bdev_malloc_create", "params": {"x": 1}}"#, "no parameter is called 'x'"),
        (r#"{"method": "nbd_export", "params": {"bdev_name": "missing"}}"#, "missing"),
    ];
    for (call, says) in bad {
        let config = format!(r#"{{"subsystems": [{{"subsystem": "bdev", "config": [{call}, {good}]}}]}}"#);
        write(folder.path(), &config);
        let said = refused(folder.path(), &[]);
        assert!(said.contains(says) && said.contains("config: "), "{said}");
        let daemon = start(folder.path(), &["--json-ignore-init-errors"]);
        assert_eq!(names(&daemon), ["m"]);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
    for (config, says) in
        [("{", "ends in the middle"), ("[]", "not an object"), ("{\"subsystems\": 1}", "not an array")]
    {
        write(folder.path(), config);
        let said = refused(folder.path(), &["--json-ignore-init-errors"]);
        assert!(said.contains(says), "{said}");
    }
    std::fs::remove_file(folder.path().join("config")).unwrap();
    assert!(refused(folder.path(), &[]).contains("cannot be read"));
}

#[test]
fn what_is_no_configuration_is_refused_with_the_reason_and_read_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    for (script, says) in [
        ("mkdir config", "it is a folder"),
        ("mkfifo config", "nothing came through the pipe"),
        ("ln -s /dev/zero config", "it is a character device"),
        ("ln -s /dev/null config", "it is a character device"),
        ("truncate -s 65M config", "more than 64 MiB"),
        ("truncate -s 100G config", "more than 64 MiB"),
        ("printf '\\377' > config", "byte 0 is not UTF-8"),
        ("ln -s missing config", "there is no such file"),
    ] {
        let make = format!("rm -rf config; {script}");
        let made = std::process::Command::new("sh").args(["-ec", &make]).current_dir(folder.path()).status();
        assert!(made.unwrap().success(), "{script}");
        let said = refused(folder.path(), &[]);
        assert!(
            said.contains("config: ") && said.contains(says) && said.lines().count() == 1,
            "{script}: {said}"
        );
    }
}

#[test]
fn a_configuration_may_come_through_a_pipe_whose_writer_takes_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"exec "$0" serve -m 0x1 -r rpc.sock -c <(while ! [ -e rpc.sock.lock ] && [ $((i++)) -lt 500 ]; do :; done
        echo '{"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_malloc_create", "params": {"name": "m", "num_blocks": 8, "block_size": 512}}]}]}')"#;
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_spindle")]).current_dir(folder.path());
    let daemon = Daemon::start_command(folder.path(), bash, "control");
    assert_eq!(names(&daemon), ["m"]);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn a_configuration_that_fails_after_framework_start_init_ends_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        r#"{"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_examine", "params": {"name": "x"}}]}]}"#,
    );
    let daemon = start(folder.path(), &["--wait-for-rpc"]);
    let answer = daemon.call(&["framework_start_init"]);
    assert!(!answer.status.success());
    assert!(text(&answer.stderr).contains("bdev_examine"), "{answer:?}");
    let (status, _) = daemon.wait();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn only_allowed_methods_are_there_for_clients_and_for_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), r#"{"subsystems": []}"#);
    let daemon = start(folder.path(), &["--rpcs-allowed", "bdev_get_bdevs,rpc_get_methods"]);
    let listed = text(&daemon.call(&["rpc_get_methods"]).stdout);
    assert!(listed.contains("bdev_get_bdevs") && !listed.contains("bdev_malloc_create"), "{listed}");
    let refusal = daemon.call(&["spdk_get_version"]);
    assert!(text(&refusal.stderr).contains("Method not found"), "{refusal:?}");
    assert!(text(&refusal.stderr).contains("it is not among --rpcs-allowed"), "{refusal:?}");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    write(
        folder.path(),
        r#"{"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_wait_for_examine"}]}]}"#,
    );
    assert!(refused(folder.path(), &["--rpcs-allowed", "bdev_get_bdevs"]).contains("bdev_wait_for_examine"));
}

/// Writes the configuration that the daemon has now, as `save_config` of SPDK's client does.
fn save(folder: &Path) {
    let mut rpc = Rpc::connect(&folder.join("rpc.sock")).unwrap();
    let subsystem = |name: &str| {
        let config = rpc.done("framework_get_config", &json!({"name": name})).unwrap();
        json!({"subsystem": name, "config": config})
    };
    let subsystems: Vec<Value> = ["bdev", "nbd"].map(subsystem).into();
    write(folder, &json!({"subsystems": subsystems}).to_string());
}

/// The names of the exports.
fn exports(daemon: &Daemon) -> Vec<String> {
    let answer = daemon.call(&["nbd_get_exports"]).stdout;
    let exports: Vec<Value> = serde_json::from_slice(&answer).unwrap();
    exports.iter().map(|export| export["name"].as_str().unwrap().to_owned()).collect()
}

/// The TCP address in the URI of an export. An address of its own in the test, so that its port stays free between daemons.
fn tcp_address(daemon: &Daemon, scheme: &str) -> String {
    let exports: Value = serde_json::from_slice(&daemon.call(&["nbd_get_exports"]).stdout).unwrap();
    let uris = exports[0]["uris"].as_array().unwrap();
    let rest = uris.iter().find_map(|uri| uri.as_str().unwrap().strip_prefix(scheme)).unwrap();
    rest.split('/').next().unwrap().to_owned()
}

fn make_disk(folder: &Path, name: &str) {
    std::fs::File::create(folder.join(name)).unwrap().set_len(1 << 20).unwrap();
}

#[test]
fn a_saved_configuration_and_the_options_with_which_it_was_saved_start_a_daemon_together() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("b")).unwrap();
    ["d.img", "b/d.img"].iter().for_each(|name| make_disk(folder, name));
    let options = ["--file", "d.img", "--file", "b/d.img", "--nbd", "unix:nbd.sock", "--nbd", "127.7.7.7:0"];
    let daemon = Daemon::start(folder, &[&SERVE[..], &options].concat(), "control");
    let tcp = tcp_address(&daemon, "nbd://");
    save(folder);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));

    let (absolute_socket, absolute_disk) = (folder.join("nbd.sock"), folder.join("d.img"));
    let absolute_socket = format!("unix:{}", absolute_socket.display());
    let absolute_disk = absolute_disk.to_str().unwrap();
    std::os::unix::fs::symlink("b/d.img", folder.join("link.img")).unwrap();
    for (more, served) in [
        (&["--nbd", &*tcp, "--nbd", "unix:nbd.sock"][..], &["b/d.img", "d.img"][..]),
        (&["--nbd", &*absolute_socket], &["b/d.img", "d.img"]),
        (&["--file", "d.img", "--file", "b/d.img", "--nbd", &*tcp], &["b/d.img", "d.img"]),
        (&["--file", absolute_disk, "--nbd", "unix:nbd.sock"], &["b/d.img", "d.img"]),
        (&["--file", "link.img", "--nbd", "unix:nbd.sock"], &["b/d.img", "d.img", "link.img"]),
    ] {
        let daemon = start(folder, more);
        assert_eq!(exports(&daemon), served, "{more:?}");
        assert_eq!(names(&daemon), ["b/d.img", "d.img"], "{more:?}");
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
}

#[test]
fn a_file_of_which_the_configuration_makes_a_bdev_is_exported_as_that_bdev() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ["d.img", "e.img"].iter().for_each(|name| make_disk(folder, name));
    let make = |name: &str, file: &str| json!({"method": "bdev_aio_create", "params": {"name": name, "filename": file, "block_size": 4096}});
    let calls = [
        make("A", "d.img"),
        make("e", "e.img"),
        json!({"method": "nbd_export", "params": {"bdev_name": "e", "name": "d.img"}}),
    ];
    write(folder, &json!({"subsystems": [{"subsystem": "bdev", "config": calls}]}).to_string());
    let nbd = ["--nbd", "unix:nbd.sock"];
    let daemon = start(folder, &[&["--file", "e.img"][..], &nbd].concat());
    assert_eq!((exports(&daemon), names(&daemon).len()), (vec!["d.img".into(), "e.img".into()], 2));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    // The name of the file is that of another export.
    let daemon = start(folder, &[&["--file", "./d.img"][..], &nbd].concat());
    assert_eq!((exports(&daemon), names(&daemon).len()), (vec!["./d.img".into(), "d.img".into()], 2));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let said = refused(folder, &[&["--file", "d.img"][..], &nbd].concat());
    assert!(said.contains("the file d.img cannot be served") && said.contains("another path"), "{said}");
    let said = refused(folder, &[&["--file", "e.img", "--file", "./e.img"][..], &nbd].concat());
    assert!(said.contains("the file e.img is given twice, also as ./e.img; remove one"), "{said}");
}

#[test]
fn an_address_of_the_configuration_is_that_of_an_option_only_with_the_same_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !certificates(folder) {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    make_disk(folder, "d.img");
    let options = ["--file", "d.img", "--nbd", "127.7.7.8:0", "--nbd-tls", "."];
    let daemon = Daemon::start(folder, &[&SERVE[..], &options].concat(), "control");
    let tcp = tcp_address(&daemon, "nbds://");
    save(folder);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let absolute = folder.to_str().unwrap();
    for tls in [".", absolute] {
        let daemon = start(folder, &["--nbd", &tcp, "--nbd-tls", tls]);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
    let said = refused(folder, &["--nbd", &tcp]);
    assert!(said.contains(&tcp) && said.contains("other TLS settings"), "{said}");
}
