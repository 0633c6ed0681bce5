//! `spindle quickstart`: the screen, the second run, what is in the way.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

#[test]
fn a_run_after_one_that_was_killed_does_not_speak_of_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    for (says, end) in [
        ("10 GiB, new", Signal::KILL),
        ("opened, last run was killed, store clean", Signal::KILL),
        ("opened, last run was killed, store clean", Signal::TERM),
        ("opened, last stop clean", Signal::TERM),
    ] {
        let run = start(folder.path());
        assert!(run.said.contains(says), "{says}: {}", run.said);
        run.end(end);
    }
}

/// The names in a folder, in order.
fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn files_of_the_user_are_not_hidden_from_git() {
    let folder = tempfile::tempdir().unwrap();
    let run = |place: &str| {
        let daemon = Daemon::start(folder.path(), &["quickstart", place], "Ready");
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
        fs::read_to_string(folder.path().join(place).join(".gitignore")).ok()
    };
    // The log of the tests is there.
    assert_eq!(run("."), None);
    fs::write(folder.path().join(".gitignore"), "target\n").unwrap();
    assert_eq!(run(".").unwrap(), "target\n");
    for (place, others, ignored) in [
        ("new", None, Some("*\n")),
        ("there/deeper", None, Some("*\n")),
        ("empty", Some(""), Some("*\n")),
        ("work", Some("notes"), None),
        ("repository", Some(".git"), None),
    ] {
        if let Some(file) = others {
            fs::create_dir(folder.path().join(place)).unwrap();
            if !file.is_empty() {
                fs::write(folder.path().join(place).join(file), "mine").unwrap();
            }
        }
        for _ in 0..2 {
            assert_eq!(run(place).as_deref(), ignored, "{place}");
        }
    }
}

#[test]
fn a_run_that_is_refused_leaves_nothing_that_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let none = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" quickstart \"$1\"";
    let refused = |script: &str, place: &str, says: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_spindle"), place]).current_dir(folder.path());
        let run = shell.output().unwrap();
        let error = text(&run.stderr);
        assert!(run.status.code() == Some(1) && error.contains(says), "{place}: {error}");
    };
    let too_long = "exec \"$0\" quickstart \"$1\"";
    refused(too_long, &long, "a socket's path at most 107");
    refused(too_long, &format!("a/{long}/b"), "a socket's path at most 107");
    refused(none, "new", "disk.img");
    refused(none, "a/b/c", "disk.img");
    assert_eq!(names_in(folder.path()), [""; 0]);
    // What was there before stays.
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    refused(none, "there", "disk.img");
    refused(none, "there/inside", "disk.img");
    assert_eq!(names_in(&there), [""; 0]);
    fs::write(there.join("notes"), "mine").unwrap();
    refused(none, "there", "disk.img");
    assert_eq!(names_in(&there), ["notes"]);
}

/// The screen with what differs from run to run in one form: the time, the folder, the engine, the cores, the path of
/// the program, and packages of programs that are not installed.
fn in_one_form(screen: &str, folder: &str) -> Vec<String> {
    let is_core = |line: &&str| {
        ["core ", "reactor ", "on cores "].iter().any(|word| line.trim_start().starts_with(word))
    };
    let form = |line: &str| {
        let line = line.replace(folder, "/home/me");
        let line = line.split("   # apt: ").next().unwrap();
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

/// Runs every command that a quickstart in `folder` prints for calls, as printed, and asks for the export at the URI.
fn run_what_is_printed(daemon: &Daemon, folder: &Path, typed: &Path) {
    let inside = daemon.said.contains("in the folder with the store");
    let here = if inside { folder.join(typed) } else { folder.to_owned() };
    let sh = |command: &str| Command::new("sh").args(["-c", command]).current_dir(&here).output().unwrap();
    let commands: Vec<&str> = daemon.said.lines().filter(|line| line.contains(" rpc -s ")).collect();
    assert_eq!(commands.len(), 2, "{}", daemon.said);
    for command in commands {
        let run = sh(command);
        assert!(run.status.success(), "{command}: {}", text(&run.stderr));
    }
    let socket = folder.join(typed).join("spdk.sock");
    let lvols = spindle(&here).args(["rpc", "-s"]).arg(socket).arg("bdev_lvol_get_lvols").output().unwrap();
    assert!(text(&lvols.stdout).contains("demo/monday"), "{lvols:?}");
    let copy = daemon.said.lines().find_map(|line| line.strip_prefix("  nbdcopy IMAGE.raw ")).unwrap();
    let uri = text(&sh(&format!("printf '%s\n' {copy}")).stdout);
    let socket = decoded(uri.trim_end().split_once("?socket=").unwrap().1);
    assert!(here.join(&socket).symlink_metadata().unwrap().file_type().is_socket(), "{uri}: {socket:?}");
    if let Ok(run) = Command::new("nbdinfo").args(["--size", uri.trim_end()]).current_dir(&here).output() {
        assert_eq!(text(&run.stdout), "8589934592\n", "{uri}: {}", text(&run.stderr));
    }
}

/// A part of a URI as the path that it stands for.
fn decoded(part: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&behind[..2]).unwrap(), 16).unwrap());
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    OsStr::from_bytes(&bytes).into()
}

#[test]
fn every_command_on_the_screen_runs_as_printed_whatever_the_folder_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        &b"spindle-quickstart"[..],
        b"a b",
        b"it's",
        b"$HOME",
        b"`touch executed`",
        b"$(touch executed)",
        b"a;touch executed;b",
        b"-s",
        b"say \"so\"!",
        b"back\\slash",
        b"*",
        b"~",
        b"100%25",
        "gr\u{fc}n \u{202e}".as_bytes(),
        b"new\nline",
        b"\xff\xfe",
    ];
    for name in names {
        let typed = Path::new(OsStr::from_bytes(name));
        let mut command = spindle(folder.path());
        command.args(["quickstart", "--"]).arg(typed);
        let daemon = Daemon::start_command(folder.path(), command, "Ready");
        run_what_is_printed(&daemon, folder.path(), typed);
        assert!(!folder.path().join("executed").exists(), "{typed:?}");
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    }
}

#[test]
fn the_program_on_the_screen_runs_as_printed_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for place in ["the bin", "it's `touch executed`", "-b"] {
        let place = folder.path().join(place);
        fs::create_dir(&place).unwrap();
        let program = place.join("spindle");
        let original = env!("CARGO_BIN_EXE_spindle");
        fs::hard_link(original, &program).or_else(|_| fs::copy(original, &program).map(drop)).unwrap();
        for (here, typed) in [(folder.path(), "outside"), (&*place, "beside")] {
            let mut command = Command::new(&program);
            command.args(["quickstart", typed]).current_dir(here);
            let daemon = Daemon::start_command(here, command, "Ready");
            run_what_is_printed(&daemon, here, Path::new(typed));
            assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
            fs::remove_dir_all(here.join(typed)).unwrap();
            assert!(!here.join("executed").exists(), "{}", program.display());
        }
    }
}

/// Whether a first run has come that far.
type Reached = fn(&Path) -> bool;

/// What a first run makes, in this order.
const STEPS: [(&str, Reached); 8] = [
    ("the folder", Path::is_dir),
    ("the lock", |folder| folder.join("spdk.sock.lock").exists()),
    ("the socket", |folder| folder.join("spdk.sock").exists()),
    ("the file", |folder| image_blocks(folder).is_some()),
    ("bytes of the store", |folder| image_blocks(folder).is_some_and(|blocks| blocks > 0)),
    ("its metadata", |folder| image_blocks(folder).is_some_and(|blocks| blocks > 8 << 10)),
    ("the image", |folder| folder.join("disk.img").exists()),
    ("the other socket", |folder| folder.join("nbd.sock").exists()),
];

/// The 512-byte blocks of the image, under whichever name.
fn image_blocks(folder: &Path) -> Option<u64> {
    let of = |name: &str| folder.join(name).metadata().ok().map(|there| there.blocks());
    of("disk.img.unfinished").or_else(|| of("disk.img"))
}

#[test]
fn a_first_run_that_was_killed_at_any_moment_is_finished_by_the_next_one() {
    for (step, reached) in STEPS {
        for more in [0, 10, 200] {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("spindle-quickstart");
            let mut first = spindle(folder.path());
            first.arg("quickstart").stdout(Stdio::null()).stderr(Stdio::null());
            let mut first = first.spawn().unwrap();
            while !reached(&place) {
                assert!(first.try_wait().unwrap().is_none(), "{step}: it has ended");
            }
            // A little later: a look at the folder is a measure of work, not of time.
            (0..more).for_each(|_| assert!(image_blocks(&place) != Some(1)));
            first.kill().unwrap();
            first.wait().unwrap();
            let second = start(folder.path());
            assert!(second.said.contains("8 GiB thin, nothing written"), "{step} {more}: {}", second.said);
            assert_eq!(second.end(Signal::TERM).0.code(), Some(0), "{step} {more}");
            assert!(!place.join("disk.img.unfinished").exists(), "{step} {more}");
            let check = spindle(&place).args(["blob", "check", "disk.img"]).output().unwrap();
            assert!(check.status.success(), "{step} {more}: {}", text(&check.stdout));
        }
    }
}

#[test]
fn what_a_first_run_left_that_was_cut_off_is_removed_whatever_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("spindle-quickstart/disk.img");
    let left = image.with_extension("img.unfinished");
    assert_eq!(start(folder.path()).end(Signal::TERM).0.code(), Some(0));
    for blocks in [0, 1, 2, 100] {
        let begin = first_bytes(&image, blocks * 4096);
        fs::remove_file(&image).unwrap();
        fs::write(&left, begin).unwrap();
        // Empty, as a run leaves it that was killed when it had made it.
        fs::write(image.with_file_name(".gitignore"), "").unwrap();
        let daemon = start(folder.path());
        assert!(daemon.said.contains("10 GiB, new") && !left.exists(), "{blocks}: {}", daemon.said);
        assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
        assert_eq!(fs::read_to_string(image.with_file_name(".gitignore")).unwrap(), "*\n");
    }
    fs::rename(&image, &left).unwrap();
    assert!(start(folder.path()).said.contains("10 GiB, new") && !left.exists(), "a whole one");
}

fn first_bytes(path: &Path, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    std::io::Read::read_exact(&mut fs::File::open(path).unwrap(), &mut bytes).unwrap();
    bytes
}

#[test]
fn a_file_that_is_no_image_of_a_quickstart_is_named_with_the_remedy_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sh = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", script, env!("CARGO_BIN_EXE_spindle")]).current_dir(folder.path());
        let run = shell.output().unwrap();
        assert!(run.status.success(), "{script}: {}", text(&run.stderr));
    };
    for (script, says) in [
        ("mkfifo disk.img", "is a FIFO"),
        ("mkdir disk.img", "is a folder"),
        ("ln -s /dev/zero disk.img", "is a character device"),
        ("ln -s missing disk.img", "link to a file that is missing"),
        (": > disk.img", "is empty"),
        ("echo hello > disk.img", "fewer than 4096 bytes"),
        ("truncate -s 10G disk.img", "holds no store"),
        ("yes | head -c 1000000 > disk.img", "holds no store"),
        ("\"$0\" blob init disk.img --size 1G", "holds no lvolstore \"demo\""),
        (
            "\"$0\" blob init disk.img --size 1G; \"$0\" blob create disk.img --size 1M --name x",
            "holds no lvolstore \"demo\"",
        ),
    ] {
        sh(&format!("rm -rf it; mkdir it; cd it; {script}"));
        let run = spindle(folder.path()).args(["quickstart", "it"]).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{script}: {error}");
        assert!(error.contains("disk.img") && error.contains(says), "{script}: {error}");
        assert!(error.contains("spindle quickstart FOLDER") && !error.contains("; ;"), "{script}: {error}");
        assert!(folder.path().join("it/disk.img").symlink_metadata().is_ok(), "{script}");
        assert!(!folder.path().join("it/disk.img.unfinished").exists(), "{script}");
    }
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
