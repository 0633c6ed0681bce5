//! What a lane table keeps about a request while a lane or a task owns it.
//!
//! One per slot, under its index; belongs to the table. Fields are set one by one, because copying the whole
//! for each request takes longer.

use std::task::{Context, Waker};

use spindle_reactor::Time;

use crate::request::io::ReturnTo;
use crate::{HeldRange, Io, IoId};

/// The request that another one serves, and its waiter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) id: IoId,
    pub(crate) return_to: ReturnTo,
}

/// Blocks that a request from above the stack changes.
enum Change {
    /// By a request for which a queue pair waits.
    Of { pair: u32, generation: u32, start: u64, count: u64 },
    /// By a request without a waiter.
    GivenUp(HeldRange),
}

/// What the table keeps about one request.
#[derive(Default)]
pub(crate) struct Waiter {
    /// False if there is no future, or it was dropped and the request goes on without it.
    waits: bool,
    /// The future's waker.
    waker: Option<Waker>,
    /// The request, once it is back.
    done: Option<Io>,
    /// For a request that serves another: its generation, and the request that it serves.
    root: Option<(u32, Root)>,
    /// The generation that should end early.
    abort: Option<u32>,
    /// The waker of a task that holds the request.
    holder: Option<Waker>,
    /// The blocks that a request of a pair, or an abandoned one, changes.
    change: Option<Change>,
    /// The generation under way for an opener, the opener, and the time of submission.
    timed: Option<(u32, u32, Time)>,
}

impl Waiter {
    /// Begins waiting by a future.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.waits = true;
    }

    /// The request if it is back; otherwise stores the waker.
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

    /// Stores a request that is back and returns the waker, or returns the request if no future waits.
    #[inline]
    pub(crate) fn finish(&mut self, io: Io) -> Result<Option<Waker>, Io> {
        match self.waits {
            true => {
                self.done = Some(io);
                Ok(self.waker.take())
            }
            false => Err(io),
        }
    }

    /// Handles the drop of the future; returns the request if it was back.
    pub(crate) fn forget(&mut self) -> Option<Io> {
        self.waits = false;
        self.waker = None;
        self.done.take()
    }

    /// True if a future waits for the request.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waits
    }

    /// Notes that a request of this slot serves another.
    pub(crate) fn set_root(&mut self, id: IoId, root: Root) {
        self.root = Some((id.generation, root));
    }

    /// The request that a request of this slot serves, if any.
    pub(crate) fn root_of(&self, id: IoId) -> Option<Root> {
        self.root.and_then(|(generation, root)| (generation == id.generation).then_some(root))
    }

    /// The generation of this slot that serves `id`.
    pub(crate) fn derived_from(&self, id: IoId) -> Option<u32> {
        self.root.and_then(|(generation, root)| (root.id == id).then_some(generation))
    }

    /// Asks for an early end; returns the waker of the task that holds the request, if any.
    pub(crate) fn ask_abort(&mut self, generation: u32) -> Option<Waker> {
        self.abort = Some(generation);
        self.holder.take()
    }

    /// The waker of the task that holds the request, if any.
    pub(crate) fn take_holder(&mut self) -> Option<Waker> {
        self.holder.take()
    }

    /// True if a request should end early; otherwise the task that holds it is woken when it should.
    pub(crate) fn poll_abort(&mut self, generation: u32, cx: &Context<'_>) -> bool {
        let asked = self.abort == Some(generation);
        if !asked {
            remember(&mut self.holder, cx);
        }
        asked
    }

    /// Notes that a request of an opener is under way.
    #[inline]
    pub(crate) fn begin_timed(&mut self, generation: u32, opener: u32, submitted: Time) {
        self.timed = Some((generation, opener, submitted));
    }

    /// Notes its end: its id may come again without a new generation.
    pub(crate) fn end(&mut self) {
        (self.timed, self.abort, self.holder) = (None, None, None);
    }

    /// Notes which blocks a request of a queue pair changes.
    #[inline]
    pub(crate) fn begin_change(&mut self, pair: u32, generation: u32, start: u64, count: u64) {
        self.change = Some(Change::Of { pair, generation, start, count });
    }

    /// The blocks of a pair's request that is under way and changes data.
    pub(crate) fn change_of(&self, pair: u32) -> Option<(u32, u64, u64)> {
        match self.change {
            Some(Change::Of { pair: whose, generation, start, count }) if whose == pair => {
                Some((generation, start, count))
            }
            _ => None,
        }
    }

    /// Stores the blocks that an abandoned request may still change, until it has ended.
    pub(crate) fn hold(&mut self, range: HeldRange) {
        self.change = Some(Change::GivenUp(range));
    }

    /// Takes what was held for a request that has ended.
    #[inline]
    pub(crate) fn take_change(&mut self) -> Option<HeldRange> {
        match self.change.take() {
            Some(Change::GivenUp(range)) => Some(range),
            _ => None,
        }
    }

    /// The opener's request that is under way, and its time of submission.
    pub(crate) fn timed_of(&self, opener: u32) -> Option<(u32, Time)> {
        let (generation, whose, since) = self.timed?;
        (whose == opener).then_some((generation, since))
    }
}

/// Stores a waker; does not clone one that is stored already.
pub(crate) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}
