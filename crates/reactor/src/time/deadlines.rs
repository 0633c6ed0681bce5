//! Deadlines of many places: at most one per place, the earliest first.
//!
//! A binary heap that knows the position of each place, so that a deadline can be moved or removed. Costs the
//! logarithm of the number of deadlines; allocates only for a higher place than any before.

use spindle_engine::Time;

/// Not in the heap.
const NOWHERE: u32 = u32::MAX;

/// Deadlines by place.
#[derive(Default)]
pub(crate) struct Deadlines {
    heap: Vec<(Time, u32)>,
    /// By place: its position in the heap.
    positions: Vec<u32>,
}

impl Deadlines {
    /// The earliest.
    pub(crate) fn first(&self) -> Option<Time> {
        self.heap.first().map(|(time, _)| *time)
    }

    /// Takes the place with the earliest deadline, if that is `now` or before.
    #[inline]
    pub(crate) fn take_due(&mut self, now: Time) -> Option<usize> {
        let &(time, place) = self.heap.first()?;
        if time > now {
            return None;
        }
        self.remove(0);
        Some(place as usize)
    }

    /// Sets or removes the deadline of a place.
    #[inline]
    pub(crate) fn set(&mut self, place: usize, deadline: Option<Time>) {
        let known = self.positions.get(place).copied().filter(|position| *position != NOWHERE);
        match (known, deadline) {
            (None, None) => {}
            (Some(position), None) => self.remove(position as usize),
            (Some(position), Some(time)) => {
                let position = position as usize;
                if self.heap[position].0 != time {
                    self.heap[position].0 = time;
                    self.restore_order(position);
                }
            }
            (None, Some(time)) => {
                if self.positions.len() <= place {
                    self.positions.resize(place + 1, NOWHERE);
                }
                self.heap.push((time, place as u32));
                self.positions[place] = self.heap.len() as u32 - 1;
                self.rise(self.heap.len() - 1);
            }
        }
    }

    fn remove(&mut self, position: usize) {
        let (_, place) = self.heap.swap_remove(position);
        self.positions[place as usize] = NOWHERE;
        if let Some((_, moved)) = self.heap.get(position) {
            self.positions[*moved as usize] = position as u32;
            self.restore_order(position);
        }
    }

    /// Moves an entry whose time has changed to its position.
    fn restore_order(&mut self, position: usize) {
        let position = self.rise(position);
        self.sink(position);
    }

    fn rise(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].0 <= self.heap[position].0 {
                break;
            }
            self.exchange(parent, position);
            position = parent;
        }
        position
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let children = [2 * position + 1, 2 * position + 2].into_iter();
            let first =
                children.filter(|child| *child < self.heap.len()).min_by_key(|child| self.heap[*child].0);
            let Some(child) = first.filter(|child| self.heap[*child].0 < self.heap[position].0) else {
                return;
            };
            self.exchange(child, position);
            position = child;
        }
    }

    fn exchange(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for position in [a, b] {
            self.positions[self.heap[position].1 as usize] = position as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use spindle_engine::sim::Rng;

    use super::*;

    #[test]
    fn the_earliest_deadline_is_due_first_whatever_was_moved_or_taken_back() {
        let (mut deadlines, mut model, mut rng) = (Deadlines::default(), BTreeMap::new(), Rng::new(3));
        for _ in 0..20_000 {
            let (place, time) = (rng.next_u64() as usize % 50, Time(rng.next_u64() % 1000));
            match rng.next_u64() % 4 {
                0 => {
                    deadlines.set(place, None);
                    model.remove(&place);
                }
                1 => {
                    let due = deadlines.take_due(time);
                    let earliest = model.values().min().copied().filter(|first| *first <= time);
                    assert_eq!(due.map(|place| model.remove(&place).unwrap()), earliest);
                }
                _ => {
                    deadlines.set(place, Some(time));
                    model.insert(place, time);
                }
            }
            assert_eq!(deadlines.first(), model.values().min().copied());
        }
    }
}
