//! A histogram of request times, in buckets that grow with the time: each power of two is cut into the same
//! number of equal parts, as in SPDK.
//!
//! Each lane counts in its own, which any thread may read; the device adds them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Operation;

/// The largest granularity: 2^15 buckets for each power of two.
const MAX_GRANULARITY: u32 = 15;

/// What a histogram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramOptions {
    /// One operation only; `None` is all.
    pub operation: Option<Operation>,
    /// The base-two logarithm of the buckets in each power of two, usually 7; at most 15.
    pub granularity: u32,
}

impl Default for HistogramOptions {
    fn default() -> HistogramOptions {
        HistogramOptions { operation: None, granularity: 7 }
    }
}

impl HistogramOptions {
    fn shift(self) -> u32 {
        self.granularity.min(MAX_GRANULARITY)
    }

    fn buckets(self) -> usize {
        // The lowest two ranges have buckets of one nanosecond.
        ((64 - self.shift() + 1) as usize) << self.shift()
    }

    fn bucket_of(self, nanos: u64) -> usize {
        let shift = self.shift();
        let range = (64 - nanos.leading_zeros()).saturating_sub(shift);
        let within = (nanos >> range.saturating_sub(1)) as usize & ((1 << shift) - 1);
        ((range as usize) << shift) + within
    }
}

/// Counts by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    options: HistogramOptions,
    counts: Vec<u64>,
}

impl Histogram {
    /// One that has counted nothing.
    pub fn new(options: HistogramOptions) -> Histogram {
        Histogram { options, counts: vec![0; options.buckets()] }
    }

    /// What it counts.
    pub fn options(&self) -> HistogramOptions {
        self.options
    }

    /// The counts of all buckets, by growing time.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Requests in all buckets.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time at which a bucket ends; the time itself is in the next.
    pub fn end_of(&self, bucket: usize) -> Duration {
        let shift = self.options.shift();
        let (range, within) = ((bucket >> shift) as u32, (bucket & ((1 << shift) - 1)) as u64 + 1);
        let nanos = match range {
            0 => within,
            _ => (within + (1 << shift)).checked_shl(range - 1).filter(|end| *end > 0).unwrap_or(u64::MAX),
        };
        Duration::from_nanos(nanos)
    }

    pub(crate) fn add(&mut self, lane: &LaneHistogram) {
        for (sum, count) in self.counts.iter_mut().zip(&lane.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
}

/// The histogram of one lane; changed by its thread only.
pub(crate) struct LaneHistogram {
    pub(crate) options: HistogramOptions,
    counts: Box<[AtomicU64]>,
}

impl LaneHistogram {
    pub(crate) fn new(options: HistogramOptions) -> LaneHistogram {
        LaneHistogram { options, counts: (0..options.buckets()).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn tally(&self, operation: Operation, nanos: u64) {
        if self.options.operation.is_none_or(|only| only == operation)
            && let Some(count) = self.counts.get(self.options.bucket_of(nanos))
        {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_between_the_ends_of_the_bucket_before_and_of_its_own() {
        for granularity in [0, 1, 7, 15] {
            let options = HistogramOptions { granularity, ..HistogramOptions::default() };
            let histogram = Histogram::new(options);
            let powers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + (1 << bit) / 3]);
            for nanos in powers.chain([u64::MAX - 1, 1000, 12_345, 999_999_999]) {
                let bucket = options.bucket_of(nanos);
                assert!(bucket < histogram.counts().len(), "{nanos} at {granularity}");
                assert!(histogram.end_of(bucket) > Duration::from_nanos(nanos), "{nanos} at {granularity}");
                let before = bucket.checked_sub(1).map_or(Duration::ZERO, |one| histogram.end_of(one));
                assert!(before <= Duration::from_nanos(nanos), "{nanos} at {granularity}");
            }
        }
    }
}
