//! Rate limits of a device: one account for all threads.
//!
//! Each limit keeps the time up to which it is spent. A request moves that time forward by its cost and may
//! go once the previous value has come, less a short run-up. So a request of any size goes when nothing is
//! owed, and those behind it wait for its excess. Unused budget expires. Requests wait in front of their
//! lane; each lane charges only its first waiting request, so that lanes take turns.

use std::sync::atomic::{AtomicU64, Ordering};

use spindle_reactor::Time;

use crate::Operation;

/// How far requests may run ahead of their limit, in nanoseconds.
const RUN_UP: u64 = 1_000_000;

const SECOND: u64 = 1_000_000_000;

/// Limits of a device; `None` is no limit. Reads and writes are limited, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Reads and writes in a second.
    pub operations: Option<u64>,
    /// Bytes read and written in a second.
    pub bytes: Option<u64>,
    /// Bytes read in a second.
    pub read_bytes: Option<u64>,
    /// Bytes written in a second.
    pub written_bytes: Option<u64>,
}

impl Limits {
    fn rates(&self) -> [Option<u64>; 4] {
        [self.operations, self.bytes, self.read_bytes, self.written_bytes]
    }
}

/// A request's cost for each limit.
type Amounts = [u64; 4];

/// Shared by the lanes of a device.
#[derive(Debug)]
pub(crate) struct Account {
    limits: Limits,
    /// The time up to which each limit is spent, in nanoseconds of the engine's time.
    spent: [AtomicU64; 4],
}

impl Account {
    pub(crate) fn new(limits: Limits) -> Option<Account> {
        let spent = Default::default();
        (limits != Limits::default()).then_some(Account { limits, spent })
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// True if limits apply to an operation.
    #[inline]
    pub(crate) fn limits_operation(operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::Write)
    }

    fn amounts(operation: Operation, bytes: u64) -> Amounts {
        match operation {
            Operation::Read => [1, bytes, bytes, 0],
            Operation::Write => [1, bytes, 0, bytes],
            _ => [0; 4],
        }
    }

    /// Nanoseconds that a request costs of each limit.
    fn costs(&self, operation: Operation, bytes: u64) -> [u64; 4] {
        let amounts = Account::amounts(operation, bytes);
        let rates = self.limits.rates();
        std::array::from_fn(|at| match rates[at] {
            Some(rate) => {
                let nanos = u128::from(amounts[at]) * u128::from(SECOND) / u128::from(rate.max(1));
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
            None => 0,
        })
    }

    /// Charges a request; returns when it may go.
    pub(crate) fn reserve(&self, operation: Operation, bytes: u64, now: Time) -> Time {
        let mut due = now.0;
        for (spent, cost) in self.spent.iter().zip(self.costs(operation, bytes)) {
            if cost == 0 {
                continue;
            }
            let step = |before: u64| Some(before.max(now.0).saturating_add(cost));
            let before = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
            due = due.max(before.max(now.0).saturating_sub(RUN_UP));
        }
        Time(due)
    }

    /// Refunds a request that does not go.
    pub(crate) fn refund(&self, operation: Operation, bytes: u64) {
        for (spent, cost) in self.spent.iter().zip(self.costs(operation, bytes)) {
            let _ = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(before.saturating_sub(cost))
            });
        }
    }
}
