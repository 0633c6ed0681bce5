//! Measurements of this build on this machine, each beside the bare machine in the same run.
//!
//! A figure is a median over samples, with the 99th percentile, the CPU time of the whole process and,
//! where there is one, the yardstick. Noise comes and goes within seconds, so only figures of one run are
//! compared, and nothing here is a test.

mod aims;
mod bdev;
mod blob;
mod block;
mod clock;
mod disks;
mod figure;
mod filling;
mod flight;
mod image;
mod loading;
mod medium;
mod messages;
mod pairs;
mod pollers;
mod progress;
mod reactor;
mod rss;
mod samples;
mod threads;
mod yardstick;

pub(crate) use bdev::bdev;
pub(crate) use blob::blob;
pub(crate) use block::block;
pub(crate) use clock::cpu_ns;
pub(crate) use figure::Figure;
pub(crate) use loading::load;
pub(crate) use medium::Medium;
pub(crate) use messages::messages;
pub(crate) use pollers::pollers;
pub(crate) use progress::Progress;
pub(crate) use reactor::reactor;
pub(crate) use threads::threads;

use spindle::reactor::Runtime;

/// How much to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Samples of each figure.
    pub(crate) samples: u64,
    /// Operations in a sample.
    pub(crate) batch: u64,
    /// Interleaved pairs of each figure that has them.
    pub(crate) pairs: u64,
    /// A short run with small numbers, as a test of the measurement.
    pub(crate) quick: bool,
    /// Shows what is being measured.
    pub(crate) progress: Progress,
}

impl Effort {
    /// Enough for comparisons.
    pub(crate) fn full() -> Effort {
        Effort { samples: 200, batch: 1000, pairs: 201, quick: false, progress: Progress::new() }
    }

    /// A few samples, as a test of the measurement.
    pub(crate) fn quick() -> Effort {
        Effort { samples: 3, batch: 16, pairs: 2, quick: true, progress: Progress::new() }
    }
}

impl Effort {
    /// The numbers of up to `most` samples and of one warm-up before them. On a busy machine it ends sooner,
    /// after 2 s, but not before the third sample.
    fn rounds(self, most: u64) -> impl Iterator<Item = u64> {
        let end = clock::wall_ns() + 2_000_000_000;
        (0..most + 1).take_while(move |&round| round <= 3 || clock::wall_ns() < end)
    }
}

/// Why a measurement failed.
type Failed = Box<dyn std::error::Error + Send + Sync>;

type Figures = Result<Vec<Figure>, Failed>;

/// A runtime to measure on, without a watchdog, as a measurement is a long call.
fn runtime(reactors: usize) -> Result<Runtime, Failed> {
    Ok(Runtime::builder().reactors(reactors).watchdog(None).build()?)
}

/// Messages, calls and memory disks beside the cache line and the copy loop of the same run. On one core
/// the memory disks alone.
pub(crate) fn yardstick(effort: Effort) -> Figures {
    let two_cores = spindle::engine::available_cores().set.len() > 1;
    let mut figures = if two_cores { messages(effort)? } else { Vec::new() };
    figures.extend(disks::reads(effort)?);
    Ok(figures)
}
