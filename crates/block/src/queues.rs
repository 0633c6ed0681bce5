//! The two queues of a thread and the bookkeeping around them: everything of the lane table but the
//! lanes themselves, so that a lane can be called with `&mut` while it fills these.
//!
//! Owned by the thread's lane table; lives and dies with it. Nothing here calls a lane.

use std::collections::VecDeque;
use std::rc::Weak;
use std::sync::Arc;
use std::task::{Context, Waker};

use spindle_mem::Buffers;

use crate::io::{Frame, Held, Slot, Top};
use crate::joins::Joins;
use crate::lane_state::LaneState;
use crate::mailbox::Obligation;
use crate::table::{Table, remember};
use crate::{Device, Gate, Io, IoErrorKind, IoId, LaneId, MAX_DEPTH, Operation};

/// Where the request in the slot of the same index finds the future that waits for it. Its fields are set one
/// by one, as copying the whole for each request takes longer.
#[derive(Default)]
pub(crate) struct Waiter {
    /// False if there is no future, or it was dropped and the request goes on without it.
    waits: bool,
    /// Left by the future.
    waker: Option<Waker>,
    /// The request, when it is back.
    done: Option<Io>,
}

impl Waiter {
    /// A future is going to wait.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.waits = true;
    }

    /// The request, if it is back; else leaves the waker.
    #[inline]
    pub(crate) fn settle(&mut self, cx: &Context<'_>) -> Option<Io> {
        match self.done.take() {
            Some(io) => {
                self.waits = false;
                Some(io)
            }
            None => {
                remember(&mut self.waker, cx);
                None
            }
        }
    }

    /// The request is back: who is to be woken, or the request itself if nobody waits.
    #[inline]
    fn finish(&mut self, io: Io) -> Result<Option<Waker>, Io> {
        match self.waits {
            true => {
                self.done = Some(io);
                Ok(self.waker.take())
            }
            false => Err(io),
        }
    }

    /// The future is gone; the request, if it was back.
    fn forget(&mut self) -> Option<Io> {
        std::mem::take(self).done
    }
}

/// What a queue pair has coming.
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
    pub(crate) down: VecDeque<Io>,
    pub(crate) up: VecDeque<Io>,
    pub(crate) retry: VecDeque<u32>,
    /// Lanes that became free to close.
    pub(crate) idle: Vec<u32>,
    /// Lanes to poll in the next turn.
    pub(crate) soon: VecDeque<u32>,
    /// Lanes to poll in every turn.
    pub(crate) always: Vec<u32>,
    /// Devices that lanes asked for.
    pub(crate) opening: VecDeque<(LaneId, Arc<dyn Device>)>,
    /// Lanes that lanes above have no more use for.
    pub(crate) closing: VecDeque<(LaneId, LaneId)>,
    pub(crate) lanes: Vec<LaneState>,
    pub(crate) joins: Joins,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) pairs: Vec<Pair>,
    /// Wakers to use once no part of the table is borrowed.
    pub(crate) wakes: VecDeque<Waker>,
    /// To be met then, too.
    pub(crate) met: Vec<Obligation>,
    pub(crate) aborted: u64,
    #[allow(clippy::vec_box, reason = "the box is what requests are made of and moves as it is")]
    pool: Vec<Box<Slot>>,
    home: Weak<Table>,
}

impl Queues {
    pub(crate) fn new(home: Weak<Table>) -> Queues {
        Queues { home, ..Queues::default() }
    }

    /// The table these belong to.
    pub(crate) fn home(&self) -> &Weak<Table> {
        &self.home
    }

    /// True if nothing can move by itself.
    pub(crate) fn is_still(&self) -> bool {
        self.up.is_empty()
            && self.down.is_empty()
            && self.retry.is_empty()
            && self.opening.is_empty()
            && self.closing.is_empty()
    }

    /// Takes a request from the pool; its range is not checked here.
    #[inline]
    pub(crate) fn make(
        &mut self,
        top: Top,
        operation: Operation,
        start: u64,
        count: u64,
        buffers: Buffers,
    ) -> Io {
        let mut slot = match self.pool.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        slot.operation = operation;
        slot.fua = false;
        slot.depth = 0;
        slot.status = Ok(());
        slot.held = Held::NOWHERE;
        slot.top = top;
        slot.start = start;
        slot.count = count;
        slot.tag = 0;
        slot.buffers = buffers;
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
            status: Ok(()),
            held: Held::NOWHERE,
            top: Top::Lane,
            start: 0,
            count: 0,
            tag: 0,
            id: IoId { index, generation: 0 },
            buffers: Buffers::None,
            home: self.home.clone(),
            frames: [Frame::default(); MAX_DEPTH],
        })
    }

    /// Returns a request that nobody waits for to the pool, and its buffers to the caller.
    #[inline]
    pub(crate) fn recycle(&mut self, io: Io) -> Buffers {
        let mut slot = io.into_slot();
        slot.id.generation = slot.id.generation.wrapping_add(1);
        let buffers = std::mem::take(&mut slot.buffers);
        self.pool.push(slot);
        buffers
    }

    /// Queues a request for `lane`, which counts it from now on.
    #[inline]
    pub(crate) fn send_down(&mut self, lane: u32, mut io: Io) {
        io.slot_mut().held = self.enter(lane);
        self.down.push_back(io);
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

    /// Queues a request for the layer above; the lane that answered for it has let go of it.
    #[inline]
    pub(crate) fn send_up(&mut self, io: Io) {
        self.leave(io.slot().held);
        self.up.push_back(io);
    }

    /// One request has left its lane: others may fit in, or it may close.
    #[inline]
    pub(crate) fn leave(&mut self, held: Held) {
        let Some(state) = self.lanes.get_mut(held.lane as usize) else { return };
        state.epochs.end(held.epoch, &mut self.wakes);
        if state.needs_a_look() {
            self.look_at(held.lane);
        }
    }

    /// Sees to what a lane from which a request has gone may have come to.
    pub(crate) fn look_at(&mut self, lane: u32) {
        let state = &mut self.lanes[lane as usize];
        if !state.stalled.is_empty() && !state.retrying && state.gate == Gate::Open {
            state.retrying = true;
            self.retry.push_back(lane);
        }
        if !state.quiet.is_empty() && state.is_quiet() {
            self.met.append(&mut state.quiet);
        }
        if state.refs == 0 && state.epochs.is_empty() {
            self.idle.push(lane);
        }
    }

    /// A request was dropped: it goes up as aborted.
    pub(crate) fn abort_fallen(&mut self, mut slot: Box<Slot>) {
        // A request that its maker let go before submitting it, or after it was finished, has no hearer.
        let unheard = slot.held == Held::NOWHERE && slot.top == Top::Lane;
        slot.status = Err(IoErrorKind::Aborted);
        let io = Io::from_slot(slot);
        if unheard {
            drop(self.recycle(io));
        } else {
            self.aborted += 1;
            self.send_up(io);
        }
    }

    /// The future that waits for a request is gone.
    pub(crate) fn detach(&mut self, id: IoId) {
        if let Some(io) = self.waiters[id.index as usize].forget() {
            drop(self.recycle(io));
        }
    }

    /// A queue pair is gone: what is back is recycled, what is not will be.
    pub(crate) fn close_pair(&mut self, key: u32) {
        let pair = &mut self.pairs[key as usize];
        pair.open = false;
        pair.waker = None;
        while let Some(io) = self.pairs[key as usize].finished.pop_front() {
            drop(self.recycle(io));
        }
    }

    /// A request that no layer waits for any more reaches who made it.
    #[inline]
    pub(crate) fn finish(&mut self, mut io: Io) {
        match io.slot().top {
            Top::Future => match self.waiters[io.slot().id.index as usize].finish(io) {
                Ok(waker) => self.wakes.extend(waker),
                Err(io) => drop(self.recycle(io)),
            },
            Top::Queue(key) => {
                let slot = io.slot_mut();
                slot.held = Held::NOWHERE;
                slot.top = Top::Lane;
                let pair = &mut self.pairs[key as usize];
                pair.outstanding -= 1;
                if pair.open {
                    pair.finished.push_back(io);
                    self.wakes.extend(pair.waker.take());
                } else {
                    drop(self.recycle(io));
                }
            }
            Top::Join { key, part } => {
                let status = io.slot().status;
                let buffers = self.recycle(io);
                if let Some(parent) = self.joins.child_done(key, part, status, buffers) {
                    self.send_up(parent);
                }
            }
            Top::Lane => drop(self.recycle(io)),
        }
    }
}
