//! What a lane table knows of one lane, beside the lane itself.
//!
//! Belongs to the table; a place that is free keeps its generation, so that the name of a lane that was
//! closed does not become the name of the next.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::device_state::Registration;
use crate::epochs::Epochs;
use crate::mailbox::Obligation;
use crate::table::Notify;
use crate::{Device, Gate, Geometry, Io};

/// A device's shape as the channels of one thread see it.
pub(crate) type Shape = Rc<Cell<Geometry>>;

/// Everything but the lane.
#[derive(Default)]
pub(crate) struct LaneState {
    /// `None` while the place is free.
    pub(crate) device: Option<Arc<dyn Device>>,
    /// Which of the lanes that had this place it is.
    pub(crate) generation: u32,
    /// Channels, queue pairs and lanes above that hold it open.
    pub(crate) refs: u32,
    /// Requests that entered the lane and have not left it, queued ones included.
    pub(crate) epochs: Epochs,
    /// What the device said last.
    pub(crate) gate: Gate,
    /// On the retry list.
    pub(crate) retrying: bool,
    /// Asked to be polled every turn.
    pub(crate) always: bool,
    /// On the list of lanes to poll in the next turn.
    pub(crate) soon: bool,
    /// Requests that the gate or a lane without room keeps out, in order.
    pub(crate) stalled: VecDeque<Io>,
    /// Lanes it opened.
    pub(crate) lowers: Vec<u32>,
    /// Set while a notification waits.
    pub(crate) notify: Notify,
    /// Who waits for it to close.
    pub(crate) closers: Vec<Waker>,
    /// Met when no request is in the lane but those that wait in front of it.
    pub(crate) quiet: Vec<Obligation>,
    /// The copy that channels have.
    pub(crate) shape: Option<Shape>,
    /// The lane's entry in the state of its device.
    pub(crate) registration: Option<Registration>,
}

impl LaneState {
    /// True if a request can go straight to the lane.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.gate == Gate::Open && self.stalled.is_empty()
    }

    /// True if something may have to happen after a request has left.
    #[inline]
    pub(crate) fn needs_a_look(&self) -> bool {
        !self.stalled.is_empty() || !self.quiet.is_empty() || (self.refs == 0 && self.epochs.is_empty())
    }

    /// True if no request is in the lane but those that wait in front of it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.epochs.in_flight() == self.stalled.len()
    }
}
