//! The two queues of a thread and their bookkeeping: everything of the lane table except the lanes, so that a
//! lane can be called with `&mut` while it fills these.
//!
//! Owned by the thread's lane table. Nothing here calls a lane.

use std::collections::VecDeque;
use std::rc::Weak;
use std::sync::Arc;
use std::task::Waker;

use spindle_mem::Buffers;
use spindle_reactor::{ReportLevel, Time, report};

use crate::path::alarms::Alarms;
use crate::path::clock::Clock;
use crate::path::lane_state::LaneState;
use crate::path::meter::NOT_PAID;
use crate::request::io::{Frame, Held, Home, MAX_LAYERS, ReturnTo, Slot};
use crate::request::joins::{Joins, Place};
use crate::request::queue::Queue;
use crate::request::waiter::{Root, Waiter};
use crate::state::mailbox::Obligation;
use crate::{Device, Gate, HeldRange, Io, IoErrorKind, IoId, LaneId, Operation};

/// What futures submit before one of them yields, see [`Queues::yields`]: a millisecond or two of a RAM disk's work.
const BEFORE_YIELD: u64 = 256;

/// Set in the numbers of users that are not the table's own.
pub(crate) const DESCRIBED: u32 = 1 << 31;

/// The finished requests of a queue pair.
#[derive(Default)]
pub(crate) struct Pair {
    pub(crate) open: bool,
    pub(crate) outstanding: u32,
    pub(crate) finished: VecDeque<Io>,
    pub(crate) waker: Option<Waker>,
}

/// Queues, pools and counts of one thread.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) down: Queue,
    pub(crate) up: Queue,
    pub(crate) retry: VecDeque<u32>,
    /// Lanes that may close now.
    pub(crate) idle: Vec<u32>,
    /// Lanes to poll in the next turn.
    pub(crate) soon: VecDeque<u32>,
    /// Lanes to poll in every turn.
    pub(crate) always: Vec<u32>,
    /// Devices that lanes asked to open.
    pub(crate) opening: VecDeque<(LaneId, Arc<dyn Device>)>,
    /// Lanes below that lanes asked to close.
    pub(crate) closing: VecDeque<(LaneId, LaneId)>,
    pub(crate) lanes: Vec<LaneState>,
    pub(crate) joins: Joins,
    /// Requests that lanes want to end early, and the lanes below that hold them.
    pub(crate) aborts: Vec<(u32, IoId)>,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) pairs: Vec<Pair>,
    /// Wakers to call once no part of the table is borrowed.
    pub(crate) wakes: VecDeque<Waker>,
    /// Obligations to fulfil then.
    pub(crate) met: Vec<Obligation>,
    /// Ranges to release then: no old request writes to them any more.
    pub(crate) released: Vec<HeldRange>,
    pub(crate) aborted: u64,
    /// Channels and pairs opened so far: each is a separate user unless set otherwise.
    pub(crate) users: u32,
    /// True once any request was asked to end early.
    pub(crate) aborts_asked: bool,
    pub(crate) clock: Clock,
    /// What futures have submitted since one of them yielded: requests, and each 64 KiB as another.
    since_yield: u64,
    /// Lanes with requests that wait for limits. The deadline is the earliest time at which one may
    /// go on or an alarm is due.
    pub(crate) throttled: VecDeque<u32>,
    pub(crate) deadline: Option<Time>,
    /// Set while those whose time has come go on; still set later if a lane panicked then.
    pub(crate) rings: bool,
    /// Removed lanes that wait for requests below.
    pub(crate) emptying: Vec<u32>,
    /// Lanes to poll at a set time.
    pub(crate) alarms: Alarms,
    /// Requests that pass a held range or, if they are resets, a frozen gate.
    pub(crate) passes: Vec<IoId>,
    #[allow(clippy::vec_box, reason = "the box is what requests are made of and moves as it is")]
    pool: Vec<Box<Slot>>,
    home: Option<Weak<dyn Home>>,
}

impl Queues {
    pub(crate) fn new(home: Weak<dyn Home>) -> Queues {
        Queues { home: Some(home), ..Queues::default() }
    }

    /// A number for a new channel or pair.
    pub(crate) fn new_user(&mut self) -> u32 {
        self.users = self.users.wrapping_add(1) & !DESCRIBED;
        self.users
    }

    /// True if no request can move without a call from outside.
    pub(crate) fn is_still(&self) -> bool {
        self.up.is_empty()
            && self.down.is_empty()
            && self.retry.is_empty()
            && self.opening.is_empty()
            && self.closing.is_empty()
    }

    /// True once in a while of what futures submit: that one ends at its next poll, in a later turn. So a task that
    /// awaits one request after the other from a device that ends them at once does not keep the thread from its other
    /// work.
    #[inline]
    pub(crate) fn yields(&mut self, bytes: u64) -> bool {
        self.since_yield += 1 + (bytes >> 16);
        self.since_yield >= BEFORE_YIELD && self.may_yield()
    }

    #[cold]
    fn may_yield(&mut self) -> bool {
        self.since_yield = 0;
        // Elsewhere the table's owner decides what comes next.
        spindle_reactor::Thread::current().is_some()
    }

    /// Takes a request from the pool; its range is not checked here.
    #[inline]
    pub(crate) fn make(
        &mut self,
        return_to: ReturnTo,
        operation: Operation,
        start: u64,
        count: u64,
        buffers: Buffers,
    ) -> Io {
        let mut io = self.make_blank(start, count);
        let slot = io.slot_mut();
        slot.return_to = return_to;
        slot.operation = operation;
        slot.fua = false;
        slot.buffers = buffers;
        io
    }

    /// As [`make`](Self::make), but leaves operation, origin and buffers to the caller, which writes each in
    /// its place: moving them there from another struct takes longer than the rest.
    #[inline]
    pub(crate) fn make_blank(&mut self, start: u64, count: u64) -> Io {
        let mut slot = match self.pool.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        slot.depth = 0;
        slot.resting = false;
        slot.relayed = 0;
        slot.status = Ok(());
        slot.held = Held::NOWHERE;
        slot.start = start;
        slot.count = count;
        slot.tag = 0;
        slot.opener = 0;
        slot.user = 0;
        Io::from_slot(slot)
    }

    #[cold]
    fn grow(&mut self) -> Box<Slot> {
        let index = u32::try_from(self.waiters.len()).expect("fewer than 2^32 requests fit in memory");
        self.waiters.push(Waiter::default());
        Box::new(Slot {
            operation: Operation::Read,
            fua: false,
            depth: 0,
            resting: false,
            relayed: 0,
            status: Ok(()),
            held: Held::NOWHERE,
            return_to: ReturnTo::Lane,
            place: Place::default(),
            start: 0,
            count: 0,
            tag: 0,
            aux: 0,
            opener: 0,
            user: 0,
            submitted: Time::default(),
            paid: NOT_PAID,
            id: IoId { index, generation: 0 },
            buffers: Buffers::None,
            home: self.home.clone(),
            frames: [Frame::default(); MAX_LAYERS + 1],
        })
    }

    /// Returns a request without waiters to the pool, and its buffers to the caller.
    #[inline]
    pub(crate) fn recycle(&mut self, mut io: Io) -> Buffers {
        let buffers = io.take_buffers();
        self.retire(io);
        buffers
    }

    /// The same, and drops its buffers where they are.
    #[inline]
    pub(crate) fn retire(&mut self, io: Io) {
        let mut slot = io.into_slot();
        slot.id.generation = slot.id.generation.wrapping_add(1);
        slot.buffers = Buffers::None;
        slot.resting = true;
        self.pool.push(slot);
    }

    /// True for a request that held ranges do not keep, or a piece of one.
    pub(crate) fn passes_ranges(&self, io: &Io) -> bool {
        let slot = io.slot();
        let piece = matches!(slot.return_to, ReturnTo::Join { .. }) && slot.place.passes;
        piece || self.passes.contains(&slot.id)
    }

    /// True for the reset for which the device was frozen.
    pub(crate) fn passes_gate(&self, io: &Io) -> bool {
        io.operation() == Operation::Reset && self.passes.contains(&io.id())
    }

    /// Queues a request for `lane`, which counts it from now on.
    #[inline]
    pub(crate) fn send_down(&mut self, lane: u32, mut io: Io) {
        io.slot_mut().held = self.enter(lane);
        self.down.push_back(io);
    }

    /// As [`send_down`](Self::send_down), for a request from above the stack.
    #[inline]
    pub(crate) fn submit(&mut self, lane: u32, opener: u32, user: u32, mut io: Io) {
        io.slot_mut().user = user;
        if opener != 0 {
            self.note_opener(opener, &mut io);
        }
        self.send_down(lane, io);
    }

    /// As [`submit`](Self::submit), for a request of a queue pair.
    #[inline]
    pub(crate) fn submit_from(&mut self, pair: u32, lane: u32, opener: u32, user: u32, io: Io) {
        let slot = io.slot();
        if slot.operation.changes_data() {
            let waiter = &mut self.waiters[slot.id.index as usize];
            waiter.begin_change(pair, slot.id.generation, slot.start, slot.count);
        }
        self.submit(lane, opener, user, io);
    }

    /// A request from above the stack has ended: newer changes need not wait for it.
    #[inline]
    fn let_newer_go(&mut self, id: IoId) {
        if let Some(held) = self.waiters[id.index as usize].take_change() {
            self.released.push(held);
        }
    }

    #[inline(never)]
    fn note_opener(&mut self, opener: u32, io: &mut Io) {
        let now = self.clock.now();
        let slot = io.slot_mut();
        (slot.opener, slot.submitted) = (opener, now);
        self.waiters[slot.id.index as usize].begin_timed(slot.id.generation, opener, now);
    }

    /// As [`send_down`](Self::send_down); a lane that is closed refuses it.
    #[inline]
    pub(crate) fn send_to(&mut self, lane: LaneId, mut io: Io) {
        let held = match self.lanes.get_mut(lane.index as usize) {
            Some(state) if state.generation == lane.generation => {
                Held { lane: lane.index, epoch: state.epochs.begin() }
            }
            _ => Held::NOWHERE,
        };
        io.slot_mut().held = held;
        self.down.push_back(io);
    }

    /// Counts one more request in `lane`.
    #[inline]
    pub(crate) fn enter(&mut self, lane: u32) -> Held {
        match self.lanes.get_mut(lane as usize) {
            Some(state) => Held { lane, epoch: state.epochs.begin() },
            None => Held::NOWHERE,
        }
    }

    /// Queues a request for the layer above; the lane below no longer answers for it.
    #[inline]
    pub(crate) fn send_up(&mut self, mut io: Io) {
        self.leave(&io);
        if io.slot().relayed != 0 {
            self.pass_relays(&mut io);
        }
        match io.slot().depth {
            // No lane is called for it.
            0 => self.finish(io),
            _ => self.up.push_back(io),
        }
    }

    /// Takes a request past the lanes that relayed it, up to one that waits for it.
    #[inline(never)]
    fn pass_relays(&mut self, io: &mut Io) {
        while let Some(depth) = io.slot().depth.checked_sub(1)
            && io.slot().relayed & 1 << depth != 0
        {
            let slot = io.slot_mut();
            slot.relayed &= !(1 << depth);
            slot.depth = depth;
            slot.held = slot.frames[usize::from(depth)].held;
            self.leave(io);
        }
    }

    /// Counts a request that left its lane: a waiting one may fit in, or the lane may close.
    #[inline(always)]
    pub(crate) fn leave(&mut self, io: &Io) {
        let held = io.slot().held;
        let Some(state) = self.lanes.get_mut(held.lane as usize) else { return };
        state.epochs.end(held.epoch, &mut self.wakes);
        if state.counts {
            state.depart(io.slot(), &mut self.clock);
        }
        if state.needs_a_look() {
            self.look_at(held.lane);
        }
    }

    /// Reacts to a request having left a lane.
    pub(crate) fn look_at(&mut self, lane: u32) {
        let state = &mut self.lanes[lane as usize];
        if !state.stalled.is_empty() && !state.retrying && state.gate == Gate::Open {
            state.retrying = true;
            self.retry.push_back(lane);
        }
        if !state.quiet.is_empty() && state.is_quiet() {
            self.met.append(&mut state.quiet);
            state.look();
        }
        if state.is_settling() {
            state.take_settled(&mut self.met);
        }
        if state.refs == 0 && state.epochs.is_empty() {
            self.idle.push(lane);
        }
    }

    /// Queues a request after those that wait in front of a lane.
    pub(crate) fn stall(&mut self, lane: u32, io: Io) {
        let state = &mut self.lanes[lane as usize];
        state.stall(io);
        if state.is_settling() {
            state.take_settled(&mut self.met);
        }
    }

    /// Puts a request for which a lane had no room before those that wait.
    pub(crate) fn stall_first(&mut self, lane: u32, io: Io) {
        let state = &mut self.lanes[lane as usize];
        state.stall_first(io);
        if state.is_settling() {
            state.take_settled(&mut self.met);
        }
    }

    /// A request no longer waits for a limit: recompute when the table must look again.
    pub(crate) fn look_at_limits(&mut self) {
        if self.deadline.is_some() {
            self.deadline = Some(Time::default());
        }
    }

    /// Notes that a request waits for a limit until `due`.
    pub(crate) fn wait_until(&mut self, due: Option<Time>) {
        self.deadline = match (self.deadline, due) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }

    /// Sends a dropped request up as aborted.
    pub(crate) fn abort_dropped(&mut self, mut slot: Box<Slot>) {
        // Dropped before submission or after completion: there is nothing to notify.
        let unheard = slot.held == Held::NOWHERE && slot.return_to == ReturnTo::Lane;
        slot.status = Err(IoErrorKind::Aborted);
        let io = Io::from_slot(slot);
        if unheard {
            self.retire(io);
        } else {
            self.aborted += 1;
            self.send_up(io);
        }
    }

    /// Ends a request that the lane which holds it has lost.
    #[cold]
    pub(crate) fn lose(&mut self, mut io: Io) {
        io.slot_mut().status = Err(self.lost_in(io.slot()));
        self.send_up(io);
    }

    /// The same for one that was being cut into pieces: it ends when they are back.
    pub(crate) fn lose_unjoined(&mut self, key: u32, parent: Io) {
        let lost = self.lost_in(parent.slot());
        if let Some(parent) = self.joins.close_failed(key, parent, lost) {
            self.send_up(parent);
        }
    }

    /// The error of a request that the lane which holds it has lost. The first of a lane is reported.
    fn lost_in(&mut self, slot: &Slot) -> IoErrorKind {
        if let Some(state) = self.lanes.get_mut(slot.held.lane as usize)
            && let Some(device) = &state.device
            && !std::mem::replace(&mut state.has_lost, true)
        {
            report(ReportLevel::Error, "bdev", || {
                format!(
                    "device {} loses requests: its lane dropped a Split (end each by Cx::join), or ended a request that it \
                     had not made (by Cx::done); correct its module",
                    device.name()
                )
            });
        }
        IoErrorKind::Lost
    }

    /// Links a request to the one that it serves, and so in the end to one from above the stack.
    #[inline]
    pub(crate) fn derive(waiters: &mut [Waiter], child: &mut Io, parent: &Slot) {
        let root = match parent.return_to {
            ReturnTo::Future | ReturnTo::Queue(_) => Root { id: parent.id, return_to: parent.return_to },
            ReturnTo::Lane | ReturnTo::Join { .. } => {
                let known = waiters[parent.id.index as usize].root_of(parent.id);
                known.unwrap_or(Root { id: parent.id, return_to: parent.return_to })
            }
        };
        let slot = child.slot_mut();
        slot.user = parent.user;
        if parent.opener != 0 {
            (slot.opener, slot.submitted) = (parent.opener, parent.submitted);
        }
        waiters[slot.id.index as usize].set_root(slot.id, root);
    }

    /// The ids of all requests that serve one, itself included.
    pub(crate) fn family(&self, id: IoId) -> Vec<IoId> {
        let derived = self.waiters.iter().enumerate().filter_map(|(index, waiter)| {
            waiter.derived_from(id).map(|generation| IoId { index: index as u32, generation })
        });
        std::iter::once(id).chain(derived).collect()
    }

    /// Delivers a request to its maker when no layer waits for it any more.
    #[inline]
    pub(crate) fn finish(&mut self, mut io: Io) {
        if io.slot().opener != 0 || self.aborts_asked {
            self.waiters[io.slot().id.index as usize].end();
        }
        match io.slot().return_to {
            ReturnTo::Future => match self.waiters[io.slot().id.index as usize].finish(io) {
                Ok(Some(waker)) => self.wakes.push_back(waker),
                Ok(None) => {}
                Err(io) => {
                    self.let_newer_go(io.id());
                    self.retire(io);
                }
            },
            ReturnTo::Queue(key) => {
                let slot = io.slot_mut();
                slot.held = Held::NOWHERE;
                slot.return_to = ReturnTo::Lane;
                if slot.operation.changes_data() {
                    self.let_newer_go(slot.id);
                }
                let pair = &mut self.pairs[key as usize];
                pair.outstanding -= 1;
                if pair.open {
                    pair.finished.push_back(io);
                    if let Some(waker) = pair.waker.take() {
                        self.wakes.push_back(waker);
                    }
                } else {
                    self.retire(io);
                }
            }
            ReturnTo::Join { key, part } => {
                let parent = self.joins.child_done(key, part, io.slot_mut());
                self.retire(io);
                if let Some(parent) = parent {
                    self.send_up(parent);
                }
            }
            ReturnTo::Lane => self.retire(io),
        }
    }
}

/// True if no future and no queue pair waits for a request, or for the request that it serves.
pub(crate) fn is_abandoned(slot: &Slot, waiters: &[Waiter], pairs: &[Pair]) -> bool {
    let root = waiters[slot.id.index as usize].root_of(slot.id);
    let (id, return_to) = root.map_or((slot.id, slot.return_to), |root| (root.id, root.return_to));
    match return_to {
        ReturnTo::Future => !waiters[id.index as usize].is_awaited(),
        ReturnTo::Queue(key) => !pairs[key as usize].open,
        ReturnTo::Lane | ReturnTo::Join { .. } => false,
    }
}
