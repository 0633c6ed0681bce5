//! A device that fails during a run, and the results that the store may return from then on.
//!
//! An operation on metadata that ended with a device error stays pending in the model: a crash may leave it
//! done or not. Once the store has accepted a later change, the operation is known not to have happened. Once
//! the store has returned `Poisoned`, it must accept no change and no flush that begins later.

use spindle_blob::BlobError;
use spindle_engine::sim::{Disk, Effect, Fault, Operation};

use crate::op::{Op, Outcome};
use crate::scenario::Scenario;
use crate::units::Time;

/// One in this many runs has a device that fails.
const PARTS: u64 = 3;

/// Makes the disks of some runs fail, once or from some moment on. Returns true if this is such a run. In a
/// `long` run the first failure may come later.
pub fn inject(disk: &Disk, seed: u64, long: bool, scenario: Scenario) -> bool {
    // Uses numbers that neither the profile nor the workload draws from.
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

/// True if the device caused the error. A load sets aside what it cannot read, and blocks what depends on
/// that.
pub fn is_device(error: &BlobError, reloaded: bool) -> bool {
    match error {
        BlobError::Io(_) | BlobError::Poisoned { .. } => true,
        BlobError::Load { .. } | BlobError::AllocationBlocked { .. } | BlobError::Damaged { .. } => reloaded,
        _ => false,
    }
}

/// The failures of a run.
#[derive(Default)]
pub struct Failures {
    /// Operations on metadata that may have happened: begin and time of failure.
    doubtful: Vec<(Time, Time)>,
    /// Time at which the store first returned `Poisoned`.
    poisoned: Option<Time>,
    /// True once an operation has ended with a device error.
    arrived: bool,
}

impl Failures {
    /// True once an operation has ended with a device error.
    pub fn have_arrived(&self) -> bool {
        self.arrived
    }

    /// Records that an operation begun at `begun` failed at `now` with a device error. Returns its outcome if
    /// that is known.
    pub fn failed(&mut self, begun: Time, now: Time, op: &Op, error: &BlobError) -> Option<Outcome> {
        self.arrived = true;
        // Xattrs are set in memory only, or not at all.
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

    /// Records that an operation begun at `begun` succeeded. Returns the earlier operations that are now
    /// known not to have happened.
    ///
    /// # Errors
    /// A poisoned store accepted it.
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

/// True if the operation cannot succeed without changing metadata.
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
