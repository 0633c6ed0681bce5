//! SPDK's own client takes a volume through its life. `tests/run` installs it; without it the test says so.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Daemon, text};

/// SPDK's `spdk-rpc` of PyPI, in a virtual environment below the target folder.
fn client() -> Option<PathBuf> {
    let client = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/spdk-client/bin/spdk-rpc");
    if !client.exists() {
        eprintln!("skipped: SPDK's client is not there; tests/run installs it");
        return None;
    }
    Some(client)
}

/// Runs commands in one process of the client; what each printed, and whether it succeeded.
fn run(client: &PathBuf, daemon: &Daemon, commands: &[&str]) -> Vec<(String, bool)> {
    let mut child = Command::new(client);
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
    answers
}

/// As [`run`], and all succeed.
fn succeed(client: &PathBuf, daemon: &Daemon, commands: &[&str]) -> Vec<String> {
    let answers = run(client, daemon, commands);
    assert_eq!(answers.len(), commands.len(), "{answers:?}");
    for (command, (answer, succeeded)) in commands.iter().zip(&answers) {
        assert!(succeeded, "{command}: {answer}");
    }
    answers.into_iter().map(|(answer, _)| answer).collect()
}

#[test]
fn spdks_client_takes_a_volume_through_its_life_on_a_file() {
    let Some(client) = client() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::File::create(folder.path().join("disk")).unwrap().set_len(256 << 20).unwrap();
    let start = || Daemon::start(folder.path(), &["serve", "-m", "0x1", "-r", "rpc.sock"], "control");
    let daemon = start();
    let answers = succeed(
        &client,
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
    let refused = run(&client, &daemon, &["bdev_lvol_delete lvs/nope", "bdev_lvol_resize lvs/copy 100000"]);
    assert!(refused.iter().all(|(_, succeeded)| !succeeded), "{refused:?}");
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));

    let daemon = start();
    let answers = succeed(
        &client,
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
    assert_eq!(run(&client, &daemon, &["spdk_kill_instance SIGTERM"]).len(), 1);
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}
