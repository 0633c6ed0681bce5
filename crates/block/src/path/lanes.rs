//! The lanes of a thread, and the loop that moves requests between them.
//!
//! Owned by the thread's lane table, which lends it out for one turn of the loop at a time. Completions
//! move first: what completes makes room for what is submitted. A lane is called with `&mut`, while the
//! queues it fills are another part of the same value: no lane can be entered twice.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::path::device::LaneMaking;
use crate::path::lane_state::{LaneState, Shape};
use crate::path::notifier::Notifier;
use crate::path::queues::Queues;
use crate::path::side_queues::SideQueues;
use crate::request::io::{Frame, Home};
use crate::state::hindrance::Found;
use crate::state::mailbox::Mailbox;
use crate::{Busy, Cx, Device, Io, IoErrorKind, Lane, LaneId, OpenError, RemoteNotifier, Submit};

/// Steps of the loop before other work of the thread gets its turn.
const BUDGET: u32 = 4096;

/// The lanes and the queues between them.
pub(crate) struct Lanes {
    pub(crate) lanes: Vec<Option<Box<dyn Lane>>>,
    pub(crate) queues: Queues,
    /// Free places.
    pub(crate) free: Vec<u32>,
    /// The lane of each device, by the device's address.
    pub(crate) by_device: BTreeMap<usize, u32>,
    /// The table.
    home: Weak<dyn Home>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl LaneMaking for Lanes {
    fn open_below(&mut self, this: u32, lower: &Arc<dyn Device>) -> Result<LaneId, OpenError> {
        let lane = self.open(lower)?;
        Ok(self.put_below(this, lane))
    }

    fn notifier(&self, this: u32) -> Notifier {
        Notifier::new(self.home.clone(), this, self.queues.lanes[this as usize].notify.clone())
    }

    fn remote_notifier(&self, this: u32) -> RemoteNotifier {
        let generation = self.queues.lanes[this as usize].generation;
        RemoteNotifier::new(self.mailbox.clone(), this, generation)
    }

    fn poll_always(&mut self, this: u32) {
        if !std::mem::replace(&mut self.queues.lanes[this as usize].always, true) {
            self.queues.always.push(this);
        }
    }
}

impl Lanes {
    pub(crate) fn new(home: Weak<dyn Home>, mailbox: Arc<Mailbox>) -> Lanes {
        let (lanes, queues) = (Vec::new(), Queues::new(home.clone()));
        Lanes { lanes, queues, free: Vec::new(), by_device: BTreeMap::new(), home, mailbox }
    }

    /// Moves everything that can move, up to the budget. True if something is left.
    pub(crate) fn turn(&mut self, side: &SideQueues) -> bool {
        let mut budget = BUDGET;
        self.queues.clock.begin_pass();
        loop {
            if side.any.replace(false) {
                self.take_side(side);
                self.take_mail();
            }
            if !self.drain(&mut budget) {
                return true;
            }
            if !self.queues.emptying.is_empty() {
                self.end_orphans();
            }
            while let Some((lane, id)) = self.queues.aborts.pop() {
                self.abort_family(lane, id);
            }
            while let Some((lane, device)) = self.queues.opening.pop_front() {
                self.open_one_more(lane, &device);
            }
            while let Some((lane, lower)) = self.queues.closing.pop_front() {
                self.close_below(lane, lower);
            }
            while let Some(lane) = self.queues.idle.pop() {
                self.close_if_idle(lane);
            }
            if !side.any.get() && self.queues.is_still() {
                return false;
            }
        }
    }

    /// Empties both queues. Upwards first: what completes makes room for what is submitted. False if the
    /// budget ran out.
    #[inline]
    fn drain(&mut self, budget: &mut u32) -> bool {
        while *budget > 0 {
            *budget -= 1;
            if let Some(io) = self.queues.up.pop_front() {
                self.ascend(io);
            } else if !self.queues.retry.is_empty() {
                self.retry_first();
            } else if let Some(io) = self.queues.down.pop_front() {
                self.descend(io);
            } else {
                return true;
            }
        }
        false
    }

    #[cold]
    fn retry_first(&mut self) {
        if let Some(lane) = self.queues.retry.pop_front() {
            self.retry(lane);
        }
    }

    #[inline]
    fn ascend(&mut self, mut io: Io) {
        let slot = io.slot_mut();
        let Some(depth) = slot.depth.checked_sub(1) else { return self.queues.finish(io) };
        slot.depth = depth;
        let Frame { held, saved, .. } = slot.frames[usize::from(depth)];
        let status = slot.status;
        slot.held = held;
        let this = held.lane;
        let Some(Some(lane)) = self.lanes.get_mut(this as usize) else {
            // A lane stays while a request has a frame of it; only a frame of another table can miss it.
            return self.queues.send_up(io);
        };
        let cx = &mut Cx { queues: &mut self.queues, this };
        lane.complete(io, saved, status, cx);
    }

    #[inline]
    fn descend(&mut self, mut io: Io) {
        let to = io.slot().held.lane;
        let Some(state) = self.queues.lanes.get_mut(to as usize) else { return self.refuse(io) };
        match state.hindrance() {
            Found::NOTHING => self.offer(to, io),
            Found::COUNTING => {
                state.arrive(&mut io, &mut self.queues.clock);
                self.offer(to, io);
            }
            _ => self.descend_hindered(to, io),
        }
    }

    #[inline]
    fn offer(&mut self, to: u32, io: Io) {
        if let Submit::Full(io) = self.submit(to, io) {
            self.queues.stall_first(to, io);
        }
    }

    #[inline]
    pub(crate) fn submit(&mut self, to: u32, io: Io) -> Submit {
        let Some(Some(lane)) = self.lanes.get_mut(to as usize) else {
            self.refuse(io);
            return Submit::Taken;
        };
        let cx = &mut Cx { queues: &mut self.queues, this: to };
        lane.submit(io, cx)
    }

    pub(crate) fn refuse(&mut self, io: Io) {
        self.refuse_as(io, IoErrorKind::Removed);
    }

    pub(crate) fn refuse_as(&mut self, mut io: Io, kind: IoErrorKind) {
        io.slot_mut().status = Err(kind);
        self.queues.send_up(io);
    }

    pub(crate) fn poll(&mut self, index: u32) -> Busy {
        let Some(Some(lane)) = self.lanes.get_mut(index as usize) else { return Busy::No };
        let cx = &mut Cx { queues: &mut self.queues, this: index };
        let busy = lane.poll(cx);
        self.retry(index);
        busy
    }

    /// Polls the lanes that asked for it; true if there are any.
    pub(crate) fn poll_waiting(&mut self) -> bool {
        let mut any = self.let_due_go();
        // A lane that asks again is not polled twice in one turn.
        for _ in 0..self.queues.soon.len() {
            let Some(index) = self.queues.soon.pop_front() else { break };
            if let Some(state) = self.queues.lanes.get_mut(index as usize) {
                state.soon = false;
                any = true;
                self.poll(index);
            }
        }
        for at in 0..self.queues.always.len() {
            let Some(&index) = self.queues.always.get(at) else { break };
            any = true;
            self.poll(index);
        }
        any
    }

    /// Handles requests whose futures were dropped.
    pub(crate) fn take_detached(&mut self, side: &SideQueues) {
        while let Some(detached) = side.take(|lists| &mut lists.detached) {
            self.detach(detached);
        }
    }

    /// Handles what arrived since the last turn.
    fn take_side(&mut self, side: &SideQueues) {
        // Popped one by one: a lane called here may add more, and the lists keep their room.
        while let Some(slot) = side.take(|lists| &mut lists.dropped) {
            self.queues.abort_dropped(slot);
        }
        while let Some((key, slot)) = side.take(|lists| &mut lists.unjoined) {
            self.queues.lose_unjoined(key, Io::from_slot(slot));
        }
        self.take_detached(side);
        while let Some((key, lane)) = side.take(|lists| &mut lists.pairs) {
            self.close_pair(key, lane);
        }
        while let Some((lane, id)) = side.take(|lists| &mut lists.aborts) {
            self.abort_family(lane, id);
        }
        while let Some((device, id)) = side.take(|lists| &mut lists.aborts_by_device) {
            if let Some(lane) = self.lane_of(&device) {
                self.abort_family(lane, id);
            }
        }
        while let Some((lane, waiting)) = side.take(|lists| &mut lists.ready) {
            // Another lane may have the place now; its notification is another cell.
            let current =
                self.queues.lanes.get(lane as usize).is_some_and(|s| Rc::ptr_eq(&s.notify, &waiting));
            waiting.set(false);
            if current {
                self.poll(lane);
            }
        }
        while let Some(lane) = side.take(|lists| &mut lists.retained) {
            self.queues.lanes[lane as usize].refs += 1;
        }
        while let Some(lane) = side.take(|lists| &mut lists.released) {
            self.release(lane);
        }
    }

    /// Calls a lane if it is there.
    pub(crate) fn call(&mut self, index: u32, f: impl FnOnce(&mut dyn Lane, &mut Cx<'_>)) {
        if let Some(Some(lane)) = self.lanes.get_mut(index as usize) {
            let cx = &mut Cx { queues: &mut self.queues, this: index };
            f(lane.as_mut(), cx);
        }
    }

    /// Notes that a lane lies on another; returns that one's id.
    pub(crate) fn put_below(&mut self, upper: u32, lower: u32) -> LaneId {
        self.queues.lanes[upper as usize].lowers.push(lower);
        self.id_of(lower)
    }

    /// The id of the lane at `index`.
    pub(crate) fn id_of(&self, index: u32) -> LaneId {
        LaneId::new(index, self.queues.lanes[index as usize].generation)
    }

    /// The state of a lane, unless it was closed.
    pub(crate) fn state_of(&mut self, lane: LaneId) -> Option<&mut LaneState> {
        let state = self.queues.lanes.get_mut(lane.index as usize)?;
        (state.generation == lane.generation && state.device.is_some()).then_some(state)
    }

    /// The copy of its geometry that all channels of a device share.
    pub(crate) fn shape(&mut self, lane: u32, device: &Arc<dyn Device>) -> Shape {
        let state = &mut self.queues.lanes[lane as usize];
        state.shape.get_or_insert_with(|| Rc::new(device.geometry().into())).clone()
    }

    /// Number of open lanes.
    pub(crate) fn open_lanes(&self) -> usize {
        self.lanes.len() - self.free.len()
    }
}
