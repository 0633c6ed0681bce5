//! `spindle perf` prints figures that scripts can read. No test judges their values.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Runs a measurement with a few samples only.
fn figures(arguments: &[&str]) -> Vec<Value> {
    let run = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .arg("perf")
        .args(arguments)
        .args(["--quick", "--json"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

/// Asserts that scripts find the fields that they rely on, and a figure that has each of the `names`.
fn name_and_hold(figures: &[Value], names: &[&str]) {
    for name in names {
        let named = |figure: &Value| figure["what"].as_str().unwrap().contains(name);
        assert!(figures.iter().any(named), "{name} in {figures:?}");
    }
    for figure in figures {
        for field in ["count", "ns_median", "ns_p99", "cpu_s"] {
            assert!(figure[field].is_number(), "{field}: {figure}");
        }
        assert!(figure.get("yardstick_ns").is_some(), "{figure}");
    }
}

/// Whether messages between cores can be measured here.
fn two_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

#[test]
fn reactors_are_measured() {
    name_and_hold(&figures(&["reactor"]), &["idle runtime", "101 threads", "both reactors asleep"]);
}

#[test]
fn messages_are_measured_alone_in_floods_and_beside_one() {
    if two_cores() {
        let names = ["message there and back, other core", "run and back, same core", "flood, same core"];
        name_and_hold(&figures(&["messages"]), &names);
    }
}

#[test]
fn pollers_are_measured_one_and_many() {
    name_and_hold(
        &figures(&["pollers"]),
        &["1 active poller,", "1000 active pollers", "every 1ms, made at once", "every 1ms, made 1\u{b5}s apart"],
    );
}

#[test]
fn threads_are_measured_with_their_memory() {
    let figures = figures(&["threads"]);
    name_and_hold(&figures, &["create a thread", "exit of a thread"]);
    assert!(figures.iter().any(|figure| figure["memory"]["bytes"].is_number()), "{figures:?}");
}

#[test]
fn blobs_are_measured_in_pairs_with_the_bare_disk() {
    let figures = figures(&["blob"]);
    let names = ["thick: 4 KiB read, depth 1", "thin, rewritten", "under 64 snapshots", "filled in order"];
    name_and_hold(&figures, &names);
    name_and_hold(&figures, &["one new cluster per write", "one copied cluster per write"]);
    assert!(figures.iter().all(|figure| figure["speed"]["pairs"].as_u64() > Some(0)), "{figures:?}");
}

#[test]
fn loads_are_measured_clean_and_dirty() {
    name_and_hold(&figures(&["load"]), &["load, clean", "load, dirty"]);
}

#[test]
fn the_yardstick_run_measures_memory_disks_beside_the_copy_loop() {
    name_and_hold(&figures(&["--yardstick"]), &["null", "malloc", "bare copy loop"]);
}

#[test]
fn a_file_that_is_there_is_never_measured_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, b"kept").unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .args(["perf", "load", "--quick", "--file"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(!run.status.success());
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    std::fs::remove_file(&path).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .args(["perf", "load", "--quick", "--file"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(!path.exists(), "the file that was made is removed");
}

#[test]
fn the_block_layer_is_measured_bare_layered_cut_and_watched() {
    let names =
        ["bare loop", "null, depth 128", "4 empty layers", "cut into 8, a list", "statistics and a limit"];
    name_and_hold(&figures(&["block"]), &names);
}

#[test]
fn bdevs_are_measured_counted_and_under_a_passthru() {
    let names = ["null 4 KiB read, counted, depth 128", "malloc", "passthru on null", "bare copy loop"];
    name_and_hold(&figures(&["bdev"]), &names);
}

/// Runs a load of a tenth of a second.
fn load(arguments: &[&str]) -> std::process::Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_spindle"));
    run.args(["perf", "bdev", "--time", "0.1"]).args(arguments).output().unwrap()
}

#[test]
fn a_load_reports_each_bdev_and_finds_data_that_a_bdev_does_not_keep() {
    let run = load(&["--on", "malloc", "-w", "verify", "-q", "8", "--json"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    let job = &said["results"][0];
    assert!(job["iops"].as_f64().unwrap() > 0.0 && said["cpu_s"].as_f64().unwrap() > 0.0, "{said}");
    assert_eq!((&job["io_failed"], &job["io_miscompared"]), (&Value::from(0), &Value::from(0)));
    let run = load(&["--on", "null", "-w", "verify"]);
    assert!(!run.status.success(), "a null bdev keeps no data");
    let run = load(&["--on", "null", "--on", "malloc", "-w", "randrw", "--histogram"]);
    let shown = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && shown.contains("malloc1") && shown.contains("100.0000 %"), "{shown}");
}

#[test]
fn a_load_that_writes_leaves_a_file_alone_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let path = path.to_str().unwrap();
    let run = load(&["--on", path, "-w", "randwrite"]);
    assert!(!run.status.success() && String::from_utf8_lossy(&run.stderr).contains("--overwrite"));
    assert!(load(&["--on", path, "-w", "randread"]).status.success());
    assert!(std::fs::read(path).unwrap().iter().all(|byte| *byte == 7));
    let run = load(&["--on", path, "-w", "verify", "--overwrite"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(std::fs::read(path).unwrap().iter().any(|byte| *byte != 7));
    assert!(!load(&["--on", "null", "-w", "nonsense"]).status.success());
}

#[test]
fn a_client_has_tests_performed_over_rpc() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("rpc.sock");
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .args(["perf", "bdev", "--rpc"])
        .arg(&socket)
        .spawn()
        .unwrap();
    let call = |method: &str, params: &str| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_spindle"));
        run.arg("rpc").arg("-s").arg(&socket).args([method, params]).output().unwrap()
    };
    let malloc = r#"{"name":"M0","block_size":512,"num_blocks":4096}"#;
    while !call("bdev_malloc_create", malloc).status.success() {
        assert!(waiting.try_wait().unwrap().is_none(), "it waits for calls");
        std::thread::yield_now();
    }
    let run =
        call("perform_tests", r#"{"workload":"randread","io_size":4096,"queue_depth":4,"time_in_sec":1}"#);
    let said: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&said["results"][0]["job"], &said["core_count"]), (&Value::from("M0"), &Value::from(1)));
    assert!(said["results"][0]["iops"].as_f64().unwrap() > 0.0);
    assert!(!call("perform_tests", r#"{"workload":"nonsense"}"#).status.success());
    call("spdk_kill_instance", r#"{"sig_name":"SIGTERM"}"#);
    assert!(waiting.wait().unwrap().success(), "a stop that a client asks for is in order");
}

#[test]
fn a_load_that_a_signal_ends_has_the_exit_code_of_the_signal() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        for arguments in [&["--on", "null", "-t", "3600"][..], &["--rpc", "rpc.sock"]] {
            let folder = tempfile::tempdir().unwrap();
            let run = Command::new(env!("CARGO_BIN_EXE_spindle"))
                .current_dir(folder.path())
                .args(["perf", "bdev"])
                .args(arguments)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let pid = Pid::from_child(&run);
            // Once it has the signals it does not end by their default.
            while !handles(pid, signal) {
                std::thread::yield_now();
            }
            kill_process(pid, signal).unwrap();
            let ended = run.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
            assert!(said.contains("stopped by SIG"), "{arguments:?}: {said}");
        }
    }
}

/// Whether a process catches a signal.
fn handles(pid: Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (signal.as_raw() - 1) != 0
}

#[test]
fn a_load_that_does_not_fit_is_refused_with_numbers_that_do() {
    for (arguments, says) in [
        (&["-q", "4294967296"][..], "take 1 to 65536"),
        (&["-q", "65537"], "take 1 to 65536"),
        (&["-q", "0"], "take 1 to 65536"),
        (&["-q", "65536", "-o", "64K"], "take 1 to 16384"),
        (&["-o", "1G", "-q", "2"], "take 512 to 67108864"),
        (&["-o", "1G", "-w", "unmap"], "take 512 to 67108864"),
        (&["-o", "1000"], "blocks of 512 bytes"),
        (&["-w", "verify", "-o", "32M", "-q", "3"], "take 1 to 2"),
    ] {
        let run = load(&[&["--on", "null"], arguments].concat());
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert!(load(&["--on", "malloc", "-o", "32M", "-q", "2", "-w", "verify"]).status.success());
    for time in ["-1", "nan", "inf", "1e300"] {
        let run = Command::new(env!("CARGO_BIN_EXE_spindle"))
            .args(["perf", "bdev", "--on", "null", &format!("--time={time}")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{time}: {said}");
        assert!(said.contains("take 0 to 31536000"), "{time}: {said}");
    }
}

#[test]
fn an_option_of_a_load_is_refused_where_there_is_none() {
    for option in
        [&["-w", "read"][..], &["-q", "1"], &["-o", "4K"], &["-t", "1"], &["-M", "1"], &["-m", "0x1"]]
    {
        let run =
            Command::new(env!("CARGO_BIN_EXE_spindle")).args(["perf", "bdev"]).args(option).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{option:?}");
        assert!(String::from_utf8_lossy(&run.stderr).contains("--on"), "{option:?}");
    }
}
