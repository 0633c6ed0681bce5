//! The requests of one user that wait for a limit in front of a lane, and what that user owes.
//!
//! Part of the lane's meter. A line has one step on the account at a time.

use std::collections::VecDeque;

use spindle_reactor::Time;

use crate::path::users::User;
use crate::state::limits::{Account, Step, shortened};
use crate::{Io, Operation};

/// How late a lane may look after its lines without loss to the requests that wait there, in nanoseconds.
const MAKES_UP: u64 = 100_000_000;

/// The requests of one user, first in, first out.
pub(crate) struct Line {
    /// The user, and true for writes if they wait apart from reads.
    pub(crate) user: User,
    waiting: VecDeque<Io>,
    /// The step that is on the account already, and when it may go.
    step: Option<(Step, Time)>,
    /// When the step before it was due, while more of the line waited: time from then on is not lost to a late look.
    passed: Option<Time>,
    /// Set if it was charged under other limits: what it cost of those, and costs of these.
    costs: Option<(u64, u64)>,
    /// Set if that step is the first one of the first waiting request.
    first: bool,
    /// Bytes of the last request that went, or is about to go, that are not on the account yet.
    owed: u64,
    of: Operation,
}

impl Line {
    /// A line that rests.
    pub(crate) fn of(user: User) -> Line {
        let (waiting, of) = (VecDeque::new(), Operation::Read);
        Line { user, waiting, step: None, passed: None, costs: None, first: false, owed: 0, of }
    }

    /// Adds a request at the end.
    pub(crate) fn push(&mut self, io: Io) {
        self.waiting.push_back(io);
    }

    pub(crate) fn waiting(&self) -> &VecDeque<Io> {
        &self.waiting
    }

    /// When the step that it has on the account may go.
    pub(crate) fn charged_due(&self) -> Option<Time> {
        self.step.map(|(_, due)| due)
    }

    /// Charges a request of a line that rests. Returns the time to wait for if it may not go yet; the caller then
    /// queues it.
    #[inline]
    pub(crate) fn go_at_once(
        &mut self,
        account: &Account,
        operation: Operation,
        bytes: u64,
        now: Time,
    ) -> Result<(), Time> {
        self.passed = None;
        let part = account.step_of(bytes, now).min(bytes);
        let step = Step { operation, requests: 1, bytes: part };
        let due = account.reserve(step, now);
        (self.owed, self.of) = (bytes - part, operation);
        if due <= now {
            return Ok(());
        }
        (self.step, self.first) = (Some((step, due)), true);
        Err(due)
    }

    /// When its step may go, which is charged now if it was not. `None` if it rests.
    pub(crate) fn due(&mut self, account: &Account, shift: u32, now: Time) -> Option<Time> {
        if let Some((_, due)) = self.step {
            return Some(due);
        }
        let requests = if self.owed > 0 {
            0
        } else {
            let first = self.waiting.front()?;
            (self.owed, self.of, self.first) = (first.count() << shift, first.operation(), true);
            1
        };
        let bytes = account.step_of(if requests == 1 { self.owed } else { u64::MAX }, now).min(self.owed);
        self.owed -= bytes;
        let step = Step { operation: self.of, requests, bytes };
        let earliest = Time(now.0.saturating_sub(MAKES_UP));
        let since = self.passed.take().map_or(now, |due| due.clamp(earliest, now));
        let due = account.reserve(step, since);
        self.step = Some((step, due));
        Some(due)
    }

    /// Goes on past a step whose time has come: returns the request that goes, if it was one's first.
    pub(crate) fn pass_step(&mut self) -> Option<Io> {
        self.passed = self.step.take().map(|(_, due)| due);
        std::mem::take(&mut self.first).then(|| self.waiting.pop_front()).flatten()
    }

    /// The first request, where there is no limit any more.
    pub(crate) fn pop(&mut self) -> Option<Io> {
        self.waiting.pop_front()
    }

    /// Removes and returns a request; what was charged for it is given back.
    pub(crate) fn remove(&mut self, at: usize, account: Option<&Account>) -> Option<Io> {
        let io = self.waiting.remove(at)?;
        if at == 0 && self.first {
            if let (Some((step, _)), Some(account)) = (self.step, account) {
                account.refund(step);
            }
            (self.step, self.costs, self.first, self.owed) = (None, None, false, 0);
        }
        Some(io)
    }

    /// Takes over other limits, if there are any: what it waits for has the same place in line.
    pub(crate) fn change(&mut self, before: Option<&Account>, now: Option<&Account>) {
        match (before, now, self.step) {
            (Some(before), Some(now), Some((step, _))) => {
                self.costs = Some((before.cost(step), now.cost(step)));
            }
            (Some(_), Some(_), None) => {}
            _ => (self.step, self.first, self.owed) = (None, false, 0),
        }
    }

    /// What it waits for under other limits than before takes less time if they are higher.
    pub(crate) fn follow_change(&mut self, now: Time) {
        if let (Some(costs), Some((_, due))) = (self.costs.take(), &mut self.step) {
            *due = Time(now.0.saturating_add(shortened(due.0.saturating_sub(now.0), costs)));
        }
    }

    /// Charges all that is still owed: the lane is gone.
    pub(crate) fn settle(&mut self, account: &Account) {
        account.charge(Step { operation: self.of, requests: 0, bytes: std::mem::take(&mut self.owed) });
    }
}
