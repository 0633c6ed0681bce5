//! What a lane table knows of a request while a lane, or a task, owns it.
//!
//! One for each slot, under its index; belongs to the table. Its fields are set one by one, as copying the whole
//! for each request takes longer.

use std::task::{Context, Waker};

use spindle_reactor::Time;

use crate::io::Top;
use crate::table::remember;
use crate::{HeldRange, Io, IoId};

/// The request that another was made for, and who waits for that one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) id: IoId,
    pub(crate) top: Top,
}

/// Blocks that a request from above the stack changes.
enum Change {
    /// A queue pair waits for it.
    Of { pair: u32, generation: u32, start: u64, count: u64 },
    /// Nobody does.
    GivenUp(HeldRange),
}

/// See above.
#[derive(Default)]
pub(crate) struct Waiter {
    /// False if there is no future, or it was dropped and the request goes on without it.
    waits: bool,
    /// Left by the future.
    waker: Option<Waker>,
    /// The request, when it is back.
    done: Option<Io>,
    /// For a request that serves another: its generation, and that one.
    root: Option<(u32, Root)>,
    /// The generation that is to end early.
    abort: Option<u32>,
    /// Left by a task that holds the request.
    holder: Option<Waker>,
    /// What a request of a pair, or one that was given up, changes.
    change: Option<Change>,
    /// The generation that is under way for an opener, whose it is, and since when.
    timed: Option<(u32, u32, Time)>,
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
    pub(crate) fn finish(&mut self, io: Io) -> Result<Option<Waker>, Io> {
        match self.waits {
            true => {
                self.done = Some(io);
                Ok(self.waker.take())
            }
            false => Err(io),
        }
    }

    /// The future is gone; the request, if it was back.
    pub(crate) fn forget(&mut self) -> Option<Io> {
        self.waits = false;
        self.waker = None;
        self.done.take()
    }

    /// Whether a future waits for the request.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waits
    }

    /// A request of this slot serves another.
    pub(crate) fn set_root(&mut self, id: IoId, root: Root) {
        self.root = Some((id.generation, root));
    }

    /// What a request of this slot serves, if it serves one.
    pub(crate) fn root_of(&self, id: IoId) -> Option<Root> {
        self.root.and_then(|(generation, root)| (generation == id.generation).then_some(root))
    }

    /// The generation of this slot that serves `id`.
    pub(crate) fn derived_from(&self, id: IoId) -> Option<u32> {
        self.root.and_then(|(generation, root)| (root.id == id).then_some(generation))
    }

    /// A request is to end early; who holds it in a task, if anybody.
    pub(crate) fn ask_abort(&mut self, generation: u32) -> Option<Waker> {
        self.abort = Some(generation);
        self.holder.take()
    }

    /// Whether a request is to end early; if not, the task that holds it is woken when it is.
    pub(crate) fn poll_abort(&mut self, generation: u32, cx: &Context<'_>) -> bool {
        let asked = self.abort == Some(generation);
        if !asked {
            remember(&mut self.holder, cx);
        }
        asked
    }

    /// A request of an opener is under way.
    #[inline]
    pub(crate) fn begin_timed(&mut self, generation: u32, opener: u32, submitted: Time) {
        self.timed = Some((generation, opener, submitted));
    }

    /// It has ended, and its name may come again without a new generation.
    pub(crate) fn end(&mut self) {
        (self.timed, self.abort, self.holder) = (None, None, None);
    }

    /// A request of a queue pair changes these blocks.
    #[inline]
    pub(crate) fn begin_change(&mut self, pair: u32, generation: u32, start: u64, count: u64) {
        self.change = Some(Change::Of { pair, generation, start, count });
    }

    /// The request of a pair that changes blocks and is under way, and which blocks.
    pub(crate) fn change_of(&self, pair: u32) -> Option<(u32, u64, u64)> {
        match self.change {
            Some(Change::Of { pair: whose, generation, start, count }) if whose == pair => {
                Some((generation, start, count))
            }
            _ => None,
        }
    }

    /// The request was given up; what it changes is held until it has ended.
    pub(crate) fn hold(&mut self, range: HeldRange) {
        self.change = Some(Change::GivenUp(range));
    }

    /// It has ended; what was held for it.
    #[inline]
    pub(crate) fn take_change(&mut self) -> Option<HeldRange> {
        match self.change.take() {
            Some(Change::GivenUp(range)) => Some(range),
            _ => None,
        }
    }

    /// The request of `opener` that is under way, and since when.
    pub(crate) fn timed_of(&self, opener: u32) -> Option<(u32, Time)> {
        let (generation, whose, since) = self.timed?;
        (whose == opener).then_some((generation, since))
    }
}
