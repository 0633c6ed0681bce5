//! Blobstore: an allocator of blobs over a block device, in SPDK's on-disk format, made safe against crashes.
//!
//! Any Spindle thread may use a [`Blobstore`] and its [`Blob`]s, which are handles. Changes of metadata run
//! on the store's metadata thread, the one that called [`Blobstore::init`] or [`Blobstore::load`]; reads and
//! writes run on the calling thread, through that thread's own channel to the device, and look clusters up without
//! a lock. `docs/fault-model.md` states what survives a crash; every place where the order of writes matters has a
//! name in [`ordering::Point`].
//!
//! The folders, from the ground up, each using only those before it: `waiting` (how tasks wait for each other),
//! `map` (where clusters lie), `space` (free clusters), `shared` (what all threads see), `md` (the metadata thread),
//! `data` (the lanes); then the handles of callers: [`Blobstore`], [`Blob`], [`BlobChannel`], [`Replacement`].
//!
//! Not promised: that a read or write of a range is atomic (each block of it is), and an order between
//! requests that are under way at the same time.

#![forbid(unsafe_code)]

mod blob;
mod channel;
mod data;
mod error;
mod map;
mod md;
mod options;
pub mod ordering;
mod replacement;
mod shared;
mod space;
mod store;
mod transfer;
mod waiting;

pub use blob::Blob;
pub use channel::BlobChannel;
pub use error::BlobError;
pub use options::{
    BlobInfo, BlobOpenOptions, BlobOptions, ExternalSource, InitOptions, LoadOptions, LoadProgress, LoadStep,
    StoreInfo, StoreOptions,
};
pub use replacement::Replacement;
pub use space::{LowSpace, SpaceEvent};

pub use spindle_format::init::{ClearData, InitOptions as LayoutOptions, MdPages};
pub use spindle_format::super_block::BsType;
pub use spindle_format::{BlobId, ClearMethod, Parent, Xattr};
pub use store::Blobstore;
pub use transfer::{BlobCommand, BlobTransfer};
