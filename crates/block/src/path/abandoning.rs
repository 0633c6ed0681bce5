//! Abandoned requests: the future was dropped or the queue pair closed.
//!
//! A request that only waits is cancelled if it changes data. One that a lane holds goes on: the blocks that
//! it may still change are held in each device that it passed, so that newer changes of them wait.

use crate::path::lanes::Lanes;
use crate::path::queues::is_abandoned;
use crate::path::side_queues::Detached;
use crate::request::io::{ReturnTo, Slot};
use crate::{IoId, LaneId};

impl Lanes {
    /// Handles a dropped future.
    pub(crate) fn detach(&mut self, detached: Detached) {
        let Detached { id, lane, changes } = detached;
        if let Some(io) = self.queues.waiters[id.index as usize].forget() {
            drop(self.queues.recycle(io));
        } else if let Some((start, count)) = changes {
            self.hold(lane, id, start, count);
            self.abandon(lane);
        }
    }

    /// Closes a queue pair: finished requests are recycled now, the others when they end.
    pub(crate) fn close_pair(&mut self, key: u32, lane: LaneId) {
        let pair = &mut self.queues.pairs[key as usize];
        pair.open = false;
        pair.waker = None;
        while let Some(io) = self.queues.pairs[key as usize].finished.pop_front() {
            drop(self.queues.recycle(io));
        }
        let waiters = self.queues.waiters.iter().enumerate();
        let changes: Vec<(IoId, u64, u64)> = waiters
            .filter_map(|(index, waiter)| {
                let (generation, start, count) = waiter.change_of(key)?;
                Some((IoId { index: index as u32, generation }, start, count))
            })
            .collect();
        for &(id, start, count) in &changes {
            self.hold(lane.index, id, start, count);
        }
        if !changes.is_empty() {
            self.abandon(lane.index);
        }
    }

    /// Holds the blocks that a request submitted to `lane` changes there, until it has ended.
    fn hold(&mut self, lane: u32, id: IoId, start: u64, count: u64) {
        let Some(state) = self.queues.lanes.get(lane as usize) else { return };
        if let Some(registration) = &state.registration {
            let range = registration.state().hold_range(start, count);
            self.queues.waiters[id.index as usize].hold(range);
        }
    }

    /// Cancels the abandoned requests that only wait, and calls `Lane::abandoned` for the rest.
    fn abandon(&mut self, lane: u32) {
        if self.queues.lanes.get(lane as usize).is_none_or(|state| state.device.is_none()) {
            return;
        }
        let lanes = self.down_from(lane);
        // Taken apart from the queues, which the test below borrows too.
        let waiters = std::mem::take(&mut self.queues.waiters);
        let pairs = std::mem::take(&mut self.queues.pairs);
        let mut cancelled = Vec::new();
        let given_up = |slot: &Slot| {
            // A lane may rely on requests that it made for itself: they stay.
            slot.operation.changes_data()
                && slot.return_to != ReturnTo::Lane
                && is_abandoned(slot, &waiters, &pairs)
        };
        while let Some(io) = self.take_queued(&lanes, &given_up) {
            cancelled.push(io);
        }
        (self.queues.waiters, self.queues.pairs) = (waiters, pairs);
        cancelled.into_iter().for_each(|io| self.end_as_aborted(io));
        for lane in lanes {
            self.call(lane, |lane, cx| lane.abandoned(cx));
        }
    }
}
