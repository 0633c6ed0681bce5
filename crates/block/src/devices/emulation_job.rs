//! One emulated operation: its state and its next step.
//!
//! Owned by the lane that performs it. It processes the range in pieces, so its memory does not depend on the
//! size of the range.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use spindle_mem::{Buffers, IoBuf};

use crate::devices::emulation::ABORTED;
use crate::state::ranges::RangeLock;
use crate::state::turn::Turn;
use crate::{
    Delivered, Device, DeviceState, Frozen, Geometry, HeldRange, Io, IoErrorKind, IoId, LaneEvent, Operation,
    Status,
};

/// Bytes of a piece, or one block if that is larger.
const PIECE: u64 = 128 << 10;

/// The next step of a job.
pub(crate) enum Step {
    /// Ask again when the lane is polled.
    Wait,
    /// Send a request below.
    Below { operation: Operation, start: u64, count: u64, buffers: Buffers, passes: bool },
    /// End the operation.
    End(Status),
}

/// The state of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for its turn on the device, or for its range.
    Turn,
    /// Waits for requests that are in the device.
    Quiet,
    /// Reads pieces: to compare them, or to copy each before the next.
    Read,
    /// Writes pieces.
    Write,
    /// The device resets itself.
    Reset,
}

pub(crate) struct Job {
    io: Io,
    phase: Phase,
    /// Blocks done in this phase.
    done: u64,
    /// Blocks of the request below.
    piece: u64,
    sent: Option<IoId>,
    memory: Buffers,
    status: Status,
    aborted: bool,
    /// For a reset.
    turn: Option<Turn>,
    /// For a compare and write.
    lock: Option<RangeLock>,
    /// Events that the lanes of the device, and of those below, must handle first.
    awaited: Vec<Delivered>,
    frozen: Option<Frozen>,
    held: Option<HeldRange>,
}

impl Job {
    pub(crate) fn new(io: Io, state: Option<&DeviceState>, waker: &Waker) -> Job {
        let operation = io.operation();
        let turn = state.filter(|_| operation == Operation::Reset);
        let turn = turn.map(|state| state.take_turn(waker.clone()));
        let lock = state.filter(|_| operation == Operation::CompareAndWrite);
        let lock = lock.map(|state| state.lock_range(io.start(), io.count(), waker));
        let phase = match operation {
            _ if turn.is_some() || lock.is_some() => Phase::Turn,
            Operation::WriteZeroes => Phase::Write,
            _ => Phase::Read,
        };
        Job {
            io,
            phase,
            done: 0,
            piece: 0,
            sent: None,
            memory: Buffers::None,
            status: Ok(()),
            aborted: false,
            turn,
            lock,
            awaited: Vec::new(),
            frozen: None,
            held: None,
        }
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    /// Returns the request that the job was made of.
    pub(crate) fn end(self) -> Io {
        self.io
    }

    /// True if it has no request below, so that polling may advance it.
    pub(crate) fn waits(&self) -> bool {
        self.sent.is_none()
    }

    /// Notes its request below.
    pub(crate) fn sent(&mut self, id: IoId) {
        self.sent = Some(id);
    }

    pub(crate) fn sent_id(&self) -> Option<IoId> {
        self.sent
    }

    /// Makes it end as soon as it has no request below.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
    }

    /// Holds a range until it ends.
    pub(crate) fn hold(&mut self, range: HeldRange) {
        self.held = Some(range);
    }

    /// Handles the end of its request below.
    pub(crate) fn request_ended(&mut self, memory: Buffers, status: Status) {
        self.sent = None;
        self.memory = memory;
        // A lane that has nothing to reset: the device is quiet, which is what was asked for.
        let nothing_to_do = self.phase == Phase::Reset && status == Err(IoErrorKind::Unsupported);
        self.status = if nothing_to_do { Ok(()) } else { status };
        let status = self.status;
        if status.is_err() {
            return;
        }
        match (self.phase, self.io.operation()) {
            (Phase::Read, Operation::Copy) => return self.phase = Phase::Write,
            (Phase::Read, _) => self.status = self.compare(),
            (Phase::Write, Operation::Copy) => self.phase = Phase::Read,
            _ => {}
        }
        self.done += self.piece;
        if self.done == self.io.count() && self.io.operation() == Operation::CompareAndWrite {
            self.next_phase();
        }
    }

    /// Changes from comparing to writing.
    fn next_phase(&mut self) {
        if self.phase == Phase::Read && self.status.is_ok() {
            (self.phase, self.done) = (Phase::Write, 0);
        }
    }

    /// Returns the next step.
    pub(crate) fn next(&mut self, device: &dyn Device, waker: &Waker) -> Step {
        if self.status.is_err() {
            return Step::End(self.status);
        }
        if self.aborted {
            return Step::End(ABORTED);
        }
        match self.phase {
            Phase::Turn if self.lock.is_some() => self.lock(device, waker),
            Phase::Turn => self.freeze(device, waker),
            Phase::Quiet => self.begin(device, waker),
            Phase::Reset => Step::End(Ok(())),
            Phase::Read | Phase::Write if self.done == self.io.count() => Step::End(Ok(())),
            Phase::Read => self.read(&device.geometry()),
            Phase::Write => self.write(&device.geometry()),
        }
    }

    /// When its range is locked, waits for the changes that are in the device already.
    fn lock(&mut self, device: &dyn Device, waker: &Waker) -> Step {
        let Some(lock) = self.lock.as_ref().filter(|lock| lock.has_come()) else { return Step::Wait };
        self.awaited.push(lock.state().settle());
        self.phase = Phase::Quiet;
        self.begin(device, waker)
    }

    /// When its turn has come, keeps other requests out of the device.
    fn freeze(&mut self, device: &dyn Device, waker: &Waker) -> Step {
        let Some(turn) = self.turn.as_ref().filter(|turn| turn.has_come()) else { return Step::Wait };
        let (frozen, quiet) = turn.state().begin_freeze();
        // After the freeze: all requests that a lane then holds came before the reset.
        tell_of_reset(device, &mut self.awaited);
        self.awaited.push(quiet);
        (self.frozen, self.phase) = (Some(frozen), Phase::Quiet);
        self.begin(device, waker)
    }

    /// Begins once the requests that it waits for have ended.
    fn begin(&mut self, device: &dyn Device, waker: &Waker) -> Step {
        let cx = &mut Context::from_waker(waker);
        self.awaited.retain_mut(|awaited| Pin::new(awaited).poll(cx).is_pending());
        if !self.awaited.is_empty() {
            return Step::Wait;
        }
        if self.io.operation() != Operation::Reset {
            self.phase = Phase::Read;
            return self.next(device, waker);
        }
        if !device.supports(Operation::Reset) {
            return Step::End(Ok(()));
        }
        self.phase = Phase::Reset;
        let (operation, buffers) = (Operation::Reset, Buffers::None);
        Step::Below { operation, start: 0, count: 0, buffers, passes: true }
    }

    /// Returns the offset of the next piece in the range, and its size, in blocks.
    fn next_piece(&mut self, geometry: &Geometry) -> (u64, u64) {
        let (unit, transfer) = (u64::from(geometry.write_unit()), u64::from(geometry.max_transfer()));
        let most = (PIECE >> geometry.block_shift()).min(transfer);
        // Whole units, so that each piece can be written.
        let most = (most - most % unit).max(unit);
        let left = self.io.count() - self.done;
        self.piece = left.min(most);
        let backwards = self.io.operation() == Operation::Copy && self.io.start() > self.io.aux();
        (if backwards { left - self.piece } else { self.done }, self.piece)
    }

    /// Returns memory for a piece. Reuses the previous memory if the size fits.
    fn memory(&mut self, bytes: usize) -> Result<Buffers, IoErrorKind> {
        let before = std::mem::take(&mut self.memory);
        match before.len() == bytes {
            true => Ok(before),
            false => IoBuf::try_zeroed(bytes).map(Buffers::from).map_err(|_| IoErrorKind::NoMemory),
        }
    }

    fn read(&mut self, geometry: &Geometry) -> Step {
        let (at, count) = self.next_piece(geometry);
        let from = if self.io.operation() == Operation::Copy { self.io.aux() } else { self.io.start() };
        match self.memory((count << geometry.block_shift()) as usize) {
            Ok(buffers) => Step::Below {
                operation: Operation::Read,
                start: from + at,
                count,
                buffers,
                passes: self.lock.is_some(),
            },
            Err(kind) => Step::End(Err(kind)),
        }
    }

    fn write(&mut self, geometry: &Geometry) -> Step {
        let (at, count) = self.next_piece(geometry);
        let mut buffers = match self.memory((count << geometry.block_shift()) as usize) {
            Ok(buffers) => buffers,
            Err(kind) => return Step::End(Err(kind)),
        };
        if self.io.operation() == Operation::CompareAndWrite {
            let half = self.io.buffers().len() / 2;
            let mut target = (at << geometry.block_shift()) as usize + half;
            for part in buffers.iter_mut() {
                target += self.io.buffers().copy_to(target, part);
            }
        }
        let start = self.io.start() + at;
        Step::Below { operation: Operation::Write, start, count, buffers, passes: self.lock.is_some() }
    }

    /// Compares the piece just read with its part of the request's data.
    fn compare(&self) -> Status {
        let block = (self.memory.len() as u64).checked_div(self.piece).unwrap_or(0);
        let from = (self.done * block) as usize;
        let wanted = self.io.buffers().iter().flatten().skip(from);
        let differs = self.memory.iter().flatten().zip(wanted).position(|(found, wanted)| found != wanted);
        match differs {
            Some(at) => Err(IoErrorKind::Miscompare { offset: u32::try_from(from + at).unwrap_or(u32::MAX) }),
            None => Ok(()),
        }
    }
}

/// Tells the lanes of a device, and of those below it, to end the requests that they hold.
fn tell_of_reset(device: &dyn Device, awaited: &mut Vec<Delivered>) {
    awaited.extend(device.state().map(|state| state.tell_event(LaneEvent::Reset)));
    device.lowers().iter().for_each(|lower| tell_of_reset(&**lower, awaited));
}
