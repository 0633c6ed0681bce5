//! Limits of a server.

use std::time::Duration;

/// Limits of a server.
///
/// Some are for the connections of one origin: by TCP, an IPv4 address or an IPv6 network of 64 bits; by a Unix
/// socket, a user of this machine. An IPv4 address that is mapped into IPv6 counts as the IPv4 address.
#[derive(Clone, Debug)]
pub struct Options {
    /// Concurrent connections. One more closes the connection that has been longest in its handshake, or is closed
    /// itself if all others use an export.
    pub connections: usize,
    /// The same for the connections of one origin.
    pub connections_of_one: usize,
    /// How many connections of one origin that come to nothing are served in a second, once as many as
    /// `connections_of_one` have come sooner: further ones wait for their turn, 64 at most, and the rest is closed. A
    /// connection comes to something with its first request, or if its client leaves as the protocol says.
    ///
    /// What they owe is kept for 4096 origins. If all of them owe, a further one takes over the smallest debt: it waits
    /// only if each of them owes `connections_of_one` connections.
    pub visits_of_one: u32,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Bytes that all connections together use for requests under way, beyond 256 KiB for each. At least 64
    /// MiB.
    pub memory: usize,
    /// The most of that memory for the connections of one origin. At least 64 MiB.
    pub memory_of_one: usize,
    /// How long a client may leave replies unread while others wait for their memory; then its connection is
    /// closed.
    pub stalled: Duration,
    /// How long a client may send nothing of the data of a write that it has announced, while others wait for the
    /// memory that is held for it; then its connection is closed.
    pub withheld: Duration,
    /// How long clients have to read their last replies when their export or the server ends: the time in which replies
    /// are being sent, not that which a device needs for a request. And how long the removal of a bdev waits for requests
    /// of its export before they end as removed.
    pub grace: Duration,
}

impl Default for Options {
    /// 2048 connections, 1024 of one origin, 64 a second in vain, ten seconds, 256 MiB, 128 of one origin, thirty
    /// seconds, five seconds twice.
    fn default() -> Options {
        Options {
            connections: 2048,
            connections_of_one: 1024,
            visits_of_one: 64,
            handshake: Duration::from_secs(10),
            memory: 256 << 20,
            memory_of_one: 128 << 20,
            stalled: Duration::from_secs(30),
            withheld: Duration::from_secs(5),
            grace: Duration::from_secs(5),
        }
    }
}
