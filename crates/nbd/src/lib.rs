//! An NBD server: block devices for clients that speak the Network Block Device protocol.
//!
//! Three layers. The [`codec`] turns bytes into checked requests and replies into bytes, without input or
//! output. A connection is one task on one reactor: it reads requests, submits them through a channel of the
//! device on its own thread, and sends all finished replies at once. The [`Server`] has exports by name,
//! listens, and places connections on its threads.
//!
//! Served: fixed newstyle with every option except extended headers, TLS with certificates of both sides, structured replies, block status
//! (`base:allocation`, `qemu:allocation-depth`), FUA, trim, zeroes, several connections to one export.
//! Requests that do not match the device's blocks are served too, by reading and writing the blocks around
//! them; exports advertise the device's block size all the same, as that is faster.
//!
//! Not promised: an order of replies, and the effect of a write whose connection ended before its reply.

#![forbid(unsafe_code)]

mod budget;
pub mod codec;
mod connection;
mod error;
mod export;
mod extents;
mod origin;
mod overlap;
mod server;
mod shared;
mod stats;
mod tls;

pub use error::{ExportError, ListenError, TlsError};
pub use export::{Export, ExportOptions};
pub use server::{BdevExport, Ended, Server};
pub use shared::{ConnectionInfo, ExportInfo, ListenerInfo, Options};
pub use spindle_bdev::{Content, Extent, Extents};
pub use spindle_engine::Address;
pub use stats::Counts;
pub use tls::Tls;
