//! The epoll engine: readiness for sockets, worker threads for files.
//!
//! Used where io_uring is forbidden. One driver belongs to one reactor and stays on its OS thread; the
//! engine's drivers share the workers.

mod sources;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use self::sources::{Sources, WAKE};
use crate::engine_id::EngineId;
use crate::os::{Clock, IoVecs, JobResults, Waker, Workers, clock, sockets};
use crate::places::Places;
use crate::rng::Rng;
use crate::{Completion, Driver, EngineError, Op, Output, SystemCalls, Time, Token, Unparker};

/// Events taken from the kernel at once; more wait for the next turn.
const EVENTS: usize = 256;

/// While all operations in flight wait for peers, one in this many calls of `has_news` asks the kernel,
const ASK_ONE_IN: u32 = 16;
/// and so does the first call after this time.
const ASK_AFTER: Duration = Duration::from_micros(50);

/// A wait of this length or more is one of whole milliseconds, of no more than `LONGEST`, and so may end a little early.
const LONG: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// One reactor's driver.
pub(crate) struct EpollDriver {
    clock: Clock,
    engine_id: EngineId,
    rng: Rng,
    waker: Arc<Waker>,
    epoll: OwnedFd,
    workers: Arc<Workers>,
    job_results: Arc<JobResults>,
    sources: Sources,
    /// The jobs given to workers, by token.
    jobs: Places,
    /// Finished on this thread, not yet handed out.
    ready: Vec<Completion>,
    /// Quiet sends that have ended: they end no sleep.
    quiet: Vec<Completion>,
    in_flight: usize,
    /// True if the kernel was asked by a sleep, and by nothing since.
    fresh: bool,
    /// The last reading of the clock, the time the kernel was last asked, and the calls since.
    now: Time,
    asked: Time,
    unasked: u32,
    vecs: IoVecs,
    /// Calls of epoll_wait and ppoll, and operations given to workers.
    enters: u64,
    handed_over: u64,
}

impl EpollDriver {
    pub(crate) fn new(
        clock: Clock,
        engine_id: EngineId,
        workers: Arc<Workers>,
    ) -> Result<EpollDriver, EngineError> {
        let failed = |what| move |source| EngineError::Driver { engine: "epoll", what, source };
        let waker = Arc::new(Waker::new().map_err(failed("eventfd"))?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .map_err(failed("epoll_create"))?;
        epoll::add(&epoll, waker.event(), epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .map_err(io::Error::from)
            .map_err(failed("epoll_ctl"))?;
        Ok(EpollDriver {
            clock,
            engine_id,
            rng: clock::random_generator(),
            job_results: JobResults::new(Arc::clone(&waker)),
            waker,
            epoll,
            workers,
            sources: Sources::default(),
            jobs: Places::default(),
            ready: Vec::new(),
            quiet: Vec::new(),
            in_flight: 0,
            fresh: false,
            now: Time::default(),
            asked: Time::default(),
            unasked: 0,
            vecs: IoVecs::default(),
            enters: 0,
            handed_over: 0,
        })
    }

    /// Asks the kernel for readiness, waiting no longer than `timeout`, and moves on what became ready.
    fn wait(&mut self, timeout: Option<Duration>) {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let events = match wait_precisely(&self.epoll, &mut room, timeout, &mut self.enters) {
            Ok(events) => events,
            // Interrupted by a signal: an early return, which the caller must expect.
            Err(_) => return,
        };
        for event in events.iter() {
            let data = event.data.u64();
            if data == WAKE {
                self.waker.drain();
            } else {
                let EpollDriver { sources, epoll, vecs, engine_id, ready, .. } = &mut *self;
                sources.on_event(data, event.flags, epoll, vecs, engine_id, ready);
            }
        }
    }

    /// Attempts a socket operation now; it waits for readiness if it would block.
    fn attempt(&mut self, token: Token, op: Op) {
        if let Err((error, op)) =
            self.sources.start(token, op, &self.epoll, &mut self.vecs, &self.engine_id, &mut self.ready)
        {
            self.ready.push(Completion { token, result: Err(error), op, more: false });
        }
        if let Some(sent) = self.ready.pop_if(|last| last.token == token && is_quiet(last)) {
            self.quiet.push(sent);
        }
    }
}

/// True for a quiet send that has sent everything.
fn is_quiet(completion: &Completion) -> bool {
    matches!(completion.op, Op::SendQuietly { .. }) && completion.result.is_ok()
}

/// Waits to the nanosecond. epoll_wait knows milliseconds only and epoll_pwait2 is missing on older
/// kernels and in older seccomp profiles; ppoll on the epoll descriptor is neither, but a second call. So a long
/// wait is one of whole milliseconds, which returns early if nothing happens. Adds the calls that it makes to
/// `calls`.
fn wait_precisely<'a>(
    epoll: &OwnedFd,
    room: &'a mut [MaybeUninit<epoll::Event>],
    timeout: Option<Duration>,
    calls: &mut u64,
) -> rustix::io::Result<&'a mut [epoll::Event]> {
    let limit = match timeout {
        None => None,
        Some(span) if span >= LONG => Some(Duration::from_millis(span.min(LONGEST).as_millis() as u64)),
        Some(span) => {
            if !span.is_zero() {
                *calls += 1;
                let span = Timespec::try_from(span).ok();
                poll(&mut [PollFd::new(epoll, PollFlags::IN)], span.as_ref())?;
            }
            Some(Duration::ZERO)
        }
    };
    *calls += 1;
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    epoll::wait(epoll, room, limit.as_ref()).map(|(events, _)| events)
}

impl Driver for EpollDriver {
    fn now(&mut self) -> Time {
        self.now = self.clock.now();
        self.now
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.in_flight += 1;
        if let Err(error) = op.check(&self.engine_id) {
            self.ready.push(Completion { token, result: Err(error), op, more: false });
            return;
        }
        match op {
            Op::Open { .. }
            | Op::Inspect { .. }
            | Op::Read { .. }
            | Op::Write { .. }
            | Op::Flush { .. }
            | Op::Seek { .. }
            | Op::ZeroRange { .. }
            | Op::Discard { .. }
            | Op::Listen { .. }
            | Op::ListenAlone { .. } => {
                self.handed_over += 1;
                self.jobs.insert(token, self.workers.submit(token, op, &self.job_results));
            }
            Op::Pair => {
                self.sources.calls += 1;
                let result = sockets::pair(false, &self.engine_id).map(|(a, b)| Output::Pair(a, b));
                self.ready.push(Completion { token, result, op, more: false });
            }
            Op::Shutdown { ref socket, how } => {
                self.sources.calls += 1;
                let result = sockets::shutdown(socket, how).map(|()| Output::Done);
                self.ready.push(Completion { token, result, op, more: false });
            }
            Op::Accept { .. }
            | Op::Connect { .. }
            | Op::Recv { .. }
            | Op::Send { .. }
            | Op::SendQuietly { .. }
            | Op::SendZeroCopy { .. }
            | Op::AcceptMany { .. }
            | Op::RecvMany { .. }
            | Op::PollMany { .. }
            | Op::Poll { .. } => self.attempt(token, op),
            Op::UnderWay => {
                self.ready.push(Completion { token, result: Ok(Output::Done), op, more: false });
            }
        }
    }

    fn cancel(&mut self, token: Token) {
        self.hurry(token);
        let op = match self.jobs.get(token) {
            Some(job) => self.workers.cancel(job),
            None => self.sources.cancel(token),
        };
        if let Some(op) = op {
            self.jobs.remove(token);
            let result = Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled"));
            self.ready.push(Completion { token, result, op, more: false });
        }
    }

    fn hurry(&mut self, token: Token) {
        if let Some(place) = self.quiet.iter().position(|sent| sent.token == token) {
            self.ready.push(self.quiet.swap_remove(place));
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let fresh = std::mem::take(&mut self.fresh);
        if self.sources.waiting() > 0 && !fresh {
            self.wait(Some(Duration::ZERO));
        }
        (self.asked, self.unasked) = (self.now, 0);
        self.sources.go_on_eagerly(&mut self.vecs, &self.engine_id, &mut self.ready);
        let ended = self.ready.iter().filter(|completion| !completion.more).count();
        self.in_flight -= ended + self.quiet.len();
        out.append(&mut self.ready);
        out.append(&mut self.quiet);
        let first = out.len();
        self.in_flight -= self.job_results.take(out);
        for completion in &out[first..] {
            self.jobs.remove(completion.token);
        }
    }

    fn park(&mut self, deadline: Option<Time>) {
        if self.has_ready() {
            return;
        }
        // From here on any thread that wakes this driver, such as a finishing worker, sees that it sleeps,
        // and writes.
        if !self.waker.fall_asleep() {
            return;
        }
        if !self.job_results.any() {
            let timeout = deadline.map(|deadline| deadline.since(self.clock.now()));
            self.wait(timeout);
            self.fresh = true;
        }
        self.waker.wake_up();
    }

    fn unparker(&self) -> Unparker {
        self.waker.clone()
    }

    fn choose(&mut self, _n: usize) -> usize {
        0
    }

    fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    fn cpu(&self) -> usize {
        clock::current_cpu()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn has_news(&mut self) -> bool {
        let parked = self.sources.parked() + self.quiet.len();
        if self.has_ready() {
            return true;
        }
        if self.in_flight > parked || parked == 0 {
            return self.in_flight > 0;
        }
        self.unasked += 1;
        self.unasked >= ASK_ONE_IN || self.now.since(self.asked) >= ASK_AFTER
    }

    fn has_ready(&mut self) -> bool {
        !self.ready.is_empty() || self.job_results.any() || self.sources.is_eager()
    }

    fn system_calls(&self) -> SystemCalls {
        let (wakes, drains) = self.waker.calls();
        let (enters, handed_over) = (self.enters, self.handed_over);
        SystemCalls { enters, wakes, drains, sockets: self.sources.calls, handed_over }
    }
}
