//! One measured figure: read by scripts, and judged by `--check`.

use serde::Serialize;

use super::Failed;

/// The figures of a measurement.
pub(crate) type Figures = Result<Vec<Figure>, Failed>;

/// One figure, beside the yardstick of the same run. Times are nanoseconds per operation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Operations measured.
    pub count: u64,
    /// Median over the samples.
    pub ns_median: f64,
    /// 99th percentile over the samples.
    pub ns_p99: f64,
    /// CPU seconds of the whole process while measuring.
    pub cpu_s: f64,
    /// The yardstick's time for the same work in the same run; none if there is no yardstick.
    pub yardstick_ns: Option<f64>,
    /// Description of the yardstick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yardstick: Option<String>,
    /// The largest allowed median, in yardsticks, for `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim_ratio: Option<f64>,
    /// Bytes that an operation moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_op: Option<u64>,
    /// The speed in yardsticks, of interleaved pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Memory that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// A speed as a share of the yardstick's, over interleaved pairs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Median share.
    pub share: f64,
    /// Lower bound of the median share, with 95 % confidence; this is what is judged.
    pub low: f64,
    /// Pairs measured.
    pub pairs: u64,
    /// The smallest allowed value, for `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim: Option<f64>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Bytes taken.
    pub bytes: u64,
    /// Bytes that may be taken, for `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim: Option<u64>,
}

impl Figure {
    /// Sets the yardstick of this figure, and the largest allowed median in yardsticks.
    pub fn against(self, yardstick: &Figure, aim_ratio: f64) -> Figure {
        Figure { aim_ratio: Some(aim_ratio), ..self.beside(yardstick) }
    }

    /// Sets the yardstick of this figure, without an aim.
    pub fn beside(mut self, yardstick: &Figure) -> Figure {
        self.yardstick_ns = Some(yardstick.ns_median);
        self.yardstick = Some(yardstick.what.clone());
        self
    }

    /// Sets the smallest allowed share of the yardstick's speed.
    pub fn at_least(mut self, share: f64) -> Figure {
        self.speed = self.speed.map(|speed| Speed { aim: Some(share), ..speed });
        self
    }

    /// Sets the memory taken, and the largest allowed.
    pub fn taking(mut self, bytes: u64, aim: u64) -> Figure {
        self.memory = Some(Memory { bytes, aim: Some(aim) });
        self
    }

    /// The median in yardsticks.
    pub fn ratio(&self) -> Option<f64> {
        self.yardstick_ns.map(|yardstick| self.ns_median / yardstick)
    }

    /// True if an aim was missed; figures without an aim never miss.
    pub fn missed(&self) -> bool {
        let slow = self.ratio().zip(self.aim_ratio).is_some_and(|(ratio, aim)| ratio > aim);
        let short = self.speed.is_some_and(|speed| speed.aim.is_some_and(|aim| speed.low < aim));
        let fat = self.memory.is_some_and(|memory| memory.aim.is_some_and(|aim| memory.bytes > aim));
        slow || short || fat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_misses_by_time_by_the_lower_bound_of_its_speed_or_by_memory() {
        let yardstick = Figure { ns_median: 100.0, ..Figure::default() };
        let figure = |ns| Figure { ns_median: ns, ..Figure::default() };
        assert!(!figure(199.0).against(&yardstick, 2.0).missed());
        assert!(figure(201.0).against(&yardstick, 2.0).missed());
        assert!(!figure(201.0).beside(&yardstick).missed());
        let speed = Speed { share: 0.99, low: 0.94, pairs: 11, aim: None };
        let paired = Figure { speed: Some(speed), ..figure(101.0) };
        assert!(!paired.clone().missed() && !paired.clone().at_least(0.9).missed());
        assert!(paired.at_least(0.95).missed());
        assert!(figure(1.0).taking(11, 10).missed() && !figure(1.0).taking(10, 10).missed());
    }
}
