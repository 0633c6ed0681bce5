//! Pending faults: which operation they hit and their effect.

/// A kind of disk operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
    /// A zero-range.
    ZeroRange,
    /// A discard.
    Discard,
}

/// The effect of an injected fault on the operation it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails (EIO) and changes nothing.
    Error,
    /// It fails (EIO) after some of its atomic units took effect; a read or flush just fails.
    TornError,
    /// A read returns the contents at the time of the injection; other operations are not hit.
    Stale,
    /// A write, zero-range, discard or flush returns success and does nothing; a read is not hit.
    Lost,
}

/// A pending fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of operation it hits.
    pub operation: Operation,
    /// Which one, counted from 1 = the next of its kind; 0 counts as 1.
    pub nth: u64,
    /// How many in a row; `u64::MAX` for all from then on.
    pub times: u64,
    /// What happens.
    pub effect: Effect,
}

impl Fault {
    /// One failure of the `nth` next operation of that kind.
    pub fn error(operation: Operation, nth: u64) -> Fault {
        Fault { operation, nth, times: 1, effect: Effect::Error }
    }
}

/// The faults of one disk.
#[derive(Default)]
pub(super) struct Faults {
    to_come: Vec<Fault>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.to_come.push(Fault { nth: fault.nth.max(1), ..fault });
    }

    pub(super) fn clear(&mut self) {
        self.to_come.clear();
    }

    /// Counts one operation and returns the effect that hits it; the fault injected first decides.
    pub(super) fn hit(&mut self, operation: Operation) -> Option<Effect> {
        if self.to_come.is_empty() {
            return None;
        }
        let mut effect = None;
        self.to_come.retain_mut(|fault| {
            if fault.operation != operation {
                return true;
            }
            if fault.nth > 1 {
                fault.nth -= 1;
                return true;
            }
            effect = effect.or(Some(fault.effect));
            fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times.saturating_sub(1) };
            fault.times > 0
        });
        effect
    }
}
