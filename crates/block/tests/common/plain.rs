//! A layer that reads and writes, and supports no other operation.

use std::sync::Arc;

use spindle_block::{Cx, Device, Io, Lane, LaneCx, LaneId, Layer, LayerParts, OpenError, Operation, Submit};

pub struct Plain(LayerParts);

impl Plain {
    pub fn over(below: Arc<dyn Device>) -> Arc<Plain> {
        Arc::new(Plain(LayerParts::new("plain", below)))
    }
}

impl Layer for Plain {
    fn parts(&self) -> &LayerParts {
        &self.0
    }
    fn supports(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::Write)
    }
    fn lane(self: Arc<Self>, below: LaneId, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(Through(below)))
    }
}

struct Through(LaneId);

impl Lane for Through {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.0, io, [0, 0]);
        Submit::Taken
    }
}
