//! The cost of a request in the block layer alone: a device that does nothing, bare, under layers that do
//! nothing, cut, and with statistics and limits.

use std::collections::VecDeque;
use std::sync::Arc;

use spindle::block::load::{Empty, InPieces, PairLoad, Pattern};
use spindle::block::{Device, Geometry, HistogramOptions, LaneTable, Limits, Null, Operation};

use super::figure::Figure;
use super::samples::Samples;
use super::{Effort, Failed, Figures, runtime};

const BLOCK: u32 = 512;
const BLOCKS: u64 = 1 << 20;
/// Blocks per request, so that requests can be cut.
const REQUEST: u64 = 8 * BLOCK as u64;

/// Reads of a null device by a queue pair, on one core, each beside the bare loop.
pub(crate) fn block(effort: Effort) -> Figures {
    effort.progress.at("the block layer");
    runtime(1)?.run(async move || measure(effort).await)?
}

/// A device, and the load on it.
struct Case {
    what: String,
    device: Arc<dyn Device>,
    depth: usize,
    /// Buffers in a request.
    parts: u64,
}

fn null() -> Result<Arc<Null>, Failed> {
    Ok(Null::leaving_buffers_alone("null", Geometry::new(BLOCK, BLOCKS)?))
}

fn cases() -> Result<Vec<Case>, Failed> {
    let case = |what: &str, device: Arc<dyn Device>, depth: usize, parts: u64| Case {
        what: format!("{what}, depth {depth}"),
        device,
        depth,
        parts,
    };
    let mut cases = Vec::new();
    for depth in [1, 32, 128] {
        cases.push(case("null", null()?, depth, 1));
    }
    for layers in 1..=4 {
        let device = Empty::layers(null()?, layers);
        cases.push(case(&format!("null under {layers} empty layers"), device, 32, 1));
    }
    for pieces in [2, 8] {
        for parts in [1, 8] {
            let list = if parts == 1 { "" } else { ", a list of 8 buffers" };
            let what = format!("null, cut into {pieces}{list}");
            cases.push(case(&what, InPieces::of(null()?, pieces), 32, parts));
        }
    }
    cases.push(case("null, a list of 8 buffers", null()?, 32, 8));
    Ok(cases)
}

/// Devices that count, or limit so high that nothing waits.
async fn watched_cases() -> Result<Vec<Case>, Failed> {
    let limits = Limits { operations: Some(u64::MAX / 2), ..Limits::default() };
    let mut cases = Vec::new();
    for depth in [1, 32] {
        let counted = null()?;
        state(&counted).keep_statistics(true).await;
        let tallied = null()?;
        state(&tallied).keep_histogram(Some(HistogramOptions::default())).await;
        let limited = null()?;
        state(&limited).set_limits(limits).await;
        let both = null()?;
        state(&both).keep_statistics(true).await;
        state(&both).set_limits(limits).await;
        for (what, device) in [
            ("null with statistics", counted),
            ("null with a histogram", tallied),
            ("null with a limit", limited),
            ("null with statistics and a limit", both),
        ] {
            cases.push(Case { what: format!("{what}, depth {depth}"), device, depth, parts: 1 });
        }
    }
    Ok(cases)
}

fn state(null: &Arc<Null>) -> &spindle::block::DeviceState {
    null.state().expect("a null device has a state")
}

async fn measure(effort: Effort) -> Figures {
    let table = LaneTable::current().ok_or("not on a Spindle thread")?;
    let mut cases = cases()?;
    cases.extend(watched_cases().await?);
    let bare = bare_loop(effort);
    let mut figures = vec![bare.clone()];
    for case in cases {
        effort.progress.at(&case.what);
        figures.push(reads(&table, &case, effort).await?.beside(&bare));
    }
    Ok(figures)
}

async fn reads(table: &LaneTable, case: &Case, effort: Effort) -> Result<Figure, Failed> {
    let pattern = Pattern::random(&case.device.geometry(), REQUEST, 1)?;
    let pair = table.queue_pair(&case.device)?;
    let mut load = match case.parts {
        1 => PairLoad::new(pair, Operation::Read, case.depth, pattern),
        parts => PairLoad::vectored(pair, Operation::Read, case.depth, pattern, parts),
    };
    let timed = Samples::start(&case.what);
    timed.rounds(effort, effort.samples, effort.batch, async || Ok(load.round(effort.batch).await?)).await
}

/// The minimum of a queue with a pool of requests: a place is chosen, and a boxed request goes through two
/// queues.
fn bare_loop(effort: Effort) -> Figure {
    let mut down: VecDeque<Box<[u64; 32]>> = (0..32).map(|_| Box::new([0; 32])).collect();
    let mut up = VecDeque::with_capacity(down.len());
    let geometry = Geometry::new(BLOCK, BLOCKS).ok();
    let mut pattern = geometry.and_then(|geometry| Pattern::random(&geometry, REQUEST, 1).ok());
    let fillings = (effort.batch / 32).max(1);
    let timed = Samples::start("bare loop: a boxed request through two queues, depth 32");
    timed.bare_rounds(effort, fillings * 32, || {
        for _ in 0..fillings {
            while let Some(mut request) = down.pop_front() {
                request[0] = pattern.as_mut().map_or(0, Pattern::next_start);
                up.push_back(std::hint::black_box(request));
            }
            std::mem::swap(&mut down, &mut up);
        }
    })
}
