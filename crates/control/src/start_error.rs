//! Why the daemon did not start.

use std::io;

use spindle_bdev::BdevError;
use spindle_engine::Address;
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
    /// Another bdev or export has the name and the path of a file.
    #[error(
        "the file {0} cannot be served: another bdev or export has this name; name the file by another path"
    )]
    NameTaken(String),
    /// A file is given twice.
    #[error("the file {}", given_twice(first, second))]
    SameFile {
        /// Its path.
        first: String,
        /// Its other path, or the same.
        second: String,
    },
    /// An address of the NBD server is given twice.
    #[error("the address {}", given_twice(&first.to_string(), &second.to_string()))]
    SameAddress {
        /// The address.
        first: Address,
        /// Another spelling, or the same.
        second: Address,
    },
    /// The NBD server is to listen on an address and on all addresses of the machine at the same port.
    #[error("the address {all} includes {one}; remove one of the two")]
    AddressIncluded {
        /// All addresses.
        all: Address,
        /// The one.
        one: Address,
    },
    /// The configuration listens at an address of the command line with other certificates.
    #[error(
        "the configuration listens on {0} too, with other TLS settings; leave the address out here or there, or give both \
         the same folder of certificates"
    )]
    ListensOtherwise(Address),
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

fn given_twice(first: &str, second: &str) -> String {
    let also = if first == second { String::new() } else { format!(", also as {second}") };
    format!("{first} is given twice{also}; remove one of the two")
}
