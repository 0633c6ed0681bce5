//! The two traits a storage module implements: [`Device`], shared by all threads, and [`Lane`], its
//! half on one thread.
//!
//! The smallest module that does something fits on one page: a device that is a part of another.
//!
//! ```
//! use std::sync::Arc;
//! use spindle_block::{Cx, Device, Geometry, Io, Lane, LaneCx, LaneId, OpenError, Submit};
//!
//! /// The blocks of `below` from block `from` on.
//! struct Tail {
//!     below: Arc<dyn Device>,
//!     from: u64,
//!     geometry: Geometry,
//! }
//!
//! impl Device for Tail {
//!     fn name(&self) -> &str {
//!         "tail"
//!     }
//!
//!     fn geometry(&self) -> Geometry {
//!         self.geometry
//!     }
//!
//!     fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
//!         let below = cx.open(&self.below)?;
//!         Ok(Box::new(TailLane { below, from: self.from }))
//!     }
//! }
//!
//! struct TailLane {
//!     below: LaneId,
//!     from: u64,
//! }
//!
//! impl Lane for TailLane {
//!     fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
//!         let start = io.start();
//!         io.set_start(start + self.from);
//!         cx.forward(self.below, io, [start, 0]);
//!         Submit::Taken
//!     }
//! }
//! ```

use std::sync::Arc;

pub use spindle_reactor::Busy;

use crate::{
    Claim, Cx, DeviceState, Geometry, Io, IoId, LaneCx, LaneEvent, LaneId, OpenError, Operation, Status,
    Submit,
};

/// A block device as all threads see it. Its state that changes lives in its lanes.
pub trait Device: Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> &str;

    /// Its shape now. The number of blocks may change while lanes are open, and is then said by
    /// [`DeviceState::resized`]; all else stays.
    fn geometry(&self) -> Geometry;

    /// Where its lanes are found, always the same. A device without one cannot be resized, frozen or removed
    /// while lanes are open.
    fn state(&self) -> Option<&DeviceState> {
        None
    }

    /// The devices that it lies on, as far as they are known: for [`check_stack`](crate::check_stack), which who
    /// makes a device of others calls.
    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        Vec::new()
    }

    /// Whether its lanes do an operation; one that they do not ends as
    /// [`Unsupported`](crate::IoErrorKind::Unsupported).
    fn supports(&self, operation: Operation) -> bool {
        use Operation::{Flush, Read, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush)
    }

    /// By which it can be claimed as a whole, always the same. One that stands on another as it is passes that
    /// one's on; `None` for one that cannot be claimed.
    fn claim(&self) -> Option<&Claim> {
        None
    }

    /// Makes this thread's half. Called once per thread, when the first channel opens; the devices it
    /// lies on are opened here, through `cx`, and closed by the table when this lane is.
    ///
    /// # Errors
    /// Whatever stops this thread from using the device.
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError>;
}

/// One device on one thread: takes requests, completes or forwards each exactly once.
///
/// Never called from within itself: [`Cx`] only queues. Dropped by the table when the last channel on
/// this thread is closed and every request has left it.
pub trait Lane {
    /// Takes a request, already checked against the device's geometry when it came from a channel.
    /// Ends with `cx.forward`, `cx.done`, keeping the request for later, or giving it back as full.
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit;

    /// A request this lane forwarded came back. The range in it is as the layer below left it; `saved`
    /// is what this lane gave to `forward`.
    fn complete(&mut self, io: Io, saved: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        let _ = saved;
        cx.done(io, status);
    }

    /// Called after the lane's [`Notifier`](crate::Notifier) was used, and every turn if the lane asked
    /// for that with [`LaneCx::poll_always`].
    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        let _ = cx;
        Busy::No
    }

    /// Something has happened to the device. Requests that wait at the gate are seen to by the table.
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        let _ = (event, cx);
    }

    /// A device that this lane asked for with [`Cx::open`] is open below it, or cannot be.
    fn opened(&mut self, device: &Arc<dyn Device>, lower: Result<LaneId, OpenError>, cx: &mut Cx<'_>) {
        let _ = (device, lower, cx);
    }

    /// A request is to end early. The table asks each lane below the one where the request was submitted, for
    /// it and for every request that was made of it ([`Cx::child`], [`Cx::create_for`]); what waits in front of
    /// a lane it has ended itself. A lane that holds the request completes it soon, aborted or not; ignoring it
    /// is allowed. A task that holds it sees it in [`Io::poll_aborted`].
    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        let _ = (id, cx);
    }

    /// Requests that change data were given up: their futures were dropped, or their queue pair. Whoever made
    /// them may have others make the same changes again, on other threads. A lane that holds such requests
    /// ([`Cx::is_abandoned`]) ends each as aborted if nothing of it will happen any more; else it keeps what it
    /// may still change in a [`HeldRange`](crate::HeldRange) until the request has ended. The table does so for the device
    /// that a request was submitted to.
    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}
