//! The lanes of a thread, and the loop that moves requests between them.
//!
//! Owned by the thread's lane table, which lends it out for one turn of the loop at a time. Completions
//! move first: what completes makes room for what is submitted. A lane is called with `&mut`, while the
//! queues it fills are another part of the same value: no lane can be entered twice.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::late::Late;
use crate::queues::{LaneState, Queues};
use crate::table::{Notifier, Table};
use crate::{Busy, Cx, Device, Io, IoErrorKind, IoId, Lane, LaneId, MAX_DEPTH, OpenError, Submit};

/// Steps of the loop before other work of the thread gets its turn.
const BUDGET: u32 = 4096;

/// What a device may do while it makes a lane.
pub struct LaneCx<'a> {
    lanes: &'a mut Lanes,
    home: &'a Weak<Table>,
    this: u32,
}

impl LaneCx<'_> {
    /// Opens a device that the new lane lies on; closed when the new lane is.
    ///
    /// # Errors
    /// As the device's own [`lane`](Device::lane), and stacks that are too deep.
    pub fn open(&mut self, lower: &Arc<dyn Device>) -> Result<LaneId, OpenError> {
        let index = self.lanes.open(self.home, lower)?;
        let below = self.lanes.queues.lanes[index as usize].height;
        let state = &mut self.lanes.queues.lanes[self.this as usize];
        state.lowers.push(index);
        state.height = state.height.max(below + 1);
        Ok(LaneId::new(index))
    }

    /// The way to have the new lane polled.
    pub fn notifier(&self) -> Notifier {
        let waiting = self.lanes.queues.lanes[self.this as usize].notify.clone();
        Notifier::new(self.home.clone(), self.this, waiting)
    }

    /// Has the new lane polled every turn of its thread, which then never sleeps.
    pub fn poll_always(&mut self) {
        self.lanes.queues.lanes[self.this as usize].always = true;
    }
}

/// The lanes and what lies between them.
pub(crate) struct Lanes {
    lanes: Vec<Option<Box<dyn Lane>>>,
    pub(crate) queues: Queues,
    pub(crate) aborts: Vec<(u32, IoId)>,
}

/// Two handles on one device.
pub(crate) fn same_device(a: &Arc<dyn Device>, b: &Arc<dyn Device>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl Lanes {
    pub(crate) fn new(home: Weak<Table>) -> Lanes {
        Lanes { lanes: Vec::new(), queues: Queues::new(home), aborts: Vec::new() }
    }

    /// Everything that can move moves, up to the budget. True if something is left.
    pub(crate) fn turn(&mut self, late: &Late) -> bool {
        let mut budget = BUDGET;
        loop {
            if late.any.replace(false) {
                self.take_late(late);
            }
            if !self.drain(&mut budget) {
                return true;
            }
            while let Some((lane, id)) = self.aborts.pop() {
                self.abort(lane, id);
            }
            while let Some(lane) = self.queues.idle.pop() {
                self.close_if_idle(lane);
            }
            if !late.any.get() && self.queues.is_still() {
                return false;
            }
        }
    }

    /// Empties both queues. Upwards first: what completes makes room for what is submitted. False if the
    /// budget ran out.
    fn drain(&mut self, budget: &mut u32) -> bool {
        while *budget > 0 {
            *budget -= 1;
            if let Some(io) = self.queues.up.pop_front() {
                self.ascend(io);
            } else if let Some(lane) = self.queues.retry.pop_front() {
                self.retry(lane);
            } else if let Some(io) = self.queues.down.pop_front() {
                self.descend(io);
            } else {
                return true;
            }
        }
        false
    }

    fn ascend(&mut self, mut io: Io) {
        let slot = io.slot_mut();
        let Some(depth) = slot.depth.checked_sub(1) else { return self.queues.finish(io) };
        slot.depth = depth;
        let frame = slot.frames[usize::from(depth)];
        let status = slot.status;
        slot.at = frame.lane;
        let Some(Some(lane)) = self.lanes.get_mut(frame.lane as usize) else {
            // A lane stays while a request has a frame of it; only one made for another table has not.
            return self.queues.send_up(io);
        };
        let cx = &mut Cx { queues: &mut self.queues, this: frame.lane, aborts: &mut self.aborts };
        lane.complete(io, frame.saved, status, cx);
    }

    fn descend(&mut self, io: Io) {
        let to = io.slot().at;
        match self.queues.lanes.get_mut(to as usize) {
            Some(state) if !state.stalled.is_empty() => state.stalled.push_back(io),
            Some(_) => {
                if let Submit::Full(io) = self.submit(to, io) {
                    self.queues.lanes[to as usize].stalled.push_front(io);
                }
            }
            None => self.refuse(io),
        }
    }

    fn submit(&mut self, to: u32, io: Io) -> Submit {
        let Some(Some(lane)) = self.lanes.get_mut(to as usize) else {
            self.refuse(io);
            return Submit::Taken;
        };
        let cx = &mut Cx { queues: &mut self.queues, this: to, aborts: &mut self.aborts };
        lane.submit(io, cx)
    }

    fn refuse(&mut self, mut io: Io) {
        io.slot_mut().status = Err(IoErrorKind::Removed);
        self.queues.send_up(io);
    }

    /// Offers a lane, in order, what it was too full for.
    fn retry(&mut self, lane: u32) {
        self.queues.lanes[lane as usize].retrying = false;
        while let Some(io) = self.queues.lanes[lane as usize].stalled.pop_front() {
            if let Submit::Full(io) = self.submit(lane, io) {
                self.queues.lanes[lane as usize].stalled.push_front(io);
                return;
            }
        }
    }

    fn poll(&mut self, index: u32) -> Busy {
        let Some(Some(lane)) = self.lanes.get_mut(index as usize) else { return Busy::No };
        let cx = &mut Cx { queues: &mut self.queues, this: index, aborts: &mut self.aborts };
        let busy = lane.poll(cx);
        self.retry(index);
        busy
    }

    /// Polls the lanes that asked for it; true if there are any.
    pub(crate) fn poll_waiting(&mut self) -> bool {
        let mut any = false;
        // Those that ask again are not polled twice in one turn.
        for _ in 0..self.queues.soon.len() {
            let Some(index) = self.queues.soon.pop_front() else { break };
            if let Some(state) = self.queues.lanes.get_mut(index as usize) {
                state.soon = false;
                any = true;
                self.poll(index);
            }
        }
        for index in 0..self.queues.lanes.len() {
            if self.queues.lanes[index].always {
                any = true;
                self.poll(index as u32);
            }
        }
        any
    }

    /// Sees to what arrived while the table ran or was not running.
    fn take_late(&mut self, late: &Late) {
        // Popped one by one: a lane called here may add more, and the lists keep their room.
        while let Some(slot) = late.take(|lists| &mut lists.fallen) {
            self.queues.abort_fallen(slot);
        }
        while let Some(id) = late.take(|lists| &mut lists.detached) {
            self.queues.detach(id);
        }
        while let Some(key) = late.take(|lists| &mut lists.pairs) {
            self.queues.close_pair(key);
        }
        while let Some((lane, waiting)) = late.take(|lists| &mut lists.ready) {
            // A place may have been given to another lane since; its notification is another cell.
            let current =
                self.queues.lanes.get(lane as usize).is_some_and(|s| Rc::ptr_eq(&s.notify, &waiting));
            waiting.set(false);
            if current {
                self.poll(lane);
            }
        }
        while let Some(lane) = late.take(|lists| &mut lists.retained) {
            self.queues.lanes[lane as usize].refs += 1;
        }
        while let Some(lane) = late.take(|lists| &mut lists.released) {
            self.queues.lanes[lane as usize].refs -= 1;
            self.close_if_idle(lane);
        }
    }

    fn abort(&mut self, lane: u32, id: IoId) {
        let Some(state) = self.queues.lanes.get_mut(lane as usize) else { return };
        if let Some(at) = state.stalled.iter().position(|io| io.id() == id) {
            if let Some(mut io) = state.stalled.remove(at) {
                io.slot_mut().status = Err(IoErrorKind::Aborted);
                self.queues.send_up(io);
            }
        } else if let Some(Some(lane_mut)) = self.lanes.get_mut(lane as usize) {
            let cx = &mut Cx { queues: &mut self.queues, this: lane, aborts: &mut self.aborts };
            lane_mut.abort(id, cx);
        }
    }

    pub(crate) fn open(&mut self, home: &Weak<Table>, device: &Arc<dyn Device>) -> Result<u32, OpenError> {
        let states = &mut self.queues.lanes;
        let found =
            states.iter().position(|s| s.device.as_ref().is_some_and(|open| same_device(open, device)));
        if let Some(index) = found {
            if self.lanes[index].is_none() {
                return Err(OpenError::Other {
                    device: device.name().to_owned(),
                    reason: "it lies on itself; break the circle".to_owned(),
                });
            }
            states[index].refs += 1;
            return Ok(index as u32);
        }
        let index = states.iter().position(|s| s.device.is_none()).unwrap_or_else(|| {
            states.push(LaneState::default());
            self.lanes.push(None);
            states.len() - 1
        });
        states[index] =
            LaneState { device: Some(device.clone()), refs: 1, height: 1, ..LaneState::default() };
        let this = index as u32;
        let made = device.clone().lane(&mut LaneCx { lanes: self, home, this });
        let height = usize::from(self.queues.lanes[index].height);
        match made {
            Ok(lane) if height <= MAX_DEPTH => {
                self.lanes[index] = Some(lane);
                Ok(this)
            }
            Ok(_) => {
                self.clear(this);
                Err(OpenError::TooDeep { device: device.name().to_owned(), max: MAX_DEPTH })
            }
            Err(error) => {
                self.clear(this);
                Err(error)
            }
        }
    }

    fn close_if_idle(&mut self, index: u32) {
        let state = &self.queues.lanes[index as usize];
        if state.device.is_some() && state.refs == 0 && state.in_flight == 0 {
            self.clear(index);
        }
    }

    /// Drops a lane and lets go of the lanes it opened.
    fn clear(&mut self, index: u32) {
        let state = std::mem::take(&mut self.queues.lanes[index as usize]);
        drop(self.lanes[index as usize].take());
        self.queues.wakes.extend(state.closers);
        for lower in state.lowers {
            self.queues.lanes[lower as usize].refs -= 1;
            self.close_if_idle(lower);
        }
    }
}
