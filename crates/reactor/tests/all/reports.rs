//! Reports of a runtime, as its reporter gets them.

use std::sync::{Arc, Mutex};

use spindle_reactor::{CpuSet, ReportLevel, Reporter, Runtime, Thread, spawn_local, tell};

/// Keeps what it is told of the parts it wants.
struct Kept {
    wanted: &'static [&'static str],
    said: Mutex<Vec<(ReportLevel, &'static str, String)>>,
}

impl Reporter for Kept {
    fn wants(&self, _: ReportLevel, part: &str) -> bool {
        self.wanted.contains(&part)
    }

    fn report(&self, level: ReportLevel, part: &'static str, text: &str) {
        self.said.lock().unwrap().push((level, part, text.to_owned()));
    }

    fn dump(&self, _: &str) {}
}

/// What a runtime with a reporter says while `main` runs, and at its end.
fn said(
    wanted: &'static [&'static str],
    main: impl AsyncFnOnce() + Send + 'static,
) -> Vec<(ReportLevel, &'static str, String)> {
    let kept = Arc::new(Kept { wanted, said: Mutex::default() });
    Runtime::builder().reactors(1).reporter(kept.clone()).build().unwrap().run(main).unwrap();
    std::mem::take(&mut *kept.said.lock().unwrap())
}

#[test]
fn a_panic_of_a_task_is_reported_as_an_error_of_the_runtime() {
    let said = said(&["runtime"], async || {
        assert!(spawn_local::<()>(async { panic!("as asked") }).await.is_err());
        tell("bdev", || unreachable!("it is not wanted"));
    });
    let [(ReportLevel::Error, "runtime", text)] = &said[..] else { panic!("{said:?}") };
    assert!(text.contains("app_thread") && text.contains("as asked"), "{text}");
}

#[test]
fn what_parts_do_is_told_if_it_is_wanted_and_made_only_then() {
    let said = said(&["thread", "bdev"], async || {
        tell("bdev", || "b0 is there".to_owned());
        tell("nbd", || unreachable!("it is not wanted"));
        let thread = Thread::create_on("second", CpuSet::first(64)).unwrap();
        thread.exit();
        thread.joined().await;
    });
    let texts: Vec<&str> = said.iter().map(|(_, _, text)| text.as_str()).collect();
    let at = |what: &str| texts.iter().position(|text| text.contains(what)).expect(what);
    assert!(at("b0 is there") < at("(second) begins") && at("(second) begins") < at("(second) has ended"));
    assert!(said.iter().all(|(level, _, _)| *level == ReportLevel::Info));
}

#[test]
fn outside_a_runtime_and_without_a_reporter_nothing_is_told() {
    tell("bdev", || unreachable!("there is no runtime"));
    let runtime = Runtime::builder().reactors(1).build().unwrap();
    runtime.run(async || tell("bdev", || unreachable!("there is no reporter"))).unwrap();
}
