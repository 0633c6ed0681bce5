//! SPDK's own client drives the daemon. `tests/run` installs it; without it the tests say so.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::driven;
use super::support::{Daemon, text};

/// SPDK's `spdk-rpc` of PyPI, in a virtual environment below the target folder, and what it was told to do.
struct Client {
    program: PathBuf,
    /// Commands that succeeded.
    done: RefCell<BTreeSet<String>>,
}

impl Client {
    fn find() -> Option<Client> {
        let program = crate::root().join("target/spdk-client/bin/spdk-rpc");
        if !program.exists() {
            eprintln!("skipped: SPDK's client is not there; tests/run installs it");
            return None;
        }
        Some(Client { program, done: RefCell::default() })
    }

    /// Runs commands in one process; what each printed, and whether it succeeded.
    fn run(&self, daemon: &Daemon, commands: &[&str]) -> Vec<(String, bool)> {
        let mut child = Command::new(&self.program);
        child.arg("--server").current_dir(&daemon.folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let lines: Vec<String> = commands.iter().map(|command| format!("-s rpc.sock {command}\n")).collect();
        child.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
        let said = text(&child.wait_with_output().unwrap().stdout);
        let mut answers = Vec::new();
        let mut answer = String::new();
        for line in said.lines() {
            match line.strip_prefix("**STATUS=") {
                None => answer.push_str(&format!("{line}\n")),
                Some(status) => answers.push((std::mem::take(&mut answer), status == "0")),
            }
        }
        for (command, (_, succeeded)) in commands.iter().zip(&answers) {
            if *succeeded {
                self.done.borrow_mut().extend(command.split(' ').next().map(str::to_owned));
            }
        }
        answers
    }

    /// As [`run`](Self::run), and all succeed.
    fn succeed(&self, daemon: &Daemon, commands: &[&str]) -> Vec<String> {
        let answers = self.run(daemon, commands);
        assert_eq!(answers.len(), commands.len(), "{answers:?}");
        for (command, (answer, succeeded)) in commands.iter().zip(&answers) {
            assert!(succeeded, "{command}: {answer}");
        }
        answers.into_iter().map(|(answer, _)| answer).collect()
    }

    /// As [`succeed`](Self::succeed), one command in a new process.
    fn one(&self, daemon: &Daemon, command: &str) -> String {
        self.succeed(daemon, &[command]).remove(0)
    }

    /// Holds the table of methods to what was done.
    fn note(&self, test: &str) {
        driven::note(test, &self.done.borrow());
    }
}

fn start(folder: &Path, more: &[&str]) -> Daemon {
    let serve = ["serve", "-m", "0x1", "-r", "rpc.sock", "--core-lock-folder", "."];
    Daemon::start(folder, &[&serve[..], more].concat(), "control")
}

fn file(folder: &Path, name: &str, mib: u64) {
    std::fs::File::create(folder.join(name)).unwrap().set_len(mib << 20).unwrap();
}

#[test]
fn spdks_client_takes_a_volume_through_its_life_on_a_file() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "disk", 256);
    let daemon = start(folder.path(), &[]);
    let answers = client.succeed(
        &daemon,
        &[
            "spdk_get_version",
            "rpc_get_methods",
            "framework_wait_init",
            "framework_get_reactors",
            "thread_get_stats",
            "notify_get_types",
            "bdev_aio_create disk base 4096",
            "bdev_lvol_create_lvstore base lvs -c 1048576",
            "bdev_lvol_create -l lvs vol 32 -t",
            "bdev_lvol_snapshot lvs/vol snap",
            "bdev_lvol_clone lvs/snap clone",
            "bdev_lvol_resize lvs/clone 64",
            "bdev_lvol_rename lvs/clone copy",
            "bdev_lvol_inflate lvs/copy",
            "bdev_set_qos_limit lvs/copy --rw-ios-per-sec 2000",
            "bdev_get_iostat --names lvs/copy",
            "bdev_get_bdevs -b lvs/copy",
            "bdev_lvol_get_lvols -l lvs",
            "notify_get_notifications",
        ],
    );
    assert!(
        answers[16].contains("\"num_blocks\": 16384") && answers[16].contains("\"rw_ios_per_sec\": 2000")
    );
    assert!(
        answers[17].contains("lvs/snap") && answers[17].contains("\"num_allocated_clusters\": 64"),
        "{}",
        answers[17]
    );
    let refused = client.run(&daemon, &["bdev_lvol_delete lvs/nope", "bdev_lvol_resize lvs/copy 100000"]);
    assert!(refused.iter().all(|(_, succeeded)| !succeeded), "{refused:?}");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));

    let daemon = start(folder.path(), &[]);
    let answers = client.succeed(
        &daemon,
        &[
            "bdev_aio_create disk base 4096",
            "bdev_wait_for_examine",
            "bdev_lvol_get_lvols",
            "bdev_lvol_set_read_only lvs/copy",
            "bdev_lvol_delete lvs/copy",
            "bdev_lvol_delete lvs/vol",
            "bdev_lvol_delete lvs/snap",
            "bdev_lvol_rename_lvstore lvs store",
            "bdev_lvol_get_lvstores",
            "bdev_lvol_delete_lvstore -l store",
            "bdev_aio_delete base",
            "bdev_get_bdevs",
        ],
    );
    for name in ["lvs/vol", "lvs/snap", "lvs/copy"] {
        assert!(answers[2].contains(name), "{}", answers[2]);
    }
    assert!(answers[8].contains("\"store\""), "{}", answers[8]);
    assert_eq!(answers[11].trim(), "[]");
    assert_eq!(client.run(&daemon, &["spdk_kill_instance SIGTERM"]).len(), 1);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    client.note("spdks_client_takes_a_volume_through_its_life_on_a_file");
}

#[test]
fn spdks_client_gives_volumes_other_parents_and_copies_them() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "disk", 128);
    let daemon = start(folder.path(), &[]);
    let answers = client.succeed(
        &daemon,
        &[
            "bdev_aio_create disk base 4096",
            "bdev_malloc_create -b outside 4 4096",
            "bdev_malloc_create -b target 4 4096",
            "bdev_lvol_create_lvstore base lvs -c 1048576",
            "bdev_lvol_clone_bdev outside lvs clone",
            "bdev_lvol_create -l lvs other 4 -t",
            "bdev_lvol_set_parent_bdev lvs/other outside",
            "bdev_lvol_snapshot lvs/clone snap",
            "bdev_lvol_set_parent lvs/other lvs/snap",
            "bdev_get_bdevs -b lvs/other",
            "bdev_lvol_decouple_parent lvs/other",
            "bdev_lvol_inflate lvs/other",
            "bdev_lvol_set_read_only lvs/other",
            "bdev_lvol_start_shallow_copy lvs/other target",
        ],
    );
    assert!(answers[9].contains("\"base_snapshot\": \"snap\""), "{}", answers[9]);
    assert!(answers[13].contains("\"operation_id\": 1"), "{}", answers[13]);
    let mut progress = client.one(&daemon, "bdev_lvol_check_shallow_copy 1");
    while progress.contains("in progress") {
        progress = client.one(&daemon, "bdev_lvol_check_shallow_copy 1");
    }
    assert!(progress.contains("\"state\": \"complete\""), "{progress}");
    assert!(progress.contains("\"copied_clusters\": 4"), "{progress}");
    file_grows(folder.path(), "disk", 256);
    client.succeed(&daemon, &["bdev_aio_rescan base", "bdev_lvol_grow_lvstore -l lvs"]);
    let refused = client.run(
        &daemon,
        &[
            "bdev_lvol_clone_bdev nope lvs x",
            "bdev_lvol_clone_bdev lvs/other lvs x",
            "bdev_lvol_set_parent lvs/other lvs/other",
            "bdev_lvol_set_parent_bdev lvs/other base",
            "bdev_lvol_start_shallow_copy lvs/other base",
            "bdev_lvol_check_shallow_copy 1",
        ],
    );
    assert!(refused.iter().all(|(_, succeeded)| !succeeded), "{refused:?}");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    client.note("spdks_client_gives_volumes_other_parents_and_copies_them");
}

fn file_grows(folder: &Path, name: &str, mib: u64) {
    std::fs::File::options().write(true).open(folder.join(name)).unwrap().set_len(mib << 20).unwrap();
}

#[test]
fn spdks_client_makes_bdevs_of_each_kind_and_asks_what_they_did() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "disk", 16);
    let daemon = start(folder.path(), &[]);
    client.succeed(
        &daemon,
        &[
            "bdev_uring_create disk file 4096",
            "bdev_malloc_create -b ram 16 512",
            "bdev_null_create nothing 16 512",
            "bdev_null_resize nothing 32",
        ],
    );
    file_grows(folder.path(), "disk", 32);
    let answers = client.succeed(
        &daemon,
        &[
            "bdev_uring_rescan file",
            "bdev_get_bdevs",
            "bdev_enable_histogram --histogram ram",
            "bdev_get_histogram ram",
            "bdev_get_histogram_borders --borders 10,100 ram",
            "bdev_enable_histogram --no-histogram ram",
            "bdev_set_qd_sampling_period ram 1000",
            "bdev_get_iostat",
            "bdev_reset_iostat",
            "bdev_set_qos_limit ram --r-mbytes-per-sec 100",
            "bdev_malloc_delete ram",
            "bdev_null_delete nothing",
            "bdev_uring_delete file",
            "bdev_get_bdevs",
        ],
    );
    assert!(answers[1].contains("\"num_blocks\": 8192") && answers[1].contains("\"num_blocks\": 65536"));
    assert!(answers[3].contains("\"tsc_rate\": 1000000000"), "{}", answers[3]);
    assert!(answers[4].contains("borders_count"), "{}", answers[4]);
    assert_eq!(answers[13].trim(), "[]");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    client.note("spdks_client_makes_bdevs_of_each_kind_and_asks_what_they_did");
}

#[test]
fn spdks_client_puts_bdevs_on_others() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path(), &[]);
    let answers = client.succeed(
        &daemon,
        &[
            "bdev_malloc_create -b ram 16 512",
            "bdev_passthru_create -b ram -p over",
            "bdev_delay_create -b over -d late -r 10 -t 20 -w 10 -n 20",
            "bdev_delay_update_latency late p99_read 30",
            "bdev_error_create late",
            "bdev_error_inject_error EE_late read failure -n 1",
            "bdev_error_resume_pending EE_late",
            "bdev_split_create EE_late 2",
            "bdev_get_bdevs -b EE_latep1",
            "save_config",
        ],
    );
    assert!(answers[8].contains("\"num_blocks\": 16384"), "{}", answers[8]);
    std::fs::write(folder.path().join("config"), &answers[9]).unwrap();
    client.succeed(
        &daemon,
        &[
            "bdev_split_delete EE_late",
            "bdev_error_delete EE_late",
            "bdev_delay_delete late",
            "bdev_passthru_delete over",
        ],
    );
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    // The configuration has them before their bases.
    let daemon = start(folder.path(), &["-c", "config"]);
    assert_eq!(sorted(&client.one(&daemon, "save_config")), sorted(&answers[9]));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    client.note("spdks_client_puts_bdevs_on_others");
}

#[test]
fn spdks_client_asks_the_framework_and_sets_what_it_keeps() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path(), &["--wait-for-rpc"]);
    client.succeed(
        &daemon,
        &[
            "bdev_set_options --no-auto-examine",
            "iobuf_set_options --small-pool-count 4096",
            "scheduler_set_options -s 0",
            "framework_start_init",
            "framework_wait_init",
            "bdev_malloc_create -b ram 16 512",
            "bdev_examine -b ram",
            "framework_get_subsystems",
            "framework_get_config bdev",
            "framework_get_scheduler",
            "framework_set_scheduler static",
            "framework_get_governor",
            "framework_monitor_context_switch",
            "framework_disable_cpumask_locks",
            "framework_enable_cpumask_locks",
            "framework_get_reactors",
            "thread_get_pollers",
            "thread_get_io_channels",
            "iobuf_get_stats",
            "log_set_flag bdev",
            "log_clear_flag bdev",
            "log_get_flags",
            "log_set_level INFO",
            "log_get_level",
            "log_set_print_level ERROR",
            "log_get_print_level",
            "log_enable_timestamps --timestamps",
            "bdev_nvme_get_controllers",
            "bdev_nvme_set_hotplug --no-hotplug",
            "trace_get_info",
            "trace_get_tpoint_group_mask",
            "trace_enable_tpoint_group all",
            "trace_disable_tpoint_group all",
            "trace_set_tpoint_mask all 0x3",
            "trace_clear_tpoint_mask all 0x3",
            "trace_clear",
        ],
    );
    let threads = client.one(&daemon, "thread_get_stats");
    let id = threads.split("\"id\": ").nth(1).unwrap().split([',', '\n']).next().unwrap();
    client.one(&daemon, &format!("thread_set_cpumask -i {id} -m 0x1"));
    let config = client.one(&daemon, "framework_get_config bdev");
    assert!(config.contains("\"bdev_auto_examine\": false"), "{config}");
    // It ends before the client has its answer, or after.
    client.run(&daemon, &["spdk_kill_instance SIGTERM"]);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    client.done.borrow_mut().insert("spdk_kill_instance".to_owned());
    client.note("spdks_client_asks_the_framework_and_sets_what_it_keeps");
}

#[test]
fn spdks_client_sets_options_of_sockets_and_adds_keys() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "NVMeTLSkey-1:01:").unwrap();
    let key = key.to_str().unwrap();
    let daemon = start(folder.path(), &["--wait-for-rpc"]);
    let answers = client.succeed(
        &daemon,
        &[
            "sock_get_default_impl",
            "sock_set_default_impl -i posix",
            "sock_impl_set_options -i posix -r 65536 --quickack",
            "sock_impl_get_options -i posix",
            "framework_start_init",
        ],
    );
    assert!(answers[0].contains("\"impl_name\": \"posix\""), "{}", answers[0]);
    for set in ["\"recv_buf_size\": 65536", "\"send_buf_size\": 2097152", "\"enable_quickack\": true"] {
        assert!(answers[3].contains(set), "{}", answers[3]);
    }
    let add = format!("keyring_file_add_key k {key}");
    // Others may read it.
    assert!(!client.run(&daemon, &[&add])[0].1);
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).unwrap();
    let answers = client.succeed(&daemon, &[&add, "keyring_get_keys"]);
    assert!(
        answers[1].contains("\"module\": \"keyring_file\"") && answers[1].contains(key),
        "{}",
        answers[1]
    );
    let refused = client.run(&daemon, &[&add, "keyring_file_add_key r key", "keyring_file_remove_key x"]);
    assert!(refused.iter().all(|(_, succeeded)| !succeeded), "{refused:?}");
    let saved = client.one(&daemon, "save_config");
    assert_eq!(client.succeed(&daemon, &["keyring_file_remove_key k", "keyring_get_keys"])[1].trim(), "[]");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    std::fs::write(folder.path().join("config"), &saved).unwrap();
    let daemon = start(folder.path(), &["-c", "config"]);
    assert_eq!(client.one(&daemon, "save_config"), saved);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    client.note("spdks_client_sets_options_of_sockets_and_adds_keys");
}

#[test]
fn spdks_client_sees_how_long_reactors_were_busy_and_idle_and_how_old_their_threads_are() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path(), &[]);
    let ask = || -> Value { serde_json::from_str(&client.one(&daemon, "framework_get_reactors")).unwrap() };
    let (earlier, later) = (ask(), ask());
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{name} of {of}"));
    let total = |reactor: &Value| number(reactor, "busy") + number(reactor, "idle");
    let [before, after] = [&earlier, &later].map(|answer| &answer["reactors"][0]);
    assert!(
        number(after, "busy") > number(before, "busy") && total(after) > total(before),
        "{before} {after}"
    );
    assert!(after["in_interrupt"].is_boolean() && after["numa_id"].is_i64(), "{after}");
    for name in ["lcore", "tid", "irq", "sys", "usr"] {
        number(after, name);
    }
    let threads = after["lw_threads"].as_array().unwrap();
    assert!(!threads.is_empty());
    for thread in threads {
        assert!(number(thread, "id") > 0 && thread["name"].is_string(), "{thread}");
        assert_eq!(thread["cpumask"], "1", "{thread}");
        // A thread is as old as its reactor at most, and older than the time for which that was busy.
        let elapsed = number(thread, "elapsed");
        assert!(elapsed > number(after, "busy") && elapsed <= total(after), "{thread} of {after}");
    }
}

#[test]
fn a_configuration_that_spdks_client_saved_brings_the_daemon_back() {
    let Some(client) = Client::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "disk", 64);
    file(folder.path(), "other", 16);
    let daemon = start(folder.path(), &[]);
    client.succeed(
        &daemon,
        &[
            "bdev_aio_create disk base 4096",
            "bdev_lvol_create_lvstore base lvs -c 1048576",
            "bdev_lvol_create -l lvs vol 8",
            // Their bases come in another order than they did.
            "bdev_aio_create other second 4096",
            "bdev_passthru_create -b second -p over_second",
            "bdev_malloc_create -b ram 16 512",
            "bdev_split_create ram 2",
            "bdev_null_create nothing 16 512",
            "bdev_passthru_create -b nothing -p over",
            "bdev_set_qos_limit ram --rw-ios-per-sec 3000",
            "bdev_enable_histogram --histogram ram -o read",
        ],
    );
    let export = daemon.call(&["nbd_export", r#"{"bdev_name": "lvs/vol", "name": "vol"}"#]);
    assert!(export.status.success(), "{export:?}");
    assert!(daemon.call(&["nbd_listen", r#"{"address": "unix:nbd.sock"}"#]).status.success());
    let saved = client.one(&daemon, "save_config");
    let before = client.one(&daemon, "bdev_get_bdevs");
    let batches = client.one(&daemon, "save_config --with-batches");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));

    for config in [&saved, &batches] {
        std::fs::write(folder.path().join("config"), config).unwrap();
        // The daemon reads it,
        let daemon = start(folder.path(), &["-c", "config"]);
        assert_eq!(sorted(&client.one(&daemon, "bdev_get_bdevs")), sorted(&before));
        assert_eq!(client.one(&daemon, "save_config"), saved);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
        // or the client sends it,
        let daemon = start(folder.path(), &["--wait-for-rpc"]);
        client.one(&daemon, "load_config -j config");
        assert_eq!(client.one(&daemon, "save_config"), saved);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
        // or it starts the framework, which reads the rest.
        let daemon = start(folder.path(), &["--wait-for-rpc", "-c", "config"]);
        client.one(&daemon, "framework_start_init");
        assert_eq!(client.one(&daemon, "save_config"), saved);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
}

/// The lines of an answer whose order may be another.
fn sorted(answer: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = answer.lines().map(|line| line.trim_end_matches(',')).collect();
    lines.sort_unstable();
    lines
}
