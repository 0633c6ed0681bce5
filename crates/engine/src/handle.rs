//! Counted handles on what an engine opened: [`File`], [`Socket`], [`Listener`].
//!
//! A handle may be cloned and sent to any thread of its engine; dropping the last one closes. A worker thread
//! of the engine closes files: that may take long (a large deleted file, a network file system), and the
//! handle may be dropped on a reactor. An [open](crate::Op::Open) that finds a file in use waits for closes
//! that were queued before it, and an engine does not end before all files are closed. A socket is closed by
//! the thread that drops it. Flush what must be durable before closing. Each handle knows its engine, so that
//! another engine refuses it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine_id::EngineId;
use crate::owned::{FileFd, OwnedSocketFile};
use crate::sim_handle::SimHandle;
use crate::{Address, FileInfo};

/// What the engine that made a handle needs to serve it.
pub(crate) enum Body<Fd = OwnedFd> {
    /// A descriptor of the kernel.
    Os(Fd),
    /// An object of a simulated world.
    Sim(SimHandle),
}

/// An open file or block device.
#[derive(Clone)]
pub struct File(pub(crate) Arc<FileInner>);

pub(crate) struct FileInner {
    pub(crate) engine_id: EngineId,
    pub(crate) body: Body<FileFd>,
    pub(crate) path: PathBuf,
    pub(crate) info: FileInfo,
}

impl File {
    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Size and geometry when it was opened.
    pub fn info(&self) -> &FileInfo {
        &self.0.info
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.0.path.display())
    }
}

/// A connected stream.
#[derive(Clone)]
pub struct Socket(pub(crate) Arc<SocketInner>);

pub(crate) struct SocketInner {
    pub(crate) engine_id: EngineId,
    pub(crate) body: Body,
    /// The driver that has a send under way, where the kernel does not keep their order; 0 if none.
    sending: AtomicUsize,
}

impl SocketInner {
    pub(crate) fn new(engine_id: EngineId, body: Body) -> SocketInner {
        SocketInner { engine_id, body, sending: AtomicUsize::new(0) }
    }

    /// Notes that `driver` begins a send; false if it has one under way already, which must end first.
    /// Drivers do not wait for each other.
    pub(crate) fn begin_send(&self, driver: usize) -> bool {
        let found = self.sending.compare_exchange(0, driver, Ordering::AcqRel, Ordering::Acquire);
        found != Err(driver)
    }

    /// Notes that `driver` has no send under way any more.
    pub(crate) fn end_send(&self, driver: usize) {
        let _ = self.sending.compare_exchange(driver, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.body {
            Body::Os(fd) => write!(f, "Socket({fd:?})"),
            Body::Sim(handle) => write!(f, "Socket({:?})", handle.object()),
        }
    }
}

/// A listening socket.
#[derive(Clone)]
pub struct Listener(pub(crate) Arc<ListenerInner>);

pub(crate) struct ListenerInner {
    pub(crate) engine_id: EngineId,
    pub(crate) body: Body,
    pub(crate) address: Address,
    /// The files to remove with it, if it is the sole owner of its path.
    pub(crate) _owned: Option<OwnedSocketFile>,
}

impl Listener {
    /// Where it listens, with the port that was picked.
    pub fn address(&self) -> &Address {
        &self.0.address
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.0.address)
    }
}
