//! A RAM disk.
//!
//! All threads share its memory, and only the copying routines of [`SharedMem`](spindle_mem::SharedMem) touch
//! it: two cores that write the same block at once get some mix of both writes, as on any disk. Requests
//! complete in the call that submits them, except long ones without data, which take several turns.
//!
//! Memory is taken as it is written to, 2 MiB at a time where the system has huge pages. What is unmapped or zeroed
//! is zeroed in place and keeps its memory for what is written there next; unmaps of more than 256 MiB give it back,
//! in pieces of 2 MiB, once the lanes of all threads have ended the writes that they were in. Contents are lost with the device.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use spindle_mem::{Buffers, Leaving, SharedMem};

use crate::{
    Busy, Claim, Cx, Delivered, Device, DeviceState, Geometry, Io, IoErrorKind, IoId, Lane, LaneCx,
    OpenError, Operation, Status, Submit,
};

/// Bytes that are zeroed in one turn, besides those of short requests.
const STEP: usize = 2 << 20;

/// The longest request without data that counts as short.
const SHORT: u64 = 64 << 10;

/// The longest unmap whose memory is kept.
const KEPT: u64 = 256 << 20;

/// The RAM disk; owns the memory.
pub struct Malloc {
    name: String,
    geometry: Geometry,
    memory: SharedMem,
    claim: Claim,
    state: DeviceState,
}

impl Malloc {
    /// A disk of `blocks` blocks of `block_size` bytes, all zero.
    ///
    /// # Errors
    /// [`Geometry`](OpenError::Geometry) for an invalid block size or size, [`System`](OpenError::System) if
    /// the address space does not hold it.
    pub fn new(name: impl Into<String>, block_size: u32, blocks: u64) -> Result<Arc<Malloc>, OpenError> {
        let name = name.into();
        match Geometry::new(block_size, blocks) {
            Ok(geometry) => Malloc::with_geometry(name, geometry.with_unmap_reads_zero(true)),
            Err(source) => Err(OpenError::Geometry { device: name, source }),
        }
    }

    /// A disk of `bytes` bytes, all zero, in blocks of 4096.
    ///
    /// # Errors
    /// As [`new`](Self::new); `bytes` must be a multiple of 4096.
    pub fn of_bytes(name: impl Into<String>, bytes: u64) -> Result<Arc<Malloc>, OpenError> {
        let name = name.into();
        match Geometry::of_bytes(4096, bytes) {
            Ok(geometry) => Malloc::with_geometry(name, geometry.with_unmap_reads_zero(true)),
            Err(source) => Err(OpenError::Geometry { device: name, source }),
        }
    }

    /// A disk that claims the given shape: a boundary, a transfer limit, read-only. Unmapped blocks read
    /// zero with any shape.
    ///
    /// # Errors
    /// [`System`](OpenError::System) if the address space does not hold it.
    pub fn with_geometry(name: impl Into<String>, geometry: Geometry) -> Result<Arc<Malloc>, OpenError> {
        let name = name.into();
        let made = usize::try_from(geometry.bytes()).map_err(std::io::Error::other).and_then(SharedMem::new);
        match made {
            Ok(memory) => Ok(Arc::new(Malloc {
                name,
                geometry,
                memory,
                claim: Claim::default(),
                state: DeviceState::new(),
            })),
            Err(source) => Err(OpenError::System { device: name, source }),
        }
    }
}

impl Device for Malloc {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }

    fn supports(&self, operation: Operation) -> bool {
        use Operation::{CompareAndWrite, SeekData, SeekHole};
        !matches!(operation, SeekData | SeekHole | CompareAndWrite)
    }

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let waker = Waker::from(Arc::new(cx.remote_notifier()));
        Ok(Box::new(MallocLane { disk: self, zeroed: 0, long: VecDeque::new(), giving: Vec::new(), waker }))
    }
}

struct MallocLane {
    disk: Arc<Malloc>,
    /// Bytes zeroed as they came in this turn.
    zeroed: u64,
    /// Ranges that are zeroed in steps, and how many bytes of each are; they take turns.
    long: VecDeque<(Io, usize)>,
    /// Unmaps that give memory back when all lanes have been told, so that no write is in it.
    giving: Vec<(Io, Leaving, Delivered)>,
    /// Polls it when all lanes have been told.
    waker: Waker,
}

/// Carries nothing: a lane that has handled it is in no write that began earlier.
struct NoWriteIsLeft;

impl Lane for MallocLane {
    #[inline]
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let Malloc { geometry, memory, .. } = &*self.disk;
        let mut status = io.check(geometry);
        if status.is_ok() {
            if let Operation::WriteZeroes | Operation::Unmap = io.operation()
                && io.count() << geometry.block_shift() > SHORT
            {
                self.zeroed += io.count() << geometry.block_shift();
                // Counts from 0 again then, or takes a step.
                cx.poll_soon();
                if self.zeroed > STEP as u64 {
                    return self.begin(io, cx);
                }
            }
            status = perform(memory, geometry.block_shift(), &mut io);
        }
        cx.done(io, status);
        Submit::Taken
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        self.zeroed = 0;
        let gave = self.give_back(cx);
        // A step of each in turn, so that none waits for all of another.
        let Some((io, done)) = self.long.pop_front() else { return gave };
        let (from, len) = self.disk.range(&io);
        let done = done + self.disk.memory.zero_some(from + done, len - done, STEP);
        match done == len {
            true => cx.done(io, Ok(())),
            false => self.long.push_back((io, done)),
        }
        if !self.long.is_empty() {
            // In another turn: its thread has other lanes.
            cx.poll_soon();
        }
        Busy::Yes
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        self.end(|io, cx| cx.is_abandoned(io), cx);
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        self.end(|io, _| io.id() == id, cx);
    }
}

impl MallocLane {
    /// Begins to zero a long range.
    #[cold]
    fn begin(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let (from, len) = self.disk.range(&io);
        if io.operation() == Operation::Unmap && len as u64 > KEPT {
            let leaving = self.disk.memory.begin_to_give_back(from, len);
            self.giving.push((io, leaving, self.disk.state.send(Arc::new(NoWriteIsLeft))));
            self.give_back(cx);
        } else {
            self.long.push_back((io, 0));
        }
        Submit::Taken
    }

    /// Gives back the memory that no write can still use.
    fn give_back(&mut self, cx: &mut Cx<'_>) -> Busy {
        let told = &mut Context::from_waker(&self.waker);
        let over = |(_, _, all): &mut (Io, Leaving, Delivered)| Pin::new(all).poll(told).is_ready();
        let over: Vec<_> = self.giving.extract_if(.., over).collect();
        let busy = if over.is_empty() { Busy::No } else { Busy::Yes };
        for (io, leaving, _) in over {
            self.disk.memory.give_back(leaving);
            cx.done(io, Ok(()));
        }
        busy
    }

    /// Ends some of the long requests early.
    fn end(&mut self, ends: impl Fn(&Io, &Cx<'_>) -> bool, cx: &mut Cx<'_>) {
        for _ in 0..self.long.len() {
            let Some((io, done)) = self.long.pop_front() else { break };
            match ends(&io, cx) {
                true => cx.done(io, Err(IoErrorKind::Aborted)),
                false => self.long.push_back((io, done)),
            }
        }
    }
}

impl Malloc {
    /// First byte and length of a request's range, which lies in the memory.
    fn range(&self, io: &Io) -> (usize, usize) {
        let shift = self.geometry.block_shift();
        ((io.start() << shift) as usize, (io.count() << shift) as usize)
    }
}

/// Performs a request whose ranges lie in the memory, so that every offset in it fits a usize.
#[inline]
fn perform(memory: &SharedMem, shift: u32, io: &mut Io) -> Status {
    let mut at = (io.start() << shift) as usize;
    match io.operation() {
        Operation::Read => {
            for part in io.buffers_mut().iter_mut() {
                memory.read(at, part);
                at += part.len();
            }
        }
        Operation::Write => {
            for part in io.buffers().iter() {
                memory.write(at, part);
                at += part.len();
            }
        }
        Operation::WriteZeroes | Operation::Unmap => memory.zero(at, (io.count() << shift) as usize),
        Operation::Flush | Operation::Reset => {}
        Operation::Compare => return compare(memory, at, io.buffers()),
        Operation::Copy => copy(memory, at, (io.aux() << shift) as usize, (io.count() << shift) as usize),
        // Seeks cannot tell never-written pages from others.
        Operation::SeekData | Operation::SeekHole | Operation::CompareAndWrite => {
            return Err(IoErrorKind::Unsupported);
        }
    }
    Ok(())
}

/// Compares piece by piece: the memory may change meanwhile and is never a slice.
fn compare(memory: &SharedMem, from: usize, buffers: &Buffers) -> Status {
    let (mut piece, mut offset) = ([0; 512], 0);
    for wanted in buffers.iter().flat_map(|part| part.chunks(512)) {
        let found = &mut piece[..wanted.len()];
        memory.read(from + offset, found);
        if let Some(at) = found.iter().zip(wanted).position(|(a, b)| a != b) {
            return Err(IoErrorKind::Miscompare { offset: u32::try_from(offset + at).unwrap_or(u32::MAX) });
        }
        offset += wanted.len();
    }
    Ok(())
}

/// Copies; overlapping ranges behave as if everything was read first.
fn copy(memory: &SharedMem, to: usize, from: usize, len: usize) {
    let step = to.abs_diff(from);
    let mut left = if step == 0 { 0 } else { len };
    while left > 0 {
        let now = left.min(step);
        // From the end if the target lies after the source.
        let at = if to > from { left - now } else { len - left };
        memory.copy_from(to + at, memory, from + at, now);
        left -= now;
    }
}
