//! The cost of a thread: its beginning, its end, its memory.

use spindle::reactor::Thread;

use super::figure::Memory;
use super::samples::Samples;
use super::{Effort, Failed, Figures, aims, clock, rss, runtime, yardstick};

/// Threads made and ended on the same core and on another, beside threads of the operating system.
pub(crate) fn threads(effort: Effort) -> Figures {
    let count = if effort.quick { 64 } else { 1000 };
    effort.progress.at("memory of threads");
    let bytes = memory(count * 10)?;
    effort.progress.at("bare OS threads");
    let bare = yardstick::os_threads(effort.samples.min(20), effort.batch.min(50))?;
    effort.progress.at("threads made and ended");
    let cores = spindle::engine::available_cores().set.len().min(2);
    let runtime = runtime(cores)?;
    let list: Vec<usize> = runtime.cores().to_vec();
    let measured = runtime.run(async move || -> Figures {
        let mut figures = Vec::new();
        for (name, core) in ["same core", "other core"].into_iter().zip(list) {
            let (made, ended) = cycle(name, &format!("[{core}]"), count, effort).await?;
            figures.extend([made, ended]);
        }
        Ok(figures)
    });
    let mut figures = vec![bare.clone()];
    for figure in measured?? {
        figures.push(match figure.what.starts_with("create") {
            true => figure.against(&bare, aims::CREATE_THREAD.ratio()),
            false => figure.beside(&bare),
        });
    }
    figures[1].memory = Some(Memory { bytes, aim: Some(aims::THREAD_BYTES) });
    Ok(figures)
}

/// Creates `count` threads, runs something on each, and waits until they have exited.
async fn cycle(
    name: &str,
    cores: &str,
    count: u64,
    effort: Effort,
) -> Result<(super::Figure, super::Figure), Failed> {
    let mut created = Samples::start(format!("create a thread, {name}, until it runs"));
    let mut ended = Samples::start(format!("exit of a thread, {name}, until it is gone"));
    for sample in effort.rounds(effort.samples.min(15)) {
        let start = clock::wall_ns();
        let threads: Vec<Thread> =
            (0..count).map(|_| Thread::create("short-lived", cores)).collect::<Result<_, _>>()?;
        if let Some(last) = threads.last() {
            last.run(async || ()).await?;
        }
        let between = clock::wall_ns();
        threads.iter().for_each(Thread::exit);
        for thread in &threads {
            thread.joined().await;
        }
        if sample > 0 {
            created.add(count, between - start);
            ended.add(count, clock::wall_ns() - between);
        }
    }
    Ok((created.figure(), ended.figure()))
}

/// Resident bytes of a thread that has run something.
fn memory(count: u64) -> Result<u64, Failed> {
    runtime(1)?.run(async move || -> Result<u64, Failed> {
        let here = Thread::current().ok_or("not on a Spindle thread")?;
        let mut threads: Vec<Thread> = Vec::with_capacity(count as usize);
        let before = rss::bytes()?;
        for _ in 0..count {
            let thread = Thread::create_on("idle", here.cores())?;
            thread.run(async || ()).await?;
            threads.push(thread);
        }
        let taken = rss::bytes()?.saturating_sub(before);
        threads.iter().for_each(Thread::exit);
        for thread in &threads {
            thread.joined().await;
        }
        Ok(taken / count)
    })?
}
