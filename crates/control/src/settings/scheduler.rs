//! The scheduler's settings: kept and shown without effect, as no thread moves.

use std::cell::Cell;
use std::time::Duration;

use spindle_reactor::{CpuSet, Time};

/// The period of a setting that names none, in microseconds.
const PERIOD: u64 = 1_000_000;

/// The settings.
#[derive(Default)]
pub(crate) struct SchedulerSettings {
    /// A scheduler was chosen, by a call or by the start of the framework.
    chosen: Cell<bool>,
    rounds: Cell<Rounds>,
    /// The core that SPDK's scheduler would run on, if it was set.
    pub(crate) core: Cell<Option<usize>>,
    /// Cores that a scheduler would leave alone.
    pub(crate) isolated: Cell<CpuSet>,
}

impl SchedulerSettings {
    /// Chooses the scheduler, unless that was done. Its start forgets the period, as that of SPDK's static one does.
    pub(crate) fn choose(&self, now: Time) {
        if !self.chosen.get() {
            let last = self.rounds.get().last(now, false);
            self.rounds.set(Rounds { last, ..Rounds::default() });
            self.chosen.set(true);
        }
    }

    /// Whether a scheduler is chosen.
    pub(crate) fn is_chosen(&self) -> bool {
        self.chosen.get()
    }

    /// The period that is shown, in microseconds.
    pub(crate) fn period(&self, now: Time) -> u64 {
        self.rounds.get().period(now, self.chosen.get())
    }

    /// Sets the period, in microseconds. With 0 it stays as it is, if it is not 0.
    pub(crate) fn set_period(&self, now: Time, asked: u64) {
        let (rounds, chosen) = (self.rounds.get(), self.chosen.get());
        let period = match (asked, rounds.period(now, chosen)) {
            (0, 0) => PERIOD,
            (0, _) => return,
            (asked, _) => asked,
        };
        self.rounds.set(Rounds { period, since: now, last: rounds.last(now, chosen) });
    }
}

/// The balancing rounds of SPDK's scheduling reactor. It has one when more than a period has passed since the last one, and
/// the first at once. A round of the static scheduler, which has nothing to balance, sets the period to 0: so there is one
/// for each setting. Without a scheduler the rounds go on, and do nothing.
#[derive(Clone, Copy, Default)]
struct Rounds {
    /// In microseconds; 0: there are no rounds.
    period: u64,
    /// When it was set.
    since: Time,
    /// The last round before that.
    last: Option<Time>,
}

impl Rounds {
    /// The first round since the period was set, if it has been.
    fn first(self, now: Time) -> Option<Time> {
        let due = self.last.map(|last| last + Duration::from_micros(self.period));
        let has_been = self.period > 0 && due.is_none_or(|due| now > due);
        has_been.then(|| due.map_or(self.since, |due| due.max(self.since)))
    }

    /// The last round.
    fn last(self, now: Time, chosen: bool) -> Option<Time> {
        let Some(first) = self.first(now) else { return self.last };
        // Without a scheduler there is one each period.
        let period = Duration::from_micros(self.period).as_nanos();
        let since_last = (now - first).as_nanos() % period;
        let more = if chosen { 0 } else { (now - first).as_nanos() - since_last };
        Some(first + Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX)))
    }

    /// The period, which a round of a scheduler ends.
    fn period(self, now: Time, chosen: bool) -> u64 {
        if chosen && self.first(now).is_some() { 0 } else { self.period }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Time {
        Time(nanos)
    }

    #[test]
    fn the_round_after_the_first_setting_comes_at_once_and_later_ones_a_period_after_the_last() {
        let settings = SchedulerSettings::default();
        settings.choose(at(0));
        assert_eq!(settings.period(at(5)), 0);
        settings.set_period(at(10), 500);
        assert_eq!(settings.period(at(10)), 0, "its round has been");
        settings.set_period(at(20), 0);
        for (now, shown) in [(20, PERIOD), (SECOND + 10, PERIOD), (SECOND + 11, 0)] {
            assert_eq!(settings.period(at(now)), shown, "{now}");
        }
        // The last round was a second after the first one.
        settings.set_period(at(2 * SECOND), 500);
        assert_eq!(settings.period(at(2 * SECOND)), 0, "more than a period has passed since the last round");
        settings.set_period(at(2 * SECOND + 1), 500);
        for (now, shown) in [(1, 500), (500_000, 500), (500_001, 0)] {
            assert_eq!(settings.period(at(2 * SECOND + now)), shown, "{now}");
        }
    }

    #[test]
    fn a_question_changes_nothing() {
        let (asked, other) = (SchedulerSettings::default(), SchedulerSettings::default());
        for settings in [&asked, &other] {
            settings.choose(at(0));
            settings.set_period(at(10), 500);
            settings.set_period(at(20), 700);
        }
        (0..2000).for_each(|now| _ = asked.period(at(now * 1000)));
        let now = at(700_010);
        assert!(!SchedulerSettings::default().is_chosen());
        assert_eq!((asked.period(now), other.period(now)), (700, 700));
    }

    #[test]
    fn a_setting_without_a_period_keeps_the_one_that_is_shown() {
        let settings = SchedulerSettings::default();
        settings.choose(at(0));
        settings.set_period(at(10), 500);
        settings.set_period(at(20), 700);
        settings.set_period(at(30), 0);
        for (now, shown) in [(30, 700), (700_010, 700), (700_011, 0)] {
            assert_eq!(settings.period(at(now)), shown, "{now}");
        }
    }

    #[test]
    fn the_start_of_a_scheduler_forgets_the_period_and_rounds_before_it_count() {
        let settings = SchedulerSettings::default();
        settings.set_period(at(0), 9);
        assert_eq!(settings.period(at(100_000)), 9, "without a scheduler a round ends no period");
        settings.choose(at(100_000));
        assert_eq!(settings.period(at(100_000)), 0);
        // The last round was at 99 microseconds.
        settings.set_period(at(100_001), 500);
        for (now, shown) in [(100_001, 500), (599_000, 500), (599_001, 0)] {
            assert_eq!(settings.period(at(now)), shown, "{now}");
        }
        settings.choose(at(600_000));
        assert!(settings.is_chosen());
    }

    #[test]
    fn a_period_of_half_a_million_years_does_not_overflow() {
        let settings = SchedulerSettings::default();
        settings.choose(at(0));
        settings.set_period(at(1), 1);
        settings.set_period(at(2), u64::MAX);
        assert_eq!(settings.period(at(u64::MAX)), u64::MAX);
        settings.set_period(at(u64::MAX), 1);
        assert_eq!(settings.period(at(u64::MAX)), 0);
    }
}
