//! Blobstore: an allocator of blobs over a block device, in SPDK's on-disk format, made safe against crashes.
//!
//! Any Spindle thread may use a [`Blobstore`] and its [`Blob`]s, which are handles. Changes of metadata run
//! on the store's metadata thread, the one that called [`Blobstore::init`] or [`Blobstore::load`]; reads and
//! writes run on the calling thread, each thread with a channel of its own to the device, and look clusters
//! up without a lock. `docs/fault-model.md` states what survives a crash; every place where the order of
//! writes matters has a name in [`ordering::Point`].
//!
//! Not promised: that a read or write of a range is atomic (each block of it is), and an order between
//! requests that are under way at the same time.

#![forbid(unsafe_code)]

mod allocate;
mod arena;
mod blob;
mod blob_local;
mod channel;
mod chunked;
mod claims;
mod cluster_size;
mod device;
mod epochs;
mod error;
mod flushing;
mod held;
mod io;
mod lane;
mod leaves;
mod local;
mod low_space;
mod md;
mod options;
pub mod ordering;
mod outside;
mod replacement;
mod reserve;
mod shared;
mod store;
mod store_device;
mod sync;
mod transfer;
mod wanted;

pub use blob::Blob;
pub use channel::BlobChannel;
pub use error::BlobError;
pub use low_space::{LowSpace, SpaceEvent};
pub use options::{
    BlobInfo, BlobOptions, ExternalSource, InitOptions, LoadOptions, LoadProgress, LoadStep, OpenOptions,
    StoreInfo, StoreOptions,
};
pub use replacement::Replacement;

pub use spindle_format::init::{ClearData, InitOptions as LayoutOptions, MdPages};
pub use spindle_format::super_block::BsType;
pub use spindle_format::{BlobId, ClearMethod, Parent, Xattr};
pub use store::Blobstore;
pub use transfer::{Command, Transfer};
