//! Finds a request that must end early, and every request made for it: in the table's queues, in front of a
//! lane, in a lane, or with a task.
//!
//! Aborts are rare, so requests carry nothing for them: the table asks every lane below the one where the
//! request was submitted.

use std::collections::BTreeSet;

use crate::path::lane_state::LaneState;
use crate::path::lanes::Lanes;
use crate::request::io::Slot;
use crate::{Io, IoErrorKind, IoId, LaneId};

impl Lanes {
    /// Aborts a request that was submitted to `lane`, and all requests made for it.
    pub(crate) fn abort_family(&mut self, lane: u32, id: IoId) {
        if self.queues.lanes.get(lane as usize).is_none_or(|state| state.device.is_none()) {
            return;
        }
        let lanes = self.down_from(lane);
        for id in self.queues.family(id) {
            self.abort(&lanes, id);
        }
    }

    fn abort(&mut self, lanes: &[u32], id: IoId) {
        if let Some(io) = self.take_queued(lanes, &|slot: &Slot| slot.id == id) {
            self.queues.look_at_limits();
            return self.end_as_aborted(io);
        }
        self.queues.aborts_asked = true;
        let holder = self.queues.waiters.get_mut(id.index as usize).and_then(|w| w.ask_abort(id.generation));
        self.queues.wakes.extend(holder);
        for &lane in lanes {
            self.call(lane, |lane, cx| lane.abort(id, cx));
        }
    }

    pub(crate) fn end_as_aborted(&mut self, mut io: Io) {
        io.slot_mut().status = Err(IoErrorKind::Aborted);
        self.queues.send_up(io);
    }

    /// Removes and returns a request that waits in front of one of these lanes or is on its way there.
    pub(crate) fn take_queued(&mut self, lanes: &[u32], is_it: &dyn Fn(&Slot) -> bool) -> Option<Io> {
        if let Some(io) = self.queues.down.take(is_it) {
            return Some(io);
        }
        lanes.iter().find_map(|&lane| self.queues.lanes[lane as usize].take_waiting(is_it))
    }

    /// A lane and all lanes below it, each once.
    pub(crate) fn down_from(&self, lane: u32) -> Vec<u32> {
        self.down_from_all(&[lane])
    }

    /// These lanes and all lanes below them, each once: also those that one of them has closed, as its requests may
    /// still be there.
    pub(crate) fn down_from_all(&self, lanes: &[u32]) -> Vec<u32> {
        let mut found = lanes.to_vec();
        let mut known: BTreeSet<u32> = lanes.iter().copied().collect();
        let mut next = 0;
        while let Some(&lane) = found.get(next) {
            let LaneState { lowers, left, .. } = &self.queues.lanes[lane as usize];
            let left = left.iter().filter(|lane| self.is_open(**lane)).map(|lane| lane.index);
            found.extend(lowers.iter().copied().chain(left).filter(|lower| known.insert(*lower)));
            next += 1;
        }
        found
    }

    fn is_open(&self, lane: LaneId) -> bool {
        let state = self.queues.lanes.get(lane.index as usize);
        state.is_some_and(|state| state.generation == lane.generation && state.device.is_some())
    }
}
