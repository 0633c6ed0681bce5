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
    /// Connections that were told to make room and have not ended: with so many a new one is closed.
    pub leaving: usize,
    /// How many connections of one origin that come to nothing are served in a second, once as many as
    /// `connections_of_one` have come sooner: further ones wait for their turn, 64 at most, and the rest is closed. A
    /// connection comes to something with its first request, or if its client leaves as the protocol says.
    ///
    /// What they owe is kept for 4096 origins. If all of them owe, a further one takes over the smallest debt: it waits
    /// only if each of them owes `connections_of_one` connections.
    pub visits_of_one: u32,
    /// Connections of all origins that wait for their turn.
    pub waiting: usize,
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
    /// How long the end of an export or of the server waits for requests that the device keeps. They are answered as
    /// shutting down then, and the connections closed.
    pub patience: Duration,
}

impl Default for Options {
    /// 2048 connections, 1024 of one origin, 1024 that leave, 64 a second in vain, 256 that wait, ten seconds, 256 MiB,
    /// 128 of one origin, thirty seconds, five seconds twice, thirty seconds.
    fn default() -> Options {
        Options {
            connections: 2048,
            connections_of_one: 1024,
            leaving: 1024,
            visits_of_one: 64,
            waiting: 256,
            handshake: Duration::from_secs(10),
            memory: 256 << 20,
            memory_of_one: 128 << 20,
            stalled: Duration::from_secs(30),
            withheld: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            patience: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// The same with limits of connections that need no more than so many open files. The connections of one origin keep
    /// their proportion to all.
    pub fn within_files(self, files: usize) -> Options {
        let (waiting, leaving) = (self.waiting.min(files / 8), self.leaving.min(files / 8).max(1));
        let connections = self.connections.min(files.saturating_sub(waiting + leaving)).max(1);
        let of_one = self.connections_of_one as u128 * connections as u128 / self.connections.max(1) as u128;
        let connections_of_one = usize::try_from(of_one).unwrap_or(usize::MAX).max(1);
        Options { connections, connections_of_one, leaving, waiting, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_fit_into_the_open_files_are_kept_and_others_cut_in_proportion() {
        let limits = |files| {
            let Options { connections, connections_of_one, leaving, waiting, .. } =
                Options::default().within_files(files);
            [connections, connections_of_one, leaving, waiting]
        };
        assert_eq!(limits(1 << 20), [2048, 1024, 1024, 256]);
        assert_eq!(limits(800), [600, 300, 100, 100]);
        assert_eq!(limits(0), [1, 1, 1, 0]);
        for files in 2..10_000 {
            let [connections, of_one, leaving, waiting] = limits(files);
            assert!(connections + leaving + waiting <= files, "{files}");
            assert!(connections == 1 || of_one == connections / 2, "{files}");
        }
        let as_many = usize::MAX;
        let options = Options { connections: as_many, connections_of_one: as_many, ..Options::default() };
        let cut = options.within_files(800);
        assert_eq!((cut.connections, cut.connections_of_one), (600, 600));
    }
}
