//! Counts of damaged images.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use super::broken::Broken;
use super::kinds::Damage;

/// The result of a check of a damaged image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// No finding: the page was not needed, or is valid.
    Silent,
    /// Only findings that the next load repairs.
    Pending,
    /// A finding that names the damage.
    Named,
    /// The image holds no store that can be loaded.
    Refused,
}

/// An image that broke a rule.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The number of the image.
    pub step: u64,
    /// The name of the store.
    pub about: String,
    /// The damage.
    pub damages: Vec<String>,
    /// The operations on it.
    pub plan: Vec<String>,
    /// The findings of a check.
    pub findings: Vec<String>,
    /// The broken rule.
    pub broken: Broken,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, step, about, .. } = self;
        writeln!(f, "\nviolation: seed {seed}, step {step}, {about}")?;
        writeln!(f, "  {}: {}", self.broken.rule, self.broken.what)?;
        self.damages.iter().try_for_each(|damage| writeln!(f, "  damaged: {damage}"))?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  check: {finding}"))?;
        self.plan.iter().try_for_each(|op| writeln!(f, "  then: {op}"))?;
        writeln!(f, "  replay: cargo run --release --bin prove -- --damage --seed {seed} --step {step}")
    }
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct DamageReport {
    /// Images in all.
    pub images: u64,
    /// Images that SPDK wrote.
    pub spdk: u64,
    /// Images of stores that had been unloaded.
    pub clean: u64,
    /// Images by the kind of their first damage, whether that was sealed, and the result of a check.
    pub kinds: BTreeMap<(&'static str, bool), BTreeMap<Outcome, u64>>,
    /// Seeds that ran to their end.
    pub seeds: u64,
    /// Broken rules.
    pub violations: Vec<Violation>,
}

impl DamageReport {
    /// Counts an image that broke no rule.
    pub fn count(&mut self, damages: &[Damage], outcome: Outcome) {
        if let Some(first) = damages.first() {
            *self.kinds.entry((first.kind, first.sealed)).or_default().entry(outcome).or_default() += 1;
        }
    }

    /// Adds the counts of another report.
    pub fn add(&mut self, other: DamageReport) {
        self.images += other.images;
        self.spdk += other.spdk;
        self.clean += other.clean;
        for (kind, outcomes) in other.kinds {
            let mine = self.kinds.entry(kind).or_default();
            outcomes.into_iter().for_each(|(outcome, count)| *mine.entry(outcome).or_default() += count);
        }
        self.seeds += other.seeds;
        self.violations.extend(other.violations);
    }

    /// Formats the counts as a table.
    pub fn table(&self) -> String {
        let mut text =
            format!("{:32}  {:>8} {:>8} {:>8} {:>8}\n", "damage", "silent", "pending", "named", "refused");
        for ((kind, sealed), outcomes) in &self.kinds {
            let of = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
            let (silent, pending) = (of(Outcome::Silent), of(Outcome::Pending));
            let (named, refused) = (of(Outcome::Named), of(Outcome::Refused));
            let kind = format!("{kind}{}", if *sealed { ", sealed" } else { "" });
            let _ = writeln!(text, "{kind:32}  {silent:8} {pending:8} {named:8} {refused:8}");
        }
        let DamageReport { spdk, clean, seeds, .. } = self;
        let _ =
            writeln!(text, "{seeds} seeds; {spdk} images that SPDK wrote, {clean} of stores left in order");
        for (rule, count) in by_rule(&self.violations) {
            let _ = writeln!(text, "{count:6} times broken: {rule}");
        }
        text
    }
}

/// Counts violations by rule.
pub fn by_rule(violations: &[Violation]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    violations.iter().for_each(|one| *counts.entry(one.broken.rule).or_default() += 1);
    counts
}
