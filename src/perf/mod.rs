//! Measurements of this build on this machine, each beside what the bare machine does in the same run.
//!
//! A figure is a median over samples, with the 99th percentile, the CPU time of the whole process and,
//! where there is one, the yardstick. Noise comes and goes within seconds, so only figures of one run are
//! compared, and nothing here is a test.

mod clock;
mod disks;
mod figure;
mod messages;
mod yardstick;

pub(crate) use figure::{Figure, print_table};

use spindle::reactor::{Runtime, Thread};

/// How much to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Samples of each figure.
    pub(crate) samples: u64,
    /// Operations in a sample.
    pub(crate) batch: u64,
}

type Figures = Result<Vec<Figure>, Box<dyn std::error::Error + Send + Sync>>;

/// Messages, calls and memory disks beside the cache line and the copy loop of the same run. On one core
/// the memory disks alone.
pub(crate) fn yardstick(effort: Effort) -> Figures {
    let two_cores = spindle::engine::available_cores().set.len() > 1;
    let mut figures = if two_cores { messages(effort)? } else { Vec::new() };
    figures.extend(disks::reads(effort)?);
    Ok(figures)
}

/// Messages and calls beside the cache line.
pub(crate) fn messages(effort: Effort) -> Figures {
    let runtime = Runtime::builder().reactors(2).build()?;
    let cores = runtime.cores();
    if cores[0] == cores[1] {
        return Err("messages between cores need two cores, and this process may use one".into());
    }
    let line = yardstick::cache_line_round_trip([cores[0], cores[1]], effort.samples, effort.batch)?;
    let other = format!("[{}]", cores[1]);
    let same = format!("[{}]", cores[0]);
    let measured = runtime.run(async move || -> Figures {
        let there = Thread::create("there", &other)?;
        let here = Thread::create("here", &same)?;
        let mut figures =
            vec![messages::round_trip("message there and back, other core", &there, effort).await?];
        figures.push(messages::call("run and back, other core", &there, effort).await?);
        figures.push(messages::round_trip("message there and back, same core", &here, effort).await?);
        figures.push(messages::call("run and back, same core", &here, effort).await?);
        figures.push(messages::flood("message flood, other core, per message", &there, effort).await?);
        figures.push(messages::flood("message flood, same core, per message", &here, effort).await?);
        Ok(figures)
    });
    let mut measured = measured??.into_iter();
    let (message, run) = (measured.next().into_iter(), measured.by_ref().take(1));
    let run: Vec<Figure> = run.collect();
    let mut figures = vec![line.clone()];
    figures.extend(message.map(|figure| figure.against(&line, 2.0)));
    figures.extend(run.into_iter().map(|figure| figure.against(&line, 3.0)));
    figures.extend(measured);
    Ok(figures)
}
