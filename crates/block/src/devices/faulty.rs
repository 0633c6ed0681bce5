//! A layer that makes requests fail on demand, for tests of what lies above it.
//!
//! The [`Faulty`] device and its plan are shared by all threads: the n-th request of the chosen operations,
//! counted over all threads, fails, and the following ones too if asked, or every n-th. Without a plan all requests pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use crate::{
    Cx, Device, Io, IoErrorKind, Lane, LaneCx, LaneId, Layer, LayerParts, OpenError, Operation, Status,
    Submit,
};

/// What happens to a request that the plan hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The request fails with EIO and does not reach the device.
    Fail,
    /// The device performs the request, but it fails with EIO.
    FailAfter,
    /// The layer drops the request: it comes back as aborted.
    Drop,
    /// The request fails with `NoSpace` and does not reach the device.
    NoSpace,
}

/// The device with faults on demand.
pub struct Faulty {
    parts: LayerParts,
    plan: Plan,
}

/// Plain numbers, read without a lock: a plan that changes while requests run hits some of them.
#[derive(Default)]
struct Plan {
    /// Requests of the chosen kind seen since the plan was made.
    seen: AtomicU64,
    /// The first to hit, counted from 1; 0 is none.
    first: AtomicU64,
    times: AtomicU64,
    /// Among those that may be hit, one in so many is.
    every: AtomicU64,
    operations: AtomicU16,
    effect: AtomicU8,
}

const EFFECTS: [Effect; 4] = [Effect::Fail, Effect::FailAfter, Effect::Drop, Effect::NoSpace];

impl Faulty {
    /// A layer over `below`, without a plan.
    pub fn new(name: impl Into<String>, below: Arc<dyn Device>) -> Arc<Faulty> {
        Arc::new(Faulty { parts: LayerParts::new(name, below), plan: Plan::default() })
    }

    /// From now on the `nth` request (1 is the next) with one of these operations has `effect`, and so have
    /// the following ones, `times` in all. Replaces the previous plan.
    pub fn inject(&self, operations: &[Operation], nth: u64, times: u64, effect: Effect) {
        self.plan(operations, nth, times, 1, effect);
    }

    /// From now on every `n`th request (1 is each) with one of these operations has `effect`. Replaces the previous plan.
    pub fn inject_every(&self, operations: &[Operation], n: u64, effect: Effect) {
        self.plan(operations, n, u64::MAX, n.max(1), effect);
    }

    fn plan(&self, operations: &[Operation], nth: u64, times: u64, every: u64, effect: Effect) {
        let plan = &self.plan;
        plan.first.store(0, Ordering::Relaxed);
        plan.seen.store(0, Ordering::Relaxed);
        plan.times.store(times, Ordering::Relaxed);
        plan.every.store(every, Ordering::Relaxed);
        plan.operations.store(operations.iter().fold(0, |set, &one| set | bit(one)), Ordering::Relaxed);
        let effect = EFFECTS.iter().position(|&one| one == effect).unwrap_or(0);
        plan.effect.store(effect as u8, Ordering::Relaxed);
        plan.first.store(nth, Ordering::Relaxed);
    }

    /// Forgets the plan.
    pub fn clear(&self) {
        self.plan.first.store(0, Ordering::Relaxed);
    }

    /// Requests of the chosen kind seen since the plan was made.
    pub fn seen(&self) -> u64 {
        self.plan.seen.load(Ordering::Relaxed)
    }
}

impl Plan {
    fn hit(&self, operation: Operation) -> Option<Effect> {
        let first = self.first.load(Ordering::Relaxed);
        if first == 0 || self.operations.load(Ordering::Relaxed) & bit(operation) == 0 {
            return None;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let last = first.saturating_add(self.times.load(Ordering::Relaxed));
        let effect = usize::from(self.effect.load(Ordering::Relaxed));
        let every = self.every.load(Ordering::Relaxed).max(1);
        let hit = (first..last).contains(&number) && (number - first).is_multiple_of(every);
        if hit { EFFECTS.get(effect).copied() } else { None }
    }
}

fn bit(operation: Operation) -> u16 {
    1 << operation as u8
}

impl Layer for Faulty {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }

    fn lane(self: Arc<Self>, below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(FaultyLane { below, device: self }))
    }
}

struct FaultyLane {
    below: LaneId,
    device: Arc<Faulty>,
}

/// An input or output error, as the system numbers it.
const EIO: IoErrorKind = IoErrorKind::Device { errno: 5 };

impl Lane for FaultyLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match self.device.plan.hit(io.operation()) {
            None => cx.relay(self.below, io),
            Some(Effect::FailAfter) => cx.forward(self.below, io, [0, 0]),
            Some(Effect::Fail) => cx.done(io, Err(EIO)),
            Some(Effect::NoSpace) => cx.done(io, Err(IoErrorKind::NoSpace)),
            Some(Effect::Drop) => drop(io),
        }
        Submit::Taken
    }

    fn complete(&mut self, io: Io, _saved: [u64; 2], _status: Status, cx: &mut Cx<'_>) {
        cx.done(io, Err(EIO));
    }
}
