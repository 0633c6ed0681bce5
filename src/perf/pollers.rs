//! What a poller costs that has nothing to do.

use std::time::Duration;

use spindle::reactor::{Busy, Handle, Mode, Poller, Wake, sleep};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, aims, clock, runtime, yardstick};

/// Active and timed pollers, few and many, on one reactor that looks for work without end.
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

/// Calls of so many active pollers, per poller: the time of a whole turn over all of them.
fn active(count: usize, effort: Effort) -> Result<Figure, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let what = format!("{count} active poller{plural}, per call");
    measure(what, count, effort, Cost::Cpu, || Poller::active("idle", Wake::Event("messages"), || Busy::No))
}

/// Runs of so many timed pollers. Where they do not fill a core, the time that the reactor was busy counts.
fn timed(count: usize, period: Duration, effort: Effort) -> Result<Figure, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let what = format!("{count} timed poller{plural} every {period:?}, per run");
    let cost = if period < Duration::from_millis(1) { Cost::Cpu } else { Cost::Busy };
    measure(what, count, effort, cost, move || Poller::timed("idle", period, || Busy::Yes))
}

/// Which time is shared out among the runs.
#[derive(Clone, Copy)]
enum Cost {
    /// All CPU time of the process: its one reactor never sleeps, and what other programs take of its core
    /// does not count.
    Cpu,
    /// When the reactor found something to do.
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
