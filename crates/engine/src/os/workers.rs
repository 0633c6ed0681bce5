//! Worker OS threads for calls that would block: a bounded few, shared by all drivers of an engine,
//! started when first needed, ended with the engine.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{IoVecs, Waker, files, sockets};
use crate::engine::Home;
use crate::{Completion, Op, Output, Token, Unpark, spawn_pinned};

/// The most worker threads of one engine. A disk wants some requests in flight; more threads than this
/// only take turns on the cores.
const MOST_WORKERS: usize = 8;

/// The workers of one engine. Dropping it lets them finish what they have and end.
pub(crate) struct Workers(Arc<Pool>);

struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
    home: Home,
    blocking_sockets: bool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Job {
    token: Token,
    op: Op,
    back: Arc<Returns>,
}

/// Where workers put what a driver gave them.
pub(crate) struct Returns {
    any: AtomicBool,
    done: Mutex<Vec<Completion>>,
    waker: Arc<Waker>,
}

impl Returns {
    pub(crate) fn new(waker: Arc<Waker>) -> Arc<Returns> {
        Arc::new(Returns { any: AtomicBool::new(false), done: Mutex::default(), waker })
    }

    /// Whether something waits to be taken: one atomic load.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Moves everything to `out`; how many.
    pub(crate) fn take(&self, out: &mut Vec<Completion>) -> usize {
        if !self.any() {
            return 0;
        }
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::SeqCst);
        let count = done.len();
        out.append(&mut done);
        count
    }

    fn give(&self, completion: Completion) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(completion);
        self.any.store(true, Ordering::SeqCst);
        self.waker.unpark();
    }
}

impl Workers {
    pub(crate) fn new(home: Home, blocking_sockets: bool) -> Workers {
        let pool = Pool { queue: Mutex::default(), work: Condvar::new(), home, blocking_sockets };
        Workers(Arc::new(pool))
    }

    /// Queues `op`; its completion comes through `back`. If not even one thread can be started it
    /// completes with that error.
    pub(crate) fn submit(&self, token: Token, op: Op, back: &Arc<Returns>) {
        let mut queue = self.0.queue();
        queue.jobs.push_back(Job { token, op, back: Arc::clone(back) });
        if queue.idle >= queue.jobs.len() || queue.threads == MOST_WORKERS {
            drop(queue);
            self.0.work.notify_one();
            return;
        }
        queue.threads += 1;
        let number = queue.threads;
        drop(queue);
        let pool = Arc::clone(&self.0);
        if let Err(error) = spawn_pinned(&format!("engine_io_{number}"), None, move || pool.work()) {
            self.0.could_not_start(&error);
        }
    }

    /// Takes back an operation that no worker has begun.
    pub(crate) fn cancel(&self, token: Token, back: &Arc<Returns>) -> Option<Op> {
        let mut queue = self.0.queue();
        let found = queue.jobs.iter().position(|j| j.token == token && Arc::ptr_eq(&j.back, back))?;
        queue.jobs.remove(found).map(|job| job.op)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.queue().closed = true;
        self.0.work.notify_all();
    }
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut vecs = IoVecs::default();
        while let Some(mut job) = self.next_job() {
            let result = self.perform(&mut job.op, &mut vecs);
            job.back.give(Completion { token: job.token, result, op: job.op });
        }
    }

    fn perform(&self, op: &mut Op, vecs: &mut IoVecs) -> io::Result<Output> {
        match op {
            Op::Listen { address, backlog } => {
                sockets::listen(address, *backlog, self.blocking_sockets, &self.home).map(Output::Listener)
            }
            _ => files::perform(op, &self.home, vecs),
        }
    }

    /// The next job; none when the engine is gone and nothing is left.
    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// A thread could not be started: others go on with the queue; without any, it fails.
    fn could_not_start(&self, error: &io::Error) {
        let mut queue = self.queue();
        queue.threads -= 1;
        if queue.threads > 0 {
            return;
        }
        let stranded = std::mem::take(&mut queue.jobs);
        drop(queue);
        for Job { token, op, back } in stranded {
            let message = format!("cannot start a worker thread for '{}': {error}", op.name());
            back.give(Completion { token, result: Err(io::Error::new(error.kind(), message)), op });
        }
    }
}
