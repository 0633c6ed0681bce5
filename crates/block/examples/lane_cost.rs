//! What a request costs: the null and the malloc device at depths 1, 32 and 128, by queue pair and by
//! channel, beside the bare copy loop of the same pattern.
//!
//! `cargo run --release -p spindle-block --example lane_cost`

#![allow(clippy::unwrap_used, reason = "a measuring program may stop at the first surprise")]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use spindle_block::{Device, Geometry, LaneTable, Null, Operation};
use spindle_mem::IoBuf;

const COUNT: u64 = 2_000_000;

#[allow(clippy::disallowed_methods, reason = "a stopwatch around a synchronous loop, outside any runtime")]
fn time(what: &str, mut f: impl FnMut(u64)) {
    f(COUNT / 10);
    let start = std::time::Instant::now();
    f(COUNT);
    let ns = start.elapsed().as_nanos() as f64 / COUNT as f64;
    println!("{what:40} {ns:7.1} ns");
}

fn pair(device: &Arc<dyn Device>, depth: usize, size: usize) {
    let table = LaneTable::default();
    let mut pair = table.queue_pair(device).unwrap();
    let blocks = size as u64 >> device.geometry().block_shift();
    let span = device.geometry().blocks() / blocks;
    let mut fresh: Vec<_> =
        (0..depth).map(|_| pair.request(Operation::Read, 0, blocks, IoBuf::zeroed(size))).collect();
    let mut at = 1u64;
    time(&format!("{} {size} B read, depth {depth}, pair", device.name()), |count| {
        for io in fresh.drain(..) {
            pair.submit(io);
        }
        let mut done = 0;
        while done < count {
            done += pair.cycle(|mut io, status| {
                status.unwrap();
                at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                io.set_start(((at >> 33) % span) * blocks);
                Some(io)
            }) as u64;
        }
        while pair.outstanding() > 0 {
            pair.reap(|io, _| fresh.push(io));
        }
    });
}

fn channel(device: &Arc<dyn Device>, size: usize) {
    let table = LaneTable::default();
    let channel = table.channel(device.clone()).unwrap();
    let mut buffers = Some(spindle_mem::Buffers::from(IoBuf::zeroed(size)));
    let span = device.geometry().bytes() / size as u64;
    let mut at = 1u64;
    time(&format!("{} {size} B read, depth 1, channel", device.name()), |count| {
        for _ in 0..count {
            at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let read = pin!(channel.read(((at >> 33) % span) * size as u64, buffers.take().unwrap()));
            let Poll::Ready((result, back)) = read.poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("ready")
            };
            result.unwrap();
            buffers = Some(back);
        }
    });
}

fn main() {
    let null: Arc<dyn Device> = Null::new("null", Geometry::new(4096, 1 << 14).unwrap());
    for depth in [1, 32, 128] {
        pair(&null, depth, 4096);
    }
    channel(&null, 4096);
    let source = vec![1u8; 64 << 20];
    for depth in [1usize, 32, 128] {
        let mut targets: Vec<Vec<u8>> = vec![vec![0; 4096]; depth];
        let mut at = 1u64;
        time(&format!("bare copy 4096 B, {depth} targets"), |count| {
            for n in 0..count {
                at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let from = ((at >> 33) % (1 << 14)) as usize * 4096;
                targets[n as usize % depth].copy_from_slice(black_box(&source[from..from + 4096]));
            }
        });
    }
}
