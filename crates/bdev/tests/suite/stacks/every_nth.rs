//! A module that fails every n-th request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_bdev::{Base, Bdev, BdevError, BdevSpec, Disk, Registry, Virtual};
use spindle_block::{
    Cx, Device, DeviceState, Io, IoErrorKind, Lane, LaneCx, LaneId, Layer, OpenError, Submit,
};

/// Makes one on a base.
pub async fn create(registry: &Registry, n: u64, base: &str) -> Bdev {
    registry.create_virtual(Spec { n, base: base.into() }).await.unwrap().swap_remove(0)
}

struct Spec {
    n: u64,
    base: String,
}

impl Virtual for Spec {
    fn module(&self) -> &'static str {
        "every nth"
    }
    fn key(&self) -> &str {
        "N"
    }
    fn base(&self) -> &str {
        &self.base
    }
    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let (n, below, state, seen) = (self.n, base.device(), DeviceState::new(), AtomicU64::new(0));
        let disk = Arc::new(EveryNthDisk(Arc::new(EveryNth { n, below, state, seen })));
        Ok(vec![BdevSpec::new("N", "every nth", "every nth", disk)])
    }
}

struct EveryNthDisk(Arc<EveryNth>);

impl Disk for EveryNthDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.0.clone()
    }
}

struct EveryNth {
    n: u64,
    below: Arc<dyn Device>,
    state: DeviceState,
    seen: AtomicU64,
}

impl Layer for EveryNth {
    fn name(&self) -> &str {
        "N"
    }
    fn below(&self) -> &Arc<dyn Device> {
        &self.below
    }
    fn state(&self) -> &DeviceState {
        &self.state
    }
    fn lane(self: Arc<Self>, below: LaneId, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(EveryNthLane { below, device: self }))
    }
}

struct EveryNthLane {
    below: LaneId,
    device: Arc<EveryNth>,
}

impl Lane for EveryNthLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let number = self.device.seen.fetch_add(1, Ordering::Relaxed) + 1;
        match number.is_multiple_of(self.device.n) {
            true => cx.done(io, Err(IoErrorKind::Device { errno: 5 })),
            false => cx.forward(self.below, io, [0, 0]),
        }
        Submit::Taken
    }
}
