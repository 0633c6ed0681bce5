//! The cost of a request to a bdev through an open descriptor, which counts statistics: null and malloc, alone and
//! under a passthru bdev.

use spindle::bdev::modules::malloc::{self, MallocSpec};
use spindle::bdev::modules::null::{self, NullSpec};
use spindle::bdev::modules::passthru::{self, PassthruSpec};
use spindle::bdev::{Bdev, OpenOptions, Registry};
use spindle::block::Operation;
use spindle::block::load::{PairLoad, Pattern, bare_copies};
use spindle::mem::{IoBuf, SharedMem};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, clock, runtime};

const BLOCK: u32 = 4096;
const BLOCKS: u64 = 1 << 14;

/// 4 KiB reads at depth 32 and 128 on one core, beside the bare copy loop.
pub(crate) fn bdev(effort: Effort) -> Figures {
    effort.progress.at("bdevs");
    runtime(1)?.run(async move || measure(effort).await)?
}

async fn measure(effort: Effort) -> Figures {
    let registry = Registry::start()?;
    let (num_blocks, block_size) = (BLOCKS, BLOCK);
    let null = NullSpec { name: "null".into(), block_size, num_blocks, ..Default::default() };
    null::create(&registry, null).await?;
    let malloc = MallocSpec { name: Some("malloc".into()), block_size, num_blocks, ..Default::default() };
    let malloc = malloc::create(&registry, malloc).await?;
    fill(&malloc).await?;
    let bare = bare(effort)?;
    let mut figures = vec![bare.clone()];
    for depth in [32, 128] {
        for name in ["null", "malloc"] {
            figures.push(reads(&registry.get(name)?, depth, effort).await?.beside(&bare));
        }
    }
    for base in ["null", "malloc"] {
        let spec = PassthruSpec { name: format!("passthru on {base}"), base: base.into(), uuid: None };
        let made = passthru::create(&registry, spec).await?.ok_or("its base is there")?;
        figures.push(reads(&made, 32, effort).await?.beside(&bare));
    }
    registry.shutdown().await?;
    Ok(figures)
}

/// Populates every page before anything is timed.
async fn fill(bdev: &Bdev) -> Result<(), Failed> {
    let desc = bdev.descriptor(OpenOptions::new().write(true))?;
    let whole = Pattern::sequential(&bdev.geometry(), u64::from(BLOCK))?;
    Ok(PairLoad::new(desc.queue_pair()?, Operation::Write, 1, whole).round(BLOCKS).await?)
}

async fn reads(bdev: &Bdev, depth: usize, effort: Effort) -> Result<Figure, Failed> {
    let desc = bdev.descriptor(OpenOptions::new().write(true))?;
    let pattern = Pattern::random(&bdev.geometry(), u64::from(BLOCK), 1)?;
    let mut load = PairLoad::new(desc.queue_pair()?, Operation::Read, depth, pattern);
    let mut timed = Samples::start(format!("{} 4 KiB read, counted, depth {depth}", bdev.name()));
    for sample in effort.rounds(effort.samples) {
        let start = clock::wall_ns();
        load.round(effort.batch).await?;
        if sample > 0 {
            timed.add(effort.batch, clock::wall_ns() - start);
        }
    }
    Ok(timed.figure())
}

fn bare(effort: Effort) -> Result<Figure, Failed> {
    let bytes = BLOCKS * u64::from(BLOCK);
    let memory = SharedMem::new(bytes as usize)?;
    let geometry = spindle::block::Geometry::new(BLOCK, BLOCKS)?;
    let mut buffers: Vec<IoBuf> = (0..32).map(|_| IoBuf::zeroed(BLOCK as usize)).collect();
    let shift = BLOCK.trailing_zeros();
    let mut whole = Pattern::sequential(&geometry, u64::from(BLOCK))?;
    bare_copies(&memory, shift, Operation::Write, &mut buffers, &mut whole, BLOCKS);
    let mut pattern = Pattern::random(&geometry, u64::from(BLOCK), 1)?;
    let mut timed = Samples::start("bare copy loop, 4 KiB of 64 MiB");
    for sample in effort.rounds(effort.samples) {
        let start = clock::wall_ns();
        bare_copies(&memory, shift, Operation::Read, &mut buffers, &mut pattern, effort.batch);
        if sample > 0 {
            timed.add(effort.batch, clock::wall_ns() - start);
        }
    }
    Ok(timed.figure())
}
