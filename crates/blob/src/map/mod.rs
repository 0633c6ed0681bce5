//! The maps of open blobs: where each cluster lies, read on any thread without a lock.

mod arena;
mod chunked;
mod cluster_size;
mod entry;
mod leaves;

pub(crate) use arena::Arena;
pub(crate) use cluster_size::ClusterSize;
pub(crate) use entry::{Entry, LEAF, by_leaf, can_tell};
pub(crate) use leaves::Leaves;
