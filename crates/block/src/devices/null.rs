//! A device that stores nothing: writes are discarded, reads give zeroes.
//!
//! For measuring the layers above there is a variant whose reads leave the buffers as they are. Those buffers
//! may hold data of other requests: use it only in programs that do not look at them.

use std::sync::Arc;

use spindle_mem::Buffers;

use crate::{
    Claim, CurrentGeometry, Cx, Delivered, Device, DeviceState, Geometry, GeometryError, Io, IoErrorKind,
    Lane, LaneCx, OpenError, Operation, Status, Submit,
};

/// The null device; shared by all threads, without data.
#[derive(Debug)]
pub struct Null {
    name: String,
    geometry: CurrentGeometry,
    state: DeviceState,
    claim: Claim,
    leaves_buffers_alone: bool,
}

impl Null {
    /// A device of the given shape.
    pub fn new(name: impl Into<String>, geometry: Geometry) -> Arc<Null> {
        Null::make(name.into(), geometry, false)
    }

    /// A device whose reads cost nothing, because they leave the buffers as they are. The buffers may hold
    /// data of other requests: do not expose it to users.
    pub fn leaving_buffers_alone(name: impl Into<String>, geometry: Geometry) -> Arc<Null> {
        Null::make(name.into(), geometry, true)
    }

    fn make(name: String, geometry: Geometry, leaves_buffers_alone: bool) -> Arc<Null> {
        let (state, claim) = (DeviceState::new(), Claim::default());
        Arc::new(Null { name, geometry: geometry.into(), state, claim, leaves_buffers_alone })
    }

    /// Changes the number of blocks and tells the lanes; the result resolves when all lanes know.
    ///
    /// # Errors
    /// No blocks, or too many; nothing has changed then.
    pub fn resize(&self, blocks: u64) -> Result<Delivered, GeometryError> {
        self.geometry.set_blocks(blocks)?;
        Ok(self.state.resized())
    }
}

impl Device for Null {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(NullLane { leaves_buffers_alone: self.leaves_buffers_alone }))
    }

    fn supports(&self, operation: Operation) -> bool {
        use Operation::{Compare, Flush, Read, Reset, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush | Compare | Reset)
    }
}

struct NullLane {
    leaves_buffers_alone: bool,
}

impl Lane for NullLane {
    #[inline]
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let status = match io.operation() {
            Operation::Read if self.leaves_buffers_alone => Ok(()),
            Operation::Read => {
                io.buffers_mut().fill(0);
                Ok(())
            }
            Operation::Write
            | Operation::WriteZeroes
            | Operation::Unmap
            | Operation::Flush
            | Operation::Reset => Ok(()),
            Operation::Compare => differs_from_zeroes(io.buffers()),
            Operation::CompareAndWrite | Operation::Copy | Operation::SeekData | Operation::SeekHole => {
                Err(IoErrorKind::Unsupported)
            }
        };
        cx.done(io, status);
        Submit::Taken
    }
}

fn differs_from_zeroes(buffers: &Buffers) -> Status {
    match buffers.iter().flatten().position(|byte| *byte != 0) {
        Some(at) => Err(IoErrorKind::Miscompare { offset: u32::try_from(at).unwrap_or(u32::MAX) }),
        None => Ok(()),
    }
}
