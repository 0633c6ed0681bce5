//! What all threads see of a store and of its open blobs, and each thread's own part of both.

mod blob;
mod blob_local;
mod chain;
mod channels;
mod device;
mod epochs;
mod external;
mod flushing;
mod store;
mod store_local;

pub(crate) use blob::{Backing, BlobShared, Tied};
pub(crate) use blob_local::{BlobLocal, quiesce};
pub(crate) use chain::Source;
pub(crate) use device::StoreDevice;
pub(crate) use external::ExternalSnapshot;
pub(crate) use flushing::Flushing;
pub(crate) use store::{Member, Notice, StoreShared};
pub(crate) use store_local::StoreLocal;
