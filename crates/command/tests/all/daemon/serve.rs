//! `spindle serve` and `spindle rpc`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::clients::Rpc;
use super::support::{Daemon, spindle, text};

const SERVE: [&str; 5] = ["serve", "-m", "0x1", "-r", "rpc.sock"];

#[test]
fn a_signal_ends_it_in_order_with_exit_code_0_and_nothing_is_left() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(folder.path(), &SERVE, "control");
        assert!(folder.path().join("rpc.sock.lock").exists());
        let (status, _) = daemon.end(signal);
        assert_eq!(status.code(), Some(0));
        assert!(!folder.path().join("rpc.sock").exists() && !folder.path().join("rpc.sock.lock").exists());
    }
}

#[test]
fn a_killed_daemons_socket_is_taken_over_and_a_second_daemon_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, _) = Daemon::start(folder.path(), &SERVE, "control").end(Signal::KILL);
    assert_eq!(killed.code(), None);
    assert!(folder.path().join("rpc.sock").exists());
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let second = spindle(folder.path()).args(SERVE).output().unwrap();
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains(&format!("process {}", daemon.pid())), "{said}");
    assert!(daemon.call(&["spdk_get_version"]).status.success());
}

#[test]
fn options_of_spdk_that_mean_nothing_here_are_accepted_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        [&SERVE[..], &["-i", "7", "--no-huge", "-s", "512", "-L", "bdev", "--silence-noticelog"]].concat();
    drop(Daemon::start(folder.path(), &args, "control"));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let said = "\"message\":\"--shm-id (-i), --mem-size (-s), --no-huge have no effect here\"}\n";
    assert!(log.ends_with(said) && log.lines().count() == 1, "{log}");
    let args = [&SERVE[..], &["--main-core", "1", "--silence-noticelog"]].concat();
    drop(Daemon::start(folder.path(), &args, "control"));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.ends_with("\"message\":\"--main-core (-p) has no effect here\"}\n"), "{log}");
}

#[test]
fn cores_that_cannot_be_are_wrong_usage_and_named_with_their_option() {
    let folder = tempfile::tempdir().unwrap();
    for (option, cores) in [
        ("-m", "0x0"),
        ("-m", "[2000]"),
        ("-m", "[1023]"),
        ("-m", "nope"),
        ("--lcores", "0@5"),
        ("--lcores", "1023"),
        ("--lcores", "0x1"),
    ] {
        let run = spindle(folder.path()).args(["serve", "-r", "rpc.sock", option, cores]).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{option} {cores}: {error}");
        assert!(error.contains(option) && error.contains(cores), "{option} {cores}: {error}");
    }
    let args = ["serve", "-r", "rpc.sock", "--lcores", "0@0"];
    assert_eq!(Daemon::start(folder.path(), &args, "control").end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn the_version_is_printed_wherever_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let version = spindle(folder.path()).arg("--version").output().unwrap().stdout;
    for words in [&["serve", "-v"][..], &["serve", "--version"], &["serve", "-r", "rpc.sock", "-v"]] {
        let run = spindle(folder.path()).args(words).output().unwrap();
        assert!(run.status.success() && run.stdout == version, "{words:?}: {run:?}");
    }
}

#[test]
fn certificates_without_an_address_that_they_encrypt_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for addresses in [&["--nbd", "unix:nbd.sock"][..], &[]] {
        let args = [&SERVE[..], &["--nbd-tls", "."], addresses].concat();
        let run = spindle(folder.path()).args(args).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains("--nbd-tls") && error.contains("--nbd IP:PORT"), "{error}");
        assert!(!folder.path().join("nbd.sock").exists());
    }
}

#[test]
fn files_of_one_name_are_all_served_the_later_ones_by_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a/disk.img", "b/disk.img", "./b/../c/disk.img"];
    for file in ["a", "b", "c"] {
        fs::create_dir(folder.path().join(file)).unwrap();
        fs::File::create(folder.path().join(file).join("disk.img")).unwrap().set_len(1 << 20).unwrap();
    }
    let options: Vec<&str> = files.iter().flat_map(|file| ["--file", file]).collect();
    let args = [&SERVE[..], &["--nbd", "unix:nbd.sock"], &options].concat();
    let daemon = Daemon::start(folder.path(), &args, "data");
    let exports = daemon.call(&["nbd_get_exports"]);
    let exports: Value = serde_json::from_slice(&exports.stdout).unwrap();
    let names: Vec<&str> =
        exports.as_array().unwrap().iter().map(|export| export["name"].as_str().unwrap()).collect();
    for name in ["disk.img", "b/disk.img", "./b/../c/disk.img"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn what_a_call_did_is_said_when_its_answer_cannot_be_printed() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(folder.path(), &SERVE, "control");
    for sink in [">&-", ">/dev/full"] {
        for (call, says) in [
            (r#"bdev_malloc_create '{"num_blocks": 8, "block_size": 512}'"#, "its answer is \"Malloc"),
            ("rpc_get_methods", " bytes is lost"),
        ] {
            let script = format!("\"$0\" rpc -s rpc.sock {call} {sink}");
            let run = std::process::Command::new("bash")
                .args(["-c", &script, env!("CARGO_BIN_EXE_spindle")])
                .current_dir(folder.path())
                .output()
                .unwrap();
            let said = text(&run.stderr);
            assert_eq!(run.status.code(), Some(1), "{script}: {said}");
            assert!(said.contains(" is done, ") && said.contains(says), "{script}: {said}");
            assert!(said.contains("standard output") && said.len() < 300, "{script}: {said}");
        }
    }
}

#[test]
fn the_times_of_a_core_grow_with_what_runs_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut rpc = Rpc::connect(&folder.path().join("rpc.sock")).unwrap();
    // The system counts in hundredths of a second; each call takes some of one.
    for _ in 0..1_000_000 {
        let reactors = rpc.done("framework_get_reactors", &Value::Null).unwrap();
        let reactor = &reactors["reactors"][0];
        let times = ["irq", "sys", "usr"].map(|time| reactor[time].as_u64().unwrap());
        if times.iter().sum::<u64>() > 0 {
            return;
        }
    }
    panic!("the times stay 0");
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let long = "x".repeat(200);
    for (path, said) in [
        (&*long, "107 bytes at most"),
        ("file", "is not a socket"),
        ("no/such/folder", "make the folder no/such"),
    ] {
        let run = spindle(folder.path()).args(["serve", "-r", path]).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "");
    let _served = UnixListener::bind(folder.path().join("other")).unwrap();
    let run = spindle(folder.path()).args(["serve", "-r", "other"]).output().unwrap();
    assert!(text(&run.stderr).contains("another program listens there"), "{}", text(&run.stderr));
}

#[test]
fn a_call_prints_its_result_and_an_error_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let made =
        daemon.call(&["bdev_malloc_create", r#"{"num_blocks": 1e3, "block_size": 512, "name": "M0"}"#]);
    assert_eq!(text(&made.stdout), "M0\n", "{}", text(&made.stderr));
    let bdevs = text(&daemon.call(&["bdev_get_bdevs"]).stdout);
    assert!(bdevs.contains("\"num_blocks\": 1000"), "{bdevs}");
    let failed = daemon.call(&["bdev_malloc_delete", r#"{"name": "M1"}"#]);
    assert_eq!(failed.status.code(), Some(1));
    let error = text(&failed.stderr);
    assert!(
        error.starts_with("spindle: bdev_malloc_delete: No such device: ") && error.contains("-19"),
        "{error}"
    );
    let wrong = daemon.call(&["bdev_malloc_delete", "{name"]);
    assert_eq!(wrong.status.code(), Some(2));
    let nobody =
        spindle(folder.path()).args(["rpc", "-s", "nobody.sock", "spdk_get_version"]).output().unwrap();
    let error = text(&nobody.stderr);
    assert!(error.contains("nobody.sock") && error.contains("spindle serve"), "{error}");
}

#[test]
fn a_file_is_served_without_any_json() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("disk.img")).unwrap().set_len(8 << 20).unwrap();
    let args = [&SERVE[..], &["--file", "disk.img", "--nbd", "unix:nbd.sock"]].concat();
    let daemon = Daemon::start(folder.path(), &args, "data");
    assert!(daemon.said.contains("nbd+unix:///disk.img?socket=nbd.sock"), "{}", daemon.said);
    let exports = text(&daemon.call(&["nbd_get_exports"]).stdout);
    assert!(exports.contains("\"size\": 8388608"), "{exports}");
    let (status, _) = daemon.end(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(!folder.path().join("nbd.sock").exists());
}

/// Certificates for a server and its clients, all of one authority; false if `openssl` is not installed.
pub fn certificates(folder: &Path) -> bool {
    let script = "set -e; key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -days 7 -subj /CN=ca -keyout ca-key.pem -out ca-cert.pem
        echo subjectAltName=DNS:localhost,IP:127.0.0.1 > extensions
        for side in server client; do
            openssl req $key -subj /CN=$side -keyout $side-key.pem -out $side.csr
            openssl x509 -req -days 7 -in $side.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial \
                -extfile extensions -out $side-cert.pem
        done";
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(folder).output();
    made.is_ok_and(|made| made.status.success())
}

#[test]
fn nbd_over_tcp_is_encrypted_by_the_certificates_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    if !certificates(folder.path()) {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    fs::File::create(folder.path().join("disk.img")).unwrap().set_len(8 << 20).unwrap();
    let nbd = ["--file", "disk.img", "--nbd", "127.0.0.1:0", "--nbd", "unix:nbd.sock", "--nbd-tls", "."];
    let daemon = Daemon::start(folder.path(), &[&SERVE[..], &nbd].concat(), "data     nbd+unix");
    let uri = daemon.said.lines().find_map(|line| line.strip_prefix("data     nbds://")).expect("it says so");
    let other = daemon.call(&["nbd_listen", r#"{"address": "127.0.0.1:0", "tls": "nowhere"}"#]);
    assert!(text(&other.stderr).contains("nowhere/server-cert.pem"), "{}", text(&other.stderr));
    let made = daemon.call(&["nbd_listen", r#"{"address": "unix:second.sock", "tls": "."}"#]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let exports = text(&daemon.call(&["nbd_get_exports"]).stdout);
    assert!(exports.contains("nbds+unix:///disk.img?socket=second.sock"), "{exports}");
    let config = text(&daemon.call(&["framework_get_config", r#"{"name": "nbd"}"#]).stdout);
    assert_eq!(config.matches("\"tls\": \".\"").count(), 2, "{config}");
    let uri = format!("nbds://{uri}?tls-certificates={}", folder.path().display());
    match std::process::Command::new("nbdinfo").args(["--size", &uri]).output() {
        Ok(run) => assert_eq!(text(&run.stdout), "8388608\n", "{}", text(&run.stderr)),
        Err(_) => eprintln!("SKIPPED: nbdinfo is not installed"),
    }
}

#[test]
fn an_export_is_made_and_removed_over_rpc_and_goes_with_its_bdev() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let ok = |arguments: &[&str]| {
        let run = daemon.call(arguments);
        assert!(run.status.success(), "{}", text(&run.stderr));
        text(&run.stdout)
    };
    let listening = ok(&["nbd_listen", r#"{"address": "127.0.0.1:0"}"#]);
    assert!(listening.starts_with("tcp:127.0.0.1:"), "{listening}");
    ok(&["bdev_malloc_create", r#"{"num_blocks": 100, "block_size": 512, "name": "M0"}"#]);
    assert_eq!(ok(&["nbd_export", r#"{"bdev_name": "M0", "read_only": true}"#]), "M0\n");
    let twice = daemon.call(&["nbd_export", r#"{"bdev_name": "M0"}"#]);
    assert!(text(&twice.stderr).contains("-17"), "{}", text(&twice.stderr));
    assert!(ok(&["nbd_get_exports"]).contains("\"read_only\": true"));
    ok(&["nbd_unexport", r#"{"name": "M0"}"#]);
    ok(&["nbd_export", r#"{"bdev_name": "M0", "name": "again"}"#]);
    ok(&["bdev_malloc_delete", r#"{"name": "M0"}"#]);
    assert_eq!(ok(&["nbd_get_exports"]).trim(), "[]");
}

#[test]
fn a_volume_does_not_shrink_while_it_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut rpc = Rpc::connect(&folder.path().join("rpc.sock")).unwrap();
    for (method, params) in [
        ("bdev_malloc_create", json!({"name": "M0", "num_blocks": 131_072, "block_size": 512})),
        ("bdev_lvol_create_lvstore", json!({"bdev_name": "M0", "lvs_name": "s"})),
        ("bdev_lvol_create", json!({"lvs_name": "s", "lvol_name": "v", "size_in_mib": 16})),
        ("nbd_export", json!({"bdev_name": "s/v", "name": "v"})),
    ] {
        rpc.done(method, &params).unwrap();
    }
    let smaller = json!({"name": "s/v", "size_in_mib": 8});
    let (code, message) = rpc.call("bdev_lvol_resize", &smaller).unwrap().unwrap_err();
    assert!(
        code == -32602 && message.starts_with("Device or resource busy") && message.contains("cannot shrink"),
        "{code} {message}"
    );
    assert_eq!(rpc.done("nbd_get_exports", &Value::Null).unwrap()[0]["size"], 16 << 20);
    rpc.done("nbd_unexport", &json!({"name": "v"})).unwrap();
    rpc.done("bdev_lvol_resize", &smaller).unwrap();
}

#[test]
fn an_export_without_a_name_and_one_with_an_empty_name_have_that_of_the_bdev() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(folder.path(), &SERVE, "control");
    let mut rpc = Rpc::connect(&folder.path().join("rpc.sock")).unwrap();
    let disk = json!({"name": "M0", "num_blocks": 8, "block_size": 512});
    rpc.done("bdev_malloc_create", &disk).unwrap();
    for params in [json!({"bdev_name": "M0"}), json!({"bdev_name": "M0", "name": ""})] {
        assert_eq!(rpc.done("nbd_export", &params).unwrap(), "M0");
        assert_eq!(rpc.done("nbd_get_exports", &Value::Null).unwrap()[0]["name"], "M0");
        rpc.done("nbd_unexport", &json!({"name": "M0"})).unwrap();
    }
}

#[test]
fn an_address_at_which_it_cannot_listen_is_refused_with_the_systems_number_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &SERVE, "control");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = other.local_addr().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let mut rpc = Rpc::connect(&folder.path().join("rpc.sock")).unwrap();
    for (address, errno, says) in [
        (&*used.to_string(), -98, "use another port, or stop what has it"),
        // Of a network for documentation.
        ("192.0.2.1:10809", -99, "use an address of this machine"),
        ("unix:no/such/folder", -2, "make the folder no/such"),
        ("unix:file", -17, "is not a socket"),
        ("unix:rpc.sock", -98, "use another path"),
    ] {
        let (code, message) = rpc.call("nbd_listen", &json!({"address": address})).unwrap().unwrap_err();
        assert!(code == errno && message.contains(says), "{address}: {code} {message}");
        let run =
            spindle(folder.path()).args(["serve", "-r", "other.sock", "--nbd", address]).output().unwrap();
        let error = text(&run.stderr);
        assert_eq!((run.status.code(), error.lines().count()), (Some(1), 1), "{address}: {error}");
        assert!(error.contains(says) && !folder.path().join("other.sock").exists(), "{address}: {error}");
    }
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));
}

#[test]
fn parameters_that_are_no_json_object_are_refused_with_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    for (params, says) in [
        ("5", "they are a number"),
        ("-1", "they are a number"),
        ("1.5", "they are a number"),
        ("[1]", "they are an array"),
        ("[]", "they are an array"),
        ("null", "they are null"),
        ("\"a\"", "they are a string"),
        ("", "they are empty"),
        (" ", "they are empty"),
        ("{\"a\": 1", "they end in the middle"),
        ("{} {}", "more follows"),
        ("{} x", "more follows"),
    ] {
        let run = spindle(folder.path())
            .args(["rpc", "-s", "missing.sock", "bdev_get_bdevs", params])
            .output()
            .unwrap();
        let error = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{params:?}: {error}");
        assert!(error.contains("not a JSON object") && error.contains(says), "{params:?}: {error}");
    }
    // An object passes; what is not there is the daemon.
    let run = spindle(folder.path())
        .args(["rpc", "-s", "missing.sock", "bdev_get_bdevs", " {} "])
        .output()
        .unwrap();
    assert!(text(&run.stderr).contains("no daemon answers"), "{run:?}");
}

#[test]
fn a_daemon_serves_also_with_standard_streams_that_are_closed_or_a_null_device() {
    for streams in ["1<>/dev/null 0<>/dev/null", ">&- <&-", ">/dev/full"] {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("exec \"$0\" serve -m 0x1 -r rpc.sock {streams}");
        let program = env!("CARGO_BIN_EXE_spindle");
        let mut bash = std::process::Command::new("bash");
        let mut daemon = bash.args(["-c", &script, program]).current_dir(folder.path()).spawn().unwrap();
        let call =
            || spindle(folder.path()).args(["rpc", "-s", "rpc.sock", "spdk_get_version"]).output().unwrap();
        // Until it listens; one that has ended never does.
        while !call().status.success() {
            assert!(daemon.try_wait().unwrap().is_none(), "it ended with {streams}");
        }
        kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
        assert_eq!(daemon.wait().unwrap().code(), Some(0), "{streams}");
    }
}

#[test]
fn a_daemon_without_an_rpc_server_serves_its_files_and_has_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
    let args = ["serve", "-m", "0x1", "--no-rpc-server", "--file", "disk.img", "--nbd", "unix:nbd.sock"];
    let daemon = Daemon::start(folder.path(), &args, "data");
    assert!(daemon.said.starts_with("control  none"), "{}", daemon.said);
    assert!(folder.path().join("nbd.sock").exists() && !folder.path().join("rpc.sock").exists());
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));

    // Files alone need no RPC, and two such daemons stand in each other's way nowhere.
    let args = ["serve", "-m", "0x1", "--file", "disk.img", "--nbd", "unix:nbd.sock"];
    let daemon = Daemon::start(folder.path(), &args, "data");
    assert!(daemon.said.starts_with("control  none"), "{}", daemon.said);
    fs::write(folder.path().join("other.img"), vec![0; 1 << 20]).unwrap();
    let args = ["serve", "-m", "0x1", "--file", "other.img", "--nbd", "unix:other.sock"];
    let second = Daemon::start(folder.path(), &args, "data");
    assert_eq!(second.end(Signal::TERM).0.code(), Some(0));
    assert_eq!(daemon.end(Signal::TERM).0.code(), Some(0));

    let waits = spindle(folder.path()).args(["serve", "--no-rpc-server", "--wait-for-rpc"]).output().unwrap();
    assert_eq!(waits.status.code(), Some(2), "nothing could start it");
}
