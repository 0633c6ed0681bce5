//! One measured figure, its table for people and its JSON for scripts.

use std::io::{self, Write};

use serde::Serialize;

use super::clock;

/// One figure, beside the yardstick of the same run. Times are nanoseconds per operation.
#[derive(Clone, Debug, Serialize)]
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
    /// The bare machine doing the same in the same run; none where there is no such thing.
    pub yardstick_ns: Option<f64>,
    /// What the median may be at most, in yardsticks, for `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aim_ratio: Option<f64>,
}

impl Figure {
    /// Says what the yardstick of this figure is, and how many of it the median may take.
    pub fn against(self, yardstick: &Figure, aim_ratio: f64) -> Figure {
        let mut this = self.beside(yardstick);
        this.aim_ratio = Some(aim_ratio);
        this
    }

    /// Says what the yardstick of this figure is, without an aim.
    pub fn beside(mut self, yardstick: &Figure) -> Figure {
        self.yardstick_ns = Some(yardstick.ns_median);
        self
    }

    /// The median in yardsticks.
    pub fn ratio(&self) -> Option<f64> {
        self.yardstick_ns.map(|yardstick| self.ns_median / yardstick)
    }

    /// Whether the aim was missed; figures without an aim never miss.
    pub fn missed(&self) -> bool {
        self.ratio().zip(self.aim_ratio).is_some_and(|(ratio, aim)| ratio > aim)
    }
}

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
        self.ns_per_op.push(ns as f64 / operations as f64);
    }

    /// Times `batch`, which does `operations` operations, and adds it.
    pub fn time(&mut self, operations: u64, batch: impl FnOnce()) {
        let start = clock::wall_ns();
        batch();
        self.add(operations, clock::wall_ns() - start);
    }

    /// Stops the CPU clock and sums up. At least one sample must have been added.
    pub fn figure(mut self) -> Figure {
        self.ns_per_op.sort_by(f64::total_cmp);
        let at = |share: f64| self.ns_per_op[((self.ns_per_op.len() - 1) as f64 * share) as usize];
        Figure {
            ns_median: at(0.5),
            ns_p99: at(0.99),
            count: self.count,
            cpu_s: (clock::cpu_ns() - self.cpu_start) as f64 / 1e9,
            yardstick_ns: None,
            aim_ratio: None,
            what: self.what,
        }
    }
}

/// Prints the figures as a table for people.
pub fn print_table(figures: &[Figure], out: &mut impl Write) -> io::Result<()> {
    let width = figures.iter().map(|f| f.what.len()).max().unwrap_or(0).max(4);
    let header =
        format!("{:width$} {:>12} {:>12} {:>12} {:>8}", "what", "operations", "median", "p99", "CPU");
    writeln!(out, "{header}  {:>11} {:>6} {:>5}", "yardstick", "ratio", "aim")?;
    for figure in figures {
        write!(out, "{:width$} {:>12}", figure.what, figure.count)?;
        write!(out, " {:>9.1} ns {:>9.1} ns {:>6.2} s", figure.ns_median, figure.ns_p99, figure.cpu_s)?;
        if let (Some(yardstick), Some(ratio)) = (figure.yardstick_ns, figure.ratio()) {
            write!(out, "  {yardstick:>8.1} ns {ratio:>6.2}")?;
        }
        if let Some(aim) = figure.aim_ratio {
            write!(out, " {aim:>5.2}{}", if figure.missed() { "  missed" } else { "" })?;
        }
        writeln!(out)?;
    }
    Ok(())
}
