//! Rate limits of a device: one account for all threads.
//!
//! Each limit keeps the time up to which it is spent. A request moves that time forward by its cost and may
//! go once the previous value has come, less a short run-up. So a request of any size goes when nothing is
//! owed, and its excess is paid later. Budget that no waiting request could have used expires. Requests wait in
//! front of their lane, those of each user of the lane in a separate line; each line charges a step at a time: its
//! first waiting request, or as much of what it owes as the smallest recent request costs. So lines take turns of
//! equal cost and get equal shares, independent of the number and size of their requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spindle_reactor::Time;

use crate::Operation;

/// How far requests may run ahead of their limit, in nanoseconds.
const RUN_UP: u64 = 1_000_000;

/// The period for which the smallest request is remembered, in nanoseconds; at most twice that.
const OF_LATE: u64 = 100_000_000;

/// The least time that a step costs, in nanoseconds: shorter steps would only take more processor time.
const LEAST_STEP: u64 = 4_000;

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

/// Nanoseconds that an amount costs at a rate per second.
fn cost_at(rate: u64, amount: u64) -> u64 {
    let nanos = u128::from(amount) * u128::from(SECOND) / u128::from(rate.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn rates(limits: &Limits) -> [Option<u64>; 4] {
    [limits.operations, limits.bytes, limits.read_bytes, limits.written_bytes]
}

/// A time in the proportion of `now` to `before`, if that makes it shorter.
pub(crate) fn shortened(time: u64, (before, now): (u64, u64)) -> u64 {
    if now >= before {
        return time;
    }
    u64::try_from(u128::from(time) * u128::from(now) / u128::from(before)).unwrap_or(time)
}

/// What a step costs: requests and bytes of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// Shared by the lanes of a device.
#[derive(Debug)]
pub(crate) struct Account {
    limits: Limits,
    /// What a request costs of the limit of requests, and the lowest limit of bytes: known once for all requests.
    request_cost: u64,
    bytes_rate: Option<u64>,
    /// The time up to which each limit is spent, in nanoseconds of the engine's time. Shared with the account that this
    /// one replaces: lanes that have not received this one yet charge there.
    spent: Arc<[AtomicU64; 4]>,
    /// The limits before these, and set while `spent` is still theirs.
    before: Limits,
    carried: AtomicBool,
    /// The end of the current period, the smallest request in it, and that of the period before.
    period: AtomicU64,
    least: [AtomicU64; 2],
}

impl Account {
    /// An account with these limits, in place of an earlier one. Setting limits again gives no new allowance.
    pub(crate) fn new(limits: Limits, before: Option<&Account>) -> Option<Account> {
        let spent = before.map(|before| before.spent.clone());
        (limits != Limits::default()).then(|| Account {
            limits,
            request_cost: limits.operations.map_or(0, |rate| cost_at(rate, 1)),
            bytes_rate: rates(&limits)[1..].iter().flatten().copied().min(),
            before: before.map(|before| before.limits).unwrap_or_default(),
            spent: spent.unwrap_or_default(),
            carried: AtomicBool::new(before.is_some()),
            period: AtomicU64::new(0),
            least: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// True if limits apply to an operation.
    #[inline]
    pub(crate) fn limits_operation(operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::Write)
    }

    /// True if reads and writes are limited together only, and so may wait in one line.
    pub(crate) fn has_one_line(&self) -> bool {
        self.limits.read_bytes.is_none() && self.limits.written_bytes.is_none()
    }

    /// Notes the size of a request; returns the bytes of a step.
    #[inline]
    pub(crate) fn step_of(&self, bytes: u64, now: Time) -> u64 {
        match self.bytes_rate {
            Some(rate) => self.step_at(rate, bytes, now),
            None => u64::MAX,
        }
    }

    #[inline(never)]
    fn step_at(&self, rate: u64, bytes: u64, now: Time) -> u64 {
        let (period, next) = (self.period.load(Ordering::Relaxed), now.0.saturating_add(OF_LATE));
        if now.0 >= period
            && self.period.compare_exchange(period, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let last = self.least[0].swap(u64::MAX, Ordering::Relaxed);
            self.least[1].store(last, Ordering::Relaxed);
        }
        if bytes < self.least[0].load(Ordering::Relaxed) {
            self.least[0].fetch_min(bytes, Ordering::Relaxed);
        }
        let least = self.least.each_ref().map(|least| least.load(Ordering::Relaxed));
        let shortest = u128::from(rate) * u128::from(LEAST_STEP) / u128::from(SECOND);
        least[0].min(least[1]).max(u64::try_from(shortest).unwrap_or(u64::MAX)).max(1)
    }

    /// Nanoseconds that a step costs of each limit.
    #[inline]
    fn costs(&self, step: Step) -> [u64; 4] {
        let of_requests = if step.requests == 0 { 0 } else { self.request_cost };
        match self.bytes_rate {
            Some(_) => self.costs_of_bytes(of_requests, step),
            None => [of_requests, 0, 0, 0],
        }
    }

    #[inline(never)]
    fn costs_of_bytes(&self, of_requests: u64, step: Step) -> [u64; 4] {
        let Limits { bytes, read_bytes, written_bytes, .. } = self.limits;
        let of_reads = read_bytes.filter(|_| step.operation == Operation::Read);
        let of_writes = written_bytes.filter(|_| step.operation == Operation::Write);
        let cost = |rate: Option<u64>| rate.map_or(0, |rate| cost_at(rate, step.bytes));
        [of_requests, cost(bytes), cost(of_reads), cost(of_writes)]
    }

    /// Charges a step; returns when it may go. `now` is in the past for a step that has waited since then: what was
    /// left unused meanwhile is still there for it.
    pub(crate) fn reserve(&self, step: Step, now: Time) -> Time {
        if self.carried.load(Ordering::Relaxed) && self.carried.swap(false, Ordering::Relaxed) {
            // The debt in requests and bytes stays the same; at a higher limit it takes less time.
            let rates = rates(&self.before).into_iter().zip(rates(&self.limits));
            for (spent, (before, rate)) in self.spent.iter().zip(rates) {
                let _ = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                    let owed = until.saturating_sub(now.0);
                    Some(now.0.saturating_add(shortened(owed, rate.zip(before).unwrap_or((1, 0)))))
                });
            }
        }
        let mut due = now.0;
        for (spent, cost) in self.spent.iter().zip(self.costs(step)) {
            if cost == 0 {
                continue;
            }
            let step = |before: u64| Some(before.max(now.0).saturating_add(cost));
            let before = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
            due = due.max(before.max(now.0).saturating_sub(RUN_UP));
        }
        Time(due)
    }

    /// The time that a step costs of the limit that it costs most of.
    pub(crate) fn cost(&self, step: Step) -> u64 {
        self.costs(step).into_iter().max().unwrap_or(0)
    }

    /// Charges a step for which no request waits any more.
    pub(crate) fn charge(&self, step: Step) {
        for (spent, cost) in self.spent.iter().zip(self.costs(step)) {
            let _ = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(before.saturating_add(cost))
            });
        }
    }

    /// Refunds a step that does not go.
    pub(crate) fn refund(&self, step: Step) {
        for (spent, cost) in self.spent.iter().zip(self.costs(step)) {
            let _ = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(before.saturating_sub(cost))
            });
        }
    }
}
