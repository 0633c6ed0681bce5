//! The data of blobs: a blob as a block device, and what each of its lanes does.
//!
//! [`lane`] is the path of a request for a known cluster, from top to bottom. A request that needs a new cluster
//! goes by [`tasks`] to [`new_cluster`]. [`otherwise`] is everything else: what is cut, waits, is refused or reads
//! zeroes.

mod cluster_queue;
mod detach;
mod device;
mod errand;
mod external;
mod flush;
mod lane;
mod new_cluster;
mod otherwise;
mod tasks;
mod way;
