//! Where connections come from: those of one origin share limits, so that no host takes all connections or memory.

use std::net::IpAddr;

use spindle_engine::Peer;

/// The host or user behind a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A host, by its address; an IPv4 address mapped into IPv6 counts as the IPv4 address.
    Host(IpAddr),
    /// A user of this machine, by its number.
    User(u32),
    /// Not known.
    Unknown,
}

impl From<Peer> for Origin {
    fn from(peer: Peer) -> Origin {
        match peer {
            Peer::Tcp(address) => Origin::Host(address.ip().to_canonical()),
            Peer::Process { uid, .. } => Origin::User(uid),
            _ => Origin::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_host_are_of_one_origin_whatever_their_port() {
        let from = |address: &str| Origin::from(Peer::Tcp(address.parse().expect("an address")));
        assert_eq!(from("192.0.2.1:1"), from("192.0.2.1:2"));
        assert_eq!(from("192.0.2.1:1"), from("[::ffff:192.0.2.1]:1"));
        assert_ne!(from("192.0.2.1:1"), from("192.0.2.2:1"));
        assert_ne!(
            Origin::from(Peer::Process { pid: 1, uid: 1 }),
            Origin::from(Peer::Process { pid: 1, uid: 2 })
        );
        assert_eq!(
            Origin::from(Peer::Process { pid: 1, uid: 1 }),
            Origin::from(Peer::Process { pid: 2, uid: 1 })
        );
    }
}
