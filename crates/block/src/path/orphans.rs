//! Orphaned requests: a device that has passed them on was removed. They end early, so that the removal ends whatever
//! the devices below keep; those go on with the requests of others.
//!
//! What a removed lane does when a request comes back may send others down, and lanes between may keep what comes back.
//! So the table looks again in each pass, until nothing is left in the removed lane.

use crate::path::lanes::Lanes;
use crate::path::queues::Queues;
use crate::request::io::{ReturnTo, Slot};
use crate::request::joins::Joins;
use crate::{Gate, IoErrorKind};

/// True if `is_gone` accepts a lane that waits for a request, or for the request that it is a piece of.
fn is_awaited_in(slot: &Slot, joins: &Joins, is_gone: &dyn Fn(u32) -> bool) -> bool {
    let passed = &slot.frames[..usize::from(slot.depth)];
    if passed.iter().any(|frame| is_gone(frame.held.lane)) {
        return true;
    }
    let ReturnTo::Join { key, .. } = slot.return_to else { return false };
    let parent = joins.parent(key);
    parent.is_some_and(|parent| is_gone(parent.held.lane) || is_awaited_in(parent, joins, is_gone))
}

impl Queues {
    /// True if the device of a lane that waits for a request was removed.
    pub(crate) fn is_orphaned(&self, slot: &Slot) -> bool {
        let is_gone = |lane: u32| self.lanes.get(lane as usize).is_some_and(|state| state.gate == Gate::Husk);
        is_awaited_in(slot, &self.joins, &is_gone)
    }

    /// Has the requests that a removed lane waits for end early, in this pass and in later ones.
    pub(crate) fn begin_to_empty(&mut self, lane: u32) {
        self.emptying.push(lane);
        // Tasks that hold requests look for themselves.
        let Queues { waiters, wakes, .. } = self;
        wakes.extend(waiters.iter_mut().filter_map(|waiter| waiter.take_holder()));
    }
}

impl Lanes {
    /// Ends the requests that removed lanes wait for, as far as the lanes that hold them can.
    pub(crate) fn end_orphans(&mut self) {
        let Queues { emptying, lanes, .. } = &mut self.queues;
        emptying.retain(|lane| lanes[*lane as usize].is_emptying());
        if emptying.is_empty() {
            return;
        }
        let concerned = self.down_from_all(&self.queues.emptying);
        self.end_queued_orphans(&concerned);
        for lane in concerned {
            self.call(lane, |lane, cx| lane.orphaned(cx));
        }
    }

    /// Ends those that wait in front of these lanes, or are on their way there.
    fn end_queued_orphans(&mut self, concerned: &[u32]) {
        let Queues { down, lanes, joins, emptying, .. } = &mut self.queues;
        let is_gone = |lane: u32| emptying.contains(&lane);
        let is_orphan = |slot: &Slot| is_awaited_in(slot, joins, &is_gone);
        let mut orphans: Vec<_> = std::iter::from_fn(|| down.take(&is_orphan)).collect();
        for lane in concerned {
            let state = &mut lanes[*lane as usize];
            orphans.extend(std::iter::from_fn(|| state.take_waiting(&is_orphan)));
        }
        if !orphans.is_empty() {
            self.queues.look_at_limits();
        }
        orphans.into_iter().for_each(|io| self.refuse_as(io, IoErrorKind::Aborted));
    }
}
