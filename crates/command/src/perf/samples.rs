//! Samples of one figure, and statistics of many numbers: percentiles and the bound of a median.

use super::figure::Figure;
use super::{Effort, Failed, clock};

/// Collects samples of one figure.
pub struct Samples {
    what: String,
    ns_per_op: Vec<f64>,
    count: u64,
    cpu_start: u64,
}

impl Samples {
    /// Starts the CPU clock.
    pub fn start(what: impl Into<String>) -> Samples {
        Samples { what: what.into(), ns_per_op: Vec::new(), count: 0, cpu_start: clock::cpu_ns() }
    }

    /// Adds a sample: `operations` took `ns` nanoseconds together.
    pub fn add(&mut self, operations: u64, ns: u64) {
        self.count += operations;
        self.ns_per_op.push(ns as f64 / operations.max(1) as f64);
    }

    /// Adds a sample that is a time per operation already.
    pub fn add_each(&mut self, operations: u64, ns: f64) {
        self.count += operations;
        self.ns_per_op.push(ns);
    }

    /// Times `batch`, which does `operations` operations, and adds it.
    pub fn time(&mut self, operations: u64, batch: impl FnOnce()) {
        let start = clock::wall_ns();
        batch();
        self.add(operations, clock::wall_ns() - start);
    }

    /// Times up to `most` rounds, each of `operations` operations, after one that warms up, and sums up.
    pub async fn rounds(
        mut self,
        effort: Effort,
        most: u64,
        operations: u64,
        mut round: impl AsyncFnMut() -> Result<(), Failed>,
    ) -> Result<Figure, Failed> {
        for sample in effort.rounds(most) {
            let start = clock::wall_ns();
            round().await?;
            if sample > 0 {
                self.add(operations, clock::wall_ns() - start);
            }
        }
        Ok(self.figure())
    }

    /// The same for as many rounds as samples of the bare machine, which wait for no other thread.
    pub fn bare_rounds(mut self, effort: Effort, operations: u64, mut round: impl FnMut()) -> Figure {
        for sample in effort.rounds(effort.samples) {
            let start = clock::wall_ns();
            round();
            if sample > 0 {
                self.add(operations, clock::wall_ns() - start);
            }
        }
        self.figure()
    }

    /// Stops the CPU clock and sums up.
    pub fn figure(mut self) -> Figure {
        self.ns_per_op.sort_by(f64::total_cmp);
        Figure {
            ns_median: at(&self.ns_per_op, 0.5),
            ns_p99: at(&self.ns_per_op, 0.99),
            count: self.count,
            cpu_s: (clock::cpu_ns() - self.cpu_start) as f64 / 1e9,
            what: self.what,
            ..Figure::default()
        }
    }
}

/// The value below which this share of the sorted values lies; 0 if there are none.
pub fn at(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share) as usize).copied().unwrap_or(0.0)
}

/// A lower bound of the median, with 95 % confidence, for any distribution: of `n` samples fewer than `k` lie
/// below the median with the probability that a coin shows heads fewer than `k` times in `n` throws. With
/// fewer than 5 samples it is the smallest one.
pub fn median_at_least(sorted: &[f64]) -> f64 {
    let n = sorted.len() as i32;
    let mut ways = 1.0;
    let mut chance = 0.5_f64.powi(n);
    let mut k = 0;
    // `chance` is the probability of at most `k` heads.
    while k < n {
        ways = ways * f64::from(n - k) / f64::from(k + 1);
        let next = chance + ways * 0.5_f64.powi(n);
        if next > 0.05 {
            break;
        }
        chance = next;
        k += 1;
    }
    sorted.get(k as usize).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_a_median_is_the_sample_that_a_table_of_the_sign_test_names() {
        // One-sided, 5 %: the 1st of 5, the 3rd of 11, the 6th of 20, the 13th of 36.
        for (n, rank) in [(5, 1), (11, 3), (20, 6), (36, 13)] {
            let sorted: Vec<f64> = (1..=n).map(f64::from).collect();
            assert_eq!(median_at_least(&sorted), f64::from(rank), "of {n}");
        }
        assert_eq!(median_at_least(&[2.0, 3.0]), 2.0);
    }

    #[test]
    fn a_figure_has_the_median_and_the_99th_percentile_of_its_samples() {
        let mut samples = Samples::start("x");
        (1..=101).rev().for_each(|ns| samples.add(10, ns * 10));
        let figure = samples.figure();
        assert_eq!((figure.ns_median, figure.ns_p99, figure.count), (51.0, 100.0, 1010));
    }
}
