//! How the daemon starts beside others, and tells that it is ready; what a package gets from the command.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::Signal;

use super::support::{Daemon, spindle, text};

/// Lock files in the folder of the test: other tests run daemons on the same core.
const HERE: [&str; 6] = ["serve", "-m", "0x1", "--core-lock-folder", ".", "-r"];
const LOCK: &str = "spdk_cpu_lock_000";

fn start(folder: &Path, socket: &str, more: &[&str]) -> Daemon {
    Daemon::start(folder, &[&HERE[..], &[socket], more].concat(), "control")
}

#[test]
fn a_core_is_one_daemons_while_it_holds_the_lock_file() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join(LOCK);
    let first = start(folder.path(), "rpc.sock", &["--enable-cpumask-locks"]);
    let pid = i32::from_ne_bytes(fs::read(&lock).unwrap()[..4].try_into().unwrap());
    assert_eq!(pid as u32, first.pid());

    let refused = [&HERE[..], &["other.sock", "--enable-cpumask-locks"]].concat();
    let run = spindle(folder.path()).args(&refused).output().unwrap();
    let error = text(&run.stderr);
    assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    let holder = format!("core 0 is locked by process {pid}");
    assert!(error.contains(&holder) && error.contains("--disable-cpumask-locks"), "{error}");
    assert!(!folder.path().join("other.sock").exists());

    // One that locks nothing shares the core, and cannot lock it later while the other has it.
    let sharing = start(folder.path(), "other.sock", &["--enable-cpumask-locks", "--disable-cpumask-locks"]);
    let call =
        |method: &str| spindle(folder.path()).args(["rpc", "-s", "other.sock", method]).output().unwrap();
    let error = text(&call("framework_enable_cpumask_locks").stderr);
    assert!(error.contains("Failed to claim CPU core: 0") && error.contains(&holder), "{error}");
    assert!(first.call(&["framework_disable_cpumask_locks"]).status.success() && !lock.exists());
    assert!(call("framework_enable_cpumask_locks").status.success() && lock.exists());
    assert!(!first.call(&["framework_enable_cpumask_locks"]).status.success());
    assert_eq!(sharing.end(Signal::TERM).0.code(), Some(0));
    assert!(!lock.exists());
    assert!(first.call(&["framework_enable_cpumask_locks"]).status.success() && lock.exists());

    // A kill leaves the file, and no lock on it.
    first.end(Signal::KILL);
    assert!(lock.exists());
    let next = start(folder.path(), "rpc.sock", &["--enable-cpumask-locks"]);
    assert_eq!(next.end(Signal::TERM).0.code(), Some(0));
    assert!(!lock.exists());
}

#[test]
fn under_the_names_of_spdks_daemons_it_has_one_core_and_locks_it() {
    for name in ["spdk_tgt", "bdev_svc"] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_spindle"), path(name)).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new(path(name));
            command.args(arguments).current_dir(folder.path());
            command
        };
        let version = run(&["-v"]).output().unwrap();
        assert!(version.status.success() && text(&version.stdout).starts_with("spindle "), "{version:?}");
        let log = fs::File::create(path("log")).unwrap();
        let options = ["-r", "rpc.sock", "--core-lock-folder", "."];
        let mut daemon = run(&options).stdout(std::process::Stdio::piped()).stderr(log).spawn().unwrap();
        // It says where it is reached when it answers.
        let mut said = std::io::BufReader::new(daemon.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
        let locks = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let locks: Vec<_> =
            locks.filter(|name| name.to_str().unwrap().starts_with("spdk_cpu_lock_")).collect();
        assert_eq!(locks.len(), 1, "{locks:?}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), Signal::TERM).unwrap();
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
    }
}

/// The command by which bash starts a daemon, with options and redirections.
fn by_bash(folder: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    let script = format!("exec \"$0\" serve -m 0x1 -r rpc.sock {script}");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_spindle")]).current_dir(folder);
    command
}

/// A daemon started by bash.
fn start_by(folder: &Path, script: &str) -> Daemon {
    Daemon::start_command(folder, by_bash(folder, script), "control")
}

/// The same, which reports to this socket as to systemd.
fn start_notifying(folder: &Path, script: &str) -> (Child, UnixDatagram) {
    let notify = folder.join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    (by_bash(folder, script).env("NOTIFY_SOCKET", notify).spawn().unwrap(), socket)
}

#[test]
fn a_descriptor_and_systemd_are_told_when_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (mut daemon, socket) = start_notifying(folder.path(), "--ready-fd 7 7>ready >/dev/null");
    let mut state = [0; 64];
    let mut told = || {
        let count = socket.recv(&mut state).unwrap();
        String::from_utf8(state[..count].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    assert_eq!(fs::read_to_string(folder.path().join("ready")).unwrap(), "ready\n");
    let call = spindle(folder.path()).args(["rpc", "-s", "rpc.sock", "spdk_get_version"]).output().unwrap();
    assert!(call.status.success(), "what is ready answers");
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn a_descriptor_that_is_not_there_is_noted_and_the_daemon_serves() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path(), "rpc.sock", &["--ready-fd", "99"]);
    assert!(daemon.call(&["spdk_get_version"]).status.success());
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("--ready-fd 99"), "{log}");
}

#[test]
fn an_address_or_a_file_that_is_given_twice_is_refused_with_both_spellings_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("d.img")).unwrap().set_len(1 << 20).unwrap();
    for (option, first, second, words) in [
        ("--nbd", "unix:n.sock", "unix:n.sock", "the address unix:n.sock is given twice; remove one"),
        ("--nbd", "unix:n.sock", "./n.sock", "unix:n.sock is given twice, also as unix:./n.sock; remove one"),
        ("--nbd", "127.0.0.1:7", "localhost:7", "the address tcp:127.0.0.1:7 is given twice; remove one"),
        ("--nbd", "127.0.0.1:7", "0.0.0.0:7", "tcp:0.0.0.0:7 includes tcp:127.0.0.1:7; remove one"),
        ("--nbd", "[::]:7", "[::1]:7", "tcp:[::]:7 includes tcp:[::1]:7; remove one"),
        ("--file", "d.img", "d.img", "the file d.img is given twice; remove one"),
        ("--file", "d.img", "./d.img", "the file d.img is given twice, also as ./d.img; remove one"),
    ] {
        let arguments = [&HERE[..], &["rpc.sock", option, first, option, second]].concat();
        let run = spindle(folder.path()).args(&arguments).output().unwrap();
        let error = text(&run.stderr);
        let error = error.lines().last().unwrap_or_default();
        assert!(run.status.code() == Some(1) && error.contains(words), "{arguments:?}: {error}");
    }
    // The system chooses a port for each.
    let two = start(folder.path(), "rpc.sock", &["--nbd", "127.0.0.1:0", "--nbd", "127.0.0.1:0"]);
    assert_eq!(two.end(Signal::TERM).0.code(), Some(0));
}

/// It answers and stops; what it noted.
fn serves(daemon: Daemon) -> String {
    let log = daemon.folder.join("log");
    assert!(daemon.call(&["spdk_get_version"]).status.success());
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    fs::read_to_string(log).unwrap()
}

#[test]
fn the_line_of_the_ready_descriptor_keeps_what_is_in_the_file() {
    for (script, after) in [
        ("--ready-fd 7 7>>ready", "IMPORTANT\nline two\nready\n"),
        ("--ready-fd 7 7<>ready", "ready\nANT\nline two\n"),
        ("--ready-fd 7 7<ready", "IMPORTANT\nline two\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready");
        fs::write(&file, "IMPORTANT\nline two\n").unwrap();
        let log = serves(start_by(folder.path(), script));
        assert_eq!(fs::read_to_string(file).unwrap(), after, "{script}");
        let is_read_only = script.ends_with("7<ready");
        assert_eq!(
            log.contains("--ready-fd 7 could not be written: it is open for reading only"),
            is_read_only,
            "{log}"
        );
    }
}

#[test]
fn standard_output_in_a_file_has_the_ready_line_after_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let (mut daemon, socket) = start_notifying(folder.path(), "--ready-fd 1 >ready");
    // It is told after the descriptor.
    socket.recv(&mut [0; 64]).unwrap();
    let said = fs::read_to_string(ready).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert!(said.starts_with("control") && said.ends_with("\nready\n"), "{said}");
}

#[test]
fn a_daemon_serves_and_stops_when_its_ready_descriptor_is_a_full_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let held = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let flags = rustix::fs::fcntl_getfl(&held).unwrap();
    rustix::fs::fcntl_setfl(&held, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    // Until it would have to wait.
    while std::io::Write::write(&mut &held, &[0; 4096]).is_ok() {}
    let log = serves(start_by(folder.path(), "--ready-fd 7 7<>pipe"));
    assert!(log.contains("--ready-fd 7 could not be written: it takes nothing now"), "{log}");
}

#[test]
fn packages_get_completions_and_manual_pages() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = spindle(folder.path()).args(["completions", shell]).output().unwrap();
        assert!(script.status.success() && text(&script.stdout).contains("quickstart"), "{shell}");
    }
    let man =
        |folder_for_pages: &str| spindle(folder.path()).args(["man", folder_for_pages]).output().unwrap();
    assert!(man(".").status.success());
    for (page, says) in
        [("spindle.1", "quickstart"), ("spindle-serve.1", "cpumask"), ("spindle-blob-check.1", "repair")]
    {
        let text = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(says), "{page}");
    }
    let error = text(&man("missing").stderr);
    assert!(error.contains("mkdir -p missing") && error.lines().count() == 1, "{error}");
}
