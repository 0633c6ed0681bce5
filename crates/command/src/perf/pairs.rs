//! Two measurements that alternate: noise that comes and goes within seconds affects both.

use super::figure::{Figure, Speed};
use super::samples::{self, Samples};
use super::{Effort, Failed, clock};

/// Collects pairs of a thing and its yardstick.
pub struct Pairs {
    own: Samples,
    yardstick: Samples,
    shares: Vec<f64>,
}

impl Pairs {
    /// No pairs yet.
    pub fn start(what: impl Into<String>, yardstick: impl Into<String>) -> Pairs {
        Pairs { own: Samples::start(what), yardstick: Samples::start(yardstick), shares: Vec::new() }
    }

    /// Adds a pair: for each side the number of operations and their nanoseconds.
    pub fn add(&mut self, own: (u64, u64), yardstick: (u64, u64)) {
        let each = |(operations, ns): (u64, u64)| ns as f64 / operations.max(1) as f64;
        self.own.add(own.0, own.1);
        self.yardstick.add(yardstick.0, yardstick.1);
        self.shares.push(each(yardstick) / each(own));
    }

    /// Alternates the measurements, reversing the order each time, after one pair that is not counted. Each
    /// returns its number of operations and nanoseconds.
    pub async fn measure(
        mut self,
        effort: Effort,
        mut own: impl AsyncFnMut() -> Timed,
        mut yardstick: impl AsyncFnMut() -> Timed,
    ) -> Result<Pairs, Failed> {
        for pair in effort.rounds(effort.pairs) {
            let both = match pair % 2 {
                0 => {
                    let first = yardstick().await?;
                    (own().await?, first)
                }
                _ => (own().await?, yardstick().await?),
            };
            if pair > 0 {
                self.add(both.0, both.1);
            }
        }
        Ok(self)
    }

    /// The figure beside its yardstick's median, and the yardstick's own.
    pub fn figures(mut self) -> (Figure, Figure) {
        self.shares.sort_by(f64::total_cmp);
        let speed = Speed {
            share: samples::at(&self.shares, 0.5),
            low: samples::median_at_least(&self.shares),
            pairs: self.shares.len() as u64,
            aim: None,
        };
        let yardstick = self.yardstick.figure();
        let own = Figure { speed: Some(speed), ..self.own.figure().beside(&yardstick) };
        (own, yardstick)
    }

    /// The figure alone.
    pub fn figure(self) -> Figure {
        self.figures().0
    }
}

/// Operations, and their total nanoseconds.
pub type Timed = Result<(u64, u64), Failed>;

/// As [`timed`], but by the CPU time of the process: for work that never sleeps and runs on one core, where
/// other programs' use of that core must not count.
pub async fn timed_by_cpu(operations: u64, work: impl Future<Output = Result<(), Failed>>) -> Timed {
    let start = clock::cpu_ns();
    work.await?;
    Ok((operations, clock::cpu_ns() - start))
}

/// Times `work`, which does `operations` operations.
pub async fn timed(operations: u64, work: impl Future<Output = Result<(), Failed>>) -> Timed {
    let start = clock::wall_ns();
    work.await?;
    Ok((operations, clock::wall_ns() - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_the_median_of_the_shares_with_its_lower_bound() {
        let mut pairs = Pairs::start("own", "bare");
        for slow in 0..11 {
            pairs.add((10, 1000 + slow * 100), (5, 500));
        }
        let (own, yardstick) = pairs.figures();
        let speed = own.speed.expect("pairs have a speed");
        assert_eq!((own.ns_median, yardstick.ns_median, own.yardstick_ns), (150.0, 100.0, Some(100.0)));
        assert!((speed.share - 1.0 / 1.5).abs() < 1e-9 && (speed.low - 1.0 / 1.8).abs() < 1e-9);
        assert_eq!(own.yardstick.as_deref(), Some("bare"));
    }
}
