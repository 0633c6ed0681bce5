//! `spindle perf bdev --on ...`: a load on bdevs in the manner of SPDK's bdevperf, at once or when an RPC client
//! calls `perform_tests`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use spindle_bdev::load::{self, JobReport, LoadSpec, Workload};
use spindle_bdev::modules::{file, malloc, null};
use spindle_bdev::{Bdev, Registry};
use spindle_control::{Control, Daemon, DaemonOptions, methods};
use spindle_reactor::{Handle, Mode, RunError, Runtime, Thread};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table as Methods};

use super::failure::Failure;
use super::output::{Output, note, with_result};
use super::serve::cannot_build;
use super::size;
use super::table::{Align, Table};
use crate::perf;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a null or malloc bdev made for a load.
const BYTES: u64 = 64 << 20;

/// The longest load: a year, in seconds.
const LONGEST: f64 = 31_536_000.0;

/// A load on bdevs, for `perf bdev`.
#[derive(Args)]
#[command(next_help_heading = "For perf bdev")]
pub(crate) struct Options {
    /// Put a load on this bdev: null (its reads leave the buffers as they are, except for verify), malloc, or a file or block device
    #[arg(long, value_name = "BDEV", group = "load")]
    on: Vec<String>,
    /// Let the workload destroy what a file or block device holds
    #[arg(long, requires = "on")]
    overwrite: bool,
    /// Listen for RPC at this socket: create bdevs there, then call perform_tests
    #[arg(long, value_name = "PATH", conflicts_with = "on", group = "load")]
    rpc: Option<PathBuf>,
    /// read, write, randread, randwrite, rw, randrw, verify, unmap, write_zeroes or flush
    #[arg(short = 'w', long, default_value = "randread", value_name = "NAME", requires = "on")]
    workload: String,
    /// Bytes of a request
    #[arg(short = 'o', long, default_value = "4K", value_parser = size::parse, value_name = "SIZE", requires = "on")]
    io_size: u64,
    /// Requests in flight, for each core
    #[arg(short = 'q', long, default_value_t = 32, value_name = "COUNT", requires = "on")]
    depth: usize,
    /// Seconds
    #[arg(short = 't', long, default_value_t = 5.0, value_name = "SECONDS", requires = "on")]
    time: f64,
    /// Reads in a hundred, for rw and randrw
    #[arg(short = 'M', long, default_value_t = 50, value_name = "SHARE", requires = "on", value_parser = clap::value_parser!(u8).range(0..=100))]
    mix: u8,
    /// The cores to run on: a mask as 0x3 or a list as [0,2-4]. Default: one
    #[arg(short = 'm', long, value_name = "CORES", requires = "load")]
    cores: Option<String>,
    /// Sleep as soon as there is nothing to do, as the daemon does; otherwise a core looks for work for a while first
    #[arg(long, requires = "load")]
    interrupt_mode: bool,
    /// Print how many requests took how long
    #[arg(long, requires = "on")]
    histogram: bool,
}

impl Options {
    /// True if a load is asked for, not the figures of the layer.
    pub(crate) fn asks_for_load(&self) -> bool {
        !self.on.is_empty() || self.rpc.is_some()
    }

    fn spec(&self) -> Result<LoadSpec, Failure> {
        spec(&self.workload, self.io_size, self.depth, self.time, self.mix).map_err(Failure::Usage)
    }
}

fn spec(workload: &str, io_size: u64, depth: usize, time: f64, mix: u8) -> Result<LoadSpec, String> {
    let names = Workload::NAMES.join(", ");
    let found = Workload::of_name(workload, mix);
    let workload = found.ok_or_else(|| format!("there is no workload {workload:?}; take one of {names}"))?;
    if !(0.0..=LONGEST).contains(&time) {
        return Err(format!("a load of {time} seconds cannot be made; take 0 to {LONGEST}"));
    }
    let time = Duration::from_secs_f64(time);
    Ok(LoadSpec { workload, io_size, depth, time })
}

/// Runs the load and prints what it did.
pub(crate) fn run(options: Options, json: bool) -> Result<(), Failure> {
    let spec = options.spec()?;
    let mut builder = Runtime::builder().watchdog(None);
    builder = match &options.cores {
        Some(cores) => builder.cores(cores),
        None => builder.reactors(1),
    };
    if options.interrupt_mode {
        builder = builder.mode(Mode::Interrupt);
    }
    let runtime = builder
        .build()
        .map_err(|error| cannot_build(options.cores.as_deref().map(|cores| ("-m", cores)), &error))?;
    if let Some(socket) = options.rpc {
        return runtime.run(async move || serve(socket).await).map_err(not_run)?;
    }
    let is_file = |on: &String| !matches!(on.as_str(), "null" | "malloc");
    if let (Some(file), true, false) =
        (options.on.iter().find(|on| is_file(on)), spec.workload.changes_data(), options.overwrite)
    {
        let why = format!(
            "{} would destroy what {file} holds; add --overwrite if that is intended",
            options.workload
        );
        return Err(Failure::Usage(why));
    }
    // Before the runtime starts, which waits for no file.
    let on: Vec<On> = options.on.iter().map(|what| On::named(what)).collect();
    let started = perf::cpu_ns();
    let asked = spec.clone();
    let measured = runtime.run(async move || on_each(&on, &asked).await);
    let reports = measured.map_err(not_run)?;
    let reports = reports.map_err(|error| Failure::Measurement { error: error.to_string(), code: 1 })?;
    let cpu = (perf::cpu_ns() - started) as f64 / 1e9;
    let show = || {
        let mut out = Output::stdout();
        match json {
            true => out.json(&Results::of(&reports, &spec, &options.workload, Some(cpu)))?,
            false => print(&reports, &spec, cpu, options.histogram, &mut out)?,
        }
        out.finish()
    };
    let wrong: u64 = reports.iter().map(|report| report.failed + report.miscompared).sum();
    let error = format!("{wrong} requests failed or gave wrong data");
    let result = if wrong == 0 { Ok(()) } else { Err(Failure::Measurement { error, code: 1 }) };
    with_result(show(), result)
}

/// Why the runtime has no result: it was stopped, or could not run.
fn not_run(error: RunError) -> Failure {
    match error {
        RunError::Stopped { by, code } => stopped(by, code),
        error => Failure::Engine(error.to_string()),
    }
}

fn stopped(by: &str, code: u8) -> Failure {
    Failure::Measurement { error: format!("stopped by {by}"), code }
}

/// A bdev to be made.
struct On {
    what: String,
    /// For a regular file, which has no block size.
    block_size: Option<u32>,
}

impl On {
    fn named(what: &str) -> On {
        let file = std::fs::metadata(what).ok().filter(std::fs::Metadata::is_file);
        let block_size = file.map(|file| if file.len().is_multiple_of(4096) { 4096 } else { 512 });
        On { what: what.to_owned(), block_size }
    }
}

/// Makes the bdevs and runs the load.
async fn on_each(on: &[On], spec: &LoadSpec) -> Result<Vec<JobReport>, Failed> {
    let registry = Registry::start()?;
    let mut bdevs = Vec::new();
    for (number, what) in on.iter().enumerate() {
        bdevs.push(make(&registry, what, number, spec.workload).await?);
    }
    let reports = run_on_all_cores(&bdevs, spec).await?;
    registry.shutdown().await?;
    Ok(reports)
}

async fn make(registry: &Registry, on: &On, number: usize, workload: Workload) -> Result<Bdev, Failed> {
    let what = on.what.as_str();
    let (name, block_size) = (format!("{what}{number}"), 512);
    let num_blocks = BYTES / u64::from(block_size);
    Ok(match what {
        "null" => {
            let leaves_buffers_alone = workload != Workload::Verify;
            let size = null::NullSpec { name, block_size, num_blocks, ..Default::default() };
            null::create(registry, null::NullSpec { leaves_buffers_alone, ..size }).await?
        }
        "malloc" => {
            let name = Some(name);
            malloc::create(
                registry,
                malloc::MallocSpec { name, block_size, num_blocks, ..Default::default() },
            )
            .await?
        }
        path => {
            let spec = file::FileSpec {
                name: path.to_owned(),
                filename: path.into(),
                block_size: on.block_size,
                read_only: !workload.changes_data(),
                fallocate: true,
                uuid: None,
                spelling: file::Spelling::Uring,
            };
            file::create(registry, spec).await?
        }
    })
}

/// A thread on each core of the runtime.
async fn run_on_all_cores(bdevs: &[Bdev], spec: &LoadSpec) -> Result<Vec<JobReport>, Failed> {
    let cores: Vec<usize> = Handle::current().map(|runtime| runtime.cores().to_vec()).unwrap_or_default();
    let made = cores.iter().map(|core| Thread::create(&format!("core {core}"), &format!("[{core}]")));
    let threads = made.collect::<Result<Vec<Thread>, _>>()?;
    let reports = load::run(bdevs, &threads, spec).await;
    threads.iter().for_each(Thread::exit);
    for thread in &threads {
        thread.joined().await;
    }
    Ok(reports?)
}

/// The daemon with one method more, until it is stopped.
async fn serve(socket: PathBuf) -> Result<(), Failure> {
    let runtime = Handle::current();
    let stop = runtime.as_ref().map(|runtime| runtime.stop_requested());
    let mut table: Methods<Control> = methods::table();
    let method = Method::with("perform_tests", States::RUNTIME, BadParams::INVALID, perform_tests);
    table.add(method).map_err(|error| Failure::Refused(error.to_string()))?;
    let options = DaemonOptions { rpc_socket: Some(socket.clone()), ..DaemonOptions::default() };
    let daemon = Daemon::start(options, table).await.map_err(|error| Failure::Refused(error.to_string()))?;
    note(&format!("waiting for perform_tests at {}", socket.display()));
    let by = match stop {
        Some(stop) => stop.await,
        None => "its end",
    };
    daemon.stop().await;
    match runtime.and_then(|runtime| runtime.stop_code()).unwrap_or(1) {
        // A client has asked for it.
        0 => Ok(()),
        code => Err(stopped(by, code)),
    }
}

/// The parameters of `perform_tests`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PerformTests {
    /// By default all that no other bdev lies on.
    bdevs: Option<Vec<String>>,
    workload: Option<String>,
    io_size: Option<u64>,
    queue_depth: Option<u32>,
    time_in_sec: Option<u64>,
    rw_percentage: Option<u8>,
}

async fn perform_tests(control: Control, params: PerformTests) -> Result<Results, RpcError> {
    let invalid = |error: String| RpcError::new(RpcError::INVALID_PARAMS, error);
    let workload = params.workload.unwrap_or_else(|| "randread".into());
    let (io_size, depth) = (params.io_size.unwrap_or(4096), params.queue_depth.unwrap_or(32) as usize);
    let time = params.time_in_sec.unwrap_or(5) as f64;
    let mix = params.rw_percentage.unwrap_or(50).min(100);
    let spec = spec(&workload, io_size, depth, time, mix).map_err(invalid)?;
    let registry = control.registry();
    let bdevs: Vec<Bdev> = match params.bdevs {
        Some(names) => names
            .iter()
            .map(|name| registry.get(name))
            .collect::<Result<_, _>>()
            .map_err(|error| RpcError::errno(Errno::from_raw(error.errno()), error))?,
        None => registry.bdevs().into_iter().filter(|bdev| bdev.info().claim.is_none()).collect(),
    };
    if bdevs.is_empty() {
        return Err(invalid("there is no bdev that is free; create one first".into()));
    }
    let reports = run_on_all_cores(&bdevs, &spec).await.map_err(|error| invalid(error.to_string()))?;
    Ok(Results::of(&reports, &spec, &workload, None))
}

/// What a load did, in bdevperf's words.
#[derive(Serialize)]
struct Results {
    results: Vec<Job>,
    core_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s: Option<f64>,
}

#[derive(Serialize)]
struct Job {
    job: String,
    thread: String,
    workload: String,
    status: &'static str,
    queue_depth: usize,
    io_size: u64,
    runtime: f64,
    iops: f64,
    mibps: f64,
    io_failed: u64,
    io_miscompared: u64,
    avg_latency_us: f64,
    min_latency_us: f64,
    max_latency_us: f64,
    p50_latency_us: f64,
    p99_latency_us: f64,
    p999_latency_us: f64,
    /// The largest time of each bucket in microseconds, and its requests.
    histogram: Vec<(f64, u64)>,
}

fn us(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

impl Results {
    fn of(reports: &[JobReport], spec: &LoadSpec, workload: &str, cpu_s: Option<f64>) -> Results {
        let job = |report: &JobReport| Job {
            job: report.bdev.clone(),
            thread: report.thread.clone(),
            workload: workload.to_owned(),
            status: "finished",
            queue_depth: spec.depth,
            io_size: spec.io_size,
            runtime: report.time.as_secs_f64(),
            iops: report.per_second(),
            mibps: mib_per_second(report, spec),
            io_failed: report.failed,
            io_miscompared: report.miscompared,
            avg_latency_us: us(report.latencies.average()),
            min_latency_us: us(report.latencies.least()),
            max_latency_us: us(report.latencies.most()),
            p50_latency_us: us(report.latencies.percentile(0.5)),
            p99_latency_us: us(report.latencies.percentile(0.99)),
            p999_latency_us: us(report.latencies.percentile(0.999)),
            histogram: report.latencies.buckets().map(|(end, count)| (us(end), count)).collect(),
        };
        let mut threads: Vec<&str> = reports.iter().map(|report| report.thread.as_str()).collect();
        threads.sort_unstable();
        threads.dedup();
        Results { results: reports.iter().map(job).collect(), core_count: threads.len(), cpu_s }
    }
}

fn mib_per_second(report: &JobReport, spec: &LoadSpec) -> f64 {
    report.per_second() * spec.io_size as f64 / f64::from(1 << 20)
}

/// A table of the jobs, their sum, and a histogram if one is wanted.
fn print(
    reports: &[JobReport],
    spec: &LoadSpec,
    cpu_s: f64,
    histogram: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    job_table(reports, spec).print(out)?;
    let requests: u64 = reports.iter().map(|report| report.requests).sum();
    let per_second: f64 = reports.iter().map(JobReport::per_second).sum();
    let each = cpu_s * 1e9 / requests.max(1) as f64;
    writeln!(out, "{per_second:.0} requests a second together, {each:.1} ns of CPU time each")?;
    if histogram {
        histogram_table(reports).print(out)?;
    }
    Ok(())
}

fn job_table(reports: &[JobReport], spec: &LoadSpec) -> Table {
    let mut table = Table::new(&[
        ("BDEV", Align::Left),
        ("THREAD", Align::Left),
        ("REQUESTS", Align::Right),
        ("IOPS", Align::Right),
        ("MIB/S", Align::Right),
        ("FAILED", Align::Right),
        ("WRONG", Align::Right),
        ("AVERAGE US", Align::Right),
        ("LEAST", Align::Right),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("P99.9", Align::Right),
        ("MOST", Align::Right),
    ]);
    let shown = |time: Duration| format!("{:.2}", us(time));
    for report in reports {
        let times = &report.latencies;
        table.row([
            report.bdev.clone(),
            report.thread.clone(),
            report.requests.to_string(),
            format!("{:.0}", report.per_second()),
            format!("{:.1}", mib_per_second(report, spec)),
            report.failed.to_string(),
            report.miscompared.to_string(),
            shown(times.average()),
            shown(times.least()),
            shown(times.percentile(0.5)),
            shown(times.percentile(0.99)),
            shown(times.percentile(0.999)),
            shown(times.most()),
        ]);
    }
    table
}

/// The latencies of all jobs together.
fn histogram_table(reports: &[JobReport]) -> Table {
    let mut all = load::Latencies::default();
    reports.iter().for_each(|report| all.merge(&report.latencies));
    let mut table =
        Table::new(&[("UP TO US", Align::Right), ("REQUESTS", Align::Right), ("SHARE", Align::Right)]);
    let mut seen = 0;
    for (end, count) in all.buckets() {
        seen += count;
        let share = format!("{:.4} %", seen as f64 * 100.0 / all.total().max(1) as f64);
        table.row([format!("{:.3}", us(end)), count.to_string(), share]);
    }
    table
}
