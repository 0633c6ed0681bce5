//! Operations that a device's own lanes lack, done by a lane above them: compare, compare and write, copy and
//! write zeroes by reads and writes, and a reset that covers all threads.
//!
//! A channel or queue pair opens this lane at the first such request; other requests never pass it. It needs
//! one piece of memory per operation in flight, besides the request. A compare and write locks its range, waits
//! for the changes that are in the device already, and passes its own lock; changes of other blocks, and reads,
//! go on. A reset waits for its turn on the device ([`Turn`](crate::state::turn::Turn)) and freezes it: all other
//! requests wait until it is done; a lane that answers a reset with "unsupported" has nothing more to reset. Not
//! promised: that an operation which ends with an error has changed nothing.

use std::sync::Arc;
use std::task::Waker;

use crate::devices::emulation_job::{Job, Step};
use crate::{
    Busy, Cx, Device, Geometry, Io, IoErrorKind, IoId, Lane, LaneCx, LaneId, OpenError, Operation, Status,
    Submit,
};

/// True if this module does an operation for a device.
pub(crate) fn is_emulated(device: &dyn Device, operation: Operation) -> bool {
    let (reads, writes) = (|| device.supports(Operation::Read), || device.supports(Operation::Write));
    match operation {
        Operation::Reset => device.state().is_some(),
        Operation::Compare => !device.supports(operation) && reads(),
        Operation::WriteZeroes => !device.supports(operation) && writes(),
        Operation::Copy => !device.supports(operation) && reads() && writes(),
        Operation::CompareAndWrite => {
            !device.supports(operation) && device.state().is_some() && reads() && writes()
        }
        _ => false,
    }
}

/// A device with the operations that the one below lacks.
pub(crate) struct Emulation {
    below: Arc<dyn Device>,
}

impl Emulation {
    pub(crate) fn over(below: Arc<dyn Device>) -> Arc<dyn Device> {
        Arc::new(Emulation { below })
    }
}

impl Device for Emulation {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        vec![self.below.clone()]
    }

    fn is_module(&self) -> bool {
        false
    }

    fn supports(&self, operation: Operation) -> bool {
        self.below.supports(operation) || is_emulated(&*self.below, operation)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(&self.below)?;
        let waker = Waker::from(Arc::new(cx.remote_notifier()));
        Ok(Box::new(EmulationLane { below, device: self, waker, jobs: Vec::new(), next: 0 }))
    }
}

struct EmulationLane {
    below: LaneId,
    device: Arc<Emulation>,
    /// Makes the table poll this lane.
    waker: Waker,
    /// The jobs, by the key that their requests below carry.
    jobs: Vec<(u64, Job)>,
    next: u64,
}

impl EmulationLane {
    /// Takes the next step of a job, or ends it.
    fn go_on(&mut self, key: u64, mut job: Job, cx: &mut Cx<'_>) {
        match job.next(&*self.device.below, &self.waker) {
            Step::Wait => self.jobs.push((key, job)),
            Step::End(status) => {
                let io = job.end();
                cx.done(io, status);
            }
            Step::Below { operation, start, count, buffers, passes } => {
                let mut made = cx.create_for(job.io(), operation, start, count, buffers);
                made.set_fua(job.io().fua() && operation != Operation::Read);
                if passes {
                    cx.let_pass(made.id());
                }
                job.sent(made.id());
                cx.forward(self.below, made, [key, 0]);
                self.jobs.push((key, job));
            }
        }
    }

    fn take(&mut self, is_it: impl Fn(u64, &Job) -> bool) -> Option<(u64, Job)> {
        let at = self.jobs.iter().position(|(key, job)| is_it(*key, job))?;
        Some(self.jobs.swap_remove(at))
    }
}

impl Lane for EmulationLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if !is_emulated(&*self.device.below, io.operation()) {
            cx.forward(self.below, io, [u64::MAX, 0]);
            return Submit::Taken;
        }
        self.next += 1;
        let job = Job::new(io, self.device.below.state(), &self.waker);
        self.go_on(self.next, job, cx);
        Submit::Taken
    }

    fn complete(&mut self, io: Io, [key, _]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        if key == u64::MAX {
            return cx.done(io, status);
        }
        cx.let_pass_no_more(io.id());
        let Some((key, mut job)) = self.take(|known, _| known == key) else { return drop(cx.finish(io)) };
        job.request_ended(cx.finish(io), status);
        self.go_on(key, job, cx);
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        let waiting: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.waits()).map(|(key, _)| *key).collect();
        for key in waiting {
            if let Some((key, job)) = self.take(|known, _| known == key) {
                self.go_on(key, job, cx);
            }
        }
        Busy::No
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        let Some((key, mut job)) = self.take(|_, job| job.io().id() == id) else { return };
        job.abort();
        match job.waits() {
            true => self.go_on(key, job, cx),
            // Its request below must come back first.
            false => self.jobs.push((key, job)),
        }
    }

    fn orphaned(&mut self, cx: &mut Cx<'_>) {
        let orphans = self.jobs.extract_if(.., |(_, job)| cx.is_orphaned(job.io()));
        for (key, mut job) in orphans.collect::<Vec<_>>() {
            job.abort();
            match job.sent_id() {
                None => self.go_on(key, job, cx),
                Some(id) => {
                    cx.abort(self.below, id);
                    self.jobs.push((key, job));
                }
            }
        }
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        let mut over = Vec::new();
        for (key, job) in &mut self.jobs {
            let io = job.io();
            if !io.operation().changes_data() || !cx.is_abandoned(io) {
                continue;
            }
            let (start, count) = (io.start(), io.count());
            job.abort();
            match (job.sent_id(), self.device.below.state()) {
                (Some(id), Some(state)) => {
                    // The last piece is in flight: newer changes of these blocks wait for it, and it waits
                    // for none.
                    cx.let_pass(id);
                    job.hold(state.hold_range(start, count));
                }
                (Some(_), None) => {}
                (None, _) => over.push(*key),
            }
        }
        for key in over {
            if let Some((key, job)) = self.take(|known, _| known == key) {
                self.go_on(key, job, cx);
            }
        }
    }
}

/// The status of an operation that ends early on request.
pub(crate) const ABORTED: Status = Err(IoErrorKind::Aborted);
