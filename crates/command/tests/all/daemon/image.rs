//! `spindle blob` on the image of a store that a daemon serves.

use std::path::Path;

use rustix::process::Signal;

use super::support::{Daemon, spindle, text};

/// Exit code, standard output and standard error of `spindle blob`.
fn blob(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let run = spindle(folder).arg("blob").args(arguments).output().unwrap();
    (run.status.code(), text(&run.stdout), text(&run.stderr))
}

#[test]
fn commands_on_a_served_image_name_the_daemon_and_the_command_to_ask_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &["quickstart"], "Ready");
    let image = "spindle-quickstart/disk.img";
    let socket = folder.path().join("spindle-quickstart/spdk.sock");
    let ask = format!("spindle rpc -s {} bdev_lvol_get_lvols", socket.display());
    let process = format!("process {}", daemon.pid());
    for reading in ["ls", "info", "check", "dump"] {
        let (code, shown, said) = blob(folder.path(), &[reading, image]);
        assert!(said.contains(&ask) && said.contains(&process), "{reading}: {said}");
        assert!(matches!(code, Some(0 | 4)), "{reading}: {code:?} {said}");
        assert_eq!(shown.is_empty(), reading == "check", "{reading}: {shown}");
    }
    for writing in [
        &["create", image, "--size", "1M"][..],
        &["rm", image, "vm"],
        &["grow", image, "--size", "11G"],
        &["check", image, "--repair"],
    ] {
        let (code, _, said) = blob(folder.path(), writing);
        assert!(said.contains(&ask) && said.contains(&process), "{writing:?}: {said}");
        assert_eq!(code, Some(1), "{writing:?}: {said}");
    }
    // The command that is named works as it stands.
    let words: Vec<&str> = ask.split(' ').skip(1).collect();
    assert!(spindle(folder.path()).args(words).output().unwrap().status.success());

    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
    assert_eq!(blob(folder.path(), &["ls", image]).2, "");
}
