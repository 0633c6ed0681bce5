//! Layers that the tests put on a device.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use spindle_block::{
    Cx, Device, DeviceState, Geometry, HeldRange, Io, IoErrorKind, IoId, Lane, LaneCx, LaneEvent, LaneId,
    OpenError, Operation, Status, Submit,
};

/// Passes everything on, is as large as what it lies on, and writes down what its lanes are told.
pub struct Pass {
    pub below: Arc<dyn Device>,
    pub state: DeviceState,
}

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What the lanes of this OS thread were told, since this was asked last.
pub fn heard() -> Vec<String> {
    HEARD.with(|heard| heard.take())
}

impl Pass {
    pub fn over(below: Arc<dyn Device>) -> Arc<Pass> {
        Arc::new(Pass { below, state: DeviceState::new() })
    }
}

impl Device for Pass {
    fn name(&self) -> &str {
        "pass"
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(PassLane(cx.open(&self.below)?)))
    }
}

struct PassLane(LaneId);

impl Lane for PassLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.0, io, [0, 0]);
        Submit::Taken
    }
    fn event(&mut self, event: &LaneEvent, _cx: &mut Cx<'_>) {
        let said = match event {
            LaneEvent::Module(own) => own.downcast_ref::<&str>().unwrap().to_string(),
            other => format!("{other:?}"),
        };
        HEARD.with(|heard| heard.borrow_mut().push(said));
    }
}

/// Sends each request to the device that it was told last; opens and closes devices on demand.
pub struct Switch {
    pub first: Arc<dyn Device>,
    pub state: DeviceState,
}

/// What a [`Switch`] can be told.
pub enum Turn {
    /// Open this device and use it.
    To(Arc<dyn Device>),
    /// Close the first, and go on using its name.
    Close,
}

impl Device for Switch {
    fn name(&self) -> &str {
        "switch"
    }
    fn geometry(&self) -> Geometry {
        self.first.geometry()
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(SwitchLane(cx.open(&self.first)?)))
    }
}

struct SwitchLane(LaneId);

impl Lane for SwitchLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.0, io, [0, 0]);
        Submit::Taken
    }
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        let LaneEvent::Module(own) = event else { return };
        match own.downcast_ref::<Turn>().unwrap() {
            Turn::To(device) => cx.open(device.clone()),
            Turn::Close => cx.close(self.0),
        }
    }
    fn opened(&mut self, device: &Arc<dyn Device>, lower: Result<LaneId, OpenError>, _cx: &mut Cx<'_>) {
        let said = match lower {
            Ok(lower) => {
                self.0 = lower;
                format!("opened {}", device.name())
            }
            Err(error) => error.to_string(),
        };
        HEARD.with(|heard| heard.borrow_mut().push(said));
    }
}

/// Keeps every request, on any number of tables, until it is told to [let it go](Holding::complete).
pub struct Holding {
    geometry: Geometry,
    pub state: DeviceState,
    held: Mutex<Vec<u64>>,
}

struct Complete(u64);

impl Holding {
    pub fn new(blocks: u64) -> Arc<Holding> {
        let (geometry, held) = (Geometry::new(512, blocks).unwrap(), Mutex::default());
        Arc::new(Holding { geometry, state: DeviceState::new(), held })
    }
    /// Starts of the requests held, in the order they came.
    pub fn held(&self) -> Vec<u64> {
        self.held.lock().unwrap().clone()
    }
    /// Completes what starts at `start`, when the tables are stepped next.
    pub fn complete(&self, start: u64) {
        let _arrives = self.state.send(Arc::new(Complete(start)));
    }
}

impl Device for Holding {
    fn name(&self) -> &str {
        "holding"
    }
    fn geometry(&self) -> Geometry {
        self.geometry
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn supports(&self, operation: Operation) -> bool {
        use Operation::{Flush, Read, Reset, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush | Reset)
    }
    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(HoldingLane { device: self, held: Vec::new() }))
    }
}

struct HoldingLane {
    device: Arc<Holding>,
    held: Vec<(Io, Option<HeldRange>)>,
}

impl HoldingLane {
    fn end(&mut self, at: usize, status: Status, cx: &mut Cx<'_>) {
        let (io, _range) = self.held.remove(at);
        let mut held = self.device.held.lock().unwrap();
        let place = held.iter().position(|start| *start == io.start()).unwrap();
        held.remove(place);
        cx.done(io, status);
    }
}

impl Lane for HoldingLane {
    fn submit(&mut self, io: Io, _cx: &mut Cx<'_>) -> Submit {
        self.device.held.lock().unwrap().push(io.start());
        self.held.push((io, None));
        Submit::Taken
    }
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        let LaneEvent::Module(own) = event else { return };
        let Complete(start) = own.downcast_ref().unwrap();
        if let Some(at) = self.held.iter().position(|(io, _)| io.start() == *start) {
            self.end(at, Ok(()), cx);
        }
    }
    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        if let Some(at) = self.held.iter().position(|(io, _)| io.id() == id) {
            self.end(at, Err(IoErrorKind::Aborted), cx);
        }
    }
    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        for (io, range) in &mut self.held {
            if range.is_none() && io.operation().changes_data() && cx.is_abandoned(io) {
                *range = Some(self.device.state.hold_range(io.start(), io.count()));
            }
        }
    }
}
