//! Block devices on one thread: requests, the layers they pass, and the devices written once.
//!
//! A [`Device`] is shared by all threads; its half on one thread is a [`Lane`]. The thread's lane table owns
//! the lanes and drains two queues, requests on their way down and completions on their way up: no layer is
//! called from within another, so there is no recursion and no aliasing, and nothing is allocated once the
//! pools are warm. At the top is a [`Channel`], the thread's counted handle on a device with async calls in
//! bytes, or a [`QueuePair`], which takes and returns requests without futures. Not here: names, descriptors
//! and examine (the bdev layer).
//!
//! The folders, each using only those above it in this list:
//! - `terms`: plain values (operations, errors, geometry, events);
//! - `state`: what a device's lanes on all threads share;
//! - `request`: a request, its pieces, and the makers that wait;
//! - `path`: the lane table of a thread, and what devices and lanes may do;
//! - `devices`: devices and layers written once;
//! - `top`: channels, queue pairs and loads.

#![forbid(unsafe_code)]

mod devices;
mod path;
mod request;
mod state;
mod terms;
mod top;

pub use devices::faulty::{Effect, Faulty};
pub use devices::file::{File, FileOptions};
pub use devices::malloc::Malloc;
pub use devices::null::Null;
pub use devices::offset::Offset;
pub use devices::sim_disk::SimDisk;
pub use path::claimed::Claimed;
pub use path::cx::{Cx, Split};
pub use path::device::{Busy, Device, Lane, LaneCx};
pub use path::layer::{Layer, LayerParts};
pub use path::notifier::Notifier;
pub use path::stack::{check_base, check_stack};
pub use path::table::{LaneTable, TableStats};
pub use request::io::{Io, IoId, MAX_DEPTH, Submit};
pub use request::lane_id::LaneId;
pub use state::claim::{Claim, ClaimKind};
pub use state::device_state::{DeviceState, Frozen};
pub use state::histogram::{Histogram, HistogramOptions};
pub use state::limits::Limits;
pub use state::mailbox::{Delivered, RemoteNotifier};
pub use state::ranges::HeldRange;
pub use state::statistics::{ErrorCounts, OperationStatistics, Statistics, StatisticsReset};
pub use terms::error::{IoError, IoErrorKind, OpenError, Status};
pub use terms::event::{Gate, LaneEvent};
pub use terms::geometry::{CurrentGeometry, Geometry, GeometryError};
pub use terms::operation::Operation;
pub use top::channel::Channel;
pub use top::load;
pub use top::queue_pair::QueuePair;
pub use top::transfer::{Command, Transfer};
