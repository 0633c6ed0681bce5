//! Statistics of a device: counts and times.
//!
//! Each lane counts in words that only its thread changes and any thread reads; the device adds up its lanes
//! and keeps the counts of closed ones. Times come from the table's clock, read once per pass: a request that
//! begins and ends in one pass took no time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{IoErrorKind, Operation};

/// The kinds of requests that are counted separately. To add one, add it here, to [`place_of`] and to
/// [`Statistics`]: the compiler then names what is missing.
const KINDS: usize = 4;

/// Successful requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationStatistics {
    /// Bytes read, written, unmapped or copied.
    pub bytes: u64,
    /// Number of requests.
    pub operations: u64,
    /// Sum of their times.
    pub latency: Duration,
    /// The longest time.
    pub longest: Duration,
    /// The shortest; `None` if no request ended since the extremes were reset.
    pub shortest: Option<Duration>,
}

/// A device's activity since it was made, or since its statistics were reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Reads.
    pub read: OperationStatistics,
    /// Writes.
    pub write: OperationStatistics,
    /// Unmaps.
    pub unmap: OperationStatistics,
    /// Copies.
    pub copy: OperationStatistics,
    /// Requests of any kind that are in the device now.
    pub in_flight: u64,
}

/// What to reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticsReset {
    /// Everything except the number of requests in the device.
    All,
    /// The longest and shortest times.
    Extremes,
    /// The counts of failed requests.
    Errors,
}

/// Failed requests by their [class](IoErrorKind::class).
pub type ErrorCounts = BTreeMap<IoErrorKind, u64>;

impl OperationStatistics {
    fn add(&mut self, other: &OperationStatistics) {
        self.bytes += other.bytes;
        self.operations += other.operations;
        self.latency += other.latency;
        self.longest = self.longest.max(other.longest);
        self.shortest = match (self.shortest, other.shortest) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }
}

impl Statistics {
    /// From the kinds in the order of [`place_of`].
    fn of([read, write, unmap, copy]: [OperationStatistics; KINDS], in_flight: u64) -> Statistics {
        Statistics { read, write, unmap, copy, in_flight }
    }

    /// The kinds in the order of [`place_of`].
    fn kinds(&mut self) -> [&mut OperationStatistics; KINDS] {
        let Statistics { read, write, unmap, copy, in_flight: _ } = self;
        [read, write, unmap, copy]
    }

    /// Adds the statistics of another lane.
    pub(crate) fn add(&mut self, mut other: Statistics) {
        self.in_flight += other.in_flight;
        self.kinds().into_iter().zip(other.kinds()).for_each(|(one, other)| one.add(other));
    }

    pub(crate) fn reset(&mut self, what: StatisticsReset) {
        for one in self.kinds() {
            match what {
                StatisticsReset::All => *one = OperationStatistics::default(),
                StatisticsReset::Extremes => (one.longest, one.shortest) = (Duration::ZERO, None),
                // Errors are counted in another place.
                StatisticsReset::Errors => {}
            }
        }
    }
}

/// A word that one thread changes and any thread may read: needs no locked instruction.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    fn add(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }
}

#[derive(Default)]
struct OperationCounters {
    bytes: Count,
    operations: Count,
    latency: Count,
    longest: Count,
    /// The shortest plus one; 0 if there is none.
    shortest: Count,
}

impl OperationCounters {
    #[inline]
    fn tally(&self, bytes: u64, nanos: u64) {
        self.bytes.add(bytes);
        self.operations.add(1);
        self.latency.add(nanos);
        if nanos > self.longest.get() {
            self.longest.set(nanos);
        }
        let shortest = self.shortest.get();
        if shortest == 0 || nanos < shortest - 1 {
            self.shortest.set(nanos.saturating_add(1));
        }
    }

    fn read(&self) -> OperationStatistics {
        OperationStatistics {
            bytes: self.bytes.get(),
            operations: self.operations.get(),
            latency: Duration::from_nanos(self.latency.get()),
            longest: Duration::from_nanos(self.longest.get()),
            shortest: self.shortest.get().checked_sub(1).map(Duration::from_nanos),
        }
    }

    fn reset(&self, what: StatisticsReset) {
        if what == StatisticsReset::Errors {
            return;
        }
        self.longest.set(0);
        self.shortest.set(0);
        if what == StatisticsReset::All {
            [&self.bytes, &self.operations, &self.latency].into_iter().for_each(|count| count.set(0));
        }
    }
}

/// The counts of one lane. Changed by its thread only.
#[derive(Default)]
pub(crate) struct Counters {
    by_operation: [OperationCounters; KINDS],
    in_flight: Count,
}

/// The counter of an operation, if it has one.
#[inline]
fn place_of(operation: Operation) -> Option<usize> {
    match operation {
        Operation::Read => Some(0),
        Operation::Write => Some(1),
        Operation::Unmap => Some(2),
        Operation::Copy => Some(3),
        _ => None,
    }
}

impl Counters {
    /// Counts a request that arrives.
    #[inline]
    pub(crate) fn begin(&self) {
        self.in_flight.add(1);
    }

    /// Counts a request that leaves, and its work if it succeeded.
    #[inline]
    pub(crate) fn end(&self, operation: Operation, done: Option<(u64, u64)>) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if let (Some(place), Some((bytes, nanos))) = (place_of(operation), done) {
            self.by_operation[place].tally(bytes, nanos);
        }
    }

    pub(crate) fn read(&self) -> Statistics {
        Statistics::of(self.by_operation.each_ref().map(OperationCounters::read), self.in_flight.get())
    }

    pub(crate) fn reset(&self, what: StatisticsReset) {
        self.by_operation.iter().for_each(|one| one.reset(what));
    }
}
