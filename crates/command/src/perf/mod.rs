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
mod effort;
mod failed;
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
mod runtime;
mod samples;
mod threads;
mod yardstick;

pub(crate) use bdev::bdev;
pub(crate) use blob::blob;
pub(crate) use block::block;
pub(crate) use clock::cpu_ns;
pub(crate) use effort::Effort;
pub(crate) use figure::Figure;
pub(crate) use loading::load;
pub(crate) use medium::Medium;
pub(crate) use messages::messages;
pub(crate) use pollers::pollers;
pub(crate) use progress::Progress;
pub(crate) use reactor::reactor;
pub(crate) use threads::threads;

use failed::Failed;
use figure::Figures;
use runtime::runtime;

/// Messages, calls and memory disks beside the cache line and the copy loop of the same run. On one core
/// the memory disks alone.
pub(crate) fn yardstick(effort: Effort) -> Figures {
    let two_cores = spindle::engine::available_cores().set.len() > 1;
    let mut figures = if two_cores { messages(effort)? } else { Vec::new() };
    figures.extend(disks::reads(effort)?);
    Ok(figures)
}
