//! `spindle perf`: measures this build on this machine.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use spindle_reactor::RunError;

use super::bdevperf;
use super::failure::Failure;
use super::output::{Output, with_result};
use super::table::{Align, Table};
use crate::perf::{self, Effort, Figure, Medium};

/// What to measure, and how to print it.
#[derive(Args)]
pub(crate) struct Command {
    /// Messages, calls and memory disks, beside the bare machine in the same run (the default)
    #[arg(long)]
    yardstick: bool,
    /// What to measure instead
    #[arg(value_enum, conflicts_with = "yardstick")]
    what: Option<What>,
    /// Print an array of figures as JSON
    #[arg(long)]
    json: bool,
    /// Fail if a figure misses its aim. Noise misses aims too: judge by several runs
    #[arg(long)]
    check: bool,
    /// A few samples only, to see that it works
    #[arg(long)]
    quick: bool,
    /// For blob and load: measure on a file, made for it and removed afterwards, instead of memory
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    #[command(flatten)]
    load: bdevperf::Options,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Reactors: an idle one's CPU and memory, its turns, its wake-ups
    Reactor,
    /// Messages and calls between threads, on the same core and on another
    Messages,
    /// Active and timed pollers, per call
    Pollers,
    /// Making and ending threads, and their memory
    Threads,
    /// The block layer: a request through layers, cut, counted and limited, beside the bare loop
    Block,
    /// Bdevs through open descriptors, counted, beside the bare copy; with --on a load on bdevs, as bdevperf makes it
    Bdev,
    /// Blobs beside the bare disk: reads and writes, chains, filling, copies
    Blob,
    /// Loading stores, clean and not, beside reading the disk
    Load,
}

/// Measures and prints.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let on_disk = matches!(command.what, Some(What::Blob | What::Load));
    if command.file.is_some() && !on_disk {
        return Err(Failure::Usage(
            "--file is for `perf blob` and `perf load`: nothing else uses a disk".into(),
        ));
    }
    if command.load.asks_for_load() {
        return match command.what {
            Some(What::Bdev) => bdevperf::run(command.load, command.json),
            _ => Err(Failure::Usage("--on and --rpc are for `perf bdev`: a load is put on bdevs".into())),
        };
    }
    let medium = Medium { path: command.file };
    let effort = if command.quick { Effort::quick() } else { Effort::full() };
    let figures = match command.what {
        Some(What::Reactor) => perf::reactor(effort),
        Some(What::Messages) => perf::messages(effort),
        Some(What::Pollers) => perf::pollers(effort),
        Some(What::Threads) => perf::threads(effort),
        Some(What::Block) => perf::block(effort),
        Some(What::Bdev) => perf::bdev(effort),
        Some(What::Blob) => perf::blob(effort, medium),
        Some(What::Load) => perf::load(effort, medium),
        None => perf::yardstick(effort),
    };
    effort.progress.end();
    let figures = figures.map_err(|error| Failure::Measurement {
        code: RunError::exit_code_of(&*error),
        error: error.to_string(),
    })?;
    let printed = show(&figures, command.json);
    let missed: Vec<Figure> = figures.into_iter().filter(Figure::missed).collect();
    let result = match command.check && !missed.is_empty() {
        true => Err(Failure::AimMissed(shortfalls(&missed)?)),
        false => Ok(()),
    };
    with_result(printed, result)
}

fn show(figures: &[Figure], json: bool) -> Result<(), Failure> {
    let mut out = Output::stdout();
    match json {
        true => out.json(&figures)?,
        false => print(figures, &mut out)?,
    }
    out.finish()
}

/// A table of missed aims, after the sentence that announces it.
fn shortfalls(missed: &[Figure]) -> io::Result<String> {
    let mut table = b"\n".to_vec();
    print(missed, &mut table)?;
    Ok(String::from_utf8_lossy(&table).trim_end().to_owned())
}

fn print(figures: &[Figure], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("WHAT", Align::Left),
        ("COUNT", Align::Right),
        ("RATE", Align::Right),
        ("MEDIAN", Align::Right),
        ("P99", Align::Right),
        ("CPU", Align::Right),
        ("YARDSTICK", Align::Right),
        ("RATIO", Align::Right),
        ("SPEED", Align::Right),
        ("MEMORY", Align::Right),
        ("AIM", Align::Left),
    ]);
    for figure in figures {
        table.row([
            figure.what.clone(),
            figure.count.to_string(),
            rate(figure),
            time(figure.ns_median),
            time(figure.ns_p99),
            format!("{:.2} s", figure.cpu_s),
            figure.yardstick_ns.map(time).unwrap_or_default(),
            figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            figure.speed.map(|speed| format!("{:.2} >{:.2}", speed.share, speed.low)).unwrap_or_default(),
            figure.memory.map(|memory| bytes(memory.bytes)).unwrap_or_default(),
            aim(figure),
        ]);
    }
    table.print(out)
}

/// A figure's aim, and whether it was missed.
fn aim(figure: &Figure) -> String {
    let ratio = figure.aim_ratio.map(|aim| format!("ratio <= {aim:.2}"));
    let speed = figure.speed.and_then(|speed| speed.aim).map(|aim| format!("speed >= {aim:.2}"));
    let memory = figure.memory.and_then(|memory| memory.aim).map(|aim| format!("<= {}", bytes(aim)));
    let aims: Vec<String> = [ratio, speed, memory].into_iter().flatten().collect();
    let verdict = match (aims.is_empty(), figure.missed()) {
        (true, _) => "",
        (_, true) => "  missed",
        (_, false) => "  met",
    };
    aims.join(", ") + verdict
}

/// Operations, or bytes, in a second.
fn rate(figure: &Figure) -> String {
    if figure.ns_median <= 0.0 {
        return String::new();
    }
    match figure.bytes_per_op {
        Some(bytes) => format!("{}B/s", scaled(1e9 / figure.ns_median * bytes as f64)),
        None => format!("{}/s", scaled(1e9 / figure.ns_median)),
    }
}

/// Three digits with k, M or G.
fn scaled(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    format!("{} {unit}", digits(value))
}

fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns >= 1e9 => format!("{} s", digits(ns / 1e9)),
        ns if ns >= 1e6 => format!("{} ms", digits(ns / 1e6)),
        ns if ns >= 1e3 => format!("{} us", digits(ns / 1e3)),
        ns => format!("{} ns", digits(ns)),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{} MiB", digits(bytes as f64 / f64::from(1 << 20))),
        bytes => format!("{bytes} B"),
    }
}
