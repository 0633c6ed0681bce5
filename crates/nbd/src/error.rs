//! Refusals of a server, with the object's name and the remedy.

use std::path::PathBuf;

use spindle_bdev::{BdevError, errno_of_io};
use spindle_engine::Address;

/// Why an export cannot be added or removed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A name or description that the protocol cannot carry.
    #[error("export '{name}': its {what} {reason}; choose another")]
    Text {
        /// The export, its name shortened.
        name: String,
        /// Name or description.
        what: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// An export of this name exists.
    #[error("export '{0}' exists already; remove it first or choose another name")]
    Exists(String),
    /// No export has this name.
    #[error("no export is called '{0}'; list the exports for their names")]
    Unknown(String),
    /// The bdev cannot be opened.
    #[error("export '{name}': {source}")]
    Bdev {
        /// The export, its name shortened.
        name: String,
        /// The reason.
        source: BdevError,
    },
    /// The server is stopping.
    #[error("export '{0}': the server is stopping; start it again")]
    Stopping(String),
}

/// Why the certificates of a listener cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}; the folder of TLS files holds ca-cert.pem, server-cert.pem and server-key.pem", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}; make it again, in PEM", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// Why the server cannot listen at an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The system refused.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// The server already listens there.
    #[error("the server listens on {0} already; use that listener, or choose another address")]
    Exists(Address),
    /// The server does not listen there.
    #[error("the server does not listen on {0}; list the listeners for their addresses")]
    Unknown(Address),
    /// The server is stopping.
    #[error("cannot listen on {0}: the server is stopping; start it again")]
    Stopping(Address),
}

impl ListenError {
    /// The system's error number for it.
    pub fn errno(&self) -> i32 {
        match self {
            ListenError::System(error) => errno_of_io(error),
            ListenError::Exists(_) => EEXIST,
            _ => EINVAL,
        }
    }
}

const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
