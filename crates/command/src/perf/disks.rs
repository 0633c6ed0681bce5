//! The cost of a read of a memory disk, beside the bare copy loop of the same pattern.

use std::sync::Arc;

use spindle::block::load::{ChannelLoad, PairLoad, Pattern, bare_copies};
use spindle::block::{Device, Geometry, LaneTable, Malloc, Null, Operation};
use spindle::mem::{IoBuf, SharedMem};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, runtime};

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
        let timed = Samples::start(format!("{name} 4 KiB read, depth {DEPTH}, queue pair"));
        let round = async || Ok(pair.round(effort.batch).await?);
        figures.push(timed.rounds(effort, effort.samples, effort.batch, round).await?);
        let mut channel = ChannelLoad::new(table.channel(device.clone())?, Operation::Read, DEPTH, pattern);
        let timed = Samples::start(format!("{name} 4 KiB read, depth {DEPTH}, channel"));
        let round = async || Ok(channel.round(effort.batch).await?);
        figures.push(timed.rounds(effort, effort.samples, effort.batch, round).await?);
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
    let shift = BLOCK.trailing_zeros();
    Samples::start("bare copy loop, 4 KiB of 64 MiB").bare_rounds(effort, effort.batch, || {
        bare_copies(memory, shift, Operation::Read, &mut buffers, &mut pattern, effort.batch)
    })
}
