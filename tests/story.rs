//! The program of spdk/spdk#3237, done right: each step runs where it should, as the kernel tells it.

use std::process::Command;

fn story(engine: &str) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_spindle")).env("SPINDLE_ENGINE", engine).output();
    let run = run.expect("the command starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("the story is text")
}

/// The core and the thread of the step that says `what`.
fn step(story: &str, what: &str) -> (usize, String) {
    let line = story.lines().find(|line| line.ends_with(what)).unwrap_or_else(|| panic!("{what}: {story}"));
    let mut words = line.split_whitespace().skip(1);
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
    let run =
        Command::new(env!("CARGO_BIN_EXE_spindle")).env("SPINDLE_ENGINE", "uring").output().expect("starts");
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && error.contains("io_uring") && error.contains("sim:SEED"), "{error}");
}
