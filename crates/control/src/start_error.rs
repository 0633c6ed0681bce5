//! Why the daemon did not start.

use std::io;

use spindle_bdev::BdevError;
use spindle_lvol::LvolError;
use spindle_nbd::{ExportError, ListenError, TlsError};
use spindle_reactor::CreateError;

use crate::core_locks::CoreTaken;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A core is locked by another process, or its lock file cannot be made.
    #[error(transparent)]
    Core(#[from] CoreTaken),
    /// The RPC socket is in use or cannot be made.
    #[error("{0}")]
    Socket(io::Error),
    /// The configuration cannot be replayed.
    #[error("{0}")]
    Config(String),
    /// A thread could not be made.
    #[error(transparent)]
    Thread(#[from] CreateError),
    /// The logical volumes could not be started.
    #[error(transparent)]
    Volumes(#[from] LvolError),
    /// A file cannot be served.
    #[error(transparent)]
    File(#[from] BdevError),
    /// A bdev has the name and the path of a file already.
    #[error(
        "the file {0} cannot be served: a bdev has this name already; name each file once, or by another path"
    )]
    SameFile(String),
    /// A file cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The NBD server cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The NBD server's certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
