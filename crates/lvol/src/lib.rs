//! Logical volumes: a Blobstore on a bdev, whose blobs are bdevs with names.
//!
//! [`Lvols`] is the module of one runtime. It finds the lvolstores on new bdevs ([`Module::examine`]), and
//! creates new ones. An [`LvolStore`] is a Blobstore of the type `LVOLSTORE`, with a name and a UUID in the
//! xattrs of its super blob. An [`Lvol`] is a blob with a name and a UUID, open while its store is loaded,
//! and a bdev: named by its UUID, with the alias `store/volume`. Its lane is the blob's own.
//!
//! All this lives on the app thread, which is the metadata thread of every store; calls are sent there, and
//! run to their end even if their futures are dropped. Handles may be used on any thread. The format on disk
//! is that of SPDK's lvol library (`docs/format.md`).
//!
//! Not promised: that a volume with a damaged blob is available. It is left out and noted
//! ([`LvolStore::set_aside`]); the others work.
//!
//! [`Module::examine`]: spindle_bdev::Module::examine

#![forbid(unsafe_code)]

mod change;
mod copy;
mod copying;
mod create;
mod delete;
mod details;
mod error;
mod extents;
mod external;
mod identity;
mod info;
mod load;
mod lvol;
mod module;
mod name;
mod offer;
mod parents;
mod store;
mod target;
mod unload;
mod volumes;

pub use copy::ShallowCopy;
pub use create::{LvolSpec, StoreSpec};
pub use error::LvolError;
pub use info::{LvolInfo, StoreInfo};
pub use lvol::Lvol;
pub use module::{Lvols, StoreKey};
pub use store::LvolStore;

pub use spindle_blob::{ClearData, ClearMethod};

/// The module's name, also that of its bdevs and claims.
pub const MODULE: &str = "lvol";
