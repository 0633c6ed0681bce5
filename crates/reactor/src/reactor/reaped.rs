//! Completions from the driver, and their distribution over turns.
//!
//! Owned by the reactor's loop. A turn hands each thread a few, in the order of arrival; the rest waits here,
//! per thread. So a thread with thousands of operations in flight delays neither the rest of the turn nor the
//! completions of other threads. Once warm nothing is allocated.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use spindle_engine::Completion;

use crate::caught::{drop_caught, panic_message};
use crate::diagnosis::activity::CallKind;
use crate::local::current::Entered;
use crate::local::ops::Entry;
use crate::task::host::Host;

use crate::local::Local;

/// Most completions per thread and turn: as many as messages.
const SHARE: usize = 8;

/// While some wait, only one turn in this many asks the driver for more: operations submitted meanwhile then
/// go to the kernel in one system call instead of one per turn.
const ASK_ONE_IN: u32 = 4;

/// Completions that were not handed to their threads yet.
#[derive(Default)]
pub(crate) struct Reaped {
    /// In the order of arrival. Kept for its capacity.
    came: Vec<Completion>,
    /// Threads with waiting completions, in the order of their turns.
    waiting: VecDeque<ThreadCompletions>,
    /// Unused queues, kept for their capacity.
    spare: Vec<VecDeque<Completion>>,
    /// Turns since the driver was last asked.
    unasked: u32,
    /// True if the last turn left it to a sleep to start operations.
    deferred: bool,
}

/// The completions of one thread, by its id.
struct ThreadCompletions {
    thread: u64,
    completions: VecDeque<Completion>,
}

impl Reaped {
    /// True if none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One turn's share; true if there was a completion. If the reactor `sleeps_next` unless something comes,
    /// operations are left to the sleep to start: one system call then starts them and waits. That happens
    /// once in a row, as something may come.
    #[inline]
    pub(crate) fn hand_out(&mut self, local: &Local, was_idle: bool, sleeps_next: bool) -> bool {
        let mut driver = local.driver.borrow_mut();
        self.deferred = sleeps_next && !was_idle && !self.deferred;
        // A turn with nothing else to do asks the driver in any case.
        let news = match (was_idle, self.deferred) {
            (true, _) => driver.in_flight() > 0,
            (_, true) => driver.has_ready(),
            (_, false) => driver.has_news(),
        };
        drop(driver);
        (news || !self.waiting.is_empty()) && self.hand_out_some(local)
    }

    #[inline(never)]
    fn hand_out_some(&mut self, local: &Local) -> bool {
        self.ask(local);
        if self.waiting.is_empty() && self.came.len() <= SHARE {
            let any = !self.came.is_empty();
            self.came.drain(..).for_each(|completion| complete(local, completion));
            return any;
        }
        self.sort(local);
        for _ in 0..self.waiting.len() {
            let Some(mut flow) = self.waiting.pop_front() else { break };
            let share = flow.completions.len().min(SHARE);
            flow.completions.drain(..share).for_each(|completion| complete(local, completion));
            match flow.completions.is_empty() {
                true => self.spare.push(flow.completions),
                false => self.waiting.push_back(flow),
            }
        }
        true
    }

    fn ask(&mut self, local: &Local) {
        self.unasked += 1;
        if !self.waiting.is_empty() && self.unasked < ASK_ONE_IN {
            return;
        }
        self.unasked = 0;
        let mut driver = local.driver.borrow_mut();
        if driver.in_flight() > 0 {
            driver.poll(&mut self.came);
        }
    }

    /// Sorts new completions by thread, after those that wait.
    fn sort(&mut self, local: &Local) {
        for completion in self.came.drain(..) {
            let thread = local.ops.thread_of(&completion);
            let known = self.waiting.iter_mut().position(|flow| flow.thread == thread);
            let place = known.unwrap_or_else(|| {
                let completions = self.spare.pop().unwrap_or_default();
                self.waiting.push_back(ThreadCompletions { thread, completions });
                self.waiting.len() - 1
            });
            self.waiting[place].completions.push_back(completion);
        }
    }
}

/// Hands a completion to its sink, on its thread.
fn complete(local: &Local, completion: Completion) {
    let Entry { core, sink, key, counted, .. } = local.ops.entry(&completion);
    let leaves = counted && !completion.more;
    let _on_thread = Entered::new(&core);
    core.begin(CallKind::Completion, None);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| sink.complete(key, completion))) {
        core.report(&format!("the handling of a completion panicked: {}", panic_message(payload)));
    }
    // Its captures may panic when dropped.
    drop_caught(sink);
    core.ops.set(core.ops.get() - usize::from(leaves));
}
