//! A server: its addresses, exports and connections.
//!
//! A [`Server`] is a handle for any thread. Its lists are behind a lock that handshakes and control take, and
//! requests never. Each connection is placed on one of the server's threads, where it stays. Dropping the
//! last handle does not stop the server: call [`Server::stop`].

mod bdev;
mod connections;
mod exported;
mod listening;
mod options;
mod placing;
mod shared;
mod visits;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;

use spindle_engine::{Address, Socket};
use spindle_reactor::Thread;

use crate::stats::Counts;
use crate::{Export, ExportError, ExportOptions, ListenError, Tls};

use connections::Which;

pub use bdev::BdevExport;
pub(crate) use exported::Exported;
pub use options::Options;
pub(crate) use shared::Shared;

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

/// A summary of a stop, or of the removal of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections that used an export and were closed.
    pub connections: usize,
    /// Flushes for them that failed: their writes may be lost.
    pub failed_flushes: u64,
}

/// A handle on an NBD server.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

impl Server {
    /// A server without exports that does not listen. Connections are served on `threads`, which must outlive
    /// the server; if there are none, on the thread where the connection was accepted.
    pub fn new(options: Options, threads: Vec<Thread>) -> Server {
        Server(Shared::new(options, threads))
    }

    /// Begins to listen, on the Spindle thread that runs the caller. Returns the address: TCP port 0 picks a
    /// free one. A Unix socket is for its owner only (mode 0600); one left by a dead process is replaced.
    ///
    /// # Errors
    /// The address is in use (by a process that is named, if known), or the system refuses.
    pub async fn listen(&self, address: Address) -> Result<Address, ListenError> {
        listening::listen(&self.0, address, None).await
    }

    /// As [`listen`](Self::listen), for clients that begin TLS and show a certificate; others are refused.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub async fn listen_encrypted(&self, address: Address, tls: Tls) -> Result<Address, ListenError> {
        listening::listen(&self.0, address, Some(tls)).await
    }

    /// Stops listening at one address. Accepted connections go on.
    ///
    /// # Errors
    /// The server does not listen there.
    pub async fn stop_listening(&self, address: &Address) -> Result<(), ListenError> {
        listening::stop(&self.0, address).await
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.0.addresses()
    }

    /// Where it listens, and how.
    pub fn listeners(&self) -> Vec<ListenerInfo> {
        self.0.listeners()
    }

    /// Serves a client that is connected already, without encryption.
    pub fn serve(&self, socket: Socket, peer: String) {
        self.0.place(socket, peer, None);
    }

    /// Adds an export: from now on clients find it.
    ///
    /// # Errors
    /// The name is taken or invalid.
    pub fn add_export(&self, export: Export) -> Result<(), ExportError> {
        self.0.add(export).map(|_| ())
    }

    /// Opens a bdev on the Spindle thread that runs the caller and exports it, read-only if requested or if
    /// the bdev is. When the bdev is removed the export is removed first, as by
    /// [`remove_export`](Self::remove_export).
    ///
    /// # Errors
    /// As [`add_export`](Self::add_export), and the bdev cannot be opened: it does not exist, or is claimed.
    pub fn export_bdev(&self, bdev: &str, export: BdevExport) -> Result<(), ExportError> {
        bdev::export(&self.0, bdev, export)
    }

    /// Removes an export. Its requests under way are answered, later ones refused as shutting down, and its
    /// connections closed; a client that does not read its replies has [a while](Options::grace). A request that
    /// the device keeps for [too long](Options::patience) is answered as shutting down: its write may still be done, but
    /// not after another of the same blocks. When this returns the server has no channel to the device. If the future is
    /// dropped, the removal goes on.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn remove_export(&self, name: &str) -> Result<Ended, ExportError> {
        let exported = self.0.take_export(name)?;
        Ok(self.end_export(exported).await)
    }

    /// Ends the connections of an export that is no longer listed.
    async fn end_export(&self, exported: Arc<Exported>) -> Ended {
        let failed = exported.failed_flushes();
        let connections = self.end_connections(Which::Using(exported.number)).await;
        Ended { connections, failed_flushes: exported.failed_flushes() - failed }
    }

    /// The exports, by name, with their connections.
    pub fn exports(&self) -> Vec<ExportInfo> {
        self.0.exports()
    }

    /// Number of connections, including those in the handshake.
    pub fn connections(&self) -> usize {
        self.0.connections()
    }

    /// Bytes of the [shared memory](Options::memory) that requests use now.
    pub fn memory_in_use(&self) -> usize {
        self.0.budget.lent()
    }

    /// Bytes of buffers that connections hold now, including receive buffers.
    pub fn buffers_held(&self) -> usize {
        self.0.pool.lent()
    }

    /// Stops the server: it stops listening, answers requests under way, flushes writes and closes all
    /// connections, as [`remove_export`](Self::remove_export) does for one export. If the future is dropped, the stop
    /// goes on.
    pub async fn stop(&self) -> Ended {
        let failed = self.0.failed_flushes();
        let listeners = self.0.begin_stop();
        listening::stop_all(listeners).await;
        let connections = self.end_connections(Which::All).await;
        Ended { connections, failed_flushes: self.0.failed_flushes() - failed }
    }

    /// Ends these connections; returns how many used an export.
    async fn end_connections(&self, which: Which) -> usize {
        let count = self.0.tell_to_end(which);
        self.0.ended(which).await;
        count
    }
}
