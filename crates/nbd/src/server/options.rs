//! Limits of a server.

use std::time::Duration;

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at one time; one more is closed at once.
    pub connections: usize,
    /// How long a client may take to shake hands.
    pub handshake: Duration,
    /// Bytes that all connections together use for requests under way, beyond the 256 KiB that each may use
    /// for itself. At least 64 MiB.
    pub memory: usize,
    /// How long a client may leave replies lying while others wait for the memory that they are in; then its
    /// connection is closed.
    pub stalled: Duration,
    /// How long clients are given to take their last replies when their export or the server goes.
    pub grace: Duration,
}

impl Default for Options {
    /// 1024 connections, ten seconds, 256 MiB, thirty seconds, five seconds.
    fn default() -> Options {
        Options {
            connections: 1024,
            handshake: Duration::from_secs(10),
            memory: 256 << 20,
            stalled: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}
