//! Statistics of a connection: counters that one thread writes and any may read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::Command;

/// Requests served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Flushes.
    pub flushes: u64,
    /// Trims and writes of zeroes.
    pub unmaps: u64,
    /// All other requests.
    pub others: u64,
    /// Requests answered with an error; also counted above.
    pub errors: u64,
}

impl Counts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.unmaps + self.others
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.reads += other.reads;
        self.bytes_read += other.bytes_read;
        self.writes += other.writes;
        self.bytes_written += other.bytes_written;
        self.flushes += other.flushes;
        self.unmaps += other.unmaps;
        self.others += other.others;
        self.errors += other.errors;
    }
}

/// [`Counts`] of a live connection. Only its own thread counts.
#[derive(Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    flushes: AtomicU64,
    unmaps: AtomicU64,
    others: AtomicU64,
    errors: AtomicU64,
}

/// There is a single writer, so no update is lost between the two.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl Counters {
    /// Counts a request that is carried out.
    pub(crate) fn request(&self, command: &Command) {
        match *command {
            Command::Read { len, .. } => {
                add(&self.reads, 1);
                add(&self.bytes_read, u64::from(len));
            }
            Command::Write { len, .. } => {
                add(&self.writes, 1);
                add(&self.bytes_written, u64::from(len));
            }
            Command::Flush => add(&self.flushes, 1),
            Command::Trim { .. } | Command::WriteZeroes { .. } => add(&self.unmaps, 1),
            Command::Cache { .. } | Command::BlockStatus { .. } => add(&self.others, 1),
            Command::Disconnect => {}
        }
    }

    /// Counts a request that was refused.
    pub(crate) fn refused(&self) {
        add(&self.others, 1);
        add(&self.errors, 1);
    }

    /// Counts a failure of a counted request.
    pub(crate) fn failed(&self) {
        add(&self.errors, 1);
    }

    pub(crate) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            reads: of(&self.reads),
            bytes_read: of(&self.bytes_read),
            writes: of(&self.writes),
            bytes_written: of(&self.bytes_written),
            flushes: of(&self.flushes),
            unmaps: of(&self.unmaps),
            others: of(&self.others),
            errors: of(&self.errors),
        }
    }
}
