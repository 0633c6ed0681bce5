//! One job of a load: a queue pair, and its requests in flight.

use spindle_block::load::Pattern;
use spindle_block::{Io, Operation, QueuePair, Status};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{Time, clock, yield_now};

use super::verify;
use super::{JobReport, Latencies, LoadSpec, Workload};
use crate::{Bdev, BdevError, DescOptions};

/// Completions before other work of the reactor gets its turn.
const TURN: usize = 32;

/// Runs a job, the `share.0`-th of `share.1`, on the current thread.
pub(super) async fn run(bdev: &Bdev, spec: &LoadSpec, share: (u64, u64)) -> Result<JobReport, BdevError> {
    let desc = bdev.descriptor(DescOptions::new().write(spec.workload.changes_data()))?;
    let mut pair = desc.queue_pair()?;
    let mut job = Job::new(&pair, spec, share)?;
    let start = read_clock();
    let end = start + spec.time;
    for slot in 0..spec.depth as u64 {
        let operation = job.next_operation();
        let count = if operation == Operation::Flush { 0 } else { job.blocks };
        let mut io = pair.request(operation, 0, count, job.buffers_for(operation));
        job.prepare(&mut io, operation, start, Some(slot));
        pair.submit(io);
    }
    let (mut last, mut since_yield) = (start, 0);
    while pair.outstanding() > 0 {
        pair.wait().await;
        let now = read_clock();
        let mut over = Vec::new();
        since_yield += pair.cycle(|mut io, status| {
            last = now;
            job.ended(&mut io, status, now);
            if now >= end && !job.must_go_on(&io, status) {
                over.push(io);
                return None;
            }
            let operation = job.operation_after(&io, status);
            job.prepare(&mut io, operation, now, None);
            Some(io)
        });
        over.into_iter().for_each(|io| drop(pair.recycle(io)));
        // Other threads of the reactor get their turn, also where a device completes at once.
        if since_yield >= TURN {
            since_yield = 0;
            yield_now().await;
        }
    }
    let thread =
        spindle_reactor::Thread::current().map(|thread| thread.name().to_owned()).unwrap_or_default();
    Ok(JobReport {
        bdev: bdev.name().to_owned(),
        thread,
        requests: job.latencies.total(),
        bytes: job.latencies.total().saturating_mul(spec.io_size),
        failed: job.failed,
        miscompared: job.miscompared,
        time: last.since(start),
        latencies: job.latencies,
    })
}

fn read_clock() -> Time {
    clock().unwrap_or_default()
}

struct Job {
    workload: Workload,
    io_size: u64,
    blocks: u64,
    pattern: Pattern,
    /// For verifying: the first place of this job's share, and how many it has.
    places: (u64, u64),
    depth: u64,
    /// Of the choice between reads and writes, and of data.
    seed: u64,
    latencies: Latencies,
    failed: u64,
    miscompared: u64,
}

/// What a request of a verifying job carries in its second number: the seed of its data.
fn seed_of(io: &Io) -> u64 {
    io.aux()
}

impl Job {
    fn new(pair: &QueuePair, spec: &LoadSpec, (number, all): (u64, u64)) -> Result<Job, BdevError> {
        let geometry = pair.geometry();
        let refused = |kind| BdevError::argument("load", format!("{} bytes: {kind}", spec.io_size));
        let random = match spec.workload {
            Workload::Random(_) => true,
            Workload::Mixed { random, .. } => random,
            Workload::Sequential(_) | Workload::Verify => false,
        };
        let pattern = match random {
            true => Pattern::random(&geometry, spec.io_size, number + 1),
            false => Pattern::sequential(&geometry, spec.io_size),
        };
        let pattern = pattern.map_err(refused)?;
        let share = geometry.blocks() / pattern.blocks() / all.max(1);
        Ok(Job {
            workload: spec.workload,
            io_size: spec.io_size,
            blocks: pattern.blocks(),
            pattern,
            places: (number * share, share),
            depth: spec.depth as u64,
            seed: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            latencies: Latencies::default(),
            failed: 0,
            miscompared: 0,
        })
    }

    fn random(&mut self) -> u64 {
        // The generator of a pattern; its high bits are the random ones.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 32
    }

    fn next_operation(&mut self) -> Operation {
        let workload = self.workload;
        match workload {
            Workload::Sequential(operation) | Workload::Random(operation) => operation,
            Workload::Mixed { reads, .. } if self.random() % 100 < u64::from(reads) => Operation::Read,
            Workload::Mixed { .. } | Workload::Verify => Operation::Write,
        }
    }

    fn buffers_for(&self, operation: Operation) -> Buffers {
        match operation.moves_data() {
            true => IoBuf::zeroed(self.io_size as usize).into(),
            false => Buffers::None,
        }
    }

    /// The next request of a place: what was written is read once.
    fn operation_after(&mut self, io: &Io, status: Status) -> Operation {
        match self.must_go_on(io, status) {
            true => Operation::Read,
            false => self.next_operation(),
        }
    }

    /// True if a request is the first half of a verification.
    fn must_go_on(&self, io: &Io, status: Status) -> bool {
        self.workload == Workload::Verify && io.operation() == Operation::Write && status.is_ok()
    }

    /// Counts a request that has ended.
    fn ended(&mut self, io: &mut Io, status: Status, now: Time) {
        if status.is_err() {
            self.failed += 1;
            return;
        }
        self.latencies.add(now.0.saturating_sub(io.tag()));
        let read = self.workload == Workload::Verify && io.operation() == Operation::Read;
        if read && !verify::is_right(io.buffers(), io.start(), seed_of(io)) {
            self.miscompared += 1;
        }
    }

    /// The place that a request verifies next: each request has its own places, so that no two are ever at
    /// the same.
    fn place_after(&self, io: &Io, slot: Option<u64>) -> u64 {
        let (first, count) = self.places;
        let before = (io.start() / self.blocks).saturating_sub(first);
        let next = slot.unwrap_or(before + self.depth);
        first + if next < count { next } else { before % self.depth }
    }

    /// Makes a request the next one. `slot` is its number if it is its first.
    fn prepare(&mut self, io: &mut Io, operation: Operation, now: Time, slot: Option<u64>) {
        io.set_tag(now.0);
        io.set_operation(operation);
        match (self.workload, operation) {
            // The place that was just written.
            (Workload::Verify, Operation::Read) | (_, Operation::Flush) => {}
            (Workload::Verify, _) => {
                let (start, seed) = (self.place_after(io, slot) * self.blocks, self.random());
                io.set_start(start);
                io.set_aux(seed);
                verify::fill(io.buffers_mut(), start, seed);
            }
            _ => io.set_start(self.pattern.next_start()),
        }
    }
}
