//! Spindle, a storage kit on SPDK's model: the one crate a program depends on.
//!
//! A facade: it re-exports the project's crates and holds nothing of its own. Their documentation names the
//! owner and thread of each part.
//!
//! The feature `daemon`, on by default, adds `control`, `nbd` and `rpc`: the daemon from Rust.
//!
//! Begin with `examples/snapshot_under_load.rs`, or with `examples/multicore_blobstore.rs` if you know SPDK.
#![forbid(unsafe_code)]

pub use spindle_bdev as bdev;
pub use spindle_blob as blob;
pub use spindle_block as block;
#[cfg(feature = "daemon")]
pub use spindle_control as control;
pub use spindle_engine as engine;
pub use spindle_format as format;
pub use spindle_lvol as lvol;
pub use spindle_mem as mem;
#[cfg(feature = "daemon")]
pub use spindle_nbd as nbd;
pub use spindle_reactor as reactor;
#[cfg(feature = "daemon")]
pub use spindle_rpc as rpc;

pub use spindle_bdev::{Bdev, BlobDevice, Registry};
pub use spindle_blob::{Blob, BlobOptions, Blobstore, InitOptions, LoadOptions};
pub use spindle_block::{Channel, Device, File, FileOptions, Malloc};
pub use spindle_mem::{Buffers, IoBuf};
pub use spindle_reactor::{
    CpuSet, JoinHandle, Runtime, Thread, current_cpu, interval, sleep, spawn_local, timeout,
};
