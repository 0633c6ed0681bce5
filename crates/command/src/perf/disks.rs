//! The cost of a read of a memory disk, beside the bare copy loop of the same pattern.

use std::sync::Arc;

use spindle::block::load::{ChannelLoad, PairLoad, Pattern, bare_copies};
use spindle::block::{Device, Geometry, LaneTable, Malloc, Null, Operation};
use spindle::mem::{IoBuf, SharedMem};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, clock, runtime};

const BLOCK: u32 = 4096;
const BLOCKS: u64 = 1 << 14;
const DEPTH: usize = 32;

/// 4 KiB reads of scattered blocks at depth 32, on one core: null and malloc, through a queue pair and
/// through a channel.
pub(super) fn reads(effort: Effort) -> Figures {
    effort.progress.at("memory disks");
    runtime(1)?.run(async move || measure(effort).await)?
}

async fn measure(effort: Effort) -> Figures {
    let null: Arc<dyn Device> = Null::leaving_buffers_alone("null", Geometry::new(BLOCK, BLOCKS)?);
    let malloc: Arc<dyn Device> = Malloc::new("malloc", BLOCK, BLOCKS)?;
    let memory = SharedMem::new((BLOCKS * u64::from(BLOCK)) as usize)?;
    let table = LaneTable::current().ok_or("not on a Spindle thread")?;
    fill(&table, &malloc, &memory).await?;

    let pattern = Pattern::random(&malloc.geometry(), u64::from(BLOCK), 1)?;
    let bare = bare(&memory, pattern, effort);
    let mut figures = vec![bare.clone()];
    for device in [&null, &malloc] {
        let name = device.name();
        let mut pair = PairLoad::new(table.queue_pair(device)?, Operation::Read, DEPTH, pattern);
        let mut timed = Samples::start(format!("{name} 4 KiB read, depth {DEPTH}, queue pair"));
        for sample in effort.rounds(effort.samples) {
            let start = clock::wall_ns();
            pair.round(effort.batch).await?;
            keep(&mut timed, sample, effort, start);
        }
        figures.push(timed.figure());
        let mut channel = ChannelLoad::new(table.channel(device.clone())?, Operation::Read, DEPTH, pattern);
        let mut timed = Samples::start(format!("{name} 4 KiB read, depth {DEPTH}, channel"));
        for sample in effort.rounds(effort.samples) {
            let start = clock::wall_ns();
            channel.round(effort.batch).await?;
            keep(&mut timed, sample, effort, start);
        }
        figures.push(timed.figure());
    }
    // Null copies nothing, so the copy loop is no yardstick for it.
    let beside =
        |figure: Figure| if figure.what.starts_with("malloc") { figure.beside(&bare) } else { figure };
    Ok(figures.into_iter().map(beside).collect())
}

/// Populates every page of both memories before anything is timed.
async fn fill(table: &LaneTable, malloc: &Arc<dyn Device>, memory: &SharedMem) -> Result<(), Failed> {
    let mut whole = Pattern::sequential(&malloc.geometry(), u64::from(BLOCK))?;
    PairLoad::new(table.queue_pair(malloc)?, Operation::Write, 1, whole).round(BLOCKS).await?;
    let mut buffer = [IoBuf::zeroed(BLOCK as usize)];
    bare_copies(memory, BLOCK.trailing_zeros(), Operation::Write, &mut buffer, &mut whole, BLOCKS);
    Ok(())
}

fn bare(memory: &SharedMem, mut pattern: Pattern, effort: Effort) -> Figure {
    let mut buffers: Vec<IoBuf> = (0..DEPTH).map(|_| IoBuf::zeroed(BLOCK as usize)).collect();
    let mut timed = Samples::start("bare copy loop, 4 KiB of 64 MiB");
    for sample in effort.rounds(effort.samples) {
        let start = clock::wall_ns();
        bare_copies(
            memory,
            BLOCK.trailing_zeros(),
            Operation::Read,
            &mut buffers,
            &mut pattern,
            effort.batch,
        );
        keep(&mut timed, sample, effort, start);
    }
    timed.figure()
}

/// Adds a sample, unless it was the first, which warms up.
fn keep(timed: &mut Samples, sample: u64, effort: Effort, start: u64) {
    if sample > 0 {
        timed.add(effort.batch, clock::wall_ns() - start);
    }
}
