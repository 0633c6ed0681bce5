//! One thread's half of a [`File`](crate::File): requests become engine operations and come back.
//!
//! The engine's completions arrive at a sink of this thread, which polls the lane. An operation in the engine
//! owns the request's buffers; if the lane is dropped first, the buffers return to their pools when the
//! operation ends.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use spindle_engine::{Completion, Op, Output};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{OpId, OpSink, cancel_op, submit_op};

use crate::{
    Busy, Cx, Device, File, HeldRange, Io, IoError, IoErrorKind, IoId, Lane, LaneCx, Notifier, Operation,
    RemoteNotifier, Status, Submit,
};

/// EIO, for a transfer that ended early.
const EIO: i32 = 5;

/// How soon a transfer for which the process has no memory is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Completions on their way from the engine to the lane. Outlives the lane if operations do.
struct Arrivals {
    device: Arc<File>,
    list: RefCell<VecDeque<(u64, Completion)>>,
    notifier: Notifier,
    lane_is_gone: Cell<bool>,
    /// Ranges that operations of a dropped lane may still change.
    orphans: RefCell<Vec<(u64, HeldRange)>>,
}

impl OpSink for Arrivals {
    fn complete(&self, key: u64, completion: Completion) {
        if self.lane_is_gone.get() {
            return self.complete_orphan(key, completion);
        }
        self.list.borrow_mut().push_back((key, completion));
        self.notifier.notify();
    }
}

impl Arrivals {
    /// Handles the end of an operation whose lane was dropped with its thread.
    fn complete_orphan(&self, key: u64, completion: Completion) {
        if let Buffers::One(buffer) = completion.op.into_buffers() {
            // It may be a bounce buffer, for which other lanes wait.
            self.device.bounce.give_back(buffer);
        }
        let mut orphans = self.orphans.borrow_mut();
        let place = orphans.iter().position(|(orphan, _)| *orphan == key);
        let ended = place.map(|at| orphans.swap_remove(at));
        drop(orphans);
        drop(ended);
    }
}

/// What the engine currently does for a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The operation itself, with the request's own buffers.
    Plain,
    /// The operation in steps through a bounce buffer; the request keeps its own buffers.
    Bounced,
    /// The flush after a write that must be durable.
    Flush,
    /// Zeroes, because the file does not offer a discard.
    Zeroes,
}

/// A request that the engine works on.
struct Work {
    io: Io,
    stage: Stage,
    /// Bytes that earlier steps have moved through bounce buffers.
    moved: usize,
    /// The request must end early: no further step starts.
    aborted: bool,
    /// Set when no future or queue pair waits for the request: the range that it may still change.
    given_up: Option<HeldRange>,
}

impl Work {
    fn new(io: Io) -> Work {
        Work { io, stage: Stage::Plain, moved: 0, aborted: false, given_up: None }
    }

    /// True if the operation in the engine may change the file.
    fn changes_data(&self) -> bool {
        self.io.operation().changes_data() && self.stage != Stage::Flush
    }
}

struct Pending {
    work: Work,
    op: OpId,
}

/// A file's lane.
pub(crate) struct FileLane {
    device: Arc<File>,
    block_shift: u32,
    /// Required alignment of buffer addresses.
    address_unit: usize,
    /// Required alignment of buffer lengths.
    length_unit: usize,
    remote: RemoteNotifier,
    arrivals: Rc<Arrivals>,
    sink: Rc<dyn OpSink>,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
}

impl FileLane {
    pub(crate) fn new(device: Arc<File>, cx: &LaneCx<'_>) -> FileLane {
        let arrivals = Rc::new(Arrivals {
            device: device.clone(),
            list: RefCell::default(),
            notifier: cx.notifier(),
            lane_is_gone: Cell::new(false),
            orphans: RefCell::default(),
        });
        let info = device.info();
        // In direct transfers each part of a list must be whole sectors at an aligned address.
        let (address, sector) =
            if info.direct { (info.memory_alignment, info.logical_block) } else { (1, 1) };
        FileLane {
            address_unit: address.max(1) as usize,
            length_unit: sector.max(1) as usize,
            block_shift: device.geometry().block_shift(),
            remote: cx.remote_notifier(),
            sink: arrivals.clone(),
            arrivals,
            pending: Vec::new(),
            free: Vec::new(),
            device,
        }
    }

    /// Byte offset of the request.
    fn offset(&self, io: &Io) -> u64 {
        io.start() << self.block_shift
    }

    fn length(&self, io: &Io) -> u64 {
        io.count() << self.block_shift
    }

    fn aligned(&self, buffers: &Buffers) -> bool {
        buffers.iter().all(|part| {
            part.as_ptr().addr().is_multiple_of(self.address_unit)
                && part.len().is_multiple_of(self.length_unit)
        })
    }

    /// Hands `op` to the engine.
    fn start(&mut self, work: Work, op: Op) {
        let key = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        let op = submit_op(op, &self.sink, key as u64);
        self.pending[key] = Some(Pending { work, op });
    }

    /// Reads or writes, through bounce buffers if the engine could not use the request's own.
    fn transfer(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        if self.aligned(io.buffers()) {
            let (offset, buffers) = (self.offset(&io), io.take_buffers());
            let op = self.transfer_op(io.operation(), offset, buffers);
            self.start(Work::new(io), op);
            return Submit::Taken;
        }
        let step = self.device.bounce.step(io.buffers().len());
        match self.device.bounce.get(step, &self.remote) {
            Some(bounce) => {
                self.step(Work { stage: Stage::Bounced, ..Work::new(io) }, bounce);
                Submit::Taken
            }
            // The pool notifies this lane when memory has come back.
            None => {
                if self.device.bounce.is_idle() {
                    // None will come back: the process has none.
                    let again = cx.now() + RETRY;
                    cx.poll_at(again);
                }
                Submit::Full(io)
            }
        }
    }

    /// Moves the next bytes of a request through a bounce buffer.
    fn step(&mut self, work: Work, mut bounce: IoBuf) {
        let io = &work.io;
        bounce.truncate(io.buffers().len() - work.moved);
        if io.operation() == Operation::Write {
            io.buffers().copy_to(work.moved, &mut bounce);
        }
        let offset = self.offset(io) + work.moved as u64;
        let op = self.transfer_op(io.operation(), offset, Buffers::One(bounce));
        self.start(work, op);
    }

    fn transfer_op(&self, operation: Operation, offset: u64, buffers: Buffers) -> Op {
        let file = self.device.file.clone();
        match operation {
            Operation::Read => Op::Read { file, offset, buffers },
            _ => Op::Write { file, offset, buffers },
        }
    }

    /// Handles the end of an operation: ends the request or starts its next stage.
    fn arrived(&mut self, key: u64, completion: Completion, cx: &mut Cx<'_>) {
        let key = key as usize;
        let Some(Pending { mut work, .. }) = self.pending.get_mut(key).and_then(Option::take) else {
            return;
        };
        self.free.push(key);
        if work.stage == Stage::Bounced {
            return self.arrived_step(work, completion, cx);
        }
        let (operation, length) = (work.io.operation(), self.length(&work.io));
        let moved = operation.moves_data() && work.stage != Stage::Flush;
        let status = outcome(&completion.result, moved.then_some(length));
        if moved {
            work.io.put_buffers(completion.op.into_buffers());
        }
        if let Ok(Output::Found(byte)) = completion.result {
            let end = self.device.geometry().blocks();
            work.io.set_aux((byte >> self.block_shift).min(end));
        }
        let unoffered = matches!(&completion.result, Err(e) if e.kind() == io::ErrorKind::Unsupported);
        if unoffered && operation == Operation::Unmap && work.stage == Stage::Plain {
            self.unmap_unoffered(work, cx);
        } else if status.is_ok() && work.stage != Stage::Flush {
            self.finish(work, cx);
        } else {
            self.note_failure(&work, status, completion.result.is_ok());
            cx.done(work.io, status);
        }
    }

    /// Handles the end of a step; the bounce buffer serves the next step too.
    fn arrived_step(&mut self, mut work: Work, completion: Completion, cx: &mut Cx<'_>) {
        let Ok(bounce) = completion.op.into_buffers().into_one() else {
            return cx.done(work.io, Err(IoErrorKind::Device { errno: EIO }));
        };
        let status = outcome(&completion.result, Some(bounce.len() as u64));
        if status.is_ok() && work.io.operation() == Operation::Read {
            work.io.buffers_mut().copy_from(work.moved, &bounce);
        }
        work.moved += bounce.len();
        let more = work.moved < work.io.buffers().len();
        match status {
            Ok(()) if more && (work.aborted || work.given_up.is_some()) => {
                self.device.bounce.give_back(bounce);
                cx.done(work.io, Err(IoErrorKind::Aborted));
            }
            Ok(()) if more => self.step(work, bounce),
            Ok(()) => {
                self.device.bounce.give_back(bounce);
                self.finish(work, cx);
            }
            Err(_) => {
                self.note_failure(&work, status, completion.result.is_ok());
                self.device.bounce.give_back(bounce);
                cx.done(work.io, status);
            }
        }
    }

    /// Reports a failed request, or counts it. `short` if the system moved fewer bytes than it was asked for.
    fn note_failure(&self, work: &Work, status: Status, short: bool) {
        let Err(kind) = status else { return };
        let flushes = work.stage == Stage::Flush;
        let operation = if flushes { Operation::Flush } else { work.io.operation() };
        let (device, offset, len) = (self.device.name().into(), self.offset(&work.io), self.length(&work.io));
        let remedy = match short {
            true => "; the file has become shorter since it was opened: give it its size back",
            false => "",
        };
        self.device.faults.note(&IoError { device, operation, offset, len, kind }, remedy);
    }

    /// Ends a request whose operation succeeded, after a flush if it must be durable.
    fn finish(&mut self, work: Work, cx: &mut Cx<'_>) {
        if work.io.fua() && work.io.operation().changes_data() {
            let file = self.device.file.clone();
            // A flush changes nothing, so newer changes need not wait for it.
            self.start(Work { stage: Stage::Flush, given_up: None, ..work }, Op::Flush { file });
        } else {
            cx.done(work.io, Ok(()));
        }
    }

    /// A discard is advice, except where the device promised zeroes.
    fn unmap_unoffered(&mut self, work: Work, cx: &mut Cx<'_>) {
        if self.device.geometry().unmap_reads_zero() {
            let file = self.device.file.clone();
            let (offset, length) = (self.offset(&work.io), self.length(&work.io));
            self.start(Work { stage: Stage::Zeroes, ..work }, Op::ZeroRange { file, offset, length });
        } else {
            self.finish(work, cx);
        }
    }
}

/// The status of a request after its last operation, which should have moved `length` bytes, if any.
fn outcome(result: &io::Result<Output>, length: Option<u64>) -> Status {
    match result {
        // The file has become shorter since it was opened.
        Ok(output) if length.is_some_and(|length| output.bytes() as u64 != length) => {
            Err(IoErrorKind::Device { errno: EIO })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(IoErrorKind::from_os(error)),
    }
}

impl Lane for FileLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if let Err(kind) = io.check(&self.device.geometry()) {
            cx.done(io, Err(kind));
            return Submit::Taken;
        }
        if self.pending.len() - self.free.len() >= self.device.geometry().depth() as usize {
            return Submit::Full(io);
        }
        let (file, offset, length) = (self.device.file.clone(), self.offset(&io), self.length(&io));
        match io.operation() {
            Operation::Read | Operation::Write if io.count() > 0 => return self.transfer(io, cx),
            Operation::Flush => self.start(Work::new(io), Op::Flush { file }),
            Operation::Unmap if io.count() > 0 => {
                self.start(Work::new(io), Op::Discard { file, offset, length });
            }
            Operation::WriteZeroes if io.count() > 0 => {
                self.start(Work::new(io), Op::ZeroRange { file, offset, length });
            }
            Operation::SeekData | Operation::SeekHole if self.device.seeks() => {
                let (unit, hole) = (1 << self.block_shift, io.operation() == Operation::SeekHole);
                self.start(Work::new(io), Op::Seek { file, offset, unit, hole });
            }
            Operation::Read | Operation::Write | Operation::Unmap | Operation::WriteZeroes => {
                cx.done(io, Ok(()));
            }
            _ => cx.done(io, Err(IoErrorKind::Unsupported)),
        }
        Submit::Taken
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        let mut busy = Busy::No;
        loop {
            let arrived = self.arrivals.list.borrow_mut().pop_front();
            let Some((key, completion)) = arrived else { return busy };
            busy = Busy::Yes;
            self.arrived(key, completion, cx);
        }
    }

    fn abort(&mut self, id: IoId, _cx: &mut Cx<'_>) {
        for Pending { work, op } in self.pending.iter_mut().flatten() {
            if work.io.id() == id {
                work.aborted = true;
                cancel_op(*op);
            }
        }
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        let state = self.device.held_state();
        for Pending { work, .. } in self.pending.iter_mut().flatten() {
            if work.given_up.is_none() && work.changes_data() && cx.is_abandoned(&work.io) {
                work.given_up = Some(state.hold_range(work.io.start(), work.io.count()));
            }
        }
    }
}

impl Drop for FileLane {
    /// The thread exits: operations in the engine go on without the lane.
    fn drop(&mut self) {
        let state = self.device.held_state();
        self.arrivals.lane_is_gone.set(true);
        for (key, pending) in self.pending.iter_mut().enumerate() {
            let Some(Pending { work, .. }) = pending.as_mut().filter(|pending| pending.work.changes_data())
            else {
                continue;
            };
            let held = work.given_up.take();
            let range = held.unwrap_or_else(|| state.hold_range(work.io.start(), work.io.count()));
            self.arrivals.orphans.borrow_mut().push((key as u64, range));
        }
        // Completions that arrived unread belong to operations that have ended.
        let arrived = self.arrivals.list.take();
        arrived.into_iter().for_each(|(key, completion)| self.arrivals.complete_orphan(key, completion));
    }
}
