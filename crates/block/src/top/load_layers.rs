//! Layers for measuring: one that passes requests on, and one that cuts them.
//!
//! Shared by all threads, without state; for measurements only.

use std::sync::Arc;

use crate::{Cx, Device, Geometry, Io, Lane, LaneCx, LaneId, OpenError, Submit};

/// A layer that passes every request on as it is.
pub struct Empty(Arc<dyn Device>);

impl Empty {
    /// `count` such layers on a device.
    pub fn layers(device: Arc<dyn Device>, count: usize) -> Arc<dyn Device> {
        (0..count).fold(device, |below, _| Arc::new(Empty(below)))
    }
}

impl Device for Empty {
    fn name(&self) -> &str {
        "empty"
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        vec![self.0.clone()]
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(EmptyLane(cx.open(&self.0)?)))
    }
}

struct EmptyLane(LaneId);

impl Lane for EmptyLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.relay(self.0, io);
        Submit::Taken
    }
}

/// A layer that cuts every request into equal pieces.
pub struct InPieces {
    below: Arc<dyn Device>,
    pieces: u64,
}

impl InPieces {
    /// Cuts into `pieces` pieces, of at least one block each.
    pub fn of(below: Arc<dyn Device>, pieces: u64) -> Arc<dyn Device> {
        Arc::new(InPieces { below, pieces: pieces.max(1) })
    }
}

impl Device for InPieces {
    fn name(&self) -> &str {
        "cutting"
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        vec![self.below.clone()]
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(CuttingLane { below: cx.open(&self.below)?, pieces: self.pieces }))
    }
}

struct CuttingLane {
    below: LaneId,
    pieces: u64,
}

impl Lane for CuttingLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let piece = io.count().div_ceil(self.pieces).max(1);
        let mut split = cx.split(io);
        while split.left() > 0 {
            cx.forward_piece(&mut split, self.below, piece);
        }
        cx.join(split);
        Submit::Taken
    }
}
