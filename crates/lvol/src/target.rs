//! The bdev that a shallow copy writes, which takes no more of it once the copy has to end.

use std::sync::Arc;

use spindle_block::{
    Cx, Device, DeviceState, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, OpenError, Operation, Submit,
};

/// Tells whether the copy is to go on.
type GoesOn = Arc<dyn Fn() -> bool + Send + Sync>;

pub(crate) struct Target {
    below: Arc<dyn Device>,
    goes_on: GoesOn,
    state: DeviceState,
}

impl Target {
    pub(crate) fn new(below: Arc<dyn Device>, goes_on: GoesOn) -> Arc<Target> {
        Arc::new(Target { below, goes_on, state: DeviceState::new() })
    }

    /// Ends the write under way, even if the bdev keeps it.
    pub(crate) fn give_up(&self) {
        drop(self.state.remove());
    }
}

impl Device for Target {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }

    fn is_module(&self) -> bool {
        false
    }

    fn supports(&self, operation: Operation) -> bool {
        self.below.supports(operation)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(&self.below)?;
        Ok(Box::new(TargetLane { below, goes_on: self.goes_on.clone() }))
    }
}

struct TargetLane {
    below: LaneId,
    goes_on: GoesOn,
}

impl Lane for TargetLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        // A copy that is whole may still be flushed.
        if io.operation().changes_data() && !(self.goes_on)() {
            cx.done(io, Err(IoErrorKind::Aborted));
        } else {
            cx.relay(self.below, io);
        }
        Submit::Taken
    }
}
