//! Judges damaged stores: data that could be read before a command can be read after it.
//!
//! Images of stores, unloaded or in use, are damaged at random ([`kinds`]). Each is then checked and repaired
//! ([`mending`]) and written to by the real store in simulation ([`writing`]). The contents that a read-only
//! load shows before ([`contents`]) must be there afterwards, byte for byte, or the command was refused. A
//! finding names what cannot be read, until it can be read again or is given up.
//!
//! Each seed has one history of a store, or one image that SPDK wrote, and a number of damaged images made
//! from it. Seed and step name the same image in every run of the same source. A violation is reduced to the
//! damage and the operations that it needs. Everything runs on the calling OS thread.
//!
//! Not promised: detecting damage that leaves a valid page (a stale page, or a page with a new checksum).
//! Such a store must only not get worse.

pub mod broken;
pub mod contents;
pub mod kinds;
pub mod mending;
pub mod named;
pub mod report;
pub mod source;
pub mod state;
pub mod writing;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spindle_engine::sim::{Image, Rng};
use spindle_format::check::examine;

use broken::Broken;
use contents::readable;
use kinds::Damage;
use report::{DamageReport, Outcome, Violation};
use source::{Base, Fixture, Source};
use state::State;

/// Damaged images per seed.
pub const IMAGES: u64 = 100;

/// One in this many seeds damages an image that SPDK wrote, if there are any.
const FIXTURES_EVERY: u64 = 4;

/// Selects the images to judge.
#[derive(Clone, Default)]
pub struct Task {
    /// Images that SPDK wrote.
    pub fixtures: Arc<Vec<Fixture>>,
    /// Judges only this image of a seed.
    pub step: Option<u64>,
    /// Images of a seed; [`IMAGES`] by default.
    pub images: Option<u64>,
    /// True to continue after a violation.
    pub keep_going: bool,
}

/// Called before each image is judged; returns whether to continue.
pub type Watch<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// Damages and judges the images of a seed.
pub fn judge(seed: u64, task: &Task, watch: Watch<'_>) -> DamageReport {
    let mut report = DamageReport::default();
    let fixture = (seed.is_multiple_of(FIXTURES_EVERY) && !task.fixtures.is_empty())
        .then(|| &task.fixtures[(seed / FIXTURES_EVERY) as usize % task.fixtures.len()]);
    let source = match fixture {
        Some(fixture) => Source::of_fixture(fixture),
        None => Source::of_workload(seed),
    };
    let images = task.images.unwrap_or(IMAGES) / if source.is_large() { 20 } else { 1 };
    for step in 1..=images {
        if task.step.is_some_and(|only| only != step) {
            continue;
        }
        if watch().is_break() {
            return report;
        }
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step);
        let Some(base) = source.base(&mut rng) else { continue };
        let Some(case) = Case::new(&base, &mut rng) else { continue };
        report.images += 1;
        report.spdk += u64::from(fixture.is_some());
        report.clean += u64::from(base.store.super_block.clean);
        match case.judge(&base) {
            Ok(outcome) => report.count(&case.damages, outcome),
            Err(broken) => {
                let (case, broken) = case.shrunk(&base, broken);
                let damages = case.damages.iter().map(|damage| damage.what.clone()).collect();
                let plan = case.plan.iter().map(|op| format!("{op:?}")).collect();
                let findings = case.findings(&base);
                let about = base.about.clone();
                report.violations.push(Violation { seed, step, about, damages, plan, findings, broken });
                if !task.keep_going {
                    return report;
                }
            }
        }
    }
    report.seeds = 1;
    report
}

/// A damaged image, and the operations on it.
#[derive(Clone)]
struct Case {
    damages: Vec<Damage>,
    plan: Vec<writing::Op>,
    /// Seed of all later choices.
    seed: u64,
}

impl Case {
    fn new(base: &Base, rng: &mut Rng) -> Option<Case> {
        let count = [1, 1, 1, 1, 1, 2, 2, 3][rng.below(8)];
        let mut damages: Vec<Damage> = Vec::new();
        let mut image = base.image.clone();
        for _ in 0..count {
            // A change of nothing is not damage.
            let found = (0..20).find_map(|_| kinds::choose(base, &image, rng));
            let Some(damage) = found else { continue };
            damage.apply(&mut image);
            damages.push(damage);
        }
        let plan = writing::plan(rng);
        (!damages.is_empty()).then(|| Case { damages, plan, seed: rng.next_u64() })
    }

    fn image(&self, base: &Base) -> Image {
        let mut image = base.image.clone();
        self.damages.iter().for_each(|damage| damage.apply(&mut image));
        image
    }

    fn findings(&self, base: &Base) -> Vec<String> {
        let image = self.image(base);
        match examine(&base.medium(&image)) {
            Ok(examined) => examined.findings.iter().map(|one| format!("{} {one}", one.code())).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    /// Judges the case. A panic counts as a broken rule.
    fn judge(&self, base: &Base) -> Result<Outcome, Broken> {
        let judged = catch_unwind(AssertUnwindSafe(|| self.judge_all(base)));
        judged.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Broken::new("nothing panics", text.unwrap_or_default()))
        })
    }

    fn judge_all(&self, base: &Base) -> Result<Outcome, Broken> {
        let image = self.image(base);
        let mut rng = Rng::new(self.seed);
        let medium = base.medium(&image);
        let Ok(examined) = examine(&medium) else {
            mending::refused(base, &image)?;
            writing::refused(base, &image, self.seed)?;
            return Ok(Outcome::Refused);
        };
        let before = State { readable: readable(&base.ground, &image, &examined.store), examined };
        named::judge(base, &image, &before)?;
        mending::judge(base, &image, &before, &mut rng)?;
        writing::judge(base, &image, &before, &self.plan, self.seed)?;
        let findings = &before.examined.findings;
        Ok(match findings.iter().all(named::is_pending) {
            true if findings.is_empty() => Outcome::Silent,
            true => Outcome::Pending,
            false => Outcome::Named,
        })
    }

    /// Removes all damage and operations without which the same rule is still broken.
    fn shrunk(mut self, base: &Base, mut broken: Broken) -> (Case, Broken) {
        let without = |less: Case, broken: Broken, kept: Case| match less.judge(base) {
            Err(again) if again.rule == broken.rule => (less, again),
            _ => (kept, broken),
        };
        for at in (0..self.damages.len()).rev() {
            let mut less = self.clone();
            less.damages.remove(at);
            if !less.damages.is_empty() {
                (self, broken) = without(less, broken, self);
            }
        }
        for at in (0..self.plan.len()).rev() {
            let mut less = self.clone();
            less.plan.remove(at);
            (self, broken) = without(less, broken, self);
        }
        (self, broken)
    }
}
