//! A device that stores nothing: writes vanish, reads leave the buffers as they are. For measuring what
//! everything above it costs. What a read returns is not promised.

use std::sync::Arc;

use crate::{
    CurrentGeometry, Cx, Delivered, Device, DeviceState, Geometry, GeometryError, Io, Lane, LaneCx,
    OpenError, Submit,
};

/// The device; shared by all threads, without data.
#[derive(Debug)]
pub struct Null {
    name: String,
    geometry: CurrentGeometry,
    state: DeviceState,
}

impl Null {
    /// A device of the given shape.
    pub fn new(name: impl Into<String>, geometry: Geometry) -> Arc<Null> {
        Arc::new(Null { name: name.into(), geometry: geometry.into(), state: DeviceState::new() })
    }

    /// Gives it another number of blocks and tells its lanes. What is returned resolves when all know.
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

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(NullLane))
    }
}

struct NullLane;

impl Lane for NullLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.done(io, Ok(()));
        Submit::Taken
    }
}
