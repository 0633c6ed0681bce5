//! Law 5: once warm, reading, writing and flushing allocate nothing, counted by the allocator itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;
mod suite;

use std::time::Duration;

use counting_allocator::blocks;
use spindle_engine::{Completion, EngineKind, File, Op, Token};
use spindle_mem::{Buffers, IoBuf};
use suite::Bench;

/// Operations kept in flight.
const DEPTH: usize = 32;

#[test]
fn a_warm_driver_allocates_nothing_for_reads_writes_and_flushes() {
    for kind in [EngineKind::IoUring, EngineKind::Sim(1)] {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let file = bench.file("a", 1 << 20);
        let mut buffers: Vec<Buffers> = (0..DEPTH).map(two_or_one).collect();
        let mut done = Vec::with_capacity(2 * DEPTH);
        for round in 0..400 {
            turn(&mut bench, &file, round, &mut buffers, &mut done);
        }
        let before = blocks().0;
        for round in 400..1000 {
            turn(&mut bench, &file, round, &mut buffers, &mut done);
        }
        let allocated = blocks().0 - before;
        assert_eq!(allocated, 0, "{kind}: {allocated} allocations in 600 rounds of {DEPTH} operations");
    }
}

fn two_or_one(i: usize) -> Buffers {
    if i.is_multiple_of(4) {
        Buffers::Many(vec![IoBuf::zeroed(512), IoBuf::zeroed(3584)])
    } else {
        Buffers::One(IoBuf::zeroed(4096))
    }
}

/// One round: writes and reads with all buffers, then a flush; the buffers come back.
fn turn(bench: &mut Bench, file: &File, round: u64, buffers: &mut Vec<Buffers>, done: &mut Vec<Completion>) {
    for (i, buffers) in buffers.drain(..).enumerate() {
        let (file, offset) = (file.clone(), (i as u64 * 7 + round) % 200 * 4096);
        let op = match (i as u64 + round).is_multiple_of(2) {
            true => Op::Write { file, offset, buffers },
            false => Op::Read { file, offset, buffers },
        };
        bench.driver.submit(Token(i as u64), op);
    }
    bench.driver.submit(Token(99), Op::Flush { file: file.clone() });
    while bench.driver.in_flight() > 0 {
        bench.driver.poll(done);
        for completion in done.drain(..) {
            completion.result.expect("nothing fails here");
            match completion.op.into_buffers() {
                Buffers::None => {}
                some => buffers.push(some),
            }
        }
        if bench.driver.in_flight() > 0 {
            let limit = bench.driver.now() + Duration::from_secs(10);
            bench.driver.park(Some(limit));
        }
    }
}
