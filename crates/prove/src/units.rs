//! The possible values of each io unit of a blob: now, and after a crash.
//!
//! A unit keeps the writes that matter, each with the times of its beginning and end. A value becomes
//! impossible once a later write, one that began after this one had ended, is known to be there. For a read,
//! that write must have ended before the read began. For a crash, it must have ended before a flush began
//! that has succeeded. So writes may overlap, fail, and be cut off.

use std::collections::BTreeMap;
use std::ops::Range;

/// A moment: the number of an event in the history.
pub type Time = u32;

/// Later than every moment: the end of a pending write.
pub const NEVER: Time = Time::MAX;

/// The value of a unit: a number that no two written units share.
pub type Value = u32;

/// Zeroes.
pub const ZERO: Value = 0;
/// The content of an unmapped block on a disk that does not promise zeroes.
pub const GARBAGE: Value = u32::MAX - 1;
/// Any old content of the disk, in blobs that waive being zeroed.
pub const ANYTHING: Value = u32::MAX;

/// One write of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    value: Value,
    begin: Time,
    end: Time,
    /// True if it is known to have happened.
    sure: bool,
    /// True if its place was cut off or got another parent before it ended: it may have happened before that.
    cut: bool,
}

impl Record {
    /// True if it may still reach the disk at any moment.
    fn is_under_way(&self) -> bool {
        self.begin > 0 && self.end == NEVER
    }
}

/// The writes of one unit that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    /// Known, and durable.
    One(Value),
    Many(Vec<Record>),
}

/// The units of a blob. Units not listed are zero, durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    units: BTreeMap<u64, Unit>,
    /// The value of units not listed, for blobs that waive being zeroed.
    pub blank: Value,
}

impl Unit {
    fn records(&mut self) -> &mut Vec<Record> {
        if let Unit::One(value) = *self {
            *self = Unit::Many(vec![Record { value, begin: 0, end: 0, sure: true, cut: false }]);
        }
        match self {
            Unit::Many(records) => records,
            Unit::One(_) => unreachable!("made many above"),
        }
    }

    /// Forgets the values that no crash can bring back after a flush that began at `flush`, but keeps the times of
    /// remaining writes since `keep`.
    fn settle(&mut self, flush: Time, keep: Time) {
        let Unit::Many(records) = self else { return };
        let durable = |record: &&Record| record.sure && record.end < flush;
        let Some(latest) = records.iter().filter(durable).map(|record| record.begin).max() else { return };
        records.retain(|record| record.end >= latest);
        if let [only] = records.as_slice()
            && durable(&only)
            && only.end < keep
        {
            *self = Unit::One(only.value);
        }
    }
}

impl Units {
    /// Creates units whose values are known; all others hold `blank`.
    pub fn known(units: impl IntoIterator<Item = (u64, Value)>, blank: Value) -> Units {
        Units { units: units.into_iter().map(|(at, value)| (at, Unit::One(value))).collect(), blank }
    }

    /// Begins a write of `value` to a unit.
    pub fn begin(&mut self, at: u64, value: Value, begin: Time) {
        let blank = self.blank;
        let unit = self.units.entry(at).or_insert(Unit::One(blank));
        unit.records().push(Record { value, begin, end: NEVER, sure: false, cut: false });
    }

    /// Ends the write of `value` that began at `begin`; `sure` if it is known to have happened.
    pub fn end(&mut self, at: u64, value: Value, begin: Time, end: Time, sure: bool) {
        let Some(Unit::Many(records)) = self.units.get_mut(&at) else { return };
        let found = records.iter_mut().find(|record| record.begin == begin && record.value == value);
        if let Some(record) = found {
            (record.end, record.sure) = (end, sure && !record.cut);
        }
    }

    /// A flush that began then has ended. Keeps the times of writes since `keep`, whose order relative to another
    /// operation may still matter.
    pub fn settle(&mut self, flush: Time, keep: Time) {
        self.units.values_mut().for_each(|unit| unit.settle(flush, keep));
    }

    /// Makes the write to a unit that began at `begin` durable.
    pub fn durable(&mut self, at: u64, begin: Time) {
        if let Some(Unit::Many(records)) = self.units.get_mut(&at) {
            records.retain(|record| record.end >= begin);
        }
    }

    /// Returns all values that a unit may hold after a crash.
    pub fn possible(&self, at: u64) -> Vec<Value> {
        match self.units.get(&at) {
            None => vec![self.blank],
            Some(Unit::One(value)) => vec![*value],
            Some(Unit::Many(records)) => records.iter().map(|record| record.value).collect(),
        }
    }

    /// True if a unit may hold this value after a crash. Units never written may hold anything in blobs that
    /// waive being zeroed.
    pub fn allows(&self, at: u64, value: Value) -> bool {
        let fits = |known: Value| known == value || known == ANYTHING;
        match self.units.get(&at) {
            None => fits(self.blank),
            Some(Unit::One(known)) => fits(*known),
            Some(Unit::Many(records)) => records.iter().any(|record| fits(record.value)),
        }
    }

    /// Returns all values that a read begun at `read` may return.
    pub fn visible(&self, at: u64, read: Time) -> Vec<Value> {
        let Some(Unit::Many(records)) = self.units.get(&at) else { return self.possible(at) };
        let seen = records.iter().filter(|record| record.sure && record.end < read);
        let latest = seen.map(|record| record.begin).max().unwrap_or(0);
        records.iter().filter(|record| record.end >= latest).map(|record| record.value).collect()
    }

    /// True if a read begun at `read` may return this value.
    pub fn shows(&self, at: u64, value: Value, read: Time) -> bool {
        self.visible(at, read).iter().any(|known| *known == value || *known == ANYTHING)
    }

    /// Returns the units of a snapshot begun at `begin` and just taken: it may hold overlapping writes or
    /// not.
    pub fn snapshot(&self, begin: Time) -> Units {
        let mut copy = self.clone();
        for unit in copy.units.values_mut() {
            if let Unit::Many(records) = unit {
                records.iter_mut().filter(|record| record.end >= begin).for_each(|record| {
                    (record.sure, record.end) = (false, NEVER);
                });
            }
        }
        copy
    }

    /// Merges another: each unit holds its own value or that of `other`, and it is unknown which.
    pub fn either(&mut self, other: &Units) {
        if other.blank == ANYTHING {
            self.blank = ANYTHING;
        }
        let places: Vec<u64> = self.units.keys().chain(other.units.keys()).copied().collect();
        for at in places {
            let (blank, others) = (Unit::One(other.blank), other.units.get(&at));
            let others = others.unwrap_or(&blank);
            let mine = self.units.entry(at).or_insert(Unit::One(self.blank));
            if mine == others {
                continue;
            }
            let theirs = others.clone().records().clone();
            let mine = mine.records();
            let same = |one: &Record, other: &Record| (one.begin, one.value) == (other.begin, other.value);
            for one in mine.iter_mut() {
                let known = theirs.iter().find(|other| same(one, other));
                // A write is certain only if both are certain of it.
                one.sure &= known.is_some_and(|other| other.sure);
                if let Some(other) = known {
                    (one.end, one.cut) = (one.end.max(other.end), one.cut || other.cut);
                }
            }
            let new = theirs.iter().filter(|other| !mine.iter().any(|one| same(one, other)));
            let new: Vec<Record> = new.map(|other| Record { sure: false, ..*other }).collect();
            mine.extend(new);
        }
    }

    /// Allows each unit its own values and those of `other`, for a blob that got another parent. A pending
    /// write may have gone to the old place, which is no longer read, or may still come.
    pub fn join(&mut self, other: &Units, units: u64) {
        if other.blank == ANYTHING {
            self.blank = ANYTHING;
        }
        let places: Vec<u64> = self.units.keys().chain(other.units.keys()).copied().collect();
        for at in places.into_iter().filter(|&at| at < units) {
            let blank = self.blank;
            let records = self.units.entry(at).or_insert(Unit::One(blank)).records();
            let mut coming: Vec<Record> = records.extract_if(.., |record| record.is_under_way()).collect();
            coming.iter_mut().for_each(|record| record.cut = true);
            let mut values: Vec<Value> = records.iter().map(|record| record.value).collect();
            values.extend(other.possible(at));
            values.sort_unstable();
            values.dedup();
            let (end, sure) = if values.len() == 1 { (0, true) } else { (NEVER, false) };
            let known = values.iter().map(|&value| Record { value, begin: 0, end, sure, cut: false });
            let unit = match (&values[..], &coming[..]) {
                ([value], []) => Unit::One(*value),
                _ => Unit::Many(known.chain(coming).collect()),
            };
            self.units.insert(at, unit);
        }
    }

    /// All units were replaced, durably, by an operation that began at `begun`: the named ones hold these values,
    /// the others of `cleared` hold zeroes, and the rest hold what never-written units hold. A write that overlaps
    /// it may have come before or after it.
    pub fn replace(&mut self, new: BTreeMap<u64, Value>, cleared: Range<u64>, begun: Time) {
        let mut now = BTreeMap::new();
        if self.blank != ZERO {
            now.extend(cleared.map(|at| (at, Unit::One(ZERO))));
        }
        now.extend(new.iter().map(|(&at, &value)| (at, Unit::One(value))));
        for (at, unit) in std::mem::replace(&mut self.units, now) {
            let Unit::Many(mut records) = unit else { continue };
            records.retain(|record| record.begin > 0 && record.end >= begun);
            // The operation did not end before the last of them began: none of them is known to be later.
            let Some(end) = records.iter().map(|record| record.begin.max(begun)).max() else { continue };
            let value = self.possible(at)[0];
            records.insert(0, Record { value, begin: begun, end, sure: true, cut: false });
            self.units.insert(at, Unit::Many(records));
        }
    }

    /// Removes all units from this one on. They are zero if they come back, except for pending writes that
    /// may still take effect then.
    pub fn truncate(&mut self, units: u64) {
        for (at, unit) in self.units.split_off(&units) {
            let Unit::Many(mut records) = unit else { continue };
            records.retain(|record| record.end == NEVER);
            if !records.is_empty() {
                records.iter_mut().for_each(|record| record.cut = true);
                records.insert(0, Record { value: self.blank, begin: 0, end: 0, sure: true, cut: false });
                self.units.insert(at, Unit::Many(records));
            }
        }
    }

    /// Returns the units that were ever written.
    pub fn places(&self) -> impl Iterator<Item = u64> + '_ {
        self.units.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unflushed_write_is_old_or_new_and_a_flushed_one_new() {
        let mut units = Units::default();
        units.begin(3, 7, 1);
        units.end(3, 7, 1, 2, true);
        assert_eq!((units.possible(3), units.visible(3, 3)), (vec![ZERO, 7], vec![7]));
        units.settle(2, NEVER);
        assert_eq!(units.possible(3), [ZERO, 7], "the flush began before the write had ended");
        units.settle(3, NEVER);
        assert_eq!(units.possible(3), [7]);
        assert_eq!(units.possible(4), [ZERO]);
    }

    #[test]
    fn of_writes_that_overlap_either_may_be_the_last() {
        let mut units = Units::default();
        units.begin(0, 1, 1);
        units.begin(0, 2, 2);
        units.end(0, 1, 1, 3, true);
        units.end(0, 2, 2, 4, true);
        units.settle(5, NEVER);
        assert_eq!(units.possible(0), [1, 2]);
        units.begin(0, 3, 6);
        units.end(0, 3, 6, 7, false);
        units.settle(8, NEVER);
        assert_eq!(units.possible(0), [1, 2, 3], "a write that failed says nothing about those before it");
        units.begin(0, 4, 9);
        units.end(0, 4, 9, 10, true);
        units.settle(11, NEVER);
        assert_eq!(units.possible(0), [4]);
    }

    #[test]
    fn a_snapshot_holds_what_was_written_before_it_and_maybe_what_overlaps() {
        let mut units = Units::default();
        units.begin(0, 1, 1);
        units.end(0, 1, 1, 2, true);
        units.begin(0, 2, 3);
        let snapshot = units.snapshot(4);
        assert_eq!(snapshot.visible(0, 9), [1, 2]);
        units.end(0, 2, 3, 5, true);
        assert_eq!((units.visible(0, 9), snapshot.visible(0, 9)), (vec![2], vec![1, 2]));
    }

    #[test]
    fn what_was_replaced_is_gone_but_for_writes_that_overlap() {
        let mut units = Units::known([(1, 5), (2, 6)], ZERO);
        units.begin(3, 7, 2);
        units.begin(1, 8, 3);
        units.replace([(1, 20), (4, 21)].into(), 0..8, 4);
        assert_eq!(
            (units.possible(1), units.possible(2), units.possible(4)),
            (vec![20, 8], vec![ZERO], vec![21])
        );
        units.end(3, 7, 2, 5, true);
        assert_eq!((units.visible(3, 6), units.visible(9, 6)), (vec![ZERO, 7], vec![ZERO]));
        units.begin(3, 9, 6);
        units.end(3, 9, 6, 7, true);
        assert_eq!(units.visible(3, 8), [9]);
    }

    #[test]
    fn of_writes_that_a_replacement_overlaps_only_the_last_may_be_left_and_a_flush_does_not_settle_which() {
        let mut units = Units::known([(1, 5)], ZERO);
        let replaced = 1;
        for (value, begun) in [(7, 2), (8, 4)] {
            units.begin(1, value, begun);
            units.end(1, value, begun, begun + 1, true);
        }
        units.settle(6, replaced);
        units.replace([(1, 20)].into(), 0..8, replaced);
        assert_eq!((units.visible(1, 9), units.possible(1)), (vec![20, 8], vec![20, 8]));
    }

    #[test]
    fn a_replaced_blob_that_waives_zeroes_holds_them_only_where_it_was_filled() {
        let mut units = Units::known([(1, 5)], ANYTHING);
        units.replace([(1, 20)].into(), 0..8, 4);
        assert_eq!((units.possible(1), units.possible(7)), (vec![20], vec![ZERO]));
        assert!(units.allows(8, 33), "what it gets when it grows is whatever lay there");
    }

    #[test]
    fn what_was_cut_off_reads_zero_when_it_comes_back() {
        let mut units = Units::known([(1, 5), (2, 6)], ZERO);
        units.truncate(2);
        assert_eq!((units.possible(1), units.possible(2)), (vec![5], vec![ZERO]));
        units.join(&Units::known([(1, 9)], ZERO), 4);
        assert!(units.allows(1, 5) && units.allows(1, 9) && !units.allows(1, ZERO));
    }

    #[test]
    fn a_write_under_way_while_the_parent_changes_may_land_after_a_later_one() {
        let (mut units, same) = (Units::default(), Units::default());
        units.begin(4, ZERO, 19);
        units.join(&same, 16);
        units.begin(4, 9, 27);
        units.end(4, 9, 27, 29, true);
        units.end(4, ZERO, 19, 33, true);
        assert_eq!(units.visible(4, 34), [ZERO, 9]);
        units.begin(4, 21, 35);
        units.end(4, 21, 35, 36, true);
        assert_eq!(units.visible(4, 37), [21]);
    }

    #[test]
    fn a_write_under_way_while_the_parent_changes_may_have_landed_in_the_old_one() {
        let (mut units, other) = (Units::default(), Units::default());
        units.begin(4, 47, 21);
        units.join(&other, 16);
        units.end(4, 47, 21, 36, true);
        assert_eq!(units.visible(4, 37), [ZERO, 47]);
    }

    #[test]
    fn of_two_histories_either_may_be_true_until_both_are_written_over() {
        let mut units = Units::known([(1, 5), (2, 6)], ZERO);
        let mut other = units.clone();
        other.begin(1, 7, 1);
        other.end(1, 7, 1, 2, true);
        other.settle(3, NEVER);
        units.either(&other);
        assert_eq!((units.possible(1), units.visible(1, 9)), (vec![5, 7], vec![5, 7]));
        assert_eq!(units.possible(2), [6]);
        units.begin(1, 8, 4);
        units.end(1, 8, 4, 5, true);
        units.settle(6, NEVER);
        assert_eq!(units.possible(1), [8]);
    }

    #[test]
    fn a_write_that_a_cut_overlaps_may_have_happened_before_it() {
        let mut units = Units::default();
        units.begin(2, 7, 1);
        units.truncate(2);
        units.end(2, 7, 1, 3, true);
        assert_eq!(units.visible(2, 4), [ZERO, 7]);
    }
}
