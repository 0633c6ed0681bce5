//! Addresses of stream sockets, their peers, and directions of a stream.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a stream socket listens or connects. In simulation both kinds are names in the world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A Unix domain socket by its path (at most 107 bytes).
    Unix(PathBuf),
    /// TCP, nothing to resolve.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

/// The other end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A process of this machine, as it was when it connected; 0 where it is not visible from here.
    Process {
        /// Its number.
        pid: u32,
        /// Its user.
        uid: u32,
    },
    /// A TCP address.
    Tcp(SocketAddr),
    /// Another task of a simulated world.
    Simulated,
    /// It is gone, or the system does not tell.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process { pid, uid } => write!(f, "process {pid} of user {uid}"),
            Peer::Tcp(address) => write!(f, "{address}"),
            Peer::Simulated => f.write_str("simulated"),
            Peer::Unknown => f.write_str("unknown"),
        }
    }
}

/// Which directions of a stream to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing more will be received.
    Read,
    /// Nothing more will be sent; the peer sees the end of the stream.
    Write,
    /// Both.
    Both,
}

/// What to wait for on a foreign descriptor, or the result of that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Reading would not block.
    pub readable: bool,
    /// Writing would not block.
    pub writable: bool,
}

impl Interest {
    /// Wait for input.
    pub const READABLE: Interest = Interest { readable: true, writable: false };
    /// Wait for room to write.
    pub const WRITABLE: Interest = Interest { readable: false, writable: true };
}
