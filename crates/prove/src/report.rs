//! Counts of crash points by operation and step, and the violations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::context::History;
use crate::op::{Event, Outcome};
use crate::units::Time;

/// A broken promise.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The number of the crash point in the seed, or 0 if it needed no crash.
    pub step: u64,
    /// The operation in progress.
    pub operation: &'static str,
    /// The disk's next operation.
    pub before: String,
    /// Number of crashes before.
    pub crashes: u32,
    /// The differences.
    pub wrong: Vec<String>,
}

/// Number of images that the second reader judged.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct JudgedTwice {
    /// Of unloaded stores.
    pub clean: u64,
    /// Of all other stores.
    pub dirty: u64,
}

/// The counts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Crash points by operation and step.
    pub points: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Crash points by the number of crashes before.
    pub depths: BTreeMap<u32, u64>,
    /// Crash points by atomic unit.
    pub atomic_units: BTreeMap<u32, u64>,
    /// Crash points with more than one operation on metadata in progress.
    pub together: u64,
    /// How often each operation succeeded, and how often it was refused.
    pub ended: BTreeMap<&'static str, (u64, u64)>,
    /// Crash points from which the store was loaded, worked on and crashed again.
    pub worked_on: u64,
    /// Crash points after which a load had something to repair.
    pub repaired: u64,
    /// Images that the second reader judged too.
    pub judged_twice: JudgedTwice,
    /// Crash points before which the device had failed an operation of the run.
    pub failed: u64,
    /// Seeds that ran to their end.
    pub seeds: u64,
    /// Broken promises.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Returns the number of crash points.
    pub fn total(&self) -> u64 {
        self.depths.values().sum()
    }

    /// Counts a crash point.
    pub fn count(&mut self, operation: &'static str, step: &'static str, depth: u32, atomic_unit: u32) {
        *self.points.entry(operation).or_default().entry(step).or_default() += 1;
        *self.depths.entry(depth).or_default() += 1;
        *self.atomic_units.entry(atomic_unit).or_default() += 1;
    }

    /// Counts the outcomes of a run's operations.
    pub fn count_ends(&mut self, history: &History, first: Time) {
        let begun = |at: &Time| history.events.get((at.checked_sub(first)?) as usize);
        for event in &history.events {
            if let Event::End(at, outcome) = event
                && let Some(Event::Begin(op)) = begun(at)
            {
                let (done, refused) = self.ended.entry(op.name()).or_default();
                *if *outcome == Outcome::Refused { refused } else { done } += 1;
            }
        }
    }

    /// Adds the counts of another report.
    pub fn add(&mut self, other: Report) {
        for (operation, steps) in other.points {
            let mine = self.points.entry(operation).or_default();
            steps.into_iter().for_each(|(step, count)| *mine.entry(step).or_default() += count);
        }
        other.depths.into_iter().for_each(|(depth, count)| *self.depths.entry(depth).or_default() += count);
        for (unit, count) in other.atomic_units {
            *self.atomic_units.entry(unit).or_default() += count;
        }
        self.together += other.together;
        for (operation, (done, refused)) in other.ended {
            let mine = self.ended.entry(operation).or_default();
            *mine = (mine.0 + done, mine.1 + refused);
        }
        self.worked_on += other.worked_on;
        self.repaired += other.repaired;
        self.judged_twice.clean += other.judged_twice.clean;
        self.judged_twice.dirty += other.judged_twice.dirty;
        self.failed += other.failed;
        self.seeds += other.seeds;
        self.violations.extend(other.violations);
    }

    /// Formats the counts as a table.
    pub fn table(&self) -> String {
        let mut steps: Vec<&str> = self.points.values().flat_map(|steps| steps.keys().copied()).collect();
        steps.sort_unstable();
        steps.dedup();
        let first = self.points.keys().map(|name| name.len()).max().unwrap_or(0).max(9);
        let mut text = format!("{:first$}", "operation");
        for step in &steps {
            let _ = write!(text, "  {step:>8}");
        }
        text.push_str("      done   refused\n");
        for (operation, counts) in &self.points {
            let _ = write!(text, "{operation:first$}");
            for step in &steps {
                let count = counts.get(step).map_or(String::from("-"), u64::to_string);
                let _ = write!(text, "  {count:>width$}", width = step.len().max(8));
            }
            let (done, refused) = self.ended.get(operation).copied().unwrap_or_default();
            let _ = writeln!(text, "  {done:>8}  {refused:>8}");
        }
        let list = |counts: &BTreeMap<u32, u64>| {
            let each: Vec<String> = counts.iter().map(|(key, count)| format!("{key}: {count}")).collect();
            each.join(", ")
        };
        let _ = writeln!(text, "crashes before: {}", list(&self.depths));
        let _ = writeln!(text, "atomic units: {}", list(&self.atomic_units));
        let _ = writeln!(
            text,
            "{} seeds; the store was loaded and worked on after {} crashes, {} needed repair",
            self.seeds, self.worked_on, self.repaired
        );
        let _ = writeln!(text, "the device had failed an operation before {} of the crashes", self.failed);
        let _ = writeln!(
            text,
            "more than one operation on metadata was under way at {} of the crashes",
            self.together
        );
        let JudgedTwice { clean, dirty } = self.judged_twice;
        let _ = writeln!(
            text,
            "the second reader judged {dirty} images of stores in use and {clean} of stores left in order"
        );
        text
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Violation { seed, step, operation, before, crashes, wrong } = self;
        writeln!(
            f,
            "violation: seed {seed}, step {step}, during {operation}, before {before}, {crashes} crashes before"
        )?;
        wrong.iter().try_for_each(|wrong| writeln!(f, "  {wrong}"))?;
        write!(f, "  replay: cargo run --release --bin prove -- --seed {seed} --step {step}")
    }
}
