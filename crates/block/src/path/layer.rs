//! A device that covers one lower device whole: all that such devices have in common is written here.

use std::sync::Arc;

use crate::{Claim, Device, DeviceState, Geometry, Lane, LaneCx, LaneId, OpenError, Operation};

/// A device on one lower device: whatever it does not say itself is as below. A type that implements this is
/// a [`Device`].
///
/// ```
/// use std::sync::Arc;
/// use spindle_block::{Cx, Device, DeviceState, Io, Lane, LaneCx, LaneId, Layer, OpenError, Submit};
///
/// /// Passes everything on.
/// struct Same {
///     below: Arc<dyn Device>,
///     state: DeviceState,
/// }
///
/// impl Layer for Same {
///     fn name(&self) -> &str {
///         "same"
///     }
///
///     fn below(&self) -> &Arc<dyn Device> {
///         &self.below
///     }
///
///     fn state(&self) -> &DeviceState {
///         &self.state
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
///         cx.forward(self.below, io, [0, 0]);
///         Submit::Taken
///     }
/// }
/// ```
pub trait Layer: Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// The lower device, always the same.
    fn below(&self) -> &Arc<dyn Device>;

    /// The state shared by its own lanes, always the same.
    fn state(&self) -> &DeviceState;

    /// Its shape now; see [`Device::geometry`].
    fn geometry(&self) -> Geometry {
        self.below().geometry()
    }

    /// True if its lanes support an operation; see [`Device::supports`].
    fn supports(&self, operation: Operation) -> bool {
        self.below().supports(operation)
    }

    /// The claims on it; see [`Device::claim`].
    fn claim(&self) -> Option<&Claim> {
        self.below().claim()
    }

    /// Makes this thread's lane; see [`Device::lane`]. `below` is the lane of the lower device, already open.
    ///
    /// # Errors
    /// Anything that prevents this thread from using the device.
    fn lane(self: Arc<Self>, below: LaneId, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError>;
}

impl<T: Layer> Device for T {
    fn name(&self) -> &str {
        Layer::name(self)
    }

    fn geometry(&self) -> Geometry {
        Layer::geometry(self)
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(Layer::state(self))
    }

    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        vec![self.below().clone()]
    }

    fn supports(&self, operation: Operation) -> bool {
        Layer::supports(self, operation)
    }

    fn claim(&self) -> Option<&Claim> {
        Layer::claim(self)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(self.below())?;
        Layer::lane(self, below, cx)
    }
}
