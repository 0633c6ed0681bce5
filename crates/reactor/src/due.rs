//! The timed pollers of one thread, in the order of their times.
//!
//! Pollers of one period stand in one line: whoever ran goes to its end, because its next time is later than
//! all of them. Only the heads of the lines are sorted, so that a thousand pollers of a few periods cost no
//! more than a few.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use spindle_engine::Time;

/// When something is due, and its number among equals: smaller numbers were put there earlier.
type Key = (Time, u64);

/// Things that are due at times, each a period after the last.
pub(crate) struct DueLines<T> {
    lines: Vec<Line<T>>,
    by_period: BTreeMap<Duration, usize>,
    /// One entry for each line that is not empty: the key of its head.
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    order: u64,
}

/// Those of one period, by key.
struct Line<T> {
    period: Duration,
    entries: VecDeque<(Key, T)>,
}

impl<T> Default for DueLines<T> {
    fn default() -> DueLines<T> {
        DueLines { lines: Vec::new(), by_period: BTreeMap::new(), heads: BinaryHeap::new(), order: 0 }
    }
}

impl<T> DueLines<T> {
    /// When the first of all is due.
    pub(crate) fn next_time(&self) -> Option<Time> {
        self.heads.peek().map(|Reverse(((time, _), _))| *time)
    }

    /// Puts `value` there, due one `period` after `now`. `now` must not run backwards.
    pub(crate) fn insert(&mut self, now: Time, period: Duration, value: T) {
        self.order += 1;
        // At least one tick ahead: a period of 0 is due once a turn, not for ever.
        let key = (now + period.max(Duration::from_nanos(1)), self.order);
        let number = *self.by_period.entry(period).or_insert_with(|| {
            self.lines.push(Line { period, entries: VecDeque::new() });
            self.lines.len() - 1
        });
        let entries = &mut self.lines[number].entries;
        debug_assert!(entries.back().is_none_or(|(last, _)| *last < key), "time runs forwards");
        if entries.is_empty() {
            self.heads.push(Reverse((key, number)));
        }
        entries.push_back((key, value));
    }

    /// Takes out the first that is due at `now`, and puts what `again` makes of it at the end of its line,
    /// if it makes something.
    pub(crate) fn take_due(&mut self, now: Time, again: impl FnOnce(&T) -> Option<T>) -> Option<T> {
        let mut head = self.heads.peek_mut().filter(|head| head.0.0.0 <= now)?;
        let line = &mut self.lines[head.0.1];
        let (_, value) = line.entries.pop_front().expect("a line with a head is not empty");
        if let Some(next) = again(&value) {
            self.order += 1;
            line.entries.push_back(((now + line.period.max(Duration::from_nanos(1)), self.order), next));
        }
        match line.entries.front() {
            Some((key, _)) => head.0.0 = *key,
            None => drop(PeekMut::pop(head)),
        }
        Some(value)
    }

    /// Keeps those that `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.lines.iter_mut().for_each(|line| line.entries.retain(|(_, value)| keep(value)));
        let heads = self.lines.iter().enumerate();
        let heads = heads.filter_map(|(number, line)| Some(Reverse((line.entries.front()?.0, number))));
        self.heads = heads.collect();
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|line| line.entries.iter().map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_engine::sim::Rng;

    const NS: Duration = Duration::from_nanos(1);

    #[test]
    fn they_come_in_the_order_of_their_times_and_equal_times_in_the_order_they_were_put_there() {
        let mut lines = DueLines::default();
        let mut rng = Rng::new(1);
        let mut now = Time(0);
        let mut model: Vec<(Time, u64)> = Vec::new();
        let mut number = 0;
        for _ in 0..2000 {
            let period = NS * (rng.next_u64() % 5) as u32;
            number += 1;
            lines.insert(now, period, number);
            model.push((now + period.max(NS), number));
            if rng.next_u64() % 3 == 0 {
                now = now + NS * (rng.next_u64() % 4) as u32;
                model.sort();
                while let Some(value) = lines.take_due(now, |_| None) {
                    assert_eq!(model.remove(0).1, value);
                }
                assert!(model.first().is_none_or(|(time, _)| *time > now), "nothing due is left");
                assert_eq!(lines.next_time(), model.first().map(|(time, _)| *time));
            }
        }
    }

    #[test]
    fn one_that_is_put_back_waits_a_whole_period_even_of_length_0() {
        let mut lines = DueLines::default();
        lines.insert(Time(0), Duration::ZERO, 'a');
        lines.insert(Time(0), NS * 3, 'b');
        let mut due =
            |now| std::iter::from_fn(|| lines.take_due(now, |value| Some(*value))).collect::<String>();
        assert_eq!(
            (due(Time(0)), due(Time(1)), due(Time(1)), due(Time(3))),
            ("".into(), "a".into(), "".into(), "ab".into())
        );
        assert_eq!(lines.next_time(), Some(Time(4)));
        lines.retain(|value| *value != 'a');
        assert_eq!((lines.next_time(), lines.iter().count()), (Some(Time(6)), 1));
    }
}
