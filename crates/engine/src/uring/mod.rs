//! The io_uring engine: one ring for each reactor, made and used on its OS thread.
//!
//! Transfers, flushes and streams go through the ring. Operations that the kernel lacks or would run on a kernel
//! thread anyway (opening, discarding, zeroing, binding) go to the worker threads shared by the engine's drivers.
//! Nothing is registered with the kernel, so no locked memory is needed.

mod flight;
mod groups;
mod many;
mod ring;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fd;
use rustix::event::PollFlags;
use slab::Slab;

use self::flight::{Flight, Spare, Step};
use self::groups::Groups;
use self::ring::Ring;
use crate::engine_id::EngineId;
use crate::os::{Clock, JobResults, Waker, Workers, clock, sockets};
use crate::places::Places;
use crate::rng::Rng;
use crate::{
    Address, Completion, Driver, EngineError, Op, Output, Socket, SystemCalls, Time, Token, Unparker,
};

pub(crate) use self::ring::probe;

/// The user data of the driver's own wait for its eventfd.
const WAKE: u64 = u64::MAX;
/// The user data of cancellations, whose own completions are ignored.
const CANCEL: u64 = u64::MAX - 1;
/// Highest serial number of a flight: below those of the two above.
const LAST_SERIAL: u32 = u32::MAX - 1;

/// The most bytes of quiet sends that may be under way: their buffers are kept while the driver sleeps.
const MOST_QUIET: usize = 256 << 10;

/// How long a dropped driver waits for the kernel to return its buffers. Longer than any working disk takes;
/// after that the buffers are leaked to the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// One reactor's driver.
pub(crate) struct UringDriver {
    clock: Clock,
    engine_id: EngineId,
    rng: Rng,
    waker: Arc<Waker>,
    /// True while the ring waits for the waker's eventfd.
    listening: bool,
    ring: Ring,
    flights: Slab<Flight>,
    /// Declared after the ring: its buffers belong to the kernel until the ring is closed.
    groups: Groups,
    /// The keys of the flights, and the jobs given to workers, by token.
    keys: Places,
    jobs: Places,
    serial: u32,
    spare: Spare,
    workers: Arc<Workers>,
    job_results: Arc<JobResults>,
    /// Sends that wait for one of the same stream, in order: the kernel would mix their bytes.
    sends: Vec<(Token, Op)>,
    /// Quiet sends of which the kernel reports only failures, by key and user data: when it has taken their
    /// entries and posted nothing, they have ended. And their bytes.
    quiet: Vec<(usize, u64)>,
    quiet_bytes: usize,
    /// Those of them whose entries the kernel has taken. Empty between two calls; kept for its capacity.
    taken: Vec<(usize, u64)>,
    /// True if one of them was hurried.
    hurried: bool,
    /// Finished on this thread, not yet handed out.
    ready: Vec<Completion>,
    in_flight: usize,
    /// Number of flights that wait for a peer.
    parked: usize,
    /// System calls on sockets, and operations given to workers.
    socket_calls: u64,
    handed_over: u64,
}

impl UringDriver {
    pub(crate) fn new(
        clock: Clock,
        engine_id: EngineId,
        workers: Arc<Workers>,
    ) -> Result<UringDriver, EngineError> {
        let failed = |what| move |source| EngineError::Driver { engine: "io_uring", what, source };
        let waker = Arc::new(Waker::new().map_err(failed("eventfd"))?);
        Ok(UringDriver {
            clock,
            engine_id,
            rng: clock::random_generator(),
            job_results: JobResults::new(Arc::clone(&waker)),
            waker,
            listening: false,
            ring: Ring::new().map_err(failed("io_uring_setup"))?,
            flights: Slab::new(),
            groups: Groups::default(),
            keys: Places::default(),
            jobs: Places::default(),
            serial: 0,
            spare: Spare::default(),
            workers,
            sends: Vec::new(),
            quiet: Vec::new(),
            quiet_bytes: 0,
            taken: Vec::new(),
            hurried: false,
            ready: Vec::new(),
            in_flight: 0,
            parked: 0,
            socket_calls: 0,
            handed_over: 0,
        })
    }

    /// Begins an operation of the ring, unless it has nothing to transfer or must wait for another send.
    fn begin(&mut self, token: Token, op: Op) {
        match op {
            Op::Read { ref buffers, .. }
            | Op::Write { ref buffers, .. }
            | Op::Recv { ref buffers, .. }
            | Op::Send { ref buffers, .. }
            | Op::SendQuietly { ref buffers, .. }
            | Op::SendZeroCopy { ref buffers, .. }
                if buffers.is_empty() =>
            {
                self.end(token, op, Ok(Output::Bytes(0)));
            }
            Op::Send { ref socket, .. }
            | Op::SendQuietly { ref socket, .. }
            | Op::SendZeroCopy { ref socket, .. }
                if !socket.0.begin_send(self.number()) =>
            {
                self.sends.push((token, op));
            }
            Op::Connect { ref address } => {
                // The socket is made here, and the delay of TCP switched off.
                self.socket_calls += if matches!(**address, Address::Tcp(_)) { 2 } else { 1 };
                self.launch(token, op);
            }
            _ => self.launch(token, op),
        }
    }

    /// Gives an operation that the ring lacks to a worker thread.
    fn hand_over(&mut self, token: Token, op: Op) {
        self.handed_over += 1;
        self.jobs.insert(token, self.workers.submit(token, op, &self.job_results));
    }

    /// Ends an operation that is not in the ring.
    fn end(&mut self, token: Token, op: Op, result: io::Result<Output>) {
        self.ready.push(Completion { token, result, op, more: false });
    }

    /// Makes a flight of an operation, and queues its first entry.
    fn launch(&mut self, token: Token, op: Op) {
        self.serial = if self.serial == LAST_SERIAL { 0 } else { self.serial + 1 };
        let slot = self.flights.vacant_entry();
        let key = slot.key();
        self.parked += usize::from(op.is_parked());
        let user_data = u64::from(self.serial) << 32 | key as u64;
        let mut flight = Flight::new(token, op, user_data);
        if let Op::SendQuietly { buffers, .. } = &flight.op
            && self.ring.may_be_quiet
            && self.quiet_bytes + buffers.len() <= MOST_QUIET
        {
            flight.quiet = true;
            self.quiet_bytes += buffers.len();
            self.quiet.push((key, user_data));
        }
        flight.goes_on = self.ring.may_go_on;
        if let Op::RecvMany { pool, .. } = &flight.op
            && self.ring.may_go_on
        {
            flight.group = Some(self.groups.join(pool, &mut self.ring));
        }
        slot.insert(flight);
        self.keys.insert(token, key as u64);
        self.push_next(key);
    }

    /// Queues the next entry of a flight, or finishes it if none can be made.
    fn push_next(&mut self, key: usize) {
        match self.flights[key].entry(&mut self.spare, &self.engine_id) {
            // SAFETY: the entry points into the flight's buffers and scratch, which are on the heap and
            // stay there, untouched, until the flight is taken out of the table on its completion; a
            // dropped driver waits for that or leaks them.
            Ok(entry) => self.flights[key].queued = unsafe { self.ring.push(entry) },
            Err(error) => self.finish(key, Err(error)),
        }
    }

    /// Takes a flight out of the table and ends its operation.
    fn finish(&mut self, key: usize, result: io::Result<Output>) {
        let mut flight = self.flights.remove(key);
        self.parked -= usize::from(flight.op.is_parked());
        self.keys.remove(flight.token);
        self.spare.keep(flight.scratch.take());
        if let Some(group) = flight.group {
            self.groups.leave(group, &mut self.ring);
        }
        if let Some(socket) = flight.op.sends_on()
            && !flight.passed_on
        {
            self.next_send(socket);
        }
        self.end(flight.token, flight.op, result);
    }

    /// The driver's identity for a stream.
    fn number(&self) -> usize {
        Arc::as_ptr(&self.waker).addr()
    }

    /// All bytes of a send are the kernel's: starts the next one of its stream.
    fn pass_on(&mut self, key: usize) {
        let flight = &mut self.flights[key];
        if !std::mem::replace(&mut flight.passed_on, true)
            && let Some(socket) = flight.op.sends_on().cloned()
        {
            self.next_send(&socket);
        }
    }

    /// A send of `stream` has ended: starts the next one.
    fn next_send(&mut self, stream: &Socket) {
        let same = |(_, op): &(Token, Op)| op.sends_on().is_some_and(|on| Arc::ptr_eq(&on.0, &stream.0));
        match self.sends.iter().position(same) {
            Some(index) => {
                let (token, op) = self.sends.remove(index);
                self.launch(token, op);
            }
            None => stream.0.end_send(self.number()),
        }
    }

    /// The key of the flight that the kernel means; none if it is over.
    fn flight_of(&self, user_data: u64) -> Option<usize> {
        let key = (user_data & u64::from(u32::MAX)) as usize;
        self.flights.get(key).filter(|flight| flight.user_data == user_data).map(|_| key)
    }

    /// Starts what was submitted, and takes what has ended.
    fn turn(&mut self) {
        self.ring.enter();
        if self.quiet.is_empty() || !self.ring.has_answered() {
            return self.take_completions();
        }
        // Failures of those that the kernel has taken are among the completions.
        std::mem::swap(&mut self.quiet, &mut self.taken);
        (self.quiet_bytes, self.hurried) = (0, false);
        self.take_completions();
        while let Some((key, user_data)) = self.taken.pop() {
            let flight = self.flight_of(user_data).map(|key| &self.flights[key]);
            if let Some(bytes) = flight.filter(|flight| flight.quiet).map(Flight::length) {
                self.finish(key, Ok(Output::Bytes(bytes)));
            }
        }
    }

    /// Handles what the kernel has completed.
    fn take_completions(&mut self) {
        while let Some((user_data, result, flags)) = self.ring.next_completion() {
            match user_data {
                WAKE => {
                    self.listening = false;
                    self.waker.drain();
                }
                CANCEL => {}
                _ if self.groups.on_result(user_data, result) => {}
                _ => {
                    if let Some(key) = self.flight_of(user_data) {
                        self.on_result(key, result, flags);
                    }
                }
            }
        }
    }

    /// Handles the kernel's result of a flight.
    fn on_result(&mut self, key: usize, result: i32, flags: u32) {
        match &self.flights[key].op {
            Op::AcceptMany { .. } | Op::PollMany { .. } => return self.on_one_of_many(key, result, flags),
            Op::RecvMany { .. } => return self.on_received(key, result, flags),
            Op::SendZeroCopy { .. } => return self.on_zero_copy(key, result, flags),
            // Counts the call that turned off Nagle's delay.
            Op::Accept { .. } if result >= 0 => self.socket_calls += 1,
            _ => {}
        }
        match self.flights[key].on_result(result, &self.engine_id) {
            Step::Done(result) => self.finish(key, result),
            Step::Again => self.push_next(key),
        }
    }

    fn listen_for_wakes(&mut self) {
        if self.listening {
            return;
        }
        let fd = Fd(std::os::fd::AsRawFd::as_raw_fd(&self.waker.event()));
        let entry = opcode::PollAdd::new(fd, u32::from(PollFlags::IN.bits())).build().user_data(WAKE);
        // SAFETY: a poll points at nothing.
        let _ = unsafe { self.ring.push(entry) };
        self.listening = true;
    }

    /// Asks the kernel to end a flight early, or ends it here if the kernel has not seen it.
    fn call_back(&mut self, key: usize) {
        let user_data = self.flights[key].user_data;
        let nothing = opcode::Nop::new().build().user_data(CANCEL);
        if self.flights[key].queued.is_some_and(|number| self.ring.take_back(number, nothing)) {
            self.flights[key].outcome = Some(Err(flight::interrupted()));
            return self.end_zero_copy(key);
        }
        self.flights[key].cancelled = true;
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(CANCEL);
        // SAFETY: a cancellation points at nothing.
        let _ = unsafe { self.ring.push(entry) };
    }
}

impl Driver for UringDriver {
    fn now(&mut self) -> Time {
        self.clock.now()
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.in_flight += 1;
        // All may finish in one turn: the room is reserved here, so that it depends on the depth alone.
        self.ready.reserve(self.in_flight.saturating_sub(self.ready.len()));
        if let Err(error) = op.check(&self.engine_id) {
            return self.end(token, op, Err(error));
        }
        match op {
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Flush { .. }
            | Op::Accept { .. }
            | Op::Connect { .. }
            | Op::Recv { .. }
            | Op::Send { .. }
            | Op::SendQuietly { .. }
            | Op::SendZeroCopy { .. }
            | Op::AcceptMany { .. }
            | Op::RecvMany { .. }
            | Op::PollMany { .. }
            | Op::Poll { .. } => self.begin(token, op),
            Op::Open { .. }
            | Op::Inspect { .. }
            | Op::Seek { .. }
            | Op::ZeroRange { .. }
            | Op::Discard { .. }
            | Op::Listen { .. }
            | Op::ListenAlone { .. } => self.hand_over(token, op),
            Op::Pair => {
                self.socket_calls += 1;
                let result = sockets::pair(true, &self.engine_id).map(|(a, b)| Output::Pair(a, b));
                self.end(token, op, result);
            }
            Op::Shutdown { ref socket, how } => {
                self.socket_calls += 1;
                let result = sockets::shutdown(socket, how).map(|()| Output::Done);
                self.end(token, op, result);
            }
            Op::UnderWay => self.end(token, op, Ok(Output::Done)),
        }
    }

    fn cancel(&mut self, token: Token) {
        self.hurry(token);
        if let Some(key) = self.keys.get(token) {
            self.call_back(key as usize);
        } else if let Some(job) = self.jobs.get(token) {
            if let Some(op) = self.workers.cancel(job) {
                self.jobs.remove(token);
                self.end(token, op, Err(flight::interrupted()));
            }
        } else if let Some(index) = self.sends.iter().position(|(waiting, _)| *waiting == token) {
            let (_, op) = self.sends.remove(index);
            self.end(token, op, Err(flight::interrupted()));
        }
    }

    fn hurry(&mut self, token: Token) {
        let flight = self.keys.get(token).map(|key| &self.flights[key as usize]);
        self.hurried |= flight.is_some_and(|flight| flight.quiet);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.turn();
        self.in_flight -= self.ready.iter().filter(|completion| !completion.more).count();
        out.append(&mut self.ready);
        let first = out.len();
        self.in_flight -= self.job_results.take(out);
        for completion in &out[first..] {
            self.jobs.remove(completion.token);
        }
    }

    fn park(&mut self, deadline: Option<Time>) {
        // The completion that woke this thread may still be there: an idle reactor need not poll. What waits for a
        // quiet send is started only by a turn.
        if self.hurried || (!self.sends.is_empty() && !self.quiet.is_empty()) {
            self.turn();
        } else {
            self.take_completions();
        }
        if !self.ready.is_empty() || self.job_results.any() {
            return;
        }
        // From here on any thread that wakes this driver, such as a finishing worker, sees that it sleeps,
        // and writes.
        if !self.waker.fall_asleep() {
            return;
        }
        if !self.job_results.any() {
            self.listen_for_wakes();
            let timeout = deadline.map(|deadline| deadline.since(self.clock.now()));
            self.ring.sleep(timeout);
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
        // Finished operations are still in flight, but no longer parked.
        self.in_flight > self.parked || (self.parked > 0 && self.ring.has_news())
    }

    fn has_ready(&mut self) -> bool {
        !self.ready.is_empty() || self.job_results.any() || self.ring.has_completions()
    }

    fn system_calls(&self) -> SystemCalls {
        let (wakes, drains) = self.waker.calls();
        let (sockets, handed_over) = (self.socket_calls, self.handed_over);
        SystemCalls { enters: self.ring.enters, wakes, drains, sockets, handed_over }
    }
}

impl Drop for UringDriver {
    /// Takes back every buffer from the kernel before it is freed.
    fn drop(&mut self) {
        let keys: Vec<usize> = self.flights.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.call_back(key);
        }
        let deadline = self.clock.now() + PATIENCE;
        while !self.flights.is_empty() && self.clock.now() < deadline {
            self.turn();
            if !self.flights.is_empty() {
                self.ring.sleep(Some(deadline.since(self.clock.now())));
            }
        }
        if !self.flights.is_empty() {
            // The kernel still holds these buffers: leaking memory is better than the kernel writing to freed
            // memory.
            std::mem::forget(std::mem::take(&mut self.flights));
            std::mem::forget(std::mem::take(&mut self.groups));
        }
    }
}
