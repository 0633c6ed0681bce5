//! A load on bdevs for measuring and for testing them, in the manner of SPDK's bdevperf: each thread has a job for
//! each bdev, which keeps a number of requests in flight for a time.
//!
//! A job belongs to its thread. It allocates when it begins and when it ends, not for a request. What is measured
//! contains the load's own cost: measure a null bdev beside any other.

mod job;
mod latency;
mod verify;

use std::time::Duration;

use spindle_block::Operation;
use spindle_reactor::Thread;

pub use self::latency::Latencies;
use crate::{Bdev, BdevError};

/// What the requests of a load do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// One operation, at ascending places.
    Sequential(Operation),
    /// One operation, at random places.
    Random(Operation),
    /// Reads, so many in a hundred, and writes; at random places or ascending ones.
    Mixed {
        /// Reads in a hundred.
        reads: u8,
        /// True for random places.
        random: bool,
    },
    /// Writes data, reads it and compares it, at ascending places. Each thread has its own places.
    Verify,
}

impl Workload {
    /// The workload of that name, as bdevperf calls it. `reads` is for those that mix.
    pub fn of_name(name: &str, reads: u8) -> Option<Workload> {
        Some(match name {
            "read" => Workload::Sequential(Operation::Read),
            "write" => Workload::Sequential(Operation::Write),
            "unmap" => Workload::Sequential(Operation::Unmap),
            "write_zeroes" => Workload::Sequential(Operation::WriteZeroes),
            "flush" => Workload::Sequential(Operation::Flush),
            "randread" => Workload::Random(Operation::Read),
            "randwrite" => Workload::Random(Operation::Write),
            "rw" => Workload::Mixed { reads, random: false },
            "randrw" => Workload::Mixed { reads, random: true },
            "verify" => Workload::Verify,
            _ => return None,
        })
    }

    /// The names of all workloads.
    pub const NAMES: [&str; 10] = [
        "read",
        "write",
        "randread",
        "randwrite",
        "rw",
        "randrw",
        "verify",
        "unmap",
        "write_zeroes",
        "flush",
    ];

    /// True if its requests carry data.
    fn has_buffers(self) -> bool {
        match self {
            Workload::Sequential(operation) | Workload::Random(operation) => operation.moves_data(),
            Workload::Mixed { .. } | Workload::Verify => true,
        }
    }

    /// True if it changes what the bdev holds.
    pub fn changes_data(self) -> bool {
        match self {
            Workload::Sequential(operation) | Workload::Random(operation) => operation.changes_data(),
            Workload::Mixed { .. } | Workload::Verify => true,
        }
    }
}

/// A load to make.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// What the requests do.
    pub workload: Workload,
    /// Bytes of a request; whole blocks.
    pub io_size: u64,
    /// Requests in flight for each job.
    pub depth: usize,
    /// How long each job makes requests.
    pub time: Duration,
}

/// What one job did.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The bdev.
    pub bdev: String,
    /// The thread.
    pub thread: String,
    /// Requests that succeeded; for [`Workload::Verify`] writes and reads.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests whose data was not what had been written.
    pub miscompared: u64,
    /// From the first submission to the last completion.
    pub time: Duration,
    /// The times of the requests.
    pub latencies: Latencies,
}

impl JobReport {
    /// Requests in a second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Runs a job on each of these threads for each of these bdevs, all at the same time. Simulated
/// time passes only on devices that take some: on others a load does not end there.
///
/// # Errors
/// A size or depth that does not fit a bdev, or more than 65536 requests or 1 GiB of data in flight for a job, with the
/// numbers; a bdev that cannot be opened; a thread that exits.
pub async fn run(bdevs: &[Bdev], threads: &[Thread], spec: &LoadSpec) -> Result<Vec<JobReport>, BdevError> {
    bdevs.iter().try_for_each(|bdev| check(bdev, threads.len() as u64, spec))?;
    let mut tasks = Vec::new();
    for (number, thread) in threads.iter().enumerate() {
        for bdev in bdevs {
            let (thread, bdev, spec) = (thread.clone(), bdev.clone(), spec.clone());
            let share = (number as u64, threads.len() as u64);
            let job = async move { thread.run(async move || job::run(&bdev, &spec, share).await).await };
            tasks.push(spindle_reactor::spawn_local(job));
        }
    }
    let mut reports = Vec::new();
    for task in tasks {
        let ended = task.await.ok().and_then(Result::ok);
        reports.push(ended.ok_or(BdevError::Stopping)??);
    }
    Ok(reports)
}

/// The most requests that a job has in flight, and the most bytes of their buffers.
const MOST_REQUESTS: u64 = 65_536;
const MOST_BYTES: u64 = 1 << 30;

/// Checks that a load fits a bdev and the memory.
fn check(bdev: &Bdev, threads: u64, spec: &LoadSpec) -> Result<(), BdevError> {
    let geometry = bdev.geometry();
    let (block, bytes) = (u64::from(geometry.block_size()), geometry.bytes());
    let LoadSpec { io_size, depth, workload, .. } = spec;
    let refuse = |why| Err(BdevError::argument(format!("load on bdev {:?}", bdev.name()), why));
    if *io_size == 0 || !io_size.is_multiple_of(block) {
        return refuse(format!("requests of {io_size} bytes are not whole blocks of {block} bytes"));
    }
    let memory = if workload.has_buffers() { MOST_BYTES } else { u64::MAX };
    let largest = bytes.min(memory) / block * block;
    if *io_size > largest {
        return refuse(match largest {
            0 => "it has no blocks".to_owned(),
            _ => {
                format!("requests of {io_size} bytes do not fit its {bytes} bytes; take {block} to {largest}")
            }
        });
    }
    let own = if *workload == Workload::Verify { bytes / io_size / threads.max(1) } else { u64::MAX };
    let most = own.min(memory / io_size).min(MOST_REQUESTS);
    if most == 0 {
        let why = format!(
            "requests of {io_size} bytes on {threads} threads do not fit its {bytes} bytes; take smaller ones"
        );
        return refuse(why);
    }
    if *depth == 0 || *depth as u64 > most {
        return refuse(format!(
            "{depth} requests of {io_size} bytes at a time on {threads} threads do not fit its {bytes} bytes and the \
             memory for a load; take 1 to {most}"
        ));
    }
    Ok(())
}
