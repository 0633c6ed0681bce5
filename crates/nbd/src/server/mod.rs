//! A server: where it listens, what it exports, and whom it serves.
//!
//! A [`Server`] is a handle for any thread. Its lists are behind a lock that handshakes and control take, and
//! requests never. Connections are placed on one of the threads it was given, where they stay. Dropping the
//! last handle stops nothing: call [`Server::stop`].

mod bdev;
mod exported;
mod listening;
mod options;
mod shared;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use spindle_engine::{Address, Socket};
use spindle_reactor::{Thread, timeout};

use crate::connection::Stop;
use crate::stats::Counts;
use crate::{Export, ExportError, ListenError};

pub use bdev::BdevExport;
pub(crate) use exported::Exported;
pub use options::Options;
pub(crate) use shared::Shared;

/// A connection as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its number, never used again by this server.
    pub id: u64,
    /// Who is at the other end.
    pub peer: String,
    /// The name of the thread that serves it.
    pub thread: String,
    /// What was done for it.
    pub counts: Counts,
}

/// An export as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Name of the device.
    pub device: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes in a block of the device.
    pub block_size: u32,
    /// Clients may only read.
    pub read_only: bool,
    /// Those who use it.
    pub connections: Vec<ConnectionInfo>,
    /// What was done for all who use it or used it.
    pub counts: Counts,
}

/// What ended with a stop or with the removal of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections that used an export and were closed.
    pub connections: usize,
    /// Flushes of those that failed: what they wrote may be lost.
    pub failed_flushes: u64,
}

/// A handle on an NBD server.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

impl Server {
    /// A server without exports that listens nowhere. Connections are served on `threads`, which must be
    /// there as long as the server is; without any, on the thread that the connection came in on.
    pub fn new(options: Options, threads: Vec<Thread>) -> Server {
        Server(Shared::new(options, threads))
    }

    /// Begins to listen, on the Spindle thread that runs the caller. Says where: TCP port 0 picks a free one.
    /// A Unix socket is for its owner only (mode 0600); one that was left by a process that is gone is
    /// replaced.
    ///
    /// # Errors
    /// The address is in use, by whom as far as that is known, or the system refuses.
    pub async fn listen(&self, address: Address) -> Result<Address, ListenError> {
        listening::listen(&self.0, address).await
    }

    /// Ends listening at one address. Connections that were accepted go on.
    ///
    /// # Errors
    /// The server does not listen there.
    pub async fn stop_listening(&self, address: &Address) -> Result<(), ListenError> {
        listening::stop(&self.0, address).await
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<Address> {
        self.0.addresses()
    }

    /// Serves a client that is connected already.
    pub fn serve(&self, socket: Socket, peer: String) {
        self.0.place(socket, peer);
    }

    /// Adds an export: from now on clients find it.
    ///
    /// # Errors
    /// The name is taken, or one that clients cannot ask for.
    pub fn add_export(&self, export: Export) -> Result<(), ExportError> {
        self.0.add(export).map(|_| ())
    }

    /// Opens a bdev on the Spindle thread that runs the caller and exports it, for reading only if that is asked
    /// for or the bdev cannot be written. When the bdev is removed the export is removed first, as by
    /// [`remove_export`](Self::remove_export).
    ///
    /// # Errors
    /// As [`add_export`](Self::add_export), and the bdev cannot be opened: it is not there, or claimed.
    pub fn export_bdev(&self, bdev: &str, export: BdevExport) -> Result<(), ExportError> {
        bdev::export(&self.0, bdev, export)
    }

    /// Removes an export. Its requests under way are answered, later ones refused as shutting down, and its
    /// connections closed; a client that does not take its replies is given [a while](Options::grace). When this returns
    /// the server has no channel of the device. Dropping the future leaves that to happen.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn remove_export(&self, name: &str) -> Result<Ended, ExportError> {
        let exported = self.0.take_export(name)?;
        Ok(self.end_export(exported).await)
    }

    /// Ends the connections of an export that is off the list.
    async fn end_export(&self, exported: Arc<Exported>) -> Ended {
        let failed = exported.failed_flushes();
        let uses = |export: &Option<Arc<Exported>>| {
            export.as_ref().is_some_and(|other| Arc::ptr_eq(other, &exported))
        };
        let connections = self.end_connections(uses).await;
        Ended { connections, failed_flushes: exported.failed_flushes() - failed }
    }

    /// The exports, by name, with those who use them.
    pub fn exports(&self) -> Vec<ExportInfo> {
        self.0.exports()
    }

    /// Connections, those that shake hands included.
    pub fn connections(&self) -> usize {
        self.0.connections()
    }

    /// Bytes of the [shared memory](Options::memory) that requests use now.
    pub fn memory_in_use(&self) -> usize {
        self.0.budget.lent()
    }

    /// Bytes of buffers that connections hold now, those they receive into included.
    pub fn buffers_held(&self) -> usize {
        self.0.pool.lent()
    }

    /// Ends the server: it listens no more, answers what is under way, flushes what was written and closes all
    /// connections. Dropping the future leaves that to happen, but for clients that do not take their replies.
    pub async fn stop(&self) -> Ended {
        let failed = self.0.failed_flushes();
        let listeners = self.0.begin_stop();
        listening::stop_all(listeners).await;
        let connections = self.end_connections(|_| true).await;
        Ended { connections, failed_flushes: self.0.failed_flushes() - failed }
    }

    /// Ends the connections whose export is one of those; says how many used an export.
    async fn end_connections(&self, which: impl Fn(&Option<Arc<Exported>>) -> bool) -> usize {
        let count = self.0.tell(&which, Stop::Gently);
        if timeout(self.0.options.grace, self.ended(&which)).await.is_err() {
            self.0.tell(&which, Stop::AtOnce);
            self.ended(&which).await;
        }
        count
    }

    async fn ended(&self, which: &impl Fn(&Option<Arc<Exported>>) -> bool) {
        poll_fn(|cx| match self.0.are_gone(which, cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}
