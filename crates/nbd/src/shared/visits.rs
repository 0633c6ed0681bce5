//! Limits how often an origin may connect without making a request.
//!
//! A connection costs its reactor some hundred microseconds until it is known what its client wants, if anything. So
//! connections that come to nothing are paid from an account of their [origin](Origin), which fills again with time;
//! one that makes a request, or leaves as the protocol says, gets its payment back. Shared by all threads of a server.
//!
//! Only accounts that owe are kept, [`KEPT`] at most. Those that owe nothing any more are forgotten as connections
//! come, two at a time. When all owe, an origin that comes without an account takes over the one that owes least,
//! with its debt. So an origin does not get rid of a debt by coming from many others, and a new one waits only if
//! each account owes a whole burst.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_engine::Time;

use crate::origin::Origin;

/// Connections of one origin that may wait for their turn.
const WAITING: u32 = 64;

/// The most accounts.
const KEPT: usize = 4096;

/// Full accounts that a connection forgets at most: one more than it adds, so that their number falls.
const FORGOTTEN: usize = 2;

/// When a connection may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    After(Duration),
    /// Too many wait: close it.
    Never,
}

/// The accounts of a server.
pub(crate) struct Visits {
    /// The time in which the account of an origin grows by one connection, and in which an empty one is full.
    one: Duration,
    full: Duration,
    accounts: Mutex<Accounts>,
}

impl Visits {
    /// Accounts of `most` connections that grow by `per_second`, each at least 1.
    pub(crate) fn new(most: usize, per_second: u32) -> Visits {
        let one = Duration::from_secs(1) / per_second.max(1);
        let full = one.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX).max(1));
        Visits { one, full, accounts: Mutex::default() }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pays for one more connection of an origin.
    pub(crate) fn begin(&self, origin: Origin, now: Time) -> Turn {
        let mut accounts = self.accounts();
        accounts.forget_full(now);
        let account = accounts.of(origin).or_else(|| accounts.to_take_over());
        let owes_until = account.map_or(now, |account| account.full_at.max(now));
        let full_at = owes_until + self.one;
        let wait = full_at.since(now).saturating_sub(self.full);
        if wait > self.one * WAITING {
            return Turn::Never;
        }
        if let Some(account) = account {
            accounts.remove(account);
        }
        accounts.insert(Account { full_at, origin });
        if wait.is_zero() { Turn::Now } else { Turn::After(wait) }
    }

    /// Returns the payment of a connection that came to something.
    pub(crate) fn was_worth(&self, origin: Origin) {
        let mut accounts = self.accounts();
        if let Some(account) = accounts.of(origin) {
            accounts.remove(account);
            let full_at = account.full_at.as_nanos().saturating_sub(self.one.as_nanos() as u64);
            accounts.insert(Account { full_at: Time(full_at), origin });
        }
    }
}

/// What an origin owes. The one that owes least is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Account {
    full_at: Time,
    origin: Origin,
}

/// Accounts by origin, and by what they owe.
#[derive(Default)]
struct Accounts {
    by_origin: BTreeMap<Origin, Time>,
    by_debt: BTreeSet<Account>,
    /// Accounts looked at so far.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

impl Accounts {
    fn of(&self, origin: Origin) -> Option<Account> {
        self.looked();
        self.by_origin.get(&origin).map(|full_at| Account { full_at: *full_at, origin })
    }

    /// The one that owes least.
    fn first(&self) -> Option<Account> {
        self.looked();
        self.by_debt.first().copied()
    }

    /// The account for an origin that has none, if no further one may be added.
    fn to_take_over(&self) -> Option<Account> {
        if self.by_debt.len() < KEPT { None } else { self.first() }
    }

    fn forget_full(&mut self, now: Time) {
        for _ in 0..FORGOTTEN {
            match self.first() {
                Some(account) if account.full_at <= now => self.remove(account),
                _ => return,
            }
        }
    }

    fn insert(&mut self, account: Account) {
        self.by_origin.insert(account.origin, account.full_at);
        self.by_debt.insert(account);
    }

    fn remove(&mut self, account: Account) {
        self.by_origin.remove(&account.origin);
        self.by_debt.remove(&account);
    }

    fn looked(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const A: Origin = Origin::User(1);
    const B: Origin = Origin::User(2);
    const SECOND: Duration = Duration::from_secs(1);
    const START: Time = Time(1_000_000_000);

    /// The most accounts that a connection looks at: those that it may forget, its own, and one to take over.
    const LOOKS: usize = FORGOTTEN + 2;

    /// The `n`th of many networks.
    fn network(n: usize) -> Origin {
        Origin::Network(n as u64)
    }

    impl Visits {
        fn kept(&self) -> usize {
            let accounts = self.accounts();
            assert_eq!(accounts.by_origin.len(), accounts.by_debt.len());
            accounts.by_debt.len()
        }

        /// Begins, and checks the number of accounts and how many were looked at.
        fn begin_within_bounds(&self, origin: Origin, now: Time) -> Turn {
            self.accounts().looks.set(0);
            let turn = self.begin(origin, now);
            assert!(self.accounts().looks.get() <= LOOKS);
            assert!(self.kept() <= KEPT);
            turn
        }
    }

    #[test]
    fn a_burst_is_served_at_once_what_follows_waits_and_what_exceeds_that_is_closed() {
        let (visits, now) = (Visits::new(10, 4), START);
        for _ in 0..10 {
            assert_eq!(visits.begin(A, now), Turn::Now);
        }
        for n in 1..=WAITING {
            assert_eq!(visits.begin(A, now), Turn::After(SECOND / 4 * n));
        }
        assert_eq!(visits.begin(A, now), Turn::Never);
        assert_eq!(visits.begin(B, now), Turn::Now, "another origin's account is its own");
        // A quarter of a second for each of them, and one for the next.
        let later = now + SECOND / 4 * WAITING;
        assert_eq!(visits.begin(A, later), Turn::After(SECOND / 4));
        assert_eq!(visits.begin(A, later + SECOND), Turn::Now);
    }

    #[test]
    fn connections_that_come_to_something_cost_nothing() {
        let visits = Visits::new(10, 4);
        for _ in 0..1000 {
            assert_eq!(visits.begin(A, START), Turn::Now);
            visits.was_worth(A);
        }
        visits.was_worth(B);
        assert_eq!(visits.kept(), 1);
    }

    #[test]
    fn a_connection_looks_at_as_many_accounts_with_10_origins_as_with_100_000_and_no_more_are_kept_than_a_bound()
     {
        for origins in [10, 1000, 100_000] {
            let visits = Visits::new(64, 1);
            for n in 0..origins {
                assert_eq!(visits.begin_within_bounds(network(n), START), Turn::Now);
            }
            assert_eq!(visits.kept(), origins.min(KEPT));
            // All that owe nothing any more go, by twos, as connections come.
            let later = START + 1000 * SECOND;
            for _ in 0..KEPT {
                visits.begin_within_bounds(A, later);
            }
            assert_eq!(visits.kept(), 1);
        }
    }

    #[test]
    fn an_account_that_owes_is_not_forgotten_while_there_are_fewer_than_the_bound() {
        let visits = Visits::new(1, 1);
        for n in 0..KEPT {
            assert_eq!(visits.begin_within_bounds(network(n), START), Turn::Now);
        }
        for n in 0..KEPT {
            assert_eq!(visits.begin_within_bounds(network(n), START), Turn::After(SECOND), "origin {n}");
        }
        assert_eq!(visits.begin_within_bounds(A, START + 3 * SECOND), Turn::Now);
        assert_eq!(visits.kept(), KEPT - FORGOTTEN + 1);
    }

    #[test]
    fn an_origin_does_not_get_rid_of_its_debt_by_coming_from_100_000_others() {
        let visits = Visits::new(10, 1);
        while visits.begin_within_bounds(A, START) != Turn::Never {}
        // One that owes little loses its account, and finds as much debt in the one that it takes over.
        visits.begin_within_bounds(B, START);
        for n in 0..100_000 {
            visits.begin_within_bounds(network(n), START);
        }
        assert_eq!(visits.begin_within_bounds(A, START), Turn::Never);
        let owes = |origin| visits.accounts().of(origin).map(|account| account.full_at - START);
        assert_eq!(owes(B), None);
        visits.begin_within_bounds(B, START);
        assert!(owes(B) >= Some(2 * SECOND));
    }

    #[test]
    fn a_host_that_comes_when_all_accounts_owe_waits_only_if_each_owes_a_whole_burst() {
        let burst = 4;
        let visits = Visits::new(burst, 1);
        let host = Origin::Host(Ipv4Addr::new(192, 0, 2, 1));
        for round in 1..burst {
            for n in 0..KEPT {
                visits.begin_within_bounds(network(n), START);
            }
            assert_eq!(visits.begin_within_bounds(host, START), Turn::Now, "each owes {round}");
            visits.was_worth(host);
            // It keeps the account that it took over.
            assert_eq!(visits.begin_within_bounds(host, START), Turn::Now);
            visits.was_worth(host);
        }
        let mut attempts = 0;
        while visits.begin_within_bounds(network(attempts % KEPT), START) != Turn::Never {
            attempts += 1;
        }
        // The last of each burst, and those that wait.
        assert_eq!(attempts, KEPT * (1 + WAITING as usize));
        assert_eq!(visits.begin_within_bounds(B, START), Turn::Never);
        // Each has earned one in a second.
        assert_eq!(visits.begin_within_bounds(B, START + SECOND * (1 + WAITING)), Turn::Now);
    }

    proptest! {
        #[test]
        fn fewer_origins_than_the_bound_are_treated_as_if_each_were_alone(
            steps in proptest::collection::vec((0..8_usize, 0..2000_u64, proptest::bool::ANY), 1..300),
        ) {
            let together = Visits::new(3, 2);
            let alone: Vec<_> = (0..8).map(|_| Visits::new(3, 2)).collect();
            let mut now = START;
            for (n, millis, worth) in steps {
                now = now + Duration::from_millis(millis / 8);
                let turn = together.begin_within_bounds(network(n), now);
                prop_assert_eq!(turn, alone[n].begin_within_bounds(network(n), now));
                if worth && turn != Turn::Never {
                    together.was_worth(network(n));
                    alone[n].was_worth(network(n));
                }
            }
        }
    }
}
