//! Worker OS threads for calls that would block: a bounded number, shared by all drivers of an engine,
//! started on demand, ended with the engine. They may run on all cores of the OS thread that opened the
//! engine: the reactor that starts one is pinned, and needs its core for itself.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{IoVecs, Opens, Waker, files, sockets};
use crate::engine_id::EngineId;
use crate::handle::{Body, FileInner, ListenerInner};
use crate::os_thread::run_on;
use crate::owned::closing::{Closer, OpenFd};
use crate::owned::socket_file::SocketFile;
use crate::owned::{Closes, FileFd, OwnedSocketFile, PendingClose};
use crate::{
    Asker, Completion, CpuSet, File, FileInfo, Listener, Op, OpenOptions, Output, Token, Unpark,
    available_cores, spawn_pinned,
};

/// The most working worker threads of one engine. A disk needs some requests in flight; more threads would
/// only compete for the cores.
const MOST_WORKERS: usize = 8;

/// The most worker threads of one engine, including those that open a file and may wait for its lock.
const MOST_THREADS: usize = 64;

/// The workers of one engine. Dropping it lets them finish their jobs and end, and waits until every dropped
/// file is closed.
pub(crate) struct Workers(Arc<Pool>);

/// The workers and their jobs. Kept alive by every open file, which may outlive the engine.
pub(crate) struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
    /// Signalled when a file was closed.
    closed_one: Condvar,
    engine_id: EngineId,
    blocking_sockets: bool,
    cores: CpuSet,
}

#[derive(Default)]
struct Queue {
    /// `None`: taken back. In the order of their numbers, the first of which is `first`.
    jobs: VecDeque<Option<Job>>,
    first: u64,
    /// Number of jobs not taken back.
    waiting: usize,
    threads: usize,
    idle: usize,
    /// Number of threads that are opening a file, which may be locked, or about to be closed, for any time.
    opening: usize,
    closed: bool,
    closes: Closes,
    opens: Opens,
}

/// Which earlier jobs an operation waits for.
#[derive(Clone, Copy)]
struct Predecessors {
    /// The number of its own job.
    job: u64,
    /// The last file queued for closing when it was submitted.
    closes: u64,
}

impl Queue {
    /// Whether an earlier close or given-up open is not over.
    fn may_free_something(&self, before: Predecessors) -> bool {
        self.closes.any_up_to(before.closes) || self.opens.any_given_up_before(before.job)
    }

    /// Removes a queued close from the jobs.
    fn take_close(&mut self) -> Option<(PendingClose, u64)> {
        let is_close = |job: &Option<Job>| matches!(job, Some(Job::Close { .. }));
        let at = self.jobs.iter().position(is_close)?;
        let Some(Job::Close { it, number }) = self.jobs[at].take() else { return None };
        self.waiting -= 1;
        Some((it, number))
    }
}

enum Job {
    Operation { token: Token, op: Op, results: Arc<JobResults>, before: Predecessors },
    Close { it: PendingClose, number: u64 },
}

/// Where workers put results for a driver.
pub(crate) struct JobResults {
    any: AtomicBool,
    done: Mutex<Vec<Completion>>,
    waker: Arc<Waker>,
}

impl JobResults {
    pub(crate) fn new(waker: Arc<Waker>) -> Arc<JobResults> {
        Arc::new(JobResults { any: AtomicBool::new(false), done: Mutex::default(), waker })
    }

    /// True if results are waiting: one atomic load.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Moves all results to `out`; returns their number.
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
    pub(crate) fn new(engine_id: EngineId, blocking_sockets: bool) -> Workers {
        let cores = available_cores().affinity;
        let (work, closed_one) = (Condvar::new(), Condvar::new());
        let queue = Mutex::default();
        Workers(Arc::new(Pool { queue, work, closed_one, engine_id, blocking_sockets, cores }))
    }

    /// Queues `op`; its completion comes through `results`. If no thread at all can be started it completes with
    /// that error. Returns the job's number, for [cancelling](Self::cancel).
    pub(crate) fn submit(&self, token: Token, op: Op, results: &Arc<JobResults>) -> u64 {
        let results = Arc::clone(results);
        self.0.give(|queue, job| {
            queue.opens.begin(job, &op);
            Job::Operation { token, op, results, before: Predecessors { job, closes: queue.closes.last() } }
        })
    }

    /// Opens a file now, on the calling thread.
    #[cfg(test)]
    pub(crate) fn open(&self, options: &OpenOptions) -> io::Result<File> {
        self.0.open(options, Predecessors { job: 0, closes: 0 })
    }

    /// Takes back an operation that no worker has begun.
    pub(crate) fn cancel(&self, number: u64) -> Option<Op> {
        let mut queue = self.0.queue();
        let index = number.checked_sub(queue.first)? as usize;
        match queue.jobs.get_mut(index)?.take()? {
            Job::Operation { op, .. } => {
                queue.waiting -= 1;
                queue.opens.end(number);
                Some(op)
            }
            close => {
                queue.jobs[index] = Some(close);
                None
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        self.0.work.notify_all();
        // After this no file of the engine is found in use.
        let all = queue.closes.last();
        let pending = |queue: &mut Queue| queue.closes.any_up_to(all);
        drop(self.0.closed_one.wait_while(queue, pending).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Closer for Pool {
    /// Gives a file to a worker to close; closes it here if no worker can be started.
    fn close(self: Arc<Self>, it: PendingClose) {
        self.give(|queue, _| Job::Close { it, number: queue.closes.begin() });
        // A waiting open may have to perform it.
        self.closed_one.notify_all();
    }
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, and starts a worker for it if needed. Returns the job's number.
    fn give(self: &Arc<Self>, job: impl FnOnce(&mut Queue, u64) -> Job) -> u64 {
        let mut queue = self.queue();
        let own = queue.first + queue.jobs.len() as u64;
        let job = job(&mut queue, own);
        queue.jobs.push_back(Some(job));
        queue.waiting += 1;
        self.ensure_worker(queue);
        own
    }

    /// Wakes a worker for waiting jobs, or starts one more if all are busy.
    fn ensure_worker(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        let full = queue.threads - queue.opening >= MOST_WORKERS || queue.threads == MOST_THREADS;
        if queue.idle >= queue.waiting || full {
            drop(queue);
            self.work.notify_one();
            return;
        }
        queue.threads += 1;
        let number = queue.threads;
        drop(queue);
        let pool = Arc::clone(self);
        if let Err(error) = spawn_pinned(&format!("engine_io_{number}"), None, move || pool.work()) {
            self.could_not_start(&error);
        }
    }

    /// Opens a file on this worker, which does not count as one meanwhile, so that locked files delay no
    /// other jobs.
    fn open_uncounted(self: &Arc<Self>, options: &OpenOptions, before: Predecessors) -> io::Result<File> {
        let mut queue = self.queue();
        queue.opening += 1;
        match queue.waiting {
            0 => drop(queue),
            _ => self.ensure_worker(queue),
        }
        let opened = self.open(options, before);
        self.queue().opening -= 1;
        opened
    }

    fn work(self: &Arc<Self>) {
        run_on(&self.cores);
        let mut vecs = IoVecs::default();
        while let Some(job) = self.next_job() {
            match job {
                Job::Operation { token, mut op, results, before } => {
                    let result = self.perform(&mut op, before, &mut vecs);
                    results.give(Completion { token, result, op, more: false });
                }
                Job::Close { it, number } => self.close_here(it, number),
            }
        }
    }

    fn close_here(&self, it: PendingClose, number: u64) {
        let opened = match it {
            PendingClose::File { fd, job } => {
                drop(fd);
                Some(job)
            }
            PendingClose::SocketFile(file) => {
                drop(file);
                None
            }
        };
        let mut queue = self.queue();
        queue.closes.end(number);
        opened.into_iter().for_each(|job| queue.opens.end(job));
        drop(queue);
        self.closed_one.notify_all();
    }

    /// Waits until every close and every given-up open that came before is over. Performs closes meanwhile,
    /// because every other worker may be waiting too.
    fn wait_for_predecessors(&self, before: Predecessors) {
        let mut queue = self.queue();
        while queue.may_free_something(before) && !queue.closed {
            queue = match queue.take_close() {
                Some((it, number)) => {
                    drop(queue);
                    self.close_here(it, number);
                    self.queue()
                }
                None => self.closed_one.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Opens a file, unless the open was given up. If the file is in use and an earlier close or given-up open
    /// is not over, that may hold it: then waits for those and tries again.
    fn open(self: &Arc<Self>, options: &OpenOptions, before: Predecessors) -> io::Result<File> {
        let opened = self.open_or_wait(options, before);
        if opened.is_err() {
            self.queue().opens.end(before.job);
            self.closed_one.notify_all();
        }
        let (fd, info) = opened?;
        let body = Body::Os(FileFd::new(fd, before.job, self.clone()));
        let path = options.path.clone();
        Ok(File(Arc::new(FileInner { engine_id: self.engine_id.clone(), body, path, info })))
    }

    fn open_or_wait(&self, options: &OpenOptions, before: Predecessors) -> io::Result<(OpenFd, FileInfo)> {
        let given_up = || options.asker.as_ref().is_some_and(Asker::has_given_up);
        let cancelled = || io::Error::new(io::ErrorKind::Interrupted, "cancelled");
        if given_up() {
            return Err(cancelled());
        }
        let pending = self.queue().may_free_something(before);
        let opened = match files::open(options) {
            Err(error) if pending && is_in_use(&error) => {
                self.wait_for_predecessors(before);
                files::open(options)
            }
            opened => opened,
        };
        // Closed here, at once.
        if given_up() { Err(cancelled()) } else { opened }
    }

    fn perform(self: &Arc<Self>, op: &mut Op, before: Predecessors, vecs: &mut IoVecs) -> io::Result<Output> {
        match op {
            Op::Open { options } => self.open_uncounted(options, before).map(Output::File),
            Op::Listen { address, backlog } => {
                sockets::listen(address, *backlog, self.blocking_sockets, &self.engine_id)
                    .map(Output::Listener)
            }
            Op::ListenAlone { path, backlog } => {
                self.listen_alone(path, *backlog, before).map(Output::Listener)
            }
            _ => files::perform(op, vecs),
        }
    }

    /// A path in use may belong to a listener of this process that was dropped and not closed yet; handled as
    /// in [`open`](Self::open).
    fn listen_alone(
        self: &Arc<Self>,
        path: &Path,
        backlog: u32,
        before: Predecessors,
    ) -> io::Result<Listener> {
        let pending = self.queue().may_free_something(before);
        let mut file = match SocketFile::claim(path) {
            Err(error) if pending && error.kind() == io::ErrorKind::AddrInUse => {
                self.wait_for_predecessors(before);
                SocketFile::claim(path)?
            }
            claimed => claimed?,
        };
        let (fd, address) = sockets::listen_private(path, backlog, self.blocking_sockets)?;
        file.bound()?;
        let owned = Some(OwnedSocketFile::new(file, self.clone()));
        let body = Body::Os(fd);
        Ok(Listener(Arc::new(ListenerInner {
            engine_id: self.engine_id.clone(),
            body,
            address,
            _owned: owned,
        })))
    }

    /// The next job; none once the engine is gone and the queue is empty.
    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.threads - queue.opening > MOST_WORKERS {
                // Started while another one was opening a file.
                queue.threads -= 1;
                return None;
            }
            while let Some(job) = queue.jobs.pop_front() {
                queue.first += 1;
                if job.is_some() {
                    queue.waiting -= 1;
                    return job;
                }
            }
            if queue.closed {
                // A file that outlives the engine starts another one.
                queue.threads -= 1;
                return None;
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// A thread could not be started: others continue with the queue; without any, its jobs fail.
    fn could_not_start(&self, error: &io::Error) {
        let mut queue = self.queue();
        queue.threads -= 1;
        if queue.threads > 0 {
            return;
        }
        let stranded = std::mem::take(&mut queue.jobs);
        queue.first += stranded.len() as u64;
        queue.waiting = 0;
        drop(queue);
        for job in stranded.into_iter().flatten() {
            match job {
                Job::Operation { token, op, results, before } => {
                    self.queue().opens.end(before.job);
                    let message = format!("cannot start a worker thread for '{}': {error}", op.name());
                    results.give(Completion {
                        token,
                        result: Err(io::Error::new(error.kind(), message)),
                        op,
                        more: false,
                    });
                }
                Job::Close { it, number } => self.close_here(it, number),
            }
        }
    }
}

/// True if a file was refused because another opener has it.
fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owned::lock::tests::held_by_nobody;

    #[test]
    fn files_that_are_locked_do_not_hold_up_other_work() {
        let workers = Workers::new(EngineId::new(), true);
        let waker = Arc::new(Waker::new().expect("an eventfd"));
        let results = JobResults::new(waker);
        let folder = tempfile::tempdir().expect("a folder");
        let locked: Vec<_> = (0..2 * MOST_WORKERS)
            .map(|number| {
                let path = folder.path().join(format!("locked-{number}"));
                std::fs::write(&path, [0; 512]).expect("a file");
                let held = held_by_nobody(&path);
                (path, held)
            })
            .collect();
        for (number, (path, _)) in locked.iter().enumerate() {
            let options = OpenOptions::new(path).writable(true).locked(true);
            workers.submit(Token(number as u64), Op::Open { options: Box::new(options) }, &results);
        }
        let other = folder.path().join("other");
        std::fs::write(&other, [0; 512]).expect("a file");
        let file = workers.open(&OpenOptions::new(other).writable(true)).expect("a file");
        let zeroed = Token(1000);
        workers.submit(zeroed, Op::ZeroRange { file, offset: 0, length: 512 }, &results);
        let mut done = Vec::new();
        while done.is_empty() {
            results.take(&mut done);
            std::thread::yield_now();
        }
        assert_eq!(done[0].token, zeroed, "before any of those that wait for a lock");
    }
}
