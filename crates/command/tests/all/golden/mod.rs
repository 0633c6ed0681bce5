//! Replays what SPDK itself answered over JSON-RPC against the real binary, step by step.
//!
//! `tests/fixtures/rpc-golden.jsonl.zst` has the recorded scenarios; `differences` beside this file lists the steps
//! where we answer otherwise on purpose, each under a heading of `docs/differences.md`. A scenario is replayed when the
//! daemon has all of its methods. `SPINDLE_GOLDEN=NAME` replays those whose name contains it.

mod compare;
mod daemon;
mod differences;
mod fixture;
mod replay;
mod steps;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use differences::Differences;
use fixture::Scenario;
use replay::Replay;

/// Daemons at work at once.
const AT_ONCE: usize = 4;

/// Replays what can be, several scenarios at a time; what did not come out as expected.
fn replay_all(scenarios: &[Scenario], differences: &Differences) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let work = || {
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = std::panic::catch_unwind(|| Replay::run(scenario, differences));
            let found = run.unwrap_or_else(|_| vec![format!("{}: the replay panicked", scenario.name)]);
            wrong.lock().unwrap().extend(found);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    wrong.into_inner().unwrap()
}

#[test]
fn what_spdk_answered_is_answered_here_too_but_for_the_listed_differences() {
    let only = std::env::var("SPINDLE_GOLDEN").unwrap_or_default();
    let differences = Differences::read();
    let methods = daemon::methods();
    let mut scenarios = fixture::scenarios();
    scenarios.retain(|scenario| scenario.name.contains(&only));
    let (here, missing): (Vec<_>, Vec<_>) =
        scenarios.into_iter().partition(|scenario| differences.replays(scenario, &methods));
    eprintln!("{} scenarios replayed", here.len());
    for scenario in &missing {
        eprintln!("not replayed: {} (needs {})", scenario.name, scenario.missing(&methods).join(", "));
    }
    let mut wrong = replay_all(&here, &differences);
    if only.is_empty() {
        wrong.extend(differences.unused());
    }
    assert!(wrong.is_empty(), "{} steps differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_difference_is_explained_in_the_documentation() {
    let missing = Differences::read().unexplained();
    assert!(missing.is_empty(), "docs/differences.md has no heading for: {}", missing.join(", "));
}
