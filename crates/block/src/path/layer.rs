//! A device that covers one lower device whole: all that such devices have in common is written here.

use std::sync::Arc;

use crate::{Claim, Device, DeviceState, Geometry, Lane, LaneCx, LaneId, OpenError, Operation};

/// What every layer has: a name, the device below, and the state that its lanes on all threads share.
pub struct LayerParts {
    name: String,
    below: Arc<dyn Device>,
    state: DeviceState,
}

impl LayerParts {
    /// The parts of a new layer on `below`. The name is for messages.
    pub fn new(name: impl Into<String>, below: Arc<dyn Device>) -> LayerParts {
        LayerParts { name: name.into(), below, state: DeviceState::new() }
    }

    /// The layer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lower device.
    pub fn below(&self) -> &Arc<dyn Device> {
        &self.below
    }

    /// The state shared by the layer's own lanes.
    pub fn state(&self) -> &DeviceState {
        &self.state
    }
}

/// A device on one lower device: whatever it does not say itself is as below. A type that implements this is
/// a [`Device`].
///
/// ```
/// use std::sync::Arc;
/// use spindle_block::{Cx, Io, Lane, LaneCx, LaneId, Layer, LayerParts, OpenError, Submit};
///
/// /// Passes everything on.
/// struct Same(LayerParts);
///
/// impl Layer for Same {
///     fn parts(&self) -> &LayerParts {
///         &self.0
///     }
///
///     fn lane(self: Arc<Self>, below: LaneId, _: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
///         Ok(Box::new(SameLane { below }))
///     }
/// }
///
/// struct SameLane {
///     below: LaneId,
/// }
///
/// impl Lane for SameLane {
///     fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
///         cx.relay(self.below, io);
///         Submit::Taken
///     }
/// }
/// ```
pub trait Layer: Send + Sync + 'static {
    /// Its name, lower device and state, always the same.
    fn parts(&self) -> &LayerParts;

    /// Its shape now; see [`Device::geometry`].
    fn geometry(&self) -> Geometry {
        self.parts().below.geometry()
    }

    /// True if its lanes support an operation; see [`Device::supports`].
    fn supports(&self, operation: Operation) -> bool {
        self.parts().below.supports(operation)
    }

    /// The claims on it; see [`Device::claim`].
    fn claim(&self) -> Option<&Claim> {
        self.parts().below.claim()
    }

    /// Makes this thread's lane; see [`Device::lane`]. `below` is the lane of the lower device, already open.
    ///
    /// # Errors
    /// Anything that prevents this thread from using the device.
    fn lane(self: Arc<Self>, below: LaneId, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError>;
}

impl<T: Layer> Device for T {
    fn name(&self) -> &str {
        &self.parts().name
    }

    fn geometry(&self) -> Geometry {
        Layer::geometry(self)
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.parts().state)
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        vec![self.parts().below.clone()]
    }

    fn supports(&self, operation: Operation) -> bool {
        Layer::supports(self, operation)
    }

    fn claim(&self) -> Option<&Claim> {
        Layer::claim(self)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(&self.parts().below)?;
        Layer::lane(self, below, cx)
    }
}
