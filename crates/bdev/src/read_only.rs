//! A read-only view of a device, for layers on a descriptor that may only read. Channels and queue
//! pairs refuse writes themselves.

use std::sync::Arc;

use spindle_block::{
    Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, OpenError, Operation, Submit,
};

/// The device below, with requests that change data refused.
pub(crate) struct ReadOnly {
    below: Arc<dyn Device>,
}

impl ReadOnly {
    pub(crate) fn over(below: Arc<dyn Device>) -> Arc<ReadOnly> {
        Arc::new(ReadOnly { below })
    }
}

impl Device for ReadOnly {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry().with_writable(false)
    }

    fn is_module(&self) -> bool {
        false
    }

    fn supports(&self, operation: Operation) -> bool {
        !operation.changes_data() && self.below.supports(operation)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(&self.below)?;
        Ok(Box::new(ReadOnlyLane { below }))
    }
}

struct ReadOnlyLane {
    below: LaneId,
}

impl Lane for ReadOnlyLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if io.operation().changes_data() {
            cx.done(io, Err(IoErrorKind::ReadOnly));
        } else {
            cx.relay(self.below, io);
        }
        Submit::Taken
    }
}
