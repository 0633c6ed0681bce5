//! Counts the requests in one lane by epoch, so that a caller can wait for those that came before a moment
//! and for no others.
//!
//! Part of the lane's state in the lane table. A waiter begins a new epoch and waits until the earlier ones
//! are over.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use spindle_reactor::WaitList;

/// The requests in one lane, from all senders.
#[derive(Default)]
pub(crate) struct Epochs {
    current: u32,
    /// Requests of the current epoch.
    count: u32,
    /// Earlier epochs that are not over, oldest first: number and requests.
    earlier: VecDeque<(u32, u32)>,
    /// Tasks that wait for the end of an epoch; made for the first.
    ending: Option<Rc<WaitList>>,
}

impl Epochs {
    /// Counts a request; returns its epoch.
    #[inline]
    pub(crate) fn begin(&mut self) -> u32 {
        self.count += 1;
        self.current
    }

    /// Counts one more request in the epoch of one that is still counted.
    pub(crate) fn join(&mut self, epoch: u32) {
        match self.earlier.iter_mut().find(|(found, _)| *found == epoch) {
            Some((_, count)) => *count += 1,
            None => self.count += 1,
        }
    }

    /// Removes a request from its epoch; wakers that are now due go to `wakes`.
    #[inline]
    pub(crate) fn end(&mut self, epoch: u32, wakes: &mut VecDeque<Waker>) {
        match epoch == self.current {
            true => self.count -= 1,
            false => self.end_earlier(epoch, wakes),
        }
    }

    /// The end of a request of an earlier epoch: the only one that can wake a waiter.
    #[cold]
    fn end_earlier(&mut self, epoch: u32, wakes: &mut VecDeque<Waker>) {
        if let Some((_, count)) = self.earlier.iter_mut().find(|(found, _)| *found == epoch) {
            *count -= 1;
        }
        while let Some((_, 0)) = self.earlier.front() {
            self.earlier.pop_front();
        }
        wakes.extend(self.ending.iter().flat_map(|ending| ending.take()));
    }

    /// Begins a new epoch; returns the previous one.
    pub(crate) fn turn(&mut self) -> u32 {
        let ending = self.current;
        self.current = ending.wrapping_add(1);
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            self.earlier.push_back((ending, count));
        }
        ending
    }

    /// The current epoch.
    pub(crate) fn current(&self) -> u32 {
        self.current
    }

    /// True if all requests of `epoch` and of earlier ones have ended.
    pub(crate) fn are_over(&self, epoch: u32) -> bool {
        // Numbers wrap, so they are compared by difference: fewer than 2^31 epochs are under way at one time.
        self.earlier.front().is_none_or(|&(oldest, _)| oldest.wrapping_sub(epoch).cast_signed() > 0)
    }

    /// The tasks that wait for the end of an epoch.
    pub(crate) fn ending(&mut self) -> Rc<WaitList> {
        self.ending.get_or_insert_default().clone()
    }

    /// Requests of an epoch and of earlier ones.
    pub(crate) fn up_to(&self, epoch: u32) -> usize {
        let over = |number: u32| number.wrapping_sub(epoch).cast_signed() <= 0;
        let current = if over(self.current) { self.count as usize } else { 0 };
        let earlier = self.earlier.iter().filter(|(number, _)| over(*number));
        current + earlier.map(|&(_, count)| count as usize).sum::<usize>()
    }

    /// Requests in the lane.
    pub(crate) fn in_flight(&self) -> usize {
        self.count as usize + self.earlier.iter().map(|&(_, count)| count as usize).sum::<usize>()
    }

    /// True if there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0 && self.earlier.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_waits_for_what_was_under_way_and_for_nothing_that_came_later() {
        let start = Epochs { current: u32::MAX - 1, ..Epochs::default() };
        for mut epochs in [Epochs::default(), start] {
            let mut wakes = VecDeque::new();
            let (list, waker) = (epochs.ending(), Waker::noop());
            let place = list.enter();
            let (first, second) = (epochs.begin(), epochs.begin());
            let one = epochs.turn();
            assert!(!epochs.are_over(one));
            let later = epochs.begin();
            let two = epochs.turn();
            assert!(!epochs.are_over(two));
            let last = epochs.begin();
            assert_eq!(epochs.in_flight(), 4);
            epochs.end(later, &mut wakes);
            epochs.end(second, &mut wakes);
            assert!(!epochs.are_over(one), "the first is still under way");
            assert!(!epochs.are_over(two));
            wakes.clear();
            list.wait(&place, waker);
            epochs.end(first, &mut wakes);
            assert!(!wakes.is_empty(), "the waiters are woken");
            assert!(epochs.are_over(one));
            assert!(epochs.are_over(two));
            assert!(!epochs.is_empty());
            epochs.end(last, &mut wakes);
            let three = epochs.turn();
            assert!(epochs.are_over(three), "nothing is left");
            assert!(epochs.is_empty());
        }
    }
}
