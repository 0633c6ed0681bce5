//! The command `prove`: crashes or damages stores until told to stop, and reports what it found.

mod damaging;
mod fixtures;

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser;
use spindle_blob::ordering::{Order, Point};
use spindle_prove::proof::{Task, prove};
use spindle_prove::report::Report;
use spindle_prove::scenario::Scenario;
use spindle_prove::second_reader::SecondReader;

/// Proves that no crash loses or mixes data: runs a store and a model with a random workload in simulation,
/// crashes it at every write, loads and checks it, works on and crashes it again.
///
/// Ends with the line `N crash points, V violations`; the exit code is 1 if V is not 0.
#[derive(Parser, Clone, Debug)]
#[command(name = "prove", version)]
struct Arguments {
    /// How long to run, in minutes.
    #[arg(long, value_parser = minutes, conflicts_with = "step")]
    minutes: Option<f64>,
    /// How many crash points to try; 20000 by default without --minutes.
    #[arg(long)]
    points: Option<u64>,
    /// How many seeds to run to their end; the crash points are then the same every time.
    #[arg(long, conflicts_with_all = ["minutes", "points", "step"])]
    seeds: Option<u64>,
    /// The first seed; later ones count up from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replays the seed, prints what led to this crash point, and stops at the first violation.
    #[arg(long, conflicts_with = "points")]
    step: Option<u64>,
    /// Leaves out one ordering point; violations must follow.
    #[arg(long, value_parser = point)]
    leave_out: Option<Point>,
    /// Runs only this scenario; by default each seed chooses one.
    #[arg(long, value_parser = scenario)]
    scenario: Option<Scenario>,
    /// A python3 program that also reads some of the crashed images (tests/reader).
    #[arg(long)]
    second_reader: Option<PathBuf>,
    /// Gives the second reader one in this many crashed images, and more of unloaded stores.
    #[arg(long, default_value_t = 4000)]
    second_every: u64,
    /// Damages stores instead, and judges checks, repairs and commands on them. Ends with the line `N damaged
    /// images, V violations`. --seeds (20 by default), --minutes, --seed and --step apply to this.
    #[arg(long, conflicts_with_all = ["points", "leave_out", "scenario", "second_reader", "json"])]
    damage: bool,
    /// A folder with images (.img.zst) that SPDK wrote, to damage as well; tests/fixtures has some.
    #[arg(long, requires = "damage")]
    fixtures: Option<PathBuf>,
    /// Continues after a violation.
    #[arg(long)]
    keep_going: bool,
    /// OS threads, one simulation each; by default one per available core.
    #[arg(long)]
    threads: Option<usize>,
    /// Prints the report as JSON before the last line.
    #[arg(long)]
    json: bool,
}

fn minutes(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes.is_finite() => Ok(minutes),
        _ => Err("say how many minutes, for example 5 or 0.5".to_owned()),
    }
}

fn point(word: &str) -> Result<Point, String> {
    let found = Point::ALL.into_iter().find(|point| format!("{point:?}").eq_ignore_ascii_case(word));
    found.ok_or_else(|| {
        let names: Vec<String> = Point::ALL.iter().map(|point| format!("{point:?}")).collect();
        format!("no such ordering point; there are {}", names.join(", "))
    })
}

fn scenario(word: &str) -> Result<Scenario, String> {
    let found = Scenario::ALL.into_iter().find(|one| format!("{one:?}").eq_ignore_ascii_case(word));
    found.ok_or_else(|| {
        let names: Vec<String> = Scenario::ALL.iter().map(|one| format!("{one:?}")).collect();
        format!("no such scenario; there are {}", names.join(", "))
    })
}

/// State shared by the threads.
struct Shared {
    next_seed: AtomicU64,
    points: AtomicU64,
    stopped: AtomicBool,
}

impl Shared {
    fn new(seed: u64) -> Shared {
        Shared { next_seed: AtomicU64::new(seed), points: AtomicU64::new(0), stopped: AtomicBool::new(false) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.damage {
        true => damaging::run(&arguments),
        false => crash(&arguments),
    }
}

/// Crashes stores.
fn crash(arguments: &Arguments) -> ExitCode {
    let shared = Arc::new(Shared::new(arguments.seed));
    let report: Arc<Mutex<Report>> = Arc::default();
    let running = spawn_workers(arguments, |_| {
        let (shared, arguments, report) = (shared.clone(), arguments.clone(), report.clone());
        move || work(&shared, &arguments, &report)
    });
    let Some(running) = running else { return ExitCode::from(2) };
    wait(&shared, arguments, &running, "crash points");
    let died = running.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    let report = std::mem::take(&mut *report.lock().unwrap_or_else(PoisonError::into_inner));
    print(&report, arguments);
    if report.violations.is_empty() && died == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Starts one OS thread per simulation. Prints an error and returns `None` if one cannot be started.
fn spawn_workers<W: FnOnce() + Send + 'static>(
    arguments: &Arguments,
    worker: impl Fn(usize) -> W,
) -> Option<Vec<JoinHandle<()>>> {
    let threads = arguments.threads.unwrap_or_else(|| spindle_engine::available_cores().set.len());
    let threads = if arguments.step.is_some() { 1 } else { threads.max(1) };
    let mut running = Vec::new();
    for number in 0..threads {
        match spindle_engine::spawn_pinned(&format!("prove_{number}"), None, worker(number)) {
            Ok(thread) => running.push(thread),
            Err(error) => {
                eprintln!("prove: no OS thread could be started: {error}");
                return None;
            }
        }
    }
    Some(running)
}

/// Waits on its own OS thread until the time is over, and shows progress.
fn wait(shared: &Shared, arguments: &Arguments, running: &[JoinHandle<()>], what: &str) {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let limit = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    // Without a terminal a line is printed every 30 seconds.
    let (tick, line) = (Duration::from_millis(200), Duration::from_secs(30));
    let (mut passed, terminal) = (Duration::ZERO, std::io::stderr().is_terminal());
    while !shared.stopped.load(Ordering::Relaxed) && !running.iter().all(JoinHandle::is_finished) {
        // No thread sends on this channel: this is a sleep.
        let _ = told.recv_timeout(tick);
        passed += tick;
        if limit.is_some_and(|limit| passed >= limit) {
            shared.stopped.store(true, Ordering::Relaxed);
        }
        let points = shared.points.load(Ordering::Relaxed);
        let rate = points as f64 / passed.as_secs_f64();
        match terminal {
            true => eprint!("\r{points} {what}, {rate:.0} a second  "),
            false if passed.as_millis().is_multiple_of(line.as_millis()) => {
                eprintln!("{points} {what}, {rate:.0} a second");
            }
            false => {}
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    drop(tell);
}

/// Proves seeds one after the other.
fn work(shared: &Shared, arguments: &Arguments, all: &Mutex<Report>) {
    let order = arguments.leave_out.map_or(Order::STRICT, Order::leaving_out);
    let second_reader = arguments.second_reader.clone();
    let second_reader =
        second_reader.map(|program| SecondReader { program, every: arguments.second_every.max(1) });
    let detail = arguments.step;
    let task = Task { order, detail, second_reader, scenario: arguments.scenario, ..Task::default() };
    let open_ended = arguments.minutes.is_some() || arguments.seeds.is_some();
    let most = match (arguments.step.or(arguments.points), open_ended) {
        (Some(points), _) => points,
        (None, true) => u64::MAX,
        (None, false) => 20_000,
    };
    let end = arguments.seeds.map_or(u64::MAX, |seeds| arguments.seed.saturating_add(seeds));
    while !shared.stopped.load(Ordering::Relaxed) {
        let seed = shared.next_seed.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let report = prove(seed, &task, &mut |_| {
            let over = shared.points.fetch_add(1, Ordering::Relaxed) >= most;
            match over || shared.stopped.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let broken = !report.violations.is_empty() && !arguments.keep_going;
        report.violations.iter().for_each(|violation| println!("{violation}{}", also(arguments)));
        all.lock().unwrap_or_else(PoisonError::into_inner).add(report);
        if broken || shared.points.load(Ordering::Relaxed) >= most || arguments.step.is_some() {
            shared.stopped.store(true, Ordering::Relaxed);
        }
    }
}

/// Returns the arguments that a replay needs besides the seed and the step.
fn also(arguments: &Arguments) -> String {
    let scenario = arguments.scenario.map(|scenario| format!(" --scenario {scenario:?}"));
    let point = arguments.leave_out.map(|point| format!(" --leave-out {point:?}"));
    [scenario, point].into_iter().flatten().collect()
}

fn print(report: &Report, arguments: &Arguments) {
    if arguments.json {
        match serde_json::to_string_pretty(report) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("prove: the report cannot be written as JSON: {error}"),
        }
    } else {
        print!("{}", report.table());
    }
    println!("{} crash points, {} violations", report.total(), report.violations.len());
}
