//! Where connections come from: those of one origin share limits, so that none takes all connections or memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spindle_engine::Peer;

/// The host, network or user behind a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A host, by its IPv4 address; one that is mapped into IPv6 counts as the IPv4 address.
    Host(Ipv4Addr),
    /// An IPv6 network, by the first 64 bits: a host has all addresses of its network to choose from.
    Network(u64),
    /// A user of this machine, by its number.
    User(u32),
    /// Not known.
    Unknown,
}

impl From<Peer> for Origin {
    fn from(peer: Peer) -> Origin {
        match peer {
            Peer::Tcp(address) => Origin::from(address.ip()),
            Peer::Process { uid, .. } => Origin::User(uid),
            _ => Origin::Unknown,
        }
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => Origin::Host(address),
            IpAddr::V6(address) => Origin::Network(network(address)),
        }
    }
}

fn network(address: Ipv6Addr) -> u64 {
    (u128::from(address) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Origin {
        Origin::from(Peer::Tcp(address.parse().expect("an address")))
    }

    #[test]
    fn connections_of_one_host_are_of_one_origin_whatever_their_port() {
        assert_eq!(from("192.0.2.1:1"), from("192.0.2.1:2"));
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

    #[test]
    fn all_addresses_of_an_ipv6_network_of_64_bits_are_one_origin() {
        assert_eq!(from("[2001:db8:0:1::1]:1"), from("[2001:db8:0:1:ffff:ffff:ffff:ffff]:2"));
        assert_ne!(from("[2001:db8:0:1::1]:1"), from("[2001:db8:0:2::1]:1"));
        assert_eq!(from("[fe80::1%2]:1"), from("[fe80::2%3]:1"));
    }

    #[test]
    fn an_ipv4_address_mapped_into_ipv6_counts_as_the_ipv4_address_and_not_as_a_network() {
        assert_eq!(from("192.0.2.1:1"), from("[::ffff:192.0.2.1]:1"));
        assert_ne!(from("[::ffff:192.0.2.1]:1"), from("[::ffff:192.0.2.2]:1"));
        assert_ne!(from("[::ffff:192.0.2.1]:1"), from("[::1]:1"));
    }
}
