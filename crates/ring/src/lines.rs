//! Values that wait in lines that take turns: a long line delays no other line.

use std::collections::VecDeque;

/// Values taken from one line before the next line's turn.
const QUANTUM: usize = 8;

/// The lines, numbered from 0 without large gaps. FIFO in each.
pub(crate) struct Lines<T> {
    /// Kept for their capacity.
    lines: Vec<VecDeque<T>>,
    /// The numbers of lines with waiting values, in the order of their turns.
    turns: VecDeque<usize>,
    /// Number of values taken from the first of them in this turn.
    served: usize,
    len: usize,
}

impl<T> Lines<T> {
    /// Empty lines.
    pub(crate) fn new() -> Lines<T> {
        Lines { lines: Vec::new(), turns: VecDeque::new(), served: 0, len: 0 }
    }

    /// True if a value waits in that line.
    #[inline]
    pub(crate) fn has(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| !line.is_empty())
    }

    /// Appends a value to its line; returns the length of the line.
    #[inline]
    pub(crate) fn push(&mut self, line: usize, value: T) -> usize {
        if line >= self.lines.len() {
            self.lines.resize_with(line + 1, VecDeque::new);
        }
        let waiting = &mut self.lines[line];
        if waiting.is_empty() {
            self.turns.push_back(line);
        }
        waiting.push_back(value);
        self.len += 1;
        waiting.len()
    }

    /// The next value, and its line.
    pub(crate) fn pop(&mut self) -> Option<(usize, T)> {
        let line = *self.turns.front()?;
        let waiting = &mut self.lines[line];
        let value = waiting.pop_front().expect("a line has a turn only while something waits in it");
        self.served += 1;
        self.len -= 1;
        if waiting.is_empty() {
            self.turns.pop_front();
            self.served = 0;
        } else if self.served == QUANTUM {
            self.turns.rotate_left(1);
            self.served = 0;
        }
        Some((line, value))
    }

    /// Values waiting, in all lines together.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lines_take_turns_and_each_stays_in_order() {
        let mut lines = Lines::new();
        (0..20).for_each(|number| assert_eq!(lines.push(3, number), number + 1));
        (0..2).for_each(|number| assert_eq!(lines.push(0, number), number + 1));
        assert!(lines.has(3) && lines.has(0) && !lines.has(1) && !lines.has(9));
        let popped: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        let place = |what| popped.iter().position(|found| *found == what).unwrap();
        assert_eq!((place((0, 0)), place((0, 1)), popped.len(), lines.len()), (8, 9, 22, 0));
        let long: Vec<_> = popped.iter().filter(|(line, _)| *line == 3).map(|(_, number)| *number).collect();
        assert!(long.into_iter().eq(0..20));
    }
}
