//! The timed pollers of one thread, in the order of their times.
//!
//! Pollers of one period form a ring: the one that just ran becomes the last, because its next time is later
//! than all others, and nothing is moved. Only the heads of the rings are sorted, so that a thousand pollers
//! with a few different periods cost as little as a few pollers.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use spindle_engine::Time;

/// A due time, and a number among equals: smaller numbers were inserted earlier.
type Key = (Time, u64);

/// Values that are due periodically.
pub(crate) struct DueRings<T> {
    rings: Vec<Ring<T>>,
    by_period: BTreeMap<u64, usize>,
    /// One entry for each ring that is not empty: the key of its head.
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    order: u64,
}

/// Values of one period. From the head on, around the end, in the order of their keys.
struct Ring<T> {
    period_ns: u64,
    entries: Vec<(Key, T)>,
    head: usize,
}

impl<T> Ring<T> {
    fn push(&mut self, key: Key, value: T) {
        self.entries.insert(self.head, (key, value));
        // The place before the head is the end; the place before the first is the last.
        self.head += 1;
    }

    fn take_head(&mut self) {
        self.entries.remove(self.head);
        self.wrap();
    }

    #[inline]
    fn wrap(&mut self) {
        if self.head >= self.entries.len() {
            self.head = 0;
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.entries.rotate_left(self.head);
        self.head = 0;
        self.entries.retain(|(_, value)| keep(value));
    }
}

impl<T> Default for DueRings<T> {
    fn default() -> DueRings<T> {
        DueRings { rings: Vec::new(), by_period: BTreeMap::new(), heads: BinaryHeap::new(), order: 0 }
    }
}

impl<T: Clone> DueRings<T> {
    /// The earliest due time.
    pub(crate) fn next_time(&self) -> Option<Time> {
        self.heads.peek().map(|Reverse(((time, _), _))| *time)
    }

    /// Inserts `value`, due one `period` after `now`. `now` must not run backwards.
    pub(crate) fn insert(&mut self, now: Time, period: Duration, value: T) {
        // At least one tick ahead: a period of 0 is due once a turn, not without end.
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.order += 1;
        let key = (Time(now.0.saturating_add(period_ns)), self.order);
        let number = *self.by_period.entry(period_ns).or_insert_with(|| {
            self.rings.push(Ring { period_ns, entries: Vec::new(), head: 0 });
            self.rings.len() - 1
        });
        let ring = &mut self.rings[number];
        if ring.entries.is_empty() {
            self.heads.push(Reverse((key, number)));
        }
        ring.push(key, value);
        ring.wrap();
    }

    /// Takes the first value that is due at `now`. It stays, due again one period later, if `again` returns
    /// true.
    #[inline]
    pub(crate) fn take_due(&mut self, now: Time, again: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut head = self.heads.peek_mut().filter(|head| head.0.0.0 <= now)?;
        let ring = &mut self.rings[head.0.1];
        let (key, value) = &mut ring.entries[ring.head];
        let taken = value.clone();
        if again(value) {
            self.order += 1;
            *key = (Time(now.0.saturating_add(ring.period_ns)), self.order);
            ring.head += 1;
            ring.wrap();
        } else {
            ring.take_head();
        }
        match ring.entries.get(ring.head) {
            Some((key, _)) => head.0.0 = *key,
            None => drop(PeekMut::pop(head)),
        }
        Some(taken)
    }

    /// Keeps the values for which `keep` returns true. Removes empty rings: a program may use any number of
    /// periods, one after the other.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.rings.iter_mut().for_each(|ring| ring.retain(&mut keep));
        self.rings.retain(|ring| !ring.entries.is_empty());
        self.by_period =
            self.rings.iter().enumerate().map(|(number, ring)| (ring.period_ns, number)).collect();
        let heads = self.rings.iter().enumerate();
        self.heads = heads.map(|(number, ring)| Reverse((ring.entries[0].0, number))).collect();
    }

    /// All values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.rings.iter().flat_map(|ring| ring.entries.iter().map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_engine::sim::Rng;

    const NS: Duration = Duration::from_nanos(1);

    #[test]
    fn they_come_in_the_order_of_their_times_and_equal_times_in_the_order_they_were_put_there() {
        let mut rings = DueRings::default();
        let mut rng = Rng::new(1);
        let mut now = Time(0);
        let mut model: Vec<(Time, u64)> = Vec::new();
        let mut number = 0;
        for _ in 0..2000 {
            let period = NS * (rng.next_u64() % 5) as u32;
            number += 1;
            rings.insert(now, period, number);
            model.push((now + period.max(NS), number));
            if rng.next_u64().is_multiple_of(3) {
                now = now + NS * (rng.next_u64() % 4) as u32;
                model.sort();
                while let Some(value) = rings.take_due(now, |_| false) {
                    assert_eq!(model.remove(0).1, value);
                }
                assert!(model.first().is_none_or(|(time, _)| *time > now), "nothing due is left");
                assert_eq!(rings.next_time(), model.first().map(|(time, _)| *time));
            }
        }
    }

    #[test]
    fn one_that_is_put_back_waits_a_whole_period_even_of_length_0() {
        let mut rings = DueRings::default();
        rings.insert(Time(0), Duration::ZERO, 'a');
        rings.insert(Time(0), NS * 3, 'b');
        let mut due = |now| std::iter::from_fn(|| rings.take_due(now, |_| true)).collect::<String>();
        assert_eq!(
            (due(Time(0)), due(Time(1)), due(Time(1)), due(Time(3))),
            ("".into(), "a".into(), "".into(), "ab".into())
        );
        assert_eq!(rings.next_time(), Some(Time(4)));
        rings.retain(|value| *value != 'a');
        assert_eq!((rings.next_time(), rings.iter().count()), (Some(Time(6)), 1));
    }

    #[test]
    fn unused_periods_take_no_room() {
        let mut rings = DueRings::default();
        for period in 1..100 {
            rings.insert(Time(0), NS * period, period);
        }
        rings.retain(|period| period % 50 == 0);
        assert_eq!((rings.rings.len(), rings.by_period.len(), rings.heads.len()), (1, 1, 1));
        rings.insert(Time(0), NS * 50, 7);
        rings.insert(Time(0), NS * 20, 8);
        let mut due = |time| std::iter::from_fn(|| rings.take_due(time, |_| false)).collect::<Vec<_>>();
        assert_eq!(due(Time(100)), [8, 50, 7]);
    }
}
