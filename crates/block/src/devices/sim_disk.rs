//! The simulated disk as a block device, without an engine in between.
//!
//! A [`SimDisk`] uses the fault model's [`Disk`], which other threads may hold too, to crash it, to make it
//! fail or to inspect it. Each lane keeps its requests and completes some of them, in an order derived from
//! the seed, in each later turn of its thread; a request takes effect when it completes. The same seed and
//! the same calls give the same history. No time passes: for a disk whose requests take (virtual) time,
//! register the `Disk` with the simulated world and open a [`File`](crate::File) under its path.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_engine::sim::{Disk, UnmapReads};
use spindle_mem::Buffers;

use crate::{
    Busy, Claim, Cx, Device, DeviceState, Geometry, GeometryError, HeldRange, Io, IoErrorKind, IoId, Lane,
    LaneCx, OpenError, Operation,
};
use crate::{Status, Submit};

/// The simulated device; shared by all threads.
pub struct SimDisk {
    name: String,
    geometry: Geometry,
    disk: Disk,
    seed: Option<u64>,
    lanes: AtomicU64,
    claim: Claim,
    state: DeviceState,
}

impl SimDisk {
    /// A device on `disk` whose completions are delayed and reordered by `seed`.
    ///
    /// # Errors
    /// [`Geometry`](OpenError::Geometry) for a disk that is not a whole number of 512-byte blocks.
    pub fn new(name: impl Into<String>, disk: Disk, seed: u64) -> Result<Arc<SimDisk>, OpenError> {
        SimDisk::make(name.into(), disk, Some(seed))
    }

    /// A device on `disk` whose requests complete in the call that submits them: the fastest, for crash tests
    /// that only look at the disk's contents.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn immediate(name: impl Into<String>, disk: Disk) -> Result<Arc<SimDisk>, OpenError> {
        SimDisk::make(name.into(), disk, None)
    }

    fn make(name: String, disk: Disk, seed: Option<u64>) -> Result<Arc<SimDisk>, OpenError> {
        match geometry(&disk) {
            Ok(geometry) => Ok(Arc::new(SimDisk {
                name,
                geometry,
                disk,
                seed,
                lanes: AtomicU64::new(0),
                claim: Claim::default(),
                state: DeviceState::new(),
            })),
            Err(source) => Err(OpenError::Geometry { device: name, source }),
        }
    }

    /// The underlying disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

fn geometry(disk: &Disk) -> Result<Geometry, GeometryError> {
    let options = disk.options();
    let block_size = options.block.max(512);
    Ok(Geometry::of_bytes(block_size, options.size)?
        .with_atomic_unit(options.atomic_unit.max(block_size))?
        .with_volatile_cache(options.volatile_cache)
        .with_unmap_reads_zero(options.discard == Some(UnmapReads::Zero)))
}

impl Device for SimDisk {
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
        use Operation::{Flush, Read, Reset, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush | Reset)
    }

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        // Each lane has its own sequence; otherwise two lanes would mirror each other.
        let number = self.lanes.fetch_add(1, Ordering::Relaxed);
        let random = self.seed.map(|seed| Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)));
        Ok(Box::new(SimLane {
            device: self,
            random,
            held: Vec::new(),
            given_up: Vec::new(),
            gathered: Vec::new(),
        }))
    }
}

struct SimLane {
    device: Arc<SimDisk>,
    random: Option<Random>,
    held: Vec<Io>,
    /// Ranges that abandoned requests may still change.
    given_up: Vec<(IoId, HeldRange)>,
    /// Joins the parts of a list: the disk takes a request whole.
    gathered: Vec<u8>,
}

impl SimLane {
    fn perform(&mut self, io: &mut Io) -> Status {
        let device = self.device.clone();
        let (disk, shift) = (&device.disk, device.geometry.block_shift());
        let (offset, length) = (io.start() << shift, io.count() << shift);
        let done = match io.operation() {
            Operation::Read => self.read(offset, io.buffers_mut()),
            Operation::Write => self.write(offset, io.buffers()),
            Operation::WriteZeroes => disk.zero_range(offset, length),
            Operation::Unmap => match disk.discard(offset, length) {
                // A discard is advice: a disk that does not offer it keeps its data.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
                done => done,
            },
            Operation::Flush => disk.flush(),
            Operation::Reset => Ok(()),
            _ => return Err(IoErrorKind::Unsupported),
        };
        let durable = io.fua() && io.operation().changes_data();
        let done = if durable { done.and_then(|()| disk.flush()) } else { done };
        done.map_err(|error| IoErrorKind::from_os(&error))
    }

    fn read(&mut self, offset: u64, buffers: &mut Buffers) -> io::Result<()> {
        let disk = &self.device.disk;
        if let Buffers::One(buffer) = buffers {
            return disk.read(offset, buffer);
        }
        self.gathered.resize(buffers.len(), 0);
        disk.read(offset, &mut self.gathered)?;
        let mut at = 0;
        for part in buffers.iter_mut() {
            part.copy_from_slice(&self.gathered[at..at + part.len()]);
            at += part.len();
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, buffers: &Buffers) -> io::Result<()> {
        let disk = &self.device.disk;
        if let Buffers::One(buffer) = buffers {
            return disk.write(offset, buffer);
        }
        self.gathered.clear();
        buffers.iter().for_each(|part| self.gathered.extend_from_slice(part));
        disk.write(offset, &self.gathered)
    }
}

impl Lane for SimLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        if let Err(kind) = io.check(&self.device.geometry) {
            cx.done(io, Err(kind));
        } else if self.random.is_some() {
            self.held.push(io);
            cx.poll_soon();
        } else {
            let status = self.perform(&mut io);
            cx.done(io, status);
        }
        Submit::Taken
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        let Some(random) = &mut self.random else { return Busy::No };
        if self.held.is_empty() {
            return Busy::No;
        }
        // Sometimes none: users must not rely on a request being quick.
        for _ in 0..random.below(self.held.len() + 1) {
            let Some(random) = &mut self.random else { break };
            let at = random.below(self.held.len());
            let mut io = self.held.swap_remove(at);
            let status = self.perform(&mut io);
            self.given_up.retain(|(id, _)| *id != io.id());
            cx.done(io, status);
        }
        if !self.held.is_empty() {
            cx.poll_soon();
        }
        Busy::Yes
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        if let Some(at) = self.held.iter().position(|io| io.id() == id) {
            self.given_up.retain(|(given_up, _)| *given_up != id);
            cx.done(self.held.swap_remove(at), Err(IoErrorKind::Aborted));
        }
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        for io in &self.held {
            let known = self.given_up.iter().any(|(id, _)| *id == io.id());
            if io.operation().changes_data() && !known && cx.is_abandoned(io) {
                let range = self.device.state.hold_range(io.start(), io.count());
                self.given_up.push((io.id(), range));
            }
        }
    }
}

/// A small generator (splitmix64): any seed will do, equal seeds give equal sequences.
struct Random(u64);

impl Random {
    /// A number from 0 to `n - 1`.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
