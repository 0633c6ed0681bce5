//! A module that does as little as a module may: it reads, writes and flushes a few blocks at a time, takes few
//! requests at once, passes them on later, and changes its size.

use std::sync::Arc;

use spindle_bdev::{Base, Bdev, BdevError, BdevSpec, Disk, Recipe, Registry, Virtual};
use spindle_block::{
    Busy, CurrentGeometry, Cx, Device, Geometry, Io, IoErrorKind, IoId, Lane, LaneCx, LaneEvent, LaneId,
    Layer, LayerParts, OpenError, Operation, Status, Submit,
};

/// Requests that a lane takes at once.
const ROOM: usize = 3;

/// Blocks of a transfer.
const MOST: u32 = 7;

/// Makes an awkward bdev on a base.
pub async fn create(registry: &Registry, name: &str, base: &str) -> (Bdev, Arc<Awkward>) {
    let made = registry.create_virtual(Spec { name: name.into(), base: base.into() }).await.unwrap();
    let bdev = made.into_iter().next().unwrap();
    let disk: &dyn std::any::Any = &**bdev.disk();
    let device = disk.downcast_ref::<AwkwardDisk>().unwrap().0.clone();
    (bdev, device)
}

struct Spec {
    name: String,
    base: String,
}

impl Virtual for Spec {
    fn module(&self) -> &'static str {
        "awkward"
    }
    fn key(&self) -> &str {
        &self.name
    }
    fn base(&self) -> &str {
        &self.base
    }
    fn recipe(&self) -> Option<Recipe> {
        None
    }
    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let geometry = base.geometry().with_max_transfer(MOST).unwrap();
        let parts = LayerParts::new(&self.name, base.device());
        let device = Arc::new(Awkward { parts, geometry: geometry.into() });
        Ok(vec![BdevSpec::new(&self.name, "awkward", "awkward", Arc::new(AwkwardDisk(device)))])
    }
}

struct AwkwardDisk(Arc<Awkward>);

impl Disk for AwkwardDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.0.clone()
    }
}

pub struct Awkward {
    parts: LayerParts,
    geometry: CurrentGeometry,
}

impl Awkward {
    /// Takes `blocks` off its end, or gives them back.
    pub async fn resize(&self, bdev: &Bdev, blocks: u64, gives: bool) {
        let all = self.parts.below().geometry().blocks();
        let frozen = self.parts.state().freeze().await;
        self.geometry.set_blocks(if gives { all } else { all - blocks }).unwrap();
        let told = self.parts.state().resized();
        drop(frozen);
        told.await;
        bdev.resized();
    }
}

impl Layer for Awkward {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }
    fn supports(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::Write | Operation::Flush)
    }
    fn lane(self: Arc<Self>, below: LaneId, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(AwkwardLane { below, kept: Vec::new(), below_now: 0 }))
    }
}

struct AwkwardLane {
    below: LaneId,
    kept: Vec<Io>,
    below_now: usize,
}

impl Lane for AwkwardLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match io.operation() {
            Operation::Read | Operation::Write if io.count() > u64::from(MOST) => {
                cx.done(io, Err(IoErrorKind::OutOfRange));
            }
            Operation::Read | Operation::Write | Operation::Flush => {
                if self.kept.len() + self.below_now >= ROOM {
                    return Submit::Full(io);
                }
                self.kept.push(io);
                cx.poll_soon();
            }
            _ => cx.done(io, Err(IoErrorKind::Unsupported)),
        }
        Submit::Taken
    }
    fn complete(&mut self, io: Io, _: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        self.below_now -= 1;
        cx.done(io, status);
    }
    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        for io in self.kept.drain(..) {
            self.below_now += 1;
            cx.forward(self.below, io, [0, 0]);
        }
        Busy::Yes
    }
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        if matches!(event, LaneEvent::Removed | LaneEvent::Reset) {
            self.kept.drain(..).for_each(|io| cx.done(io, Err(IoErrorKind::Aborted)));
        }
    }
    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        if let Some(at) = self.kept.iter().position(|io| io.id() == id) {
            cx.done(self.kept.remove(at), Err(IoErrorKind::Aborted));
        }
    }
    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        let given_up = |io: &mut Io| io.operation().changes_data() && cx.is_abandoned(io);
        let ended: Vec<Io> = self.kept.extract_if(.., given_up).collect();
        ended.into_iter().for_each(|io| cx.done(io, Err(IoErrorKind::Aborted)));
    }
}
