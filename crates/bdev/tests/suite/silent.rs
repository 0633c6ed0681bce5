//! A device that answers nothing: it keeps each request until it is removed, or told to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_bdev::{Bdev, BdevSpec, PlainDisk, Registry};
use spindle_block::{
    Cx, Device, DeviceState, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneEvent, OpenError, Operation, Submit,
};

/// A registered silent bdev of 64 blocks of 512 bytes, and its device. Does not wait for its examination.
pub fn begin(registry: &Registry, name: &str, shape: Geometry) -> (Arc<Silent>, Registered) {
    let device =
        Arc::new(Silent { name: name.into(), shape, state: DeviceState::new(), kept: AtomicU64::new(0) });
    let spec = BdevSpec::new(name, "silent", "silent", Arc::new(PlainDisk::new(device.clone())));
    let registry = registry.clone();
    let registered = spindle_reactor::spawn_local(async move { registry.register(spec).await });
    (device, registered)
}

/// The registration, with its examination.
pub type Registered = spindle_reactor::JoinHandle<Result<Bdev, spindle_bdev::BdevError>>;

/// As [`begin`], registered.
pub async fn create(registry: &Registry, name: &str, shape: Geometry) -> (Arc<Silent>, Bdev) {
    let (device, registered) = begin(registry, name, shape);
    (device, registered.await.unwrap().unwrap())
}

pub struct Silent {
    name: String,
    shape: Geometry,
    state: DeviceState,
    kept: AtomicU64,
}

impl Silent {
    /// Requests that it has.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Answers all that it has now.
    pub async fn answer(&self) {
        self.state.send(Arc::new(Answer)).await;
    }
}

struct Answer;

impl Device for Silent {
    fn name(&self) -> &str {
        &self.name
    }
    fn geometry(&self) -> Geometry {
        self.shape
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn supports(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::Write | Operation::Flush)
    }
    fn lane(self: Arc<Self>, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(SilentLane { device: self, kept: Vec::new() }))
    }
}

struct SilentLane {
    device: Arc<Silent>,
    kept: Vec<Io>,
}

impl Lane for SilentLane {
    fn submit(&mut self, io: Io, _: &mut Cx<'_>) -> Submit {
        self.device.kept.fetch_add(1, Ordering::Relaxed);
        self.kept.push(io);
        Submit::Taken
    }
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        let status = match event {
            LaneEvent::Removed => Err(IoErrorKind::Removed),
            LaneEvent::Module(own) if own.is::<Answer>() => Ok(()),
            // Deaf as well: not even a reset ends what it has.
            _ => return,
        };
        for io in self.kept.drain(..) {
            self.device.kept.fetch_sub(1, Ordering::Relaxed);
            cx.done(io, status);
        }
    }
}
