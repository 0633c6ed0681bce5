//! `spindle perf`: measures this build on this machine.

use std::io::Write;

use clap::Args;

use super::failure::Failure;
use super::output::Output;
use crate::perf::{self, Effort};

/// What to measure, and how to say it.
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
    #[arg(long, hide = true)]
    quick: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// Messages and calls between threads, on the same core and on another
    Messages,
}

/// Measures and prints.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let effort =
        if command.quick { Effort { samples: 3, batch: 16 } } else { Effort { samples: 200, batch: 1000 } };
    let figures = match command.what {
        Some(What::Messages) => perf::messages(effort),
        None => perf::yardstick(effort),
    };
    let figures = figures.map_err(|error| Failure::Measurement(error.to_string()))?;
    let mut out = Output::stdout();
    if command.json {
        out.json(&figures)?;
    } else {
        let mut table = Vec::new();
        perf::print_table(&figures, &mut table)?;
        out.write_all(&table)?;
    }
    out.finish()?;
    let missed: Vec<&str> =
        figures.iter().filter(|figure| figure.missed()).map(|figure| &*figure.what).collect();
    match command.check && !missed.is_empty() {
        true => Err(Failure::AimMissed(missed.join(", "))),
        false => Ok(()),
    }
}
