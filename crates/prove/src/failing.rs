//! A device that fails while the workload runs, and what the store's answers say from then on.
//!
//! An operation on metadata that a device error ended stays under way for the model: a crash may leave it
//! done or not. Once the store has accepted another change after it, it is known not to have happened. Once
//! the store has said that it is poisoned, it accepts no change and no flush that begins later.

use spindle_blob::BlobError;
use spindle_engine::sim::{Disk, Effect, Fault, Operation};

use crate::op::{Op, Outcome};
use crate::scenario::Scenario;
use crate::units::Time;

/// Of so many runs, one has a device that fails.
const PARTS: u64 = 3;

/// Makes the disk of some runs fail once or from some time on; whether it is one of them. In a `long` run
/// it may take longer until then.
pub fn inject(disk: &Disk, seed: u64, long: bool, scenario: Scenario) -> bool {
    // Of numbers that no choice of the profile or the workload comes from.
    let mut rest = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let mut pick = |n: u64| {
        let picked = rest % n;
        rest /= n;
        picked
    };
    let flushes = scenario == Scenario::FailedFlushes;
    if pick(PARTS) != 0 && !flushes {
        return false;
    }
    let operations =
        [Operation::Write, Operation::Flush, Operation::Read, Operation::ZeroRange, Operation::Discard];
    let chosen = operations[[0, 0, 0, 1, 1, 2, 3, 4][pick(8) as usize]];
    let times = [1, 1, 2, u64::MAX][pick(4) as usize];
    let effect = [Effect::Error, Effect::TornError][pick(2) as usize];
    let nth = 1 + pick(if long { 150 } else { 10 });
    let operation = if flushes { Operation::Flush } else { chosen };
    disk.inject(Fault { operation, nth, times, effect });
    true
}

/// Whether the device is to blame. A load sets aside what cannot be read, and blocks what depends on it.
pub fn is_device(error: &BlobError, reloaded: bool) -> bool {
    match error {
        BlobError::Io(_) | BlobError::Poisoned { .. } => true,
        BlobError::Load { .. } | BlobError::AllocationBlocked { .. } | BlobError::Damaged { .. } => reloaded,
        _ => false,
    }
}

/// What is known of a run whose device fails.
#[derive(Default)]
pub struct Failures {
    /// Operations on metadata that may have happened: when they began and when they failed.
    doubtful: Vec<(Time, Time)>,
    /// When the store first said that it is poisoned.
    poisoned: Option<Time>,
    /// Whether an error of the device has arrived.
    arrived: bool,
}

impl Failures {
    /// Whether an error of the device has arrived.
    pub fn have_arrived(&self) -> bool {
        self.arrived
    }

    /// An operation that began at `begun` ended with an error of the device `now`; what came of it, if that
    /// is known.
    pub fn failed(&mut self, begun: Time, now: Time, op: &Op, error: &BlobError) -> Option<Outcome> {
        self.arrived = true;
        // An xattr is set in memory only, or not at all.
        let in_memory = matches!(op, Op::SetXattr { .. } | Op::RemoveXattr { .. });
        let known = op.is_data() || in_memory || self.poisoned.is_some_and(|since| since < begun);
        if let BlobError::Poisoned { .. } = error {
            self.poisoned.get_or_insert(now);
        }
        if known {
            return Some(Outcome::Refused);
        }
        self.doubtful.push((begun, now));
        None
    }

    /// An operation that began at `begun` has ended well: those that did not happen.
    ///
    /// # Errors
    /// A poisoned store must not have accepted it.
    pub fn accepted(&mut self, begun: Time, op: &Op) -> Result<Vec<Time>, String> {
        if !is_change(op) && !matches!(op, Op::Flush { .. }) {
            return Ok(Vec::new());
        }
        if let Some(since) = self.poisoned.filter(|since| *since < begun) {
            return Err(format!("{op:?}, begun at {begun}, was accepted by a store poisoned since {since}"));
        }
        let before = |(_, failed): &mut (Time, Time)| is_change(op) && *failed < begun;
        Ok(self.doubtful.extract_if(.., before).map(|(begun, _)| begun).collect())
    }
}

/// Whether it cannot end well without changing metadata.
fn is_change(op: &Op) -> bool {
    matches!(
        op,
        Op::Create { .. }
            | Op::CloneExternal { .. }
            | Op::Snapshot { .. }
            | Op::Clone { .. }
            | Op::Delete { .. }
    )
}
