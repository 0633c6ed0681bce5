//! `spindle perf` prints figures that scripts can read. No test judges their values.

use std::process::Command;

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
        &["1 active poller,", "1000 active pollers", "timed pollers every 1ms"],
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
