//! `spindle perf` prints figures that scripts can read. What they are is nobody's test.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::process::Command;

use serde_json::Value;

#[test]
fn the_figures_are_an_array_with_the_fields_that_scripts_rely_on() {
    let run = Command::new(env!("CARGO_BIN_EXE_spindle"))
        .args(["perf", "--yardstick", "--quick", "--json"])
        .output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let figures: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap();
    let named = |what: &str| figures.iter().any(|figure| figure["what"].as_str().unwrap().contains(what));
    assert!(named("null") && named("malloc") && named("bare copy loop"));
    for figure in &figures {
        for field in ["count", "ns_median", "ns_p99", "cpu_s"] {
            assert!(figure[field].is_number(), "{field}: {figure}");
        }
        assert!(figure.get("yardstick_ns").is_some(), "{figure}");
    }
}
