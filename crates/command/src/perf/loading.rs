//! The speed of loading a store, beside reading as many bytes from the same disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle::block::{Channel, Device};
use spindle::{Blobstore, LoadOptions};

use super::clock;
use super::figure::Figure;
use super::flight::{buffers, fly};
use super::image::{self, Image};
use super::medium::Medium;
use super::pairs::{Pairs, timed, timed_by_cpu};
use super::{Effort, Failed, Figures, runtime};

/// Bytes of a bare read, and how many are in flight.
const READ: usize = 256 << 10;
const DEPTH: usize = 32;

/// A store, the states in which it is loaded, and the allowed time in milliseconds.
struct Case {
    image: Image,
    clean: bool,
    aim_ms: Option<f64>,
}

/// Dirty and clean stores with few and many pages and blobs.
pub(crate) fn load(effort: Effort, medium: Medium) -> Figures {
    runtime(1)?.run(async move || {
        let mut figures = Vec::new();
        for case in cases(effort.quick, medium.is_memory()) {
            figures.extend(case.measure(effort, &medium).await?);
        }
        Ok(figures)
    })?
}

fn cases(quick: bool, memory: bool) -> Vec<Case> {
    let case = |pages, blobs, clean, aim_ms| Case { image: Image { pages, blobs }, clean, aim_ms };
    if quick {
        return vec![case(512, 100, false, Some(100.0)), case(512, 100, true, Some(50.0))];
    }
    let mut cases = vec![
        case(10_000, 0, false, None),
        case(32_768, 0, false, Some(100.0)),
        case(32_768, 10_000, false, Some(100.0)),
        case(32_768, 10_000, true, Some(50.0)),
        case(100_000, 0, false, None),
        case(262_144, 100_000, false, None),
        case(262_144, 100_000, true, None),
    ];
    // On a file that would be 4 GiB to write first.
    if memory {
        // 1 GB/s.
        cases.push(case(1_000_000, 0, false, Some(4096.0)));
        cases.push(case(1_000_000, 500_000, false, Some(4096.0)));
    }
    cases
}

impl Case {
    async fn measure(&self, effort: Effort, medium: &Medium) -> Figures {
        let Image { pages, blobs } = self.image;
        let state = if self.clean { "clean" } else { "dirty" };
        let what = format!("load, {state}, {pages} metadata pages, {blobs} blobs");
        effort.progress.at(&what);
        let disk = self.image.make(medium).await?;
        if self.clean {
            image::clean(&disk.device).await?;
        }
        let device = &disk.device;
        let bytes = bytes_read(device).await?;
        let channel = Channel::open(device.clone())?;
        let mut idle = buffers(DEPTH, READ);
        let pairs = Pairs::start(what, "bare disk: as many bytes read");
        // The largest takes seconds each time.
        let few = Effort { pairs: effort.pairs.min(if blobs > 100_000 { 2 } else { 11 }), ..effort };
        // From memory one core does all the work and never sleeps.
        let by_cpu = medium.is_memory();
        let now = if by_cpu { clock::cpu_ns } else { clock::wall_ns };
        let pairs = pairs
            .measure(
                few,
                async || {
                    let start = now();
                    let store = Blobstore::load(device.clone(), read_only()).await?;
                    let took = now() - start;
                    store.unload().await?;
                    Ok((1, took))
                },
                async || {
                    let bare = read(&channel, bytes, &mut idle);
                    if by_cpu { timed_by_cpu(1, bare).await } else { timed(1, bare).await }
                },
            )
            .await?;
        channel.close().await;
        let figure = Figure { bytes_per_op: Some(bytes), ..pairs.figure() };
        // The speed of the disk is always sufficient.
        let aim = |ms: f64| figure.yardstick_ns.map(|bare| (ms * 1e6 / bare).max(1.0));
        Ok(vec![Figure { aim_ratio: self.aim_ms.and_then(aim), ..figure }])
    }
}

fn read_only() -> LoadOptions {
    LoadOptions { read_only: true, ..LoadOptions::default() }
}

/// Number of bytes that a load reads.
async fn bytes_read(device: &Arc<dyn Device>) -> Result<u64, Failed> {
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let progress = move |step: spindle::blob::LoadStep| {
        seen.fetch_max(step.bytes_read, Ordering::Relaxed);
    };
    let options = LoadOptions { progress: Some(Arc::new(progress)), ..read_only() };
    let store = Blobstore::load(device.clone(), options).await?;
    store.unload().await?;
    Ok(most.load(Ordering::Relaxed))
}

/// Reads `bytes` bytes from the beginning.
async fn read(channel: &Channel, bytes: u64, idle: &mut Vec<spindle::Buffers>) -> Result<(), Failed> {
    let mut at = 0;
    fly(bytes.div_ceil(READ as u64), idle, |buffers| {
        at += READ as u64;
        channel.read(at - READ as u64, buffers)
    })
    .await
}
