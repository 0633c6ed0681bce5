//! What a lane is told about its device, and the gate that requests pass on their way into it.
//!
//! Events are made by a [`DeviceState`](crate::DeviceState), on any thread, and reach each lane of the device
//! as a message to its thread.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Whether requests pass into the lanes of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// They do.
    #[default]
    Open,
    /// They wait in front of the lane, in order, until the device thaws.
    Frozen,
    /// The device was removed: they end as [`Removed`](crate::IoErrorKind::Removed).
    Husk,
}

/// Something that every lane of a device is told.
#[derive(Clone)]
#[non_exhaustive]
pub enum LaneEvent {
    /// The geometry of the device, or of one below it, has changed; it is the new one already.
    Resized,
    /// The device was removed. No request comes any more; those that the lane holds it ends as usual.
    Removed,
    /// No request comes until [`Thaw`](Self::Thaw). Those that the lane holds it ends as usual.
    Freeze,
    /// Requests come again.
    Thaw,
    /// The module's own.
    Module(Arc<dyn Any + Send + Sync>),
}

impl fmt::Debug for LaneEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LaneEvent::Resized => "Resized",
            LaneEvent::Removed => "Removed",
            LaneEvent::Freeze => "Freeze",
            LaneEvent::Thaw => "Thaw",
            LaneEvent::Module(_) => "Module",
        })
    }
}
