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
    Claim, Cx, DeviceState, Geometry, Io, IoId, LaneEvent, LaneId, Notifier, OpenError, Operation,
    RemoteNotifier, Status, Submit,
};

/// A block device as all threads see it. State that changes lives in its lanes.
pub trait Device: Send + Sync + 'static {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// Its shape now. Only the number of blocks may change while lanes are open; [`DeviceState::resized`]
    /// then announces it.
    fn geometry(&self) -> Geometry;

    /// The state shared by its lanes, always the same. A device without one cannot be resized, frozen or
    /// removed while lanes are open.
    fn state(&self) -> Option<&DeviceState> {
        None
    }

    /// The devices below it, as far as known: for [`check_stack`](crate::check_stack), which the maker of a
    /// stacked device calls.
    fn lowers(&self) -> Vec<Arc<dyn Device>> {
        Vec::new()
    }

    /// True if its lanes support an operation; others end as
    /// [`Unsupported`](crate::IoErrorKind::Unsupported).
    fn supports(&self, operation: Operation) -> bool {
        use Operation::{Flush, Read, Unmap, Write, WriteZeroes};
        matches!(operation, Read | Write | WriteZeroes | Unmap | Flush)
    }

    /// The claims on the whole device, always the same. A device that covers another one completely returns
    /// that one's; `None` if it cannot be claimed.
    fn claim(&self) -> Option<&Claim> {
        None
    }

    /// False for a layer that the kit itself adds to a stack: it does not count towards
    /// [`MAX_DEPTH`](crate::MAX_DEPTH).
    #[doc(hidden)]
    fn is_module(&self) -> bool {
        true
    }

    /// Makes this thread's lane. Called once per thread, when the first channel opens. Open the devices below
    /// here, through `cx`; the table closes them with this lane. A [`Channel`](crate::Channel) may be opened here too;
    /// requests that a lane makes of it start after the table has run, and only if something polls them.
    ///
    /// # Errors
    /// Anything that prevents this thread from using the device.
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError>;
}

/// The lane table, as a device sees it that makes a lane.
pub(crate) trait LaneMaking {
    fn open_below(&mut self, this: u32, lower: &Arc<dyn Device>) -> Result<LaneId, OpenError>;
    fn notifier(&self, this: u32) -> Notifier;
    fn remote_notifier(&self, this: u32) -> RemoteNotifier;
    fn poll_always(&mut self, this: u32);
}

/// What a device may do while it makes a lane.
pub struct LaneCx<'a> {
    table: &'a mut dyn LaneMaking,
    this: u32,
}

impl LaneCx<'_> {
    pub(crate) fn new(table: &mut dyn LaneMaking, this: u32) -> LaneCx<'_> {
        LaneCx { table, this }
    }

    /// Opens a device that the new lane lies on; closed when the new lane is.
    ///
    /// # Errors
    /// As the device's own [`lane`](Device::lane), and stacks that are too deep.
    pub fn open(&mut self, lower: &Arc<dyn Device>) -> Result<LaneId, OpenError> {
        self.table.open_below(self.this, lower)
    }

    /// Polls the new lane on demand.
    pub fn notifier(&self) -> Notifier {
        self.table.notifier(self.this)
    }

    /// Polls the new lane on demand, from other threads.
    pub fn remote_notifier(&self) -> RemoteNotifier {
        self.table.remote_notifier(self.this)
    }

    /// Polls the new lane in every turn of its thread, which then never sleeps.
    pub fn poll_always(&mut self) {
        self.table.poll_always(self.this);
    }
}

/// One device on one thread: takes requests, completes or forwards each exactly once.
///
/// Never called from within itself: [`Cx`] only queues. Dropped by the table when the last channel on
/// this thread is closed and every request has left it.
pub trait Lane {
    /// Takes a request, already checked against the device's geometry when it came from a channel. The lane
    /// ends the call by `cx.forward` or `cx.done`, by keeping the request, or by returning it in
    /// `Submit::Full`.
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit;

    /// A request that this lane forwarded came back. The layer below may have changed its range; `saved` is
    /// what this lane passed to `forward`.
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

    /// An event of the device. The table itself handles requests that wait at the gate.
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        let _ = (event, cx);
    }

    /// The result of [`Cx::open`]: a device is now open below this lane, or could not be opened.
    fn opened(&mut self, device: &Arc<dyn Device>, lower: Result<LaneId, OpenError>, cx: &mut Cx<'_>) {
        let _ = (device, lower, cx);
    }

    /// Asks for the early end of a request. The table asks each lane below the one where the request was
    /// submitted, for it and for every request made for it ([`Cx::child`], [`Cx::create_for`]); it has
    /// already ended those that wait in front of a lane. A lane that holds the request completes it soon,
    /// aborted or not; it may ignore this call. A task that holds it sees it in [`Io::poll_aborted`].
    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        let _ = (id, cx);
    }

    /// Requests that change data were abandoned: the future was dropped, or the queue pair closed. Their caller may
    /// send the same changes again, on other threads. A lane that holds such requests ([`Cx::is_abandoned`]) ends
    /// each as aborted if it will do no more of it; otherwise it keeps the blocks that the request may still change
    /// in a [`HeldRange`](crate::HeldRange) until the request has ended. The table does this for the device that a
    /// request was submitted to.
    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// A device above was removed, and waits for requests that it has passed on. A lane that may keep requests for long
    /// ends those soon for which [`Cx::is_orphaned`] is true, aborted or not, and goes on with the others; for requests
    /// that it made for such a one ([`Cx::create_for`]) it calls [`Cx::abort`]. Called in the lanes below
    /// that device, and again while some are left. The table has already ended those that wait in front of a lane; a
    /// task that holds one sees it in [`Io::poll_aborted`].
    fn orphaned(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}
