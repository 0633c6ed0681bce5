//! The engine as one reactor sees it.

use std::sync::Arc;

use spindle_ring::Unpark;

use crate::{Completion, Op, SystemCalls, Time, Token};

/// The engine as one reactor sees it: clock, randomness, operations, sleep. `!Send` by its owners.
pub trait Driver {
    /// Reads the clock. The reactor calls it once a turn and shares the reading.
    fn now(&mut self) -> Time;

    /// Takes `op`; its completion appears in a later [`poll`](Self::poll) under `token`. Never refuses:
    /// operations that the kernel cannot take yet wait inside in order, and failures arrive as completions.
    fn submit(&mut self, token: Token, op: Op);

    /// Asks `token`'s operation to end early. It still completes, with its result or `Interrupted`; a quiet send that
    /// has ended is [hurried](Self::hurry).
    fn cancel(&mut self, token: Token);

    /// Asks for the completion of a [quiet send](crate::Op::SendQuietly) as soon as it has ended, without waiting
    /// for other events. No effect on other operations.
    fn hurry(&mut self, token: Token);

    /// Starts what was submitted and moves finished operations to `out`, without blocking.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Sleeps until a completion is ready, the [`Unparker`] was used, or `deadline` has come.
    /// An unpark that came before the call is not lost. May return early.
    fn park(&mut self, deadline: Option<Time>);

    /// The handle by which any OS thread ends this driver's [`park`](Self::park).
    fn unparker(&self) -> Unparker;

    /// Picks one of `n` equally good choices: 0 outside of simulation, seeded inside.
    fn choose(&mut self, n: usize) -> usize;

    /// A random number; seeded in simulation.
    fn random(&mut self) -> u64;

    /// The core that runs the caller now, according to the kernel; in simulation the simulated core.
    fn cpu(&self) -> usize;

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// True if [`poll`](Self::poll) may have something to do: an operation that needs no peer is in flight,
    /// or one that waits for a peer (accept, receive, poll of a descriptor) may have ended. So operations
    /// cost nothing while they wait for a peer. io_uring looks at its rings. epoll would have to ask the
    /// kernel, so it returns true once in 16 calls and 50 us after it last asked. In simulation any operation
    /// in flight counts.
    fn has_news(&mut self) -> bool {
        self.in_flight() > 0
    }

    /// True if [`poll`](Self::poll) would hand out something although it starts nothing. For a caller that is
    /// about to [`park`](Self::park), which starts what was submitted with the call that waits.
    fn has_ready(&mut self) -> bool {
        self.in_flight() > 0
    }

    /// The system calls it has made so far.
    fn system_calls(&self) -> SystemCalls;
}

/// Makes the current or the next [`Driver::park`] return.
pub type Unparker = Arc<dyn Unpark>;
