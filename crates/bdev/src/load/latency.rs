//! Times of requests, counted in buckets: 32 for each power of two, so that each is known within 3 %.

use std::time::Duration;

/// The base-two logarithm of the buckets in a power of two.
const SHIFT: u32 = 5;

/// Counts by time.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    least: u64,
    most: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            counts: vec![0; (64 - SHIFT as usize + 1) << SHIFT],
            total: 0,
            sum: 0,
            least: u64::MAX,
            most: 0,
        }
    }
}

fn bucket_of(nanos: u64) -> usize {
    let range = (64 - nanos.leading_zeros()).saturating_sub(SHIFT);
    let within = (nanos >> range.saturating_sub(1)) as usize & ((1 << SHIFT) - 1);
    ((range as usize) << SHIFT) + within
}

/// The largest time of a bucket.
fn last_of(bucket: usize) -> u64 {
    let (range, within) = ((bucket >> SHIFT) as u32, (bucket & ((1 << SHIFT) - 1)) as u128);
    let end = match range {
        0 => within + 1,
        _ => (within + (1 << SHIFT) + 1) << (range - 1),
    };
    u64::try_from(end - 1).unwrap_or(u64::MAX)
}

impl Latencies {
    /// Counts a time in nanoseconds.
    #[inline]
    pub(super) fn add(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(nanos)) {
            *count += 1;
        }
        self.total += 1;
        self.sum += u128::from(nanos);
        self.least = self.least.min(nanos);
        self.most = self.most.max(nanos);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Latencies) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.total += other.total;
        self.sum += other.sum;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    /// Requests counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The average; 0 of none.
    pub fn average(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.sum / u128::from(self.total.max(1))).unwrap_or(u64::MAX))
    }

    /// The shortest; 0 of none.
    pub fn least(&self) -> Duration {
        Duration::from_nanos(if self.total == 0 { 0 } else { self.least })
    }

    /// The longest; 0 of none.
    pub fn most(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// The time that this share of the requests did not exceed, at most 3 % more; 0 of none.
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(last_of(bucket).min(self.most));
            }
        }
        Duration::ZERO
    }

    /// The buckets that are not empty: the largest time of each, and how many requests.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (Duration::from_nanos(last_of(bucket)), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_bucket_that_ends_at_most_a_thirty_second_later() {
        for nanos in (0..200).chain([1000, 4095, 4096, 123_456_789, u64::MAX / 3, u64::MAX]) {
            let last = last_of(bucket_of(nanos));
            assert!(last >= nanos && last - nanos <= nanos / 32, "{nanos} is in a bucket up to {last}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_times_counted() {
        let mut all = Latencies::default();
        assert_eq!((all.percentile(0.5), all.average(), all.least()), Default::default());
        (1..=1000).for_each(|nanos| all.add(nanos));
        let near = |share, nanos: u128| {
            let found = all.percentile(share).as_nanos();
            assert!((nanos..=nanos + nanos / 32).contains(&found), "{found} for {share}");
        };
        near(0.5, 500);
        near(0.99, 990);
        assert_eq!(
            (all.percentile(1.0).as_nanos(), all.least().as_nanos(), all.average().as_nanos()),
            (1000, 1, 500)
        );
        assert_eq!(all.buckets().map(|(_, count)| count).sum::<u64>(), 1000);
    }
}
