//! The program of spdk/spdk#3237, done right: each step runs where it should, as the kernel tells it.

#[path = "../../examples/multicore_blobstore.rs"]
#[expect(dead_code, reason = "its main is that of the example: this calls what it calls")]
mod multicore_blobstore;

use std::process::{Command, Output};

/// Set in a child: be the example.
const BE_THE_EXAMPLE: &str = "SPINDLE_TEST_BE_THE_EXAMPLE";

/// Runs this test binary again as the example.
fn run(engine: &str) -> Output {
    let mut child = Command::new(std::env::current_exe().expect("this binary"));
    child.args(["--exact", "story::the_example_in_a_separate_process", "--nocapture", "--test-threads=1"]);
    child.env(BE_THE_EXAMPLE, "yes").env("SPINDLE_ENGINE", engine).output().expect("it starts")
}

fn story(engine: &str) -> String {
    let run = run(engine);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("the story is text")
}

#[test]
fn the_example_in_a_separate_process() {
    if std::env::var_os(BE_THE_EXAMPLE).is_none() {
        return;
    }
    if let Err(error) = multicore_blobstore::run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// The core and the thread of the step that says `what`.
fn step(story: &str, what: &str) -> (usize, String) {
    let line = story.lines().find(|line| line.ends_with(what)).unwrap_or_else(|| panic!("{what}: {story}"));
    // The test harness writes the name of the test before the first line.
    let step = line.rfind("core ").map_or(line, |at| &line[at..]);
    let mut words = step.split_whitespace().skip(1);
    let core = words.next().and_then(|core| core.parse().ok()).expect("a core");
    (core, words.next().expect("a thread").to_owned())
}

#[test]
fn the_worker_initialises_on_its_core_and_the_app_thread_goes_on_on_its_own() {
    let available: Vec<usize> = spindle::engine::available_cores().set.iter().collect();
    let cores: Vec<usize> = available.into_iter().cycle().take(2).collect();
    for (engine, cores) in [("auto", cores.clone()), ("epoll", cores), ("sim:1", vec![0, 1])] {
        let story = story(engine);
        let app =
            |what| assert_eq!(step(&story, what), (cores[0], "app_thread".to_owned()), "{engine}: {what}");
        app("start");
        let worker = step(&story, "initialise the Blobstore on Malloc0");
        assert_eq!(worker, (cores[1], "worker".to_owned()), "{engine}");
        app("go on: the Blobstore is there");
        app("write it and read it back");
        app("stop: the worker has exited");
    }
}

#[test]
fn one_seed_tells_one_story() {
    let hash = |seed| story(seed).lines().find(|line| line.starts_with("trace hash")).map(str::to_owned);
    assert!(hash("sim:7").is_some());
    assert_eq!(hash("sim:7"), hash("sim:7"));
    assert_ne!(hash("sim:7"), hash("sim:8"));
}

#[test]
fn a_bad_engine_name_is_refused_with_the_good_ones() {
    let run = run("uring");
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && error.contains("io_uring") && error.contains("sim:SEED"), "{error}");
}
