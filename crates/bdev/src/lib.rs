//! Block devices by name, as programs, targets and the control plane use them.
//!
//! A [`Registry`] belongs to one runtime and holds its [`Bdev`]s: a name, aliases, a UUID, and the
//! [`Device`](spindle_block::Device) that does the work. Registering, unregistering and examining happen on
//! the runtime's app thread, to which calls are sent. Looking up, opening and closing work on any thread and
//! wait for no other: each takes a lock for a few instructions. Requests never pass through this crate.
//!
//! A [`Desc`] is one opening: for reading or for writing, optionally with a claim, with events when the bdev
//! is removed or changes its size. `desc.channel()` opens the device on the current thread.
//!
//! Not here: volumes (`spindle-lvol`), JSON (`spindle-control`), and what the block layer does for every device
//! (limits, statistics, gates).

#![forbid(unsafe_code)]

mod bdev;
mod blob_device;
mod claim;
pub mod conformance;
mod counter;
mod desc;
mod detail;
mod error;
mod event;
mod examine;
mod extents;
mod io_types;
pub mod load;
mod module;
pub mod modules;
mod namespace;
mod notify;
mod opened;
mod plain_disk;
mod read_only;
mod registered;
mod registry;
mod report;
mod statistics;
mod unregister;
mod virtual_bdev;

pub use bdev::{Bdev, BdevInfo, BdevSpec, Phase, WeakBdev};
pub use blob_device::BlobDevice;
pub use claim::{ClaimInfo, ClaimType};
pub use counter::{Counted, Counter, Ending};
pub use desc::{Desc, DescOptions};
pub use detail::Detail;
pub use error::{BdevError, errno_of_io};
pub use event::{Event, Grace};
pub use extents::{Content, Extent, Extents};
pub use io_types::{IoType, IoTypes};
pub use module::{Disk, LocalFuture, Module, Recipe};
pub use notify::{Notification, NotificationKind};
pub use plain_disk::PlainDisk;
pub use registry::{Registry, WeakRegistry, random_uuid};
pub use uuid::Uuid;
pub use virtual_bdev::{Base, Virtual};
