//! Block devices on one thread: requests, the layers they pass, and the devices written once.
//!
//! A [`Device`] is shared by all threads; its half on one thread is a [`Lane`]. The thread's lane table owns
//! the lanes and drains two queues, requests on their way down and completions on their way up: no layer is
//! called from within another, so there is no recursion and no aliasing, and nothing is allocated once the
//! pools are warm. At the top is a [`Channel`], the thread's counted handle on a device with async calls in
//! bytes, or a [`QueuePair`], which takes and returns requests without futures. Not here: names, descriptors
//! and examine (the bdev layer).

#![forbid(unsafe_code)]

mod abandoning;
mod aborting;
mod alarms;
mod aside;
mod bounce;
mod channel;
mod claim;
mod clock;
mod cx;
mod device;
mod device_state;
mod emulation;
mod emulation_job;
mod epochs;
mod error;
mod event;
mod events;
mod faulty;
mod file;
mod file_lane;
mod front;
mod geometry;
mod histogram;
mod io;
mod joins;
mod lane_state;
mod lanes;
mod late;
mod limits;
pub mod load;
mod load_layers;
mod mailbox;
mod malloc;
mod null;
mod offset;
mod opening;
mod queue;
mod queue_pair;
mod queues;
mod ranges;
mod request;
mod service;
mod sim_disk;
mod stack;
mod statistics;
mod table;
mod turn;
mod waiter;

pub use channel::Channel;
pub use claim::{Claim, ClaimKind, Claimed};
pub use cx::{Cx, LaneId, Split};
pub use device::{Busy, Device, Lane};
pub use device_state::{DeviceState, Frozen};
pub use error::{IoError, IoErrorKind, OpenError, Status};
pub use event::{Gate, LaneEvent};
pub use faulty::{Effect, Faulty};
pub use file::{File, FileOptions};
pub use geometry::{CurrentGeometry, Geometry, GeometryError};
pub use histogram::{Histogram, HistogramOptions};
pub use io::{Io, IoId, MAX_DEPTH, Operation, Submit};
pub use lanes::LaneCx;
pub use limits::Limits;
pub use mailbox::{Delivered, RemoteNotifier};
pub use malloc::Malloc;
pub use null::Null;
pub use offset::Offset;
pub use queue_pair::QueuePair;
pub use ranges::HeldRange;
pub use request::{Command, Transfer};
pub use sim_disk::SimDisk;
pub use stack::{check_base, check_stack};
pub use statistics::{ErrorCounts, OperationStatistics, Statistics, StatisticsReset};
pub use table::{LaneTable, Notifier, TableStats};
