//! What a request costs: the null and the malloc device at depths 1, 32 and 128, by queue pair and by
//! channel, beside the bare copy loop of the same pattern.
//!
//! `cargo run --release -p spindle-block --example lane_cost`; with `layers`, of a null device under layers.

#![allow(clippy::unwrap_used, reason = "a measuring program may stop at the first surprise")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use spindle_block::load::{ChannelLoad, Empty, InPieces, PairLoad, Pattern, bare_copies};
use spindle_block::{Device, Geometry, LaneTable, Malloc, Null, Operation};
use spindle_mem::{IoBuf, SharedMem};

/// Requests in a round, and rounds: the median round is reported.
const REQUESTS: u64 = 50_000;
const ROUNDS: usize = 15;

#[allow(clippy::disallowed_methods, reason = "a stopwatch around a synchronous loop, outside any runtime")]
fn time(mut round: impl FnMut()) -> f64 {
    round();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = std::time::Instant::now();
            round();
            start.elapsed().as_nanos() as f64 / REQUESTS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Runs a future on devices that complete at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("these devices complete at once"),
    }
}

/// Requests of eight blocks through layers and cuts at depth 32.
fn layers() {
    let null =
        || -> Arc<dyn Device> { Null::leaving_buffers_alone("null", Geometry::new(512, 1 << 20).unwrap()) };
    let cases: Vec<(String, Arc<dyn Device>, u64)> = [
        ("null".to_owned(), null(), 1),
        ("1 empty layer".to_owned(), Empty::layers(null(), 1), 1),
        ("4 empty layers".to_owned(), Empty::layers(null(), 4), 1),
        ("cut in 2".to_owned(), InPieces::of(null(), 2), 1),
        ("cut in 8".to_owned(), InPieces::of(null(), 8), 1),
        ("list of 8, cut in 2".to_owned(), InPieces::of(null(), 2), 8),
        ("list of 8, cut in 8".to_owned(), InPieces::of(null(), 8), 8),
    ]
    .into();
    let only: Option<usize> = std::env::args().nth(2).and_then(|n| n.parse().ok());
    for (n, (what, device, parts)) in cases.into_iter().enumerate() {
        if only.is_some_and(|only| only != n) {
            continue;
        }
        let table = LaneTable::default();
        let pattern = Pattern::random(&device.geometry(), 4096, 1).unwrap();
        let pair = table.queue_pair(&device).unwrap();
        let mut load = match parts {
            1 => PairLoad::new(pair, Operation::Read, 32, pattern),
            parts => PairLoad::vectored(pair, Operation::Read, 32, pattern, parts),
        };
        println!("{what:24} {:9.1}", time(|| now(load.round(REQUESTS)).unwrap()));
    }
}

fn main() {
    if std::env::args().nth(1).is_some_and(|what| what == "layers") {
        return layers();
    }
    let block = 4096;
    let null: Arc<dyn Device> = Null::leaving_buffers_alone("null", Geometry::new(block, 1 << 14).unwrap());
    let malloc: Arc<dyn Device> = Malloc::new("malloc", block, 1 << 14).unwrap();
    let memory = SharedMem::new(64 << 20).unwrap();
    // Every page is populated before anything is timed.
    let mut whole = Pattern::sequential(&malloc.geometry(), u64::from(block)).unwrap();
    let table = LaneTable::default();
    let mut fill = PairLoad::new(table.queue_pair(&malloc).unwrap(), Operation::Write, 1, whole);
    now(fill.round(1 << 14)).unwrap();
    bare_copies(&memory, 12, Operation::Write, &mut [IoBuf::zeroed(4096)], &mut whole, 1 << 14);
    println!("{:24} {:>9} {:>9} {:>9}   ns per request", "", "pair", "channel", "bare copy");
    for operation in [Operation::Read, Operation::Write] {
        for device in [&null, &malloc] {
            for depth in [1, 32, 128] {
                let table = LaneTable::default();
                let mut pattern = Pattern::random(&device.geometry(), u64::from(block), 1).unwrap();
                let mut buffers: Vec<IoBuf> = (0..depth).map(|_| IoBuf::zeroed(block as usize)).collect();
                let bare = time(|| {
                    bare_copies(
                        &memory,
                        block.trailing_zeros(),
                        operation,
                        &mut buffers,
                        &mut pattern,
                        REQUESTS,
                    );
                });
                let mut pair = PairLoad::new(table.queue_pair(device).unwrap(), operation, depth, pattern);
                let pair = time(|| now(pair.round(REQUESTS)).unwrap());
                let channel = table.channel(device.clone()).unwrap();
                let mut channel = ChannelLoad::new(channel, operation, depth, pattern);
                let channel = time(|| now(channel.round(REQUESTS)).unwrap());
                let what = format!("{} {operation}, depth {depth}", device.name());
                println!("{what:24} {pair:9.1} {channel:9.1} {bare:9.1}");
            }
        }
    }
}
