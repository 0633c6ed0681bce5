//! `prove --damage`: damages stores until told to stop, and reports what it found.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use spindle_prove::damage::report::DamageReport;
use spindle_prove::damage::{Task, judge};

use crate::{Arguments, Shared, fixtures, spawn_workers, wait};

/// Default number of seeds.
const SEEDS: u64 = 20;

/// Runs the command.
pub fn run(arguments: &Arguments) -> ExitCode {
    let known = match arguments.fixtures.as_deref().map(fixtures::load) {
        None => Vec::new(),
        Some(Ok(known)) => known,
        Some(Err(error)) => {
            let folder = arguments.fixtures.as_deref().unwrap_or(Path::new("")).display();
            eprintln!("prove: the images in {folder} cannot be read: {error}");
            return ExitCode::from(2);
        }
    };
    let task = Task {
        fixtures: Arc::new(known),
        step: arguments.step,
        keep_going: arguments.keep_going,
        ..Task::default()
    };
    let shared = Arc::new(Shared::new(arguments.seed));
    let report: Arc<Mutex<DamageReport>> = Arc::default();
    let running = spawn_workers(arguments, |_| {
        let (shared, arguments, task, report) =
            (shared.clone(), arguments.clone(), task.clone(), report.clone());
        move || work(&shared, &arguments, &task, &report)
    });
    let Some(running) = running else { return ExitCode::from(2) };
    wait(&shared, arguments, &running, "damaged images");
    let died = running.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    let report = std::mem::take(&mut *report.lock().unwrap_or_else(PoisonError::into_inner));
    print!("{}", report.table());
    println!("{} damaged images, {} violations", report.images, report.violations.len());
    if report.violations.is_empty() && died == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Judges seeds one after the other.
fn work(shared: &Shared, arguments: &Arguments, task: &Task, all: &Mutex<DamageReport>) {
    let seeds = match (arguments.seeds, arguments.minutes, arguments.step) {
        (Some(seeds), ..) => seeds,
        (None, Some(_), _) => u64::MAX,
        (None, None, Some(_)) => 1,
        (None, None, None) => SEEDS,
    };
    let end = arguments.seed.saturating_add(seeds);
    while !shared.stopped.load(Ordering::Relaxed) {
        let seed = shared.next_seed.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let report = judge(seed, task, &mut || {
            shared.points.fetch_add(1, Ordering::Relaxed);
            match shared.stopped.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        report.violations.iter().for_each(|violation| println!("{violation}"));
        let broken = !report.violations.is_empty() && !arguments.keep_going;
        all.lock().unwrap_or_else(PoisonError::into_inner).add(report);
        if broken {
            shared.stopped.store(true, Ordering::Relaxed);
        }
    }
}
