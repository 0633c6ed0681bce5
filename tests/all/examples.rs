//! The examples do what they claim, each in a separate process, as a user would run it.

#[path = "../../examples/bdev_blobstore.rs"]
#[expect(dead_code, reason = "its main gives an exit code; what it runs gives the error")]
mod bdev_blobstore;
#[path = "../../examples/several_runtimes.rs"]
#[expect(dead_code, reason = "its main gives an exit code; what it runs gives the error")]
mod several_runtimes;
#[path = "../../examples/snapshot_under_load.rs"]
mod snapshot_under_load;
#[path = "../../examples/thread_runner.rs"]
mod thread_runner;
#[path = "../../examples/tokio_program.rs"]
mod tokio_program;
#[path = "../../examples/write_a_bdev.rs"]
#[expect(dead_code, reason = "its main gives an exit code; what it runs gives the error")]
mod write_a_bdev;

use std::process::Command;

/// Set in a child: the example to be.
const EXAMPLE: &str = "SPINDLE_TEST_EXAMPLE";

/// Runs this test binary again as the example that `test` calls, and returns what that printed.
fn printed(test: &str, engine: &str) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("this binary"));
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let run = child.env(EXAMPLE, test).env("SPINDLE_ENGINE", engine).output().expect("it starts");
    let text = String::from_utf8(run.stdout).expect("text");
    assert!(run.status.success(), "{engine}: {text}{}", String::from_utf8_lossy(&run.stderr));
    text.lines().map(str::to_owned).collect()
}

/// In the child, is the example; in the parent, runs it on every engine and looks for the lines.
fn prints<E: std::fmt::Debug>(test: &str, main: fn() -> Result<(), E>, lines: &[&str]) {
    if std::env::var(EXAMPLE).is_ok_and(|example| example == test) {
        return main().expect("the example ends well");
    }
    for engine in ["auto", "epoll"] {
        let printed = printed(test, engine);
        for line in lines {
            assert!(printed.iter().any(|printed| printed.ends_with(line)), "{engine}: {line}: {printed:#?}");
        }
    }
}

#[test]
fn a_tokio_program_calls_spindle_threads_and_stops_them_in_order() {
    let lines = [
        "8 tokio tasks wrote a block each, and read it back",
        "100 messages of a tokio task arrived in order",
        "given up: true",
        "stopped in order",
    ];
    let name = "examples::a_tokio_program_calls_spindle_threads_and_stops_them_in_order";
    prints(name, tokio_program::main, &lines);
}

#[test]
fn a_runner_serves_others_from_its_owners_loop() {
    let lines = ["the client got 42", "my own work went on: true"];
    prints("examples::a_runner_serves_others_from_its_owners_loop", thread_runner::main, &lines);
}

#[test]
fn two_runtimes_of_different_modes_call_each_other() {
    let lines = [
        "thread 1 (app_thread) of the runtime in interrupt mode calls",
        "thread 1 (fast) of the runtime in poll mode and calls back",
        "thread 1 (app_thread) of the runtime in interrupt mode was called back",
    ];
    prints("examples::two_runtimes_of_different_modes_call_each_other", several_runtimes::run, &lines);
}

#[test]
fn a_snapshot_under_load_loses_nothing_on_a_memory_disk_and_on_a_bdev() {
    let name = "examples::a_snapshot_under_load_loses_nothing_on_a_memory_disk_and_on_a_bdev";
    prints(name, snapshot_under_load::main, &["of them before the snapshot"]);
}

#[test]
fn a_store_on_a_bdev_is_told_of_its_removal_and_unloaded_before_it_is_gone() {
    let lines = [
        "app_thread Malloc0 is there: Malloc disk",
        "worker     a Blobstore on Malloc0, and a blob in it",
        "app_thread claimed by a Blobstore",
        "worker     told: Malloc0 is going",
        "worker     unload the store: Ok(())",
        "app_thread go on: the bdev is gone",
    ];
    let name = "examples::a_store_on_a_bdev_is_told_of_its_removal_and_unloaded_before_it_is_gone";
    prints(name, bdev_blobstore::run, &lines);
}

#[test]
fn a_module_in_a_separate_program_has_a_method_and_keeps_the_rules_of_all_bdevs() {
    let lines = [
        "what is written to I0 is inverted on M0",
        "a saved configuration has the call that makes I0",
        "I0 keeps the rules of all bdevs",
    ];
    let name = "examples::a_module_in_a_separate_program_has_a_method_and_keeps_the_rules_of_all_bdevs";
    prints(name, write_a_bdev::run, &lines);
}

#[test]
fn the_code_of_the_page_about_modules_is_that_of_its_example() {
    let read = |path: &str| {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
            .expect("it is there")
    };
    let (page, example) = (read("docs/write-a-bdev.md"), read("examples/write_a_bdev.rs"));
    let blocks: Vec<&str> =
        page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().expect("its end")).collect();
    let (_about, program) = example.split_once("\n\n").expect("a comment, and the program");
    assert!(blocks.join("\n") == program, "the pieces, one after another, are examples/write_a_bdev.rs");
}
