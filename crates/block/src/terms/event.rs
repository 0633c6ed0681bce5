//! Events that lanes receive about their device, and the gate in front of each lane.
//!
//! A [`DeviceState`](crate::DeviceState) sends events, from any thread; each lane receives them in a message
//! to its thread.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Whether requests pass into the lanes of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Requests pass.
    #[default]
    Open,
    /// Requests wait in front of the lane, in order, until the device thaws.
    Frozen,
    /// The device was removed: requests end as [`Removed`](crate::IoErrorKind::Removed).
    Husk,
}

/// An event that every lane of a device receives.
#[derive(Clone)]
#[non_exhaustive]
pub enum LaneEvent {
    /// The geometry of the device, or of one below it, has changed; the new one is already in place.
    Resized,
    /// The device was removed. No more requests come; the lane ends those that it holds as usual.
    Removed,
    /// No request comes until [`Thaw`](Self::Thaw). The lane ends those that it holds as usual.
    Freeze,
    /// Requests come again.
    Thaw,
    /// The device, or one above it, is being reset, and is frozen: no request comes until
    /// [`Thaw`](Self::Thaw). A lane ends the requests that it holds as aborted, as far as it can. Requests in
    /// devices below come back on their own.
    Reset,
    /// An event of the module's own.
    Module(Arc<dyn Any + Send + Sync>),
}

impl fmt::Debug for LaneEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LaneEvent::Resized => "Resized",
            LaneEvent::Removed => "Removed",
            LaneEvent::Freeze => "Freeze",
            LaneEvent::Thaw => "Thaw",
            LaneEvent::Reset => "Reset",
            LaneEvent::Module(_) => "Module",
        })
    }
}
