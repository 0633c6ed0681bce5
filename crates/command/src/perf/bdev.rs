//! The cost of a request to a bdev through an open descriptor, which counts statistics: null and malloc, alone and
//! under a passthru bdev, and malloc on two cores at once. Timed by the CPU time of the thread, which never sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spindle::Thread;
use spindle::bdev::modules::malloc::{self, MallocSpec};
use spindle::bdev::modules::null::{self, NullSpec};
use spindle::bdev::modules::passthru::{self, PassthruSpec};
use spindle::bdev::{Bdev, DescOptions, Registry};
use spindle::block::Operation;
use spindle::block::load::{PairLoad, Pattern, bare_copies};
use spindle::mem::{IoBuf, SharedMem};
use spindle::reactor::yield_now;

use super::figure::Figure;
use super::samples::{self, Samples};
use super::{Effort, Failed, Figures, clock, runtime};

const BLOCK: u32 = 4096;
const BLOCKS: u64 = 1 << 14;

/// 4 KiB reads at depth 32 and 128 on one core, beside the bare copy loop.
pub(crate) fn bdev(effort: Effort) -> Figures {
    effort.progress.at("bdevs");
    let mut figures = runtime(1)?.run(async move || measure(effort).await)??;
    if spindle::engine::available_cores().set.len() > 1 {
        effort.progress.at("two cores");
        figures.push(runtime(2)?.run(async move || two_cores(effort).await)??);
    }
    Ok(figures)
}

async fn measure(effort: Effort) -> Figures {
    let registry = Registry::start()?;
    let (num_blocks, block_size) = (BLOCKS, BLOCK);
    let null = NullSpec {
        name: "null".into(),
        block_size,
        num_blocks,
        leaves_buffers_alone: true,
        ..Default::default()
    };
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
    let desc = bdev.descriptor(DescOptions::new().write(true))?;
    let whole = Pattern::sequential(&bdev.geometry(), u64::from(BLOCK))?;
    Ok(PairLoad::new(desc.queue_pair()?, Operation::Write, 1, whole).round(BLOCKS).await?)
}

async fn reads(bdev: &Bdev, depth: usize, effort: Effort) -> Result<Figure, Failed> {
    let desc = bdev.descriptor(DescOptions::new().write(true))?;
    let pattern = Pattern::random(&bdev.geometry(), u64::from(BLOCK), 1)?;
    let mut load = PairLoad::new(desc.queue_pair()?, Operation::Read, depth, pattern);
    let mut timed = Samples::start(format!("{} 4 KiB read, counted, depth {depth}", bdev.name()));
    for sample in effort.rounds(effort.samples) {
        let start = clock::thread_ns();
        load.round(effort.batch).await?;
        if sample > 0 {
            timed.add(effort.batch, clock::thread_ns() - start);
        }
    }
    Ok(timed.figure())
}

/// The bare memory of a disk, and the buffers of one core.
struct Bare {
    memory: Arc<SharedMem>,
    buffers: Vec<IoBuf>,
    pattern: Pattern,
}

/// Memory that is written to already.
fn bare_memory() -> Result<Arc<SharedMem>, Failed> {
    let memory = Arc::new(SharedMem::new((BLOCKS * u64::from(BLOCK)) as usize)?);
    let mut bare = Bare::of(memory.clone(), 1)?;
    bare.pattern = Pattern::sequential(&geometry()?, u64::from(BLOCK))?;
    bare.copy(Operation::Write, BLOCKS);
    Ok(memory)
}

fn geometry() -> Result<spindle::block::Geometry, Failed> {
    Ok(spindle::block::Geometry::new(BLOCK, BLOCKS)?)
}

impl Bare {
    fn of(memory: Arc<SharedMem>, seed: u64) -> Result<Bare, Failed> {
        let buffers = (0..32).map(|_| IoBuf::zeroed(BLOCK as usize)).collect();
        let pattern = Pattern::random(&geometry()?, u64::from(BLOCK), seed)?;
        Ok(Bare { memory, buffers, pattern })
    }

    fn copy(&mut self, operation: Operation, count: u64) {
        let shift = BLOCK.trailing_zeros();
        bare_copies(&self.memory, shift, operation, &mut self.buffers, &mut self.pattern, count);
    }
}

/// How well two cores do beside one: the share that is left of each one's speed, of that of the bare copy loop.
async fn two_cores(effort: Effort) -> Result<Figure, Failed> {
    let registry = Registry::start()?;
    let name = Some("malloc".into());
    let spec = MallocSpec { name, block_size: BLOCK, num_blocks: BLOCKS, ..Default::default() };
    let malloc = malloc::create(&registry, spec).await?;
    fill(&malloc).await?;
    let memory = bare_memory()?;
    let alone = on_cores(&malloc, &memory, 1, effort).await?;
    let both = on_cores(&malloc, &memory, 2, effort).await?;
    registry.shutdown().await?;
    let what = format!(
        "malloc 4 KiB read, counted, depth 32, on two cores: {:.2} of its speed on one; the copy loop {:.2}",
        alone.bdev / both.bdev,
        alone.bare / both.bare,
    );
    let yardstick = Figure { what: "what the copy loop loses".into(), ..Figure::default() };
    let yardstick = Figure { ns_median: both.bare / alone.bare * alone.bdev, ..yardstick };
    Ok(Figure { what, ns_median: both.bdev, count: both.count, ..Figure::default() }
        .against(&yardstick, 1.0 / SCALING))
}

/// The least share of the copy loop's own scaling.
const SCALING: f64 = 0.95;

/// Medians over the cores, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct OnCores {
    bdev: f64,
    bare: f64,
    count: u64,
}

async fn on_cores(
    bdev: &Bdev,
    memory: &Arc<SharedMem>,
    cores: usize,
    effort: Effort,
) -> Result<OnCores, Failed> {
    let busy = Arc::new(AtomicUsize::new(0));
    let mut running = Vec::new();
    for core in 0..cores {
        let thread = Thread::create(&format!("core {core}"), &format!("[{core}]"))?;
        let (bdev, memory, busy) = (bdev.clone(), memory.clone(), busy.clone());
        running.push((
            thread.clone(),
            thread.spawn(async move || {
                let ended = on_core(bdev, memory, effort, core as u64, &busy, cores).await;
                ended.map_err(|error| error.to_string())
            }),
        ));
    }
    let mut sum = OnCores::default();
    for (thread, ended) in running {
        let one = ended.await??;
        thread.exit();
        sum = OnCores { bdev: sum.bdev + one.bdev, bare: sum.bare + one.bare, count: sum.count + one.count };
    }
    let cores = cores as f64;
    Ok(OnCores { bdev: sum.bdev / cores, bare: sum.bare / cores, count: sum.count })
}

/// Batches of the bdev and of the copy loop in turns, on one core; goes on until all cores have measured.
async fn on_core(
    bdev: Bdev,
    memory: Arc<SharedMem>,
    effort: Effort,
    core: u64,
    busy: &AtomicUsize,
    cores: usize,
) -> Result<OnCores, Failed> {
    let desc = bdev.descriptor(DescOptions::new().write(true))?;
    let pattern = Pattern::random(&bdev.geometry(), u64::from(BLOCK), core + 1)?;
    let mut load = PairLoad::new(desc.queue_pair()?, Operation::Read, 32, pattern);
    let mut bare = Bare::of(memory, core + 1)?;
    busy.fetch_add(1, Ordering::AcqRel);
    while busy.load(Ordering::Acquire) < cores {
        yield_now().await;
    }
    let (mut of_bdev, mut of_bare) = (Vec::new(), Vec::new());
    for round in 0.. {
        let start = clock::thread_ns();
        load.round(effort.batch).await?;
        let middle = clock::thread_ns();
        bare.copy(Operation::Read, effort.batch);
        let end = clock::thread_ns();
        if round > 0 && round <= effort.samples {
            of_bdev.push((middle - start) as f64 / effort.batch as f64);
            of_bare.push((end - middle) as f64 / effort.batch as f64);
        }
        if round == effort.samples {
            busy.fetch_add(1, Ordering::AcqRel);
        }
        if round >= effort.samples && busy.load(Ordering::Acquire) == 2 * cores {
            break;
        }
    }
    of_bdev.sort_by(f64::total_cmp);
    of_bare.sort_by(f64::total_cmp);
    let count = of_bdev.len() as u64 * effort.batch;
    Ok(OnCores { bdev: samples::at(&of_bdev, 0.5), bare: samples::at(&of_bare, 0.5), count })
}

fn bare(effort: Effort) -> Result<Figure, Failed> {
    let mut bare = Bare::of(bare_memory()?, 1)?;
    let mut timed = Samples::start("bare copy loop, 4 KiB of 64 MiB");
    for sample in effort.rounds(effort.samples) {
        let start = clock::thread_ns();
        bare.copy(Operation::Read, effort.batch);
        if sample > 0 {
            timed.add(effort.batch, clock::thread_ns() - start);
        }
    }
    Ok(timed.figure())
}
