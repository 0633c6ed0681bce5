//! A RAM disk.
//!
//! Its memory is shared by all threads and touched only by the copying routines of
//! [`SharedMem`](spindle_mem::SharedMem): two cores that write the same block at once get some mix of both
//! writes, as on any disk, and nothing worse. Requests complete in the call that submits them. Pages that
//! were never written take no memory, and unmapped ones are given back. Nothing survives the device.

use std::sync::Arc;

use spindle_mem::SharedMem;

use crate::{Claim, Cx, Device, DeviceState, Geometry, Io, Lane, LaneCx, OpenError, Operation, Submit};

/// The device; holds the memory.
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
    /// [`Geometry`](OpenError::Geometry) for a block size or size that no device has,
    /// [`System`](OpenError::System) if the address space does not hold it.
    pub fn new(name: impl Into<String>, block_size: u32, blocks: u64) -> Result<Arc<Malloc>, OpenError> {
        let name = name.into();
        match Geometry::new(block_size, blocks) {
            Ok(geometry) => Malloc::with_geometry(name, geometry.with_unmap_reads_zero(true)),
            Err(source) => Err(OpenError::Geometry { device: name, source }),
        }
    }

    /// A disk that claims the given shape: a boundary, a transfer limit, read-only. Unmapped blocks read
    /// zero whatever it claims.
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

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(MallocLane(self)))
    }
}

struct MallocLane(Arc<Malloc>);

impl Lane for MallocLane {
    #[inline]
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let Malloc { geometry, memory, .. } = &*self.0;
        let status = io.check(geometry);
        if status.is_ok() {
            // In range, and the memory's length is a usize: so is every offset in it.
            let mut at = (io.start() << geometry.block_shift()) as usize;
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
                Operation::WriteZeroes | Operation::Unmap => {
                    memory.zero(at, (io.count() << geometry.block_shift()) as usize);
                }
                Operation::Flush => {}
            }
        }
        cx.done(io, status);
        Submit::Taken
    }
}
