//! The users with requests that wait for a limit before a lane, or with debts from the last one.
//!
//! Part of the meter. A user that rests has no line, and one that waits is looked at when its time comes: what a
//! request costs does not depend on the number of either. Lines are in the order of their steps on the account,
//! which is that of the times at which these may go: reads and writes apart where they have limits of their own.

use std::collections::VecDeque;

use spindle_reactor::Time;

use crate::path::line::Line;
use crate::path::users::{User, Users};
use crate::request::io::Slot;
use crate::state::limits::Account;
use crate::{Io, Operation};

/// Whether a request may go as far as limits are concerned.
pub(crate) enum Paid {
    /// It goes. The time is when the lane must be looked at again, if its user still owes.
    Goes(Io, Option<Time>),
    /// It waits in line. The time is when the lane must be looked at, if that was not known.
    Waits(Option<Time>),
}

/// The lines of a lane.
pub(crate) struct Lines {
    /// Bytes in a block of the device, as a shift.
    block_shift: u32,
    lines: Vec<Line>,
    /// Places in `lines` without a user.
    free: Vec<u32>,
    users: Users,
    /// Those with a step, in the order of the steps; each is in one of the two.
    order: [VecDeque<u32>; 2],
    /// The line of a user that has none: kept only if the user then waits or owes.
    spare: Line,
    /// Requests in all of them.
    waiting: usize,
    /// Set if the limits are others than when some steps were charged.
    changed: bool,
    /// Lines looked at so far.
    #[cfg(test)]
    looks: u64,
}

impl Lines {
    pub(crate) fn new(block_shift: u32) -> Lines {
        Lines {
            block_shift,
            lines: Vec::new(),
            free: Vec::new(),
            users: Users::default(),
            order: Default::default(),
            spare: Line::of((0, false)),
            waiting: 0,
            changed: false,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// True if no request waits and no user owes anything.
    pub(crate) fn are_at_rest(&self) -> bool {
        self.order.iter().all(VecDeque::is_empty)
    }

    /// Charges a request, after what its user owes; or puts it in line.
    #[inline]
    pub(crate) fn pay(&mut self, io: Io, user: User, account: &Account, now: Time) -> Paid {
        match self.users.get(user) {
            None => self.pay_at_rest(io, user, account, now),
            Some(at) => {
                self.lines[at as usize].push(io);
                self.waiting += 1;
                Paid::Waits(self.due_now(now).then_some(now))
            }
        }
    }

    #[inline]
    fn pay_at_rest(&mut self, io: Io, user: User, account: &Account, now: Time) -> Paid {
        let (operation, bytes): (Operation, u64) = (io.operation(), io.count() << self.block_shift);
        match self.spare.go_at_once(account, operation, bytes, now) {
            Ok(()) => {
                // What it owes is charged as far as time allows; mostly it owes nothing.
                let mut due = self.spare.due(account, self.block_shift, now);
                while due.is_some_and(|due| due <= now) {
                    self.spare.pass_step();
                    due = self.spare.due(account, self.block_shift, now);
                }
                if due.is_some() {
                    self.keep_spare(user);
                }
                Paid::Goes(io, due)
            }
            Err(due) => {
                self.spare.push(io);
                self.waiting += 1;
                self.keep_spare(user);
                Paid::Waits(Some(due))
            }
        }
    }

    /// Puts the spare line, which has a step, after all others.
    fn keep_spare(&mut self, user: User) {
        self.spare.user = user;
        let at = self.free.pop().unwrap_or_else(|| {
            self.lines.push(Line::of(user));
            (self.lines.len() - 1) as u32
        });
        std::mem::swap(&mut self.spare, &mut self.lines[at as usize]);
        self.users.insert(user, at);
        self.order[usize::from(user.1)].push_back(at);
    }

    /// True if the time of a step has come.
    fn due_now(&self, now: Time) -> bool {
        let mut firsts = self.order.iter().filter_map(|order| order.front());
        firsts.any(|at| self.lines[*at as usize].charged_due().is_none_or(|due| due <= now))
    }

    /// The next request whose time has come; otherwise the time at which to look again, unless all are at rest.
    pub(crate) fn next(&mut self, account: Option<&Account>, now: Time) -> Result<Io, Option<Time>> {
        if std::mem::take(&mut self.changed) {
            self.lines.iter_mut().for_each(|line| line.follow_change(now));
        }
        let mut until: Option<Time> = None;
        for order in 0..self.order.len() {
            match self.next_of(order, account, now) {
                Ok(io) => {
                    self.waiting -= 1;
                    return Ok(io);
                }
                Err(due) => until = until.into_iter().chain(due).min(),
            }
        }
        Err(until)
    }

    fn next_of(&mut self, order: usize, account: Option<&Account>, now: Time) -> Result<Io, Option<Time>> {
        while let Some(&at) = self.order[order].front() {
            #[cfg(test)]
            (self.looks += 1);
            let line = &mut self.lines[at as usize];
            let Some(account) = account else {
                if let Some(io) = line.pop() {
                    return Ok(io);
                }
                self.forget_first(order);
                continue;
            };
            let charged = line.charged_due().is_some();
            match line.due(account, self.block_shift, now) {
                None => self.forget_first(order),
                Some(due) if charged && due > now => return Err(Some(due)),
                Some(_) => {
                    let io = if charged { line.pass_step() } else { None };
                    // Its next step comes after those of all others.
                    self.order[order].pop_front();
                    self.order[order].push_back(at);
                    if charged && line.due(account, self.block_shift, now).is_none() {
                        self.order[order].pop_back();
                        self.forget(at);
                    }
                    if let Some(io) = io {
                        return Ok(io);
                    }
                }
            }
        }
        Err(None)
    }

    fn forget_first(&mut self, order: usize) {
        let first = self.order[order].pop_front();
        first.into_iter().for_each(|at| self.forget(at));
    }

    /// Gives up a line that rests.
    fn forget(&mut self, at: u32) {
        self.users.remove(self.lines[at as usize].user);
        self.free.push(at);
    }

    /// Removes and returns a request that waits.
    pub(crate) fn take(&mut self, is_it: &dyn Fn(&Slot) -> bool, account: Option<&Account>) -> Option<Io> {
        let found = self.lines.iter_mut().find_map(|line| {
            let at = line.waiting().iter().position(|io| is_it(io.slot()))?;
            line.remove(at, account)
        });
        self.waiting -= usize::from(found.is_some());
        found
    }

    /// Removes all requests that wait.
    pub(crate) fn take_all(&mut self, all: &mut Vec<Io>, account: Option<&Account>) {
        for line in &mut self.lines {
            while let Some(io) = line.remove(0, account) {
                all.push(io);
            }
        }
        self.waiting = 0;
    }

    /// Takes over other limits, if there are any.
    pub(crate) fn change(&mut self, before: Option<&Account>, now: Option<&Account>) {
        self.lines.iter_mut().for_each(|line| line.change(before, now));
        self.changed = true;
    }

    /// Charges all that is still owed: the lane is gone.
    pub(crate) fn settle(&mut self, account: &Account) {
        self.lines.iter_mut().for_each(|line| line.settle(account));
    }

    /// Requests that wait, of those that `counts` accepts.
    pub(crate) fn waiting_where(&self, counts: &dyn Fn(&Slot) -> bool) -> usize {
        self.lines.iter().flat_map(Line::waiting).filter(|io| counts(io.slot())).count()
    }
}

#[cfg(test)]
mod tests {
    use spindle_mem::Buffers;

    use super::*;
    use crate::Limits;
    use crate::path::queues::Queues;
    use crate::request::io::ReturnTo;

    const MILLISECOND: u64 = 1_000_000;

    /// A read of a user.
    fn read(queues: &mut Queues, user: u32) -> Io {
        let mut io = queues.make(ReturnTo::Lane, Operation::Read, 0, 1, Buffers::None);
        io.set_tag(user.into());
        io
    }

    /// A request each millisecond.
    fn account() -> Account {
        Account::new(Limits { operations: Some(1000), ..Limits::default() }, None).expect("it limits")
    }

    #[test]
    fn a_request_that_goes_takes_two_looks_however_many_users_wait() {
        for users in [10, 1000, 100_000] {
            let (mut queues, mut lines, account) = (Queues::default(), Lines::new(9), account());
            let mut now = Time(MILLISECOND);
            for user in 0..users {
                drop(lines.pay(read(&mut queues, user), (user, false), &account, now));
            }
            assert!(lines.waiting() >= users as usize - 2, "all but those of the run-up");
            let before = lines.looks;
            for _ in 0..2000 {
                now.0 += MILLISECOND;
                let io = lines.next(Some(&account), now).expect("one each millisecond");
                assert!(lines.next(Some(&account), now).is_err(), "and no second one");
                let user = io.tag() as u32;
                assert!(matches!(lines.pay(io, (user, false), &account, now), Paid::Waits(_)));
            }
            let looks = lines.looks - before;
            assert!(looks <= 4000, "{looks} looks for 2000 requests of {users} users");
        }
    }

    /// Requests that go at each look, with `late` between the looks, while there are always more.
    fn gone_in_looks(users: u32, late: u64, looks: usize) -> Vec<usize> {
        let (mut queues, mut lines, account) = (Queues::default(), Lines::new(9), account());
        let mut now = Time(MILLISECOND);
        for nth in 0..1000 {
            drop(lines.pay(read(&mut queues, nth % users), (nth % users, false), &account, now));
        }
        let in_a_look = (0..looks).map(|_| {
            now.0 += late;
            let mut gone = 0;
            while let Ok(io) = lines.next(Some(&account), now) {
                let user = io.tag() as u32;
                drop(lines.pay(io, (user, false), &account, now));
                gone += 1;
            }
            gone
        });
        in_a_look.collect()
    }

    #[test]
    fn requests_that_wait_lose_nothing_to_looks_that_come_late() {
        for users in [1, 3, 100] {
            for late in [1, 2, 5, 20, 99] {
                let gone = gone_in_looks(users, late * MILLISECOND, 20);
                let sum: usize = gone.iter().sum();
                let expected = 20 * late as usize;
                assert!(
                    (expected - 1..=expected + 1).contains(&sum),
                    "{users} users, {late} ms late: {gone:?}"
                );
            }
        }
    }

    #[test]
    fn a_look_that_comes_very_late_lets_no_more_go_than_a_tenth_of_a_second_has() {
        for users in [1, 3, 100] {
            for gone in gone_in_looks(users, 3000 * MILLISECOND, 5) {
                // Besides, each line had a step on the account, and there is the run-up.
                assert!((100..=103 + users as usize).contains(&gone), "{users} users: {gone}");
            }
        }
    }

    #[test]
    fn users_that_rest_have_no_line() {
        let (mut queues, mut lines, account) = (Queues::default(), Lines::new(9), account());
        for user in 0..100_000_u32 {
            let now = Time(MILLISECOND * u64::from(user + 1));
            let paid = lines.pay(read(&mut queues, user), (user, false), &account, now);
            assert!(matches!(paid, Paid::Goes(_, None)), "nothing is in front of it");
        }
        assert!(lines.lines.is_empty() && lines.are_at_rest());
    }
}
