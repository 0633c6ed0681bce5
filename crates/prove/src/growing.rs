//! A device that is smaller than its disk until it grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spindle_block::{Cx, Device, Geometry, Io, Lane, LaneCx, LaneId, OpenError, Submit};

/// The device; shared by all threads.
pub struct Growing {
    below: Arc<dyn Device>,
    small: Geometry,
    grown: AtomicBool,
}

impl Growing {
    /// Creates a device with the first `bytes` bytes of `below`, or all of it if it has `grown`.
    pub fn new(below: Arc<dyn Device>, bytes: u64, grown: bool) -> Arc<Growing> {
        let block = u64::from(below.geometry().block_size());
        let small = below.geometry().with_blocks(bytes / block).expect("a profile's disk has blocks");
        Arc::new(Growing { below, small, grown: grown.into() })
    }

    /// True once it has grown.
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::SeqCst)
    }

    /// Extends it to the size of the disk.
    pub fn grow(&self) {
        self.grown.store(true, Ordering::SeqCst);
    }
}

impl Device for Growing {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        if self.has_grown() { self.below.geometry() } else { self.small }
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(Pass(cx.open(&self.below)?)))
    }
}

struct Pass(LaneId);

impl Lane for Pass {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.relay(self.0, io);
        Submit::Taken
    }
}
