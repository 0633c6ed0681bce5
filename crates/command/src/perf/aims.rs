//! The aims of figures: each one a multiple of a yardstick that is measured in the same run.
//!
//! An aim that was set in nanoseconds holds for the machine where it was set. The yardstick's time on that
//! machine carries it to others: a machine that is twice as slow in the bare operation gets twice the time.

/// An aim in nanoseconds, and its yardstick's time on the machine for which it was set: 2 cores of an AMD
/// EPYC (Zen 4) in an otherwise idle virtual machine.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    ns: f64,
    yardstick_ns: f64,
}

impl Aim {
    /// The aim in yardsticks.
    pub fn ratio(self) -> f64 {
        self.ns / self.yardstick_ns
    }
}

/// A message there and back, in bare round trips of a cache line.
pub const MESSAGE_ROUND_TRIPS: f64 = 2.0;
/// A call and its answer, in bare round trips of a cache line.
pub const RUN_ROUND_TRIPS: f64 = 3.0;
/// Factor by which another thread's flood may slow the slowest messages.
pub const FLOODED: f64 = 2.0;
/// A message of a flood to another core, beside a line of a bare ring.
pub const FLOOD_ACROSS: Aim = Aim { ns: 30.0, yardstick_ns: 12.0 };
/// A message of a flood on one core, beside a bare call of a boxed closure.
pub const FLOOD_HERE: Aim = Aim { ns: 15.0, yardstick_ns: 1.5 };
/// An active poller with nothing to do, beside a bare call of a boxed closure.
pub const IDLE_POLLER: Aim = Aim { ns: 3.5, yardstick_ns: 1.5 };
/// A run of a timed poller, beside taking the first of a heap and putting it back.
pub const TIMED_RUN: Aim = Aim { ns: 20.0, yardstick_ns: 20.0 };
/// Creating a thread, beside starting one of the operating system.
pub const CREATE_THREAD: Aim = Aim { ns: 5_000.0, yardstick_ns: 25_000.0 };
/// Bytes of a thread.
pub const THREAD_BYTES: u64 = 4096;
/// CPU of a sleeping runtime, as a share of a core.
pub const IDLE_CPU: f64 = 0.01;
/// Resident memory of a sleeping runtime.
pub const IDLE_BYTES: u64 = 20 << 20;
/// Speed of a blob that has its clusters, beside the bare disk.
pub const BLOB_SPEED: f64 = 0.95;
/// Speed of a long chain, beside a chain of one.
pub const CHAIN_SPEED: f64 = 0.95;
/// Speed of filling a thin blob in order, beside a thick one.
pub const FILL_SPEED: f64 = 0.5;
/// Speed of writes that need a new cluster each, beside the disk zeroing such clusters.
pub const NEW_CLUSTER_SPEED: f64 = 0.5;
