//! One thread's half of a [`File`](crate::File): requests become engine operations and come back.
//!
//! The engine's completions arrive at a sink of this thread, which has the lane polled. While an operation
//! is in the engine it owns the request's buffers; if the lane goes first, they return to their pools when
//! the operation ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use spindle_engine::{Completion, Op, Output};
use spindle_mem::Buffers;
use spindle_reactor::{OpId, OpSink, cancel_op, submit_op};

use crate::{
    Busy, Cx, Device, File, HeldRange, Io, IoErrorKind, IoId, Lane, Notifier, Operation, Status, Submit,
};

/// An input or output error, as the system numbers it: a transfer that ended early.
const EIO: i32 = 5;
/// Out of memory, as the system numbers it.
const ENOMEM: i32 = 12;

/// Completions on their way from the engine to the lane. Outlives the lane if operations do.
struct Arrivals {
    list: RefCell<VecDeque<(u64, Completion)>>,
    notifier: Notifier,
    /// What operations may still change whose lane is gone.
    orphans: RefCell<Vec<(u64, HeldRange)>>,
}

impl OpSink for Arrivals {
    fn complete(&self, key: u64, completion: Completion) {
        let mut orphans = self.orphans.borrow_mut();
        if let Some(at) = orphans.iter().position(|(orphan, _)| *orphan == key) {
            let ended = orphans.swap_remove(at);
            drop(orphans);
            return drop(ended);
        }
        drop(orphans);
        self.list.borrow_mut().push_back((key, completion));
        self.notifier.notify();
    }
}

/// What the engine does for a request now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The operation itself, with the request's own buffers.
    Plain,
    /// The same with a bounce buffer; the request keeps its own.
    Bounced,
    /// The flush behind a write that must be durable.
    Flush,
    /// Zeroes instead of a discard that is not offered.
    Zeroes,
}

struct Pending {
    io: Io,
    stage: Stage,
    op: OpId,
    /// Nobody waits for the request any more; what it may still change.
    given_up: Option<HeldRange>,
}

impl Pending {
    /// Whether the operation that the engine has may change the file.
    fn changes_data(&self) -> bool {
        self.io.operation().changes_data() && self.stage != Stage::Flush
    }
}

/// The lane.
pub(crate) struct FileLane {
    device: Arc<File>,
    block_shift: u32,
    /// What addresses of buffers must be multiples of.
    address_unit: usize,
    /// What lengths of buffers must be multiples of.
    length_unit: usize,
    arrivals: Rc<Arrivals>,
    sink: Rc<dyn OpSink>,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
}

impl FileLane {
    pub(crate) fn new(device: Arc<File>, notifier: Notifier) -> FileLane {
        let arrivals = Rc::new(Arrivals { list: RefCell::default(), notifier, orphans: RefCell::default() });
        let info = device.info();
        // Direct transfers need each part of a list to be whole sectors at aligned addresses.
        let (address, sector) =
            if info.direct { (info.memory_alignment, info.logical_block) } else { (1, 1) };
        FileLane {
            address_unit: address.max(1) as usize,
            length_unit: sector.max(1) as usize,
            block_shift: device.geometry().block_shift(),
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

    /// Hands `op` to the engine on behalf of `io`.
    fn start(&mut self, io: Io, stage: Stage, op: Op) {
        let key = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        let op = submit_op(op, &self.sink, key as u64);
        self.pending[key] = Some(Pending { io, stage, op, given_up: None });
    }

    /// Reads or writes, through a bounce buffer if the engine could not use the request's own.
    fn transfer(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let (file, offset) = (self.device.file.clone(), self.offset(&io));
        let (stage, buffers) = if self.aligned(io.buffers()) {
            (Stage::Plain, io.take_buffers())
        } else {
            let Ok(mut bounce) = self.device.bounce.get(io.buffers().len()) else {
                if self.free.len() < self.pending.len() {
                    return Submit::Full(io);
                }
                cx.done(io, Err(IoErrorKind::Device { errno: ENOMEM }));
                return Submit::Taken;
            };
            if io.operation() == Operation::Write {
                io.buffers().copy_to(0, &mut bounce);
            }
            (Stage::Bounced, Buffers::One(bounce))
        };
        let op = match io.operation() {
            Operation::Read => Op::Read { file, offset, buffers },
            _ => Op::Write { file, offset, buffers },
        };
        self.start(io, stage, op);
        Submit::Taken
    }

    /// One operation ended: the request does too, or goes to its next stage.
    fn arrived(&mut self, key: u64, completion: Completion, cx: &mut Cx<'_>) {
        let key = key as usize;
        let Some(Pending { mut io, stage, .. }) = self.pending.get_mut(key).and_then(Option::take) else {
            return;
        };
        self.free.push(key);
        let status = outcome(&completion.result, io.operation(), stage, self.length(&io));
        match stage {
            Stage::Plain if io.operation().moves_data() => io.put_buffers(completion.op.into_buffers()),
            Stage::Bounced if io.operation() == Operation::Read && status.is_ok() => {
                let bounce = completion.op.into_buffers();
                let mut at = 0;
                for part in io.buffers_mut().iter_mut() {
                    at += bounce.copy_to(at, part);
                }
            }
            _ => {}
        }
        let unoffered = matches!(&completion.result, Err(e) if e.kind() == io::ErrorKind::Unsupported);
        if unoffered && io.operation() == Operation::Unmap && stage == Stage::Plain {
            self.unmap_unoffered(io, cx);
        } else if status.is_ok() && stage != Stage::Flush {
            self.finish(io, cx);
        } else {
            cx.done(io, status);
        }
    }

    /// What was asked is done; durable, if that was asked, after a flush.
    fn finish(&mut self, io: Io, cx: &mut Cx<'_>) {
        if io.fua() && io.operation().changes_data() {
            let file = self.device.file.clone();
            self.start(io, Stage::Flush, Op::Flush { file });
        } else {
            cx.done(io, Ok(()));
        }
    }

    /// A discard is advice, except where the device promised zeroes.
    fn unmap_unoffered(&mut self, io: Io, cx: &mut Cx<'_>) {
        if self.device.geometry().unmap_reads_zero() {
            let (file, offset, length) = (self.device.file.clone(), self.offset(&io), self.length(&io));
            self.start(io, Stage::Zeroes, Op::ZeroRange { file, offset, length });
        } else {
            self.finish(io, cx);
        }
    }
}

/// How the request ends if this operation was its last.
fn outcome(result: &io::Result<Output>, operation: Operation, stage: Stage, length: u64) -> Status {
    match result {
        Ok(output) if operation.moves_data() && stage != Stage::Flush && output.bytes() as u64 != length => {
            // The file became shorter than it was when it was opened.
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
            Operation::Flush => self.start(io, Stage::Plain, Op::Flush { file }),
            Operation::Unmap if io.count() > 0 => {
                self.start(io, Stage::Plain, Op::Discard { file, offset, length })
            }
            Operation::WriteZeroes if io.count() > 0 => {
                self.start(io, Stage::Plain, Op::ZeroRange { file, offset, length });
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
        for pending in self.pending.iter().flatten() {
            if pending.io.id() == id {
                cancel_op(pending.op);
            }
        }
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        let state = self.device.held_state();
        for pending in self.pending.iter_mut().flatten() {
            if pending.given_up.is_none() && pending.changes_data() && cx.is_abandoned(&pending.io) {
                pending.given_up = Some(state.hold_range(pending.io.start(), pending.io.count()));
            }
        }
    }
}

impl Drop for FileLane {
    /// The thread exits: what the engine has of it goes on.
    fn drop(&mut self) {
        let state = self.device.held_state();
        for (key, pending) in self.pending.iter_mut().enumerate() {
            let Some(pending) = pending.as_mut().filter(|pending| pending.changes_data()) else { continue };
            let (start, count) = (pending.io.start(), pending.io.count());
            let range = pending.given_up.take().unwrap_or_else(|| state.hold_range(start, count));
            self.arrivals.orphans.borrow_mut().push((key as u64, range));
        }
    }
}
