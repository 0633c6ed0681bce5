//! A device that stores nothing: writes vanish, reads leave the buffers as they are. For measuring what
//! everything above it costs. What a read returns is not promised.

use std::sync::Arc;

use crate::{Cx, Device, Geometry, Io, Lane, LaneCx, OpenError, Submit};

/// The device; shared by all threads, without state.
#[derive(Debug)]
pub struct Null {
    name: String,
    geometry: Geometry,
}

impl Null {
    /// A device of the given shape.
    pub fn new(name: impl Into<String>, geometry: Geometry) -> Arc<Null> {
        Arc::new(Null { name: name.into(), geometry })
    }
}

impl Device for Null {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
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
