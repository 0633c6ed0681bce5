//! The cost of idle pollers.

use std::time::Duration;

use spindle::reactor::{Busy, Handle, Mode, Poller, Wake, sleep};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, aims, clock, runtime, yardstick};

/// Active and timed pollers, few and many, on one polling reactor.
pub(crate) fn pollers(effort: Effort) -> Figures {
    effort.progress.at("bare calls");
    let call = yardstick::bare_calls(effort.samples, effort.batch);
    let heap = yardstick::bare_heap(effort.samples, effort.batch);
    let mut figures = vec![call.clone(), heap.clone()];
    effort.progress.at("pollers");
    for count in [1, 10, 100, 1000] {
        let figure = active(count, effort)?;
        figures.push(match count {
            100 => figure.against(&call, aims::IDLE_POLLER.ratio()),
            _ => figure.beside(&call),
        });
    }
    figures.push(timed(1, Duration::from_micros(1), effort)?.beside(&heap));
    let many = timed(1000, Duration::from_micros(1), effort)?;
    figures.push(many.against(&heap, aims::TIMED_RUN.ratio()));
    figures.push(timed(1000, Duration::from_millis(1), effort)?.beside(&heap));
    Ok(figures)
}

/// Calls of `count` active pollers, per poller: the time of a whole turn over all of them.
fn active(count: usize, effort: Effort) -> Result<Figure, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let what = format!("{count} active poller{plural}, per call");
    measure(what, count, effort, Cost::Cpu, || Poller::active("idle", Wake::Event("messages"), || Busy::No))
}

/// Runs of `count` timed pollers. If they do not fill a core, the reactor's busy time counts.
fn timed(count: usize, period: Duration, effort: Effort) -> Result<Figure, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let what = format!("{count} timed poller{plural} every {period:?}, per run");
    let cost = if period < Duration::from_millis(1) { Cost::Cpu } else { Cost::Busy };
    measure(what, count, effort, cost, move || Poller::timed("idle", period, || Busy::Yes))
}

/// The time that is divided among the runs.
#[derive(Clone, Copy)]
enum Cost {
    /// All CPU time of the process: its only reactor never sleeps, and other programs' use of its core must
    /// not count.
    Cpu,
    /// The time during which the reactor had work.
    Busy,
}

fn measure(
    what: String,
    count: usize,
    effort: Effort,
    cost: Cost,
    make: impl Fn() -> Poller + Send + 'static,
) -> Result<Figure, Failed> {
    let slice = Duration::from_micros(if effort.quick { 2_000 } else { 10_000 });
    runtime(1)?.run(async move || -> Result<Figure, Failed> {
        let handle = Handle::current().ok_or("not on a Spindle thread")?;
        let pollers: Vec<Poller> = (0..count).map(|_| make()).collect();
        let runs = || pollers.iter().map(|poller| poller.runs().0).sum::<u64>();
        handle.set_mode(Mode::Poll);
        let mut timed = Samples::start(what);
        for sample in effort.rounds(effort.samples.min(20)) {
            let (start, before) = (time(&handle, cost).await, runs());
            sleep(slice).await;
            let (after, end) = (runs(), time(&handle, cost).await);
            if sample > 0 {
                timed.add((after - before).max(1), end - start);
            }
        }
        handle.set_mode(Mode::Adaptive);
        Ok(timed.figure())
    })?
}

/// The time so far, in nanoseconds.
async fn time(handle: &Handle, cost: Cost) -> u64 {
    match cost {
        Cost::Cpu => clock::cpu_ns(),
        Cost::Busy => {
            let busy: Duration = handle.dump().await.reactors.iter().map(|reactor| reactor.busy).sum();
            u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX)
        }
    }
}
