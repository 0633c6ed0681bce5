//! The cost of an idle reactor: a turn, a sleep, a wake-up.

use std::convert::Infallible;
use std::time::Duration;

use spindle::reactor::{Busy, Handle, IoDevice, Mode, Poller, Thread, Wake, interval, sleep, spawn_local};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, aims, clock, rss, runtime, yardstick};

/// An idle runtime's CPU and memory, its turns with few and many threads, and its wake-up time.
pub(crate) fn reactor(effort: Effort) -> Figures {
    // First, while the process is still small.
    effort.progress.at("an idle runtime");
    let mut figures = vec![idle(effort)?];
    effort.progress.at("turns");
    let bare_call = yardstick::bare_calls(effort.samples, effort.batch);
    figures.push(bare_call);
    for threads in [0, 10, 100, 1000] {
        figures.push(turns(threads, effort)?);
    }
    effort.progress.at("wake-ups");
    figures.extend(wake_ups(effort)?);
    Ok(figures)
}

/// Two reactors, ten threads, each with a timer of 1 s, a channel and a poller that sleeps until something
/// happens.
fn idle(effort: Effort) -> Result<Figure, Failed> {
    let watch = if effort.quick { Duration::from_millis(50) } else { Duration::from_secs(3) };
    runtime(2)?.run(async move || -> Result<Figure, Failed> {
        let device = IoDevice::register("device", || Ok::<_, Infallible>(0_u64));
        let mut threads = Vec::new();
        for number in 0..10 {
            let thread = Thread::create(&format!("idle_{number}"), &all_cores()?)?;
            let device = device.clone();
            thread.run(async move || doze(&device)).await??;
            threads.push(thread);
        }
        sleep(Duration::from_millis(20)).await;
        let mut timed = Samples::start("idle runtime: CPU per second, 2 reactors, 10 threads");
        let (cpu, wall) = (clock::cpu_ns(), clock::wall_ns());
        sleep(watch).await;
        let seconds = (clock::wall_ns() - wall) as f64 / 1e9;
        timed.add_each(1, (clock::cpu_ns() - cpu) as f64 / seconds);
        let core = Figure { what: "one core".into(), ns_median: 1e9, ..Figure::default() };
        Ok(timed.figure().against(&core, aims::IDLE_CPU).taking(rss::bytes()?, aims::IDLE_BYTES))
    })?
}

/// Gives the current thread a channel, a timer and a poller, which end with it.
fn doze(device: &IoDevice<u64>) -> Result<(), Failed> {
    let channel = device.channel()?;
    let poller = Poller::active("event", Wake::Event("messages through the channel"), || Busy::No);
    // Dropping the handle lets it run.
    drop(spawn_local(async move {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            debug_assert!(poller.runs().1 == *channel, "it finds nothing to do");
        }
    }));
    Ok(())
}

fn all_cores() -> Result<String, Failed> {
    let handle = Handle::current().ok_or("not on a Spindle thread")?;
    let cores: Vec<String> = handle.cores().iter().map(usize::to_string).collect();
    Ok(format!("[{}]", cores.join(",")))
}

/// A turn of one polling reactor that finds no work.
fn turns(threads: usize, effort: Effort) -> Result<Figure, Failed> {
    let slice = Duration::from_micros(if effort.quick { 500 } else { 10_000 });
    runtime(1)?.run(async move || -> Result<Figure, Failed> {
        let handle = Handle::current().ok_or("not on a Spindle thread")?;
        let cores = all_cores()?;
        let create = |number| Thread::create(&format!("idle_{number}"), &cores);
        let made: Vec<Thread> = (0..threads).map(create).collect::<Result<_, _>>()?;
        handle.set_mode(Mode::Poll);
        let mut timed = Samples::start(format!(
            "turn of a reactor with {} thread{}",
            threads + 1,
            if threads == 0 { "" } else { "s" }
        ));
        for sample in effort.rounds(effort.samples.min(20)) {
            // CPU time: other programs' use of the core does not count.
            let (start, before) = (clock::cpu_ns(), turns_so_far(&handle).await);
            sleep(slice).await;
            let (end, after) = (clock::cpu_ns(), turns_so_far(&handle).await);
            if sample > 0 {
                timed.add((after - before).max(1), end - start);
            }
        }
        handle.set_mode(Mode::Adaptive);
        drop(made);
        Ok(timed.figure())
    })?
}

async fn turns_so_far(handle: &Handle) -> u64 {
    handle.dump().await.reactors.iter().map(|reactor| reactor.turns.0 + reactor.turns.1).sum()
}

/// A call to a reactor that sleeps, from one that then sleeps itself.
fn wake_ups(effort: Effort) -> Figures {
    let runtime = runtime(2)?;
    let cores = [runtime.cores()[0], runtime.cores()[1]];
    let batch = effort.batch.min(100);
    let samples = effort.samples.min(30);
    let bare = yardstick::wake_round_trip(cores, samples, batch)?;
    let measured = runtime.run(async move || -> Result<Figure, Failed> {
        let handle = Handle::current().ok_or("not on a Spindle thread")?;
        let there = Thread::create("there", &format!("[{}]", cores[1]))?;
        handle.set_mode(Mode::Interrupt);
        let calls = async || {
            for number in 0..batch {
                there.run(async move || number).await?;
            }
            Ok(())
        };
        Samples::start("run and back, both reactors asleep").rounds(effort, samples, batch, calls).await
    })??;
    Ok(vec![bare.clone(), measured.beside(&bare)])
}
