//! The failed requests of a device, as the runtime's reporter gets them: the first of each kind at once, later ones as a
//! number, at most once a minute and only with another failure.
//!
//! Shared by all threads. Only failures take its lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spindle_reactor::{ReportLevel, Time, now, report};

use crate::{IoError, IoErrorKind, Operation};

/// How long failures of a kind are only counted after one was reported.
const PAUSE: Duration = Duration::from_secs(60);

/// The kinds that a device has reported, and what came since.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<BTreeMap<(Operation, IoErrorKind), Since>>);

#[derive(Debug)]
struct Since {
    reported: Time,
    more: u64,
}

impl Faults {
    /// Reports a failed request, or counts it. `remedy` follows the error's own words. Called on a Spindle thread.
    #[cold]
    pub(crate) fn note(&self, error: &IoError, remedy: &str) {
        if let Some(more) = self.due(error, now()) {
            report(ReportLevel::Error, "bdev", || match more {
                0 => format!("{error}{remedy}"),
                more => format!("{error}{remedy} ({more} more have failed so since the last report)"),
            });
        }
    }

    /// Counts a failure. If it must be reported, returns the number of failures that were only counted before it.
    fn due(&self, error: &IoError, now: Time) -> Option<u64> {
        if !is_fault(error.kind) {
            return None;
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = seen.get_mut(&(error.operation, error.kind)) else {
            seen.insert((error.operation, error.kind), Since { reported: now, more: 0 });
            return Some(0);
        };
        if now < since.reported + PAUSE {
            since.more += 1;
            return None;
        }
        since.reported = now;
        Some(std::mem::take(&mut since.more))
    }
}

/// True for what a device, its medium or its host has refused, and not for the caller's mistakes, aborts and removals.
fn is_fault(kind: IoErrorKind) -> bool {
    matches!(
        kind,
        IoErrorKind::Device { .. }
            | IoErrorKind::Medium
            | IoErrorKind::TimedOut
            | IoErrorKind::NoSpace
            | IoErrorKind::Quota
            | IoErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_of_a_kind_is_reported_and_later_ones_as_a_number_now_and_then() {
        let faults = Faults::default();
        let error = |operation, kind| IoError { device: "f".into(), operation, offset: 0, len: 512, kind };
        let (read, write) = (Operation::Read, Operation::Write);
        let eio = IoErrorKind::Device { errno: 5 };
        let at = |seconds: u64| Time(seconds * 1_000_000_000);
        assert_eq!(faults.due(&error(read, eio), at(0)), Some(0));
        for _ in 0..1000 {
            assert_eq!(faults.due(&error(read, eio), at(59)), None);
        }
        assert_eq!(faults.due(&error(write, eio), at(59)), Some(0));
        assert_eq!(faults.due(&error(read, IoErrorKind::NoSpace), at(59)), Some(0));
        assert_eq!(faults.due(&error(read, eio), at(60)), Some(1000));
        assert_eq!(faults.due(&error(read, eio), at(61)), None);
        assert_eq!(faults.due(&error(read, eio), at(600)), Some(1));
        for kind in [IoErrorKind::Aborted, IoErrorKind::Removed, IoErrorKind::OutOfRange] {
            assert_eq!(faults.due(&error(read, kind), at(0)), None);
        }
    }
}
