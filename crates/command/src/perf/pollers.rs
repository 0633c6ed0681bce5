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
    for (how, apart) in [("made at once", 0), ("made 1\u{b5}s apart", 1000)] {
        figures.push(spread(how, apart, effort)?.beside(&heap));
    }
    Ok(figures)
}

/// Calls of `count` active pollers, per poller: the time of a whole turn over all of them.
fn active(count: usize, effort: Effort) -> Result<Figure, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let what = format!("{count} active poller{plural}, per call");
    measure(what, count, effort, || Poller::active("idle", Wake::Event("messages"), || Busy::No))
}

/// Runs of `count` timed pollers that fill a core.
fn timed(count: usize, period: Duration, effort: Effort) -> Result<Figure, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let what = format!("{count} timed poller{plural} every {period:?}, per run");
    measure(what, count, effort, move || Poller::timed("idle", period, || Busy::Yes))
}

/// By CPU time: the only reactor never sleeps, and other programs' use of its core must not count.
fn measure(
    what: String,
    count: usize,
    effort: Effort,
    make: impl Fn() -> Poller + Send + 'static,
) -> Result<Figure, Failed> {
    let slice = Duration::from_micros(if effort.quick { 2_000 } else { 10_000 });
    runtime(1)?.run(async move || -> Result<Figure, Failed> {
        let handle = Handle::current().ok_or("not on a Spindle thread")?;
        let pollers: Vec<Poller> = (0..count).map(|_| make()).collect();
        handle.set_mode(Mode::Poll);
        let mut timed = Samples::start(what);
        for sample in effort.rounds(effort.samples.min(20)) {
            let (start, before) = (clock::cpu_ns(), runs(&pollers));
            sleep(slice).await;
            let (after, end) = (runs(&pollers), clock::cpu_ns());
            if sample > 0 {
                timed.add((after - before).max(1), end - start);
            }
        }
        handle.set_mode(Mode::Adaptive);
        Ok(timed.figure())
    })?
}

/// Runs of a thousand timed pollers that leave the core idle between them, made so many nanoseconds apart: the time
/// during which the reactor had work. Those that come due during one long call run together from then on, and a
/// dump of so many is such a call. So each sample has pollers of its own, and no dump while they are to be spread.
fn spread(how: &str, apart: u64, effort: Effort) -> Result<Figure, Failed> {
    let period = Duration::from_millis(1);
    let slice = Duration::from_millis(if effort.quick { 3 } else { 50 });
    let what = format!("1000 timed pollers every {period:?}, {how}, per run");
    runtime(1)?.run(async move || -> Result<Figure, Failed> {
        let handle = Handle::current().ok_or("not on a Spindle thread")?;
        handle.set_mode(Mode::Poll);
        let mut timed = Samples::start(what);
        for sample in effort.rounds(effort.samples.min(20)) {
            let (before, start) = (busy_ns(&handle).await, clock::wall_ns());
            let make = |number: u64| {
                while clock::wall_ns() < start + number * apart {
                    std::hint::spin_loop();
                }
                Poller::timed("idle", period, || Busy::Yes)
            };
            let pollers: Vec<Poller> = (0..1000).map(make).collect();
            let making = clock::wall_ns() - start;
            sleep(slice).await;
            let runs = runs(&pollers);
            let busy = busy_ns(&handle).await - before;
            if sample > 0 {
                timed.add(runs.max(1), busy.saturating_sub(making));
            }
        }
        handle.set_mode(Mode::Adaptive);
        Ok(timed.figure())
    })?
}

/// All calls so far.
fn runs(pollers: &[Poller]) -> u64 {
    pollers.iter().map(|poller| poller.runs().0).sum()
}

/// The time of the turns with work, without the one that answers.
async fn busy_ns(handle: &Handle) -> u64 {
    let busy: Duration = handle.dump().await.reactors.iter().map(|reactor| reactor.busy).sum();
    u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX)
}
