//! A server's exports, connections and listeners as they are now.

use std::path::PathBuf;

use spindle_engine::Address;

use crate::ExportOptions;
use crate::stats::Counts;

/// A connection as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its number, never reused by this server.
    pub id: u64,
    /// Its other end.
    pub peer: String,
    /// The name of the thread that serves it.
    pub thread: String,
    /// TLS encrypts it.
    pub encrypted: bool,
    /// Its statistics.
    pub counts: Counts,
}

/// An address where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// The address.
    pub address: Address,
    /// The folder of its certificates, if connections are encrypted.
    pub tls: Option<PathBuf>,
}

/// An export as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its name.
    pub name: String,
    /// How it is exported: read-only also if its device is.
    pub options: ExportOptions,
    /// Name of the device.
    pub device: String,
    /// Name of the bdev, if it is one.
    pub bdev: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Bytes in a block of the device.
    pub block_size: u32,
    /// Its connections.
    pub connections: Vec<ConnectionInfo>,
    /// Statistics of all present and past connections.
    pub counts: Counts,
}
