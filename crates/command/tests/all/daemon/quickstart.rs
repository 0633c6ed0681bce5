//! `spindle quickstart`: the screen, the second run, what is in the way.

use std::fs;

use rustix::process::Signal;

use super::bad_input::as_another_user;
use super::support::{Daemon, spindle, text};

fn start(folder: &std::path::Path) -> Daemon {
    Daemon::start(folder, &["quickstart"], "Ready")
}

#[test]
fn the_first_run_makes_a_store_and_the_next_one_opens_it_clean_or_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path());
    for line in [
        "10 GiB, new",
        "8 GiB thin, nothing written",
        "nbd+unix:///demo/vm?socket=",
        "app, metadata, control",
        "In another terminal, here:",
    ] {
        assert!(first.said.contains(line), "{line}: {}", first.said);
    }
    let (status, said) = first.end(Signal::INT);
    assert_eq!(status.code(), Some(0));
    assert!(said.starts_with("Stopped: 0 connections closed, all flushed, store clean ("), "{said}");
    let second = start(folder.path());
    assert!(second.said.contains("opened, last stop clean"), "{}", second.said);
    // A store that nothing changed since it was opened is still clean after a kill.
    let change = r#"{"lvol_name": "demo/vm", "snapshot_name": "monday"}"#;
    let call = ["rpc", "-s", "spindle-quickstart/spdk.sock", "bdev_lvol_snapshot", change];
    assert!(spindle(folder.path()).args(call).status().unwrap().success());
    second.end(Signal::KILL);
    let third = start(folder.path());
    assert!(third.said.contains("recovered in "), "{}", third.said);
    assert!(third.said.contains("8 GiB thin, nothing written since monday"), "{}", third.said);
    assert_eq!(third.end(Signal::TERM).0.code(), Some(0));
    assert_eq!(fs::read_to_string(folder.path().join("spindle-quickstart/.gitignore")).unwrap(), "*\n");
}

/// The screen with what differs from run to run in one form: the time, the folder, the engine, the cores, the path of
/// the program, and packages of programs that are not installed.
fn in_one_form(screen: &str, folder: &str) -> Vec<String> {
    let is_core = |line: &&str| {
        ["core ", "reactor ", "on cores "].iter().any(|word| line.trim_start().starts_with(word))
    };
    let form = |line: &str| {
        let line = line.replace(folder, "/home/me");
        let line = line.split("   (apt: ").next().unwrap();
        match line.split_once(" rpc -s ") {
            _ if line.starts_with("Spindle ") => "Spindle".to_owned(),
            _ if line.starts_with("Ready in ") => "Ready".to_owned(),
            Some((_, call)) => format!("rpc -s {call}"),
            None => line.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    };
    screen.lines().filter(|line| !is_core(line)).map(form).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_screen_is_the_one_that_the_readme_shows() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path());
    let readme = fs::read_to_string(crate::root().join("README.md")).unwrap();
    let shown = readme.split("```").find(|block| block.contains("Ready in ")).unwrap();
    let here = folder.path().canonicalize().unwrap();
    let here = here.to_str().unwrap();
    assert_eq!(in_one_form(&daemon.said, here), in_one_form(shown, here));
}

#[test]
fn every_command_on_the_screen_runs_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path());
    let commands: Vec<&str> = daemon.said.lines().filter(|line| line.contains(" rpc -s ")).collect();
    assert_eq!(commands.len(), 2, "{}", daemon.said);
    for command in commands {
        let run = std::process::Command::new("sh").args(["-c", command]).current_dir(folder.path()).output();
        let run = run.unwrap();
        assert!(run.status.success(), "{command}: {}", text(&run.stderr));
    }
    let lvols = spindle(folder.path())
        .args(["rpc", "-s", "spindle-quickstart/spdk.sock", "bdev_lvol_get_lvols"])
        .output();
    let lvols = text(&lvols.unwrap().stdout);
    assert!(lvols.contains("demo/monday"), "{lvols}");
}

#[test]
fn a_failed_start_is_one_line_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |folder: &std::path::Path, arguments: &[&str]| {
        let run = spindle(folder).args(arguments).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        error
    };
    let long = folder.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let error = refused(&long, &["quickstart"]);
    assert!(error.contains("a socket's path at most 107") && error.contains("another folder"), "{error}");
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(refused(folder.path(), &["quickstart", "file"]).contains("file"));
    let daemon = start(folder.path());
    let error = refused(folder.path(), &["quickstart"]);
    assert!(error.contains(&format!("process {}", daemon.pid())), "{error}");
    drop(daemon);
    fs::write(folder.path().join("spindle-quickstart/disk.img"), vec![7; 1 << 20]).unwrap();
    let error = refused(folder.path(), &["quickstart"]);
    assert!(error.contains("holds no store") && error.contains("another folder"), "{error}");
}

#[test]
fn a_folder_that_the_user_may_not_write_to_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let set_mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    set_mode(folder.path(), 0o755);
    fs::create_dir(folder.path().join("there")).unwrap();
    set_mode(&folder.path().join("there"), 0o755);
    let as_other = |arguments: &[&str]| as_another_user(folder.path(), arguments).output();
    if !as_other(&["--version"]).is_ok_and(|run| run.status.success()) {
        eprintln!("SKIPPED: the program cannot be run as another user");
        return;
    }
    for arguments in [&["quickstart"][..], &["quickstart", "there"]] {
        let run = as_other(arguments).unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        let named = arguments.get(1).unwrap_or(&"spindle-quickstart");
        assert!(error.contains(named) && error.contains("spindle quickstart FOLDER"), "{error}");
    }
}

#[test]
fn without_a_standard_output_it_says_what_was_made_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let script = "\"$0\" quickstart here >/dev/full";
    let run = std::process::Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_spindle")])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("disk.img has the store with the volume demo/vm, which is not served"), "{said}");
}

#[test]
fn without_a_command_four_lines_point_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = spindle(folder.path()).output().unwrap();
    let said = text(&run.stdout);
    assert!(
        run.status.success() && said.lines().count() == 4 && said.contains("spindle quickstart"),
        "{said}"
    );
}
