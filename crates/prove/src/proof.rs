//! The proof of one seed: crashes its run at every write; judges and loads what each crash leaves, works on
//! it, and crashes it again.
//!
//! Crash points are numbered in the order in which the proof reaches them. Only the seed decides that order,
//! so a number names the same crash in every run.

use std::ops::ControlFlow;

use spindle_blob::ordering::Order;
use spindle_engine::sim::{Crash, Image, Moment, Operation, Rng};
use spindle_format::Geometry;

use crate::context::Point;
use crate::detail;
use crate::model::Model;
use crate::profile::Profile;
use crate::report::{Report, Violation};
use crate::scenario::Scenario;
use crate::second_reader::{SecondReader, is_clean};
use crate::seen::{Found, Raw, Wrong, raw};
use crate::session::{self, Plan, Record, Start};
use crate::verdict::judge;

/// The most crashes that one store goes through.
const DEEPEST: u32 = 3;

/// The amount of work, and how often it is crashed.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Operations on metadata of a seed's first run.
    pub changes: u32,
    /// Operations on data of each of its four tasks.
    pub io: u32,
    /// Operations on metadata after a crash.
    pub changes_after: u32,
    /// Operations on data of each task after a crash.
    pub io_after: u32,
    /// In a run that had crashed before, one in this many crashes is worked on.
    pub rarely: u64,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { changes: 25, io: 25, changes_after: 3, io_after: 3, rarely: 16 }
    }
}

/// Options of a proof.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// The amount of work.
    pub effort: Effort,
    /// The ordering points that the store keeps.
    pub order: Order,
    /// The preferences of the workload; by default the seed decides.
    pub scenario: Option<Scenario>,
    /// Also gives some of the crashed images to another program.
    pub second_reader: Option<SecondReader>,
    /// Prints the history of the first violation, and of this crash point.
    pub detail: Option<u64>,
}

/// One in this many runs that are cut off with unflushed data continues as after a kill.
const KILLS: u64 = 4;

/// Called before each crash point is judged; returns whether to continue.
pub type Watch<'a> = &'a mut dyn FnMut(&Report) -> ControlFlow<()>;

/// Proves a seed. The first violation ends it.
pub fn prove(seed: u64, task: &Task, watch: Watch<'_>) -> Report {
    let profile = Profile::of(seed, task.scenario);
    let geometry = profile.geometry();
    let plan = Plan {
        seed,
        profile: profile.clone(),
        order: task.order,
        start: Start::Fresh,
        changes: task.effort.changes,
        io: task.effort.io,
    };
    let record = session::run(plan);
    let mut report = Report::default();
    report.count_ends(&record.history, record.model.time);
    let mut proof = Proof { seed, task, profile, geometry, report, step: 0, watch };
    let trail = Trail { before: None, record: &record, number: record.history.points.len(), cut: None };
    let ended = match some(&record.wrong) {
        Some(wrong) => proof.violation(&record.model, &trail, wrong),
        None => proof.crash_everywhere(&record, None, seed),
    };
    if ended.is_continue() {
        proof.report.seeds += 1;
    }
    proof.report
}

fn some(wrong: &Wrong) -> Option<Wrong> {
    (!wrong.is_empty()).then(|| wrong.clone())
}

/// How a run was cut off.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// The disk lost some of the data not yet flushed.
    Crash(Crash),
    /// The program was killed; the disk kept running.
    Kill,
}

/// The path to a crash: the runs that led to it, each with the point at which it was cut off.
#[derive(Clone, Copy)]
pub struct Trail<'a> {
    /// The runs before this one.
    pub before: Option<&'a Trail<'a>>,
    /// The run.
    pub record: &'a Record,
    /// The point; beyond the last one if the run reached its end.
    pub number: usize,
    /// How it was cut off.
    pub cut: Option<Cut>,
}

impl Trail<'_> {
    fn depth(&self) -> u32 {
        self.before.map_or(0, |before| before.depth() + 1)
    }
}

struct Proof<'a> {
    seed: u64,
    task: &'a Task,
    profile: Profile,
    geometry: Geometry,
    report: Report,
    step: u64,
    watch: Watch<'a>,
}

impl Proof<'_> {
    /// Crashes a run at each of its points.
    fn crash_everywhere(
        &mut self,
        record: &Record,
        before: Option<&Trail<'_>>,
        seed: u64,
    ) -> ControlFlow<()> {
        let mut model = record.model.clone();
        let mut events = record.history.events.iter();
        let mut known = 0;
        let depth = before.map_or(0, |before| before.depth() + 1);
        for (number, point) in record.history.points.iter().enumerate() {
            events.by_ref().take(point.events - known).for_each(|event| model.apply(event));
            known = point.events;
            let mut rng = Rng::new(seed ^ (number as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
            for crash in survivors(point, depth, &mut rng) {
                let image = point.state.crash(crash, &mut |n| rng.below(n));
                let trail = Trail { before, record, number, cut: Some(Cut::Crash(crash)) };
                self.one(&model, &trail, image, rng.next_u64())?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Judges one crash, and continues the workload on the image it left.
    fn one(&mut self, model: &Model, trail: &Trail<'_>, image: Image, seed: u64) -> ControlFlow<()> {
        self.step += 1;
        (self.watch)(&self.report)?;
        let (point, depth) = (&trail.record.history.points[trail.number], trail.depth());
        let (operation, step) = (operation(model), step(&point.moment, &self.geometry));
        self.report.count(operation, step, depth, self.profile.atomic_unit);
        self.report.failed += u64::from(point.moment.faults > 0);
        self.report.together += u64::from(model.open().len() > 1);
        let judged = raw(&image).and_then(|found| judge(model, found.seen()).map(|()| found));
        if self.task.detail == Some(self.step) {
            println!("{}", detail::tell(self.seed, &self.profile, trail, judged.as_ref().err()));
        }
        match judged {
            Ok(Found::Nothing(_)) => {}
            Ok(Found::Store(raw)) => {
                self.report.repaired += u64::from(!raw.store.repairs.is_empty());
                if let Err(wrong) = self.judge_twice(&image, &raw, seed) {
                    return self.violation(model, trail, wrong);
                }
            }
            Err(wrong) => return self.violation(model, trail, wrong),
        }
        let again = depth + 1 < DEEPEST && (depth == 0 || seed.is_multiple_of(self.task.effort.rarely));
        if !again {
            return ControlFlow::Continue(());
        }
        self.report.worked_on += 1;
        let (start, cut) = match (seed >> 32).is_multiple_of(KILLS) && can_be_killed(point) {
            true => (Start::Killed(point.state.clone(), Box::new(model.clone())), Some(Cut::Kill)),
            false => (Start::Crashed(image, Box::new(model.clone())), trail.cut),
        };
        let trail = &Trail { cut, ..*trail };
        let plan = Plan {
            seed,
            profile: self.profile.clone(),
            order: self.task.order,
            start,
            changes: self.task.effort.changes_after,
            io: self.task.effort.io_after,
        };
        let record = session::run(plan);
        self.report.count_ends(&record.history, record.model.time);
        if let Some(wrong) = some(&record.wrong) {
            let number = record.history.points.len();
            let trail = Trail { before: Some(trail), record: &record, number, cut: None };
            return self.violation(model, &trail, wrong);
        }
        self.crash_everywhere(&record, Some(trail), seed)
    }

    /// Gives an image to the second reader, if it is one of those selected.
    fn judge_twice(&mut self, image: &Image, raw: &Raw, random: u64) -> Result<(), Wrong> {
        match &self.task.second_reader {
            Some(reader) if reader.wants(raw, random / 2) => {
                let counts = &mut self.report.judged_twice;
                *if is_clean(raw) { &mut counts.clean } else { &mut counts.dirty } += 1;
                reader.judge(image, raw, self.profile.known_atomic_unit())
            }
            _ => Ok(()),
        }
    }

    fn violation(&mut self, model: &Model, trail: &Trail<'_>, wrong: Wrong) -> ControlFlow<()> {
        let before = trail.record.history.points.get(trail.number).map_or("the end".to_owned(), |point| {
            let Moment { operation, offset, length, .. } = point.moment;
            format!("{operation:?} of {length} bytes at {offset}")
        });
        if self.task.detail == Some(self.step) {
            println!("{}", detail::tell(self.seed, &self.profile, trail, Some(&wrong)));
        }
        let (seed, step, operation, crashes) = (self.seed, self.step, operation(model), trail.depth());
        self.report.violations.push(Violation { seed, step, operation, before, crashes, wrong });
        ControlFlow::Break(())
    }
}

/// True if everything readable at a point is durable once the store has been loaded. That excludes data that
/// a failed flush lost, and unloaded stores, which a load leaves as they are.
fn can_be_killed(point: &Point) -> bool {
    let dirty = || match raw(point.state.visible()) {
        Ok(Found::Store(raw)) => !raw.store.super_block.clean,
        _ => false,
    };
    point.moment.faults == 0 && point.state.unflushed() > 0 && dirty()
}

/// Chooses which parts of the unflushed data survive.
fn survivors(point: &Point, depth: u32, rng: &mut Rng) -> Vec<Crash> {
    match (point.state.unflushed(), depth) {
        (0, _) => vec![Crash::LoseAll],
        (1, 0) => vec![Crash::LoseAll, Crash::Random],
        (_, 0) => vec![Crash::Random, [Crash::LoseAll, Crash::KeepAll, Crash::Random][rng.below(3)]],
        _ => vec![[Crash::Random, Crash::Random, Crash::LoseAll, Crash::KeepAll][rng.below(4)]],
    }
}

/// Names the operation that a crash point is counted under: one on metadata if there is one.
fn operation(model: &Model) -> &'static str {
    let open = || model.pending.values().map(|pending| &pending.op);
    let found = open().find(|op| !op.is_data()).or_else(|| open().next());
    found.map_or("between operations", |op| op.name())
}

/// Names the disk's next operation.
fn step(moment: &Moment, geometry: &Geometry) -> &'static str {
    let page = u64::from(geometry.md_page_size());
    let metadata = geometry.bytes_of(geometry.metadata());
    let place = moment.offset;
    match moment.operation {
        Operation::Flush => "flush",
        _ if place < page => "super",
        _ if place < metadata.0 => "masks",
        Operation::Write if place < metadata.0 + metadata.1 => "md write",
        _ if place < metadata.0 + metadata.1 => "md clear",
        Operation::Write => "data",
        Operation::ZeroRange => "zeroes",
        Operation::Discard | Operation::Read => "unmap",
    }
}
