//! Layers that the tests put on a device.

use std::cell::RefCell;
use std::sync::Arc;

use spindle_block::{
    Cx, Device, DeviceState, Geometry, Io, Lane, LaneCx, LaneEvent, LaneId, OpenError, Submit,
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
