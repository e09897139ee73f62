//! Whom a connection comes from, and as whom it is counted.

use std::net::{IpAddr, Ipv6Addr};

/// Whose connection a request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

// === impl Peer ===

impl Peer {
    /// Returns whom it is counted as: of IPv6 a whole network of 64 bits, as hosts change within theirs at will.
    pub(crate) fn client(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_network_are_one() {
        let client = |address: &str| Peer(address.parse().unwrap()).client().to_string();
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(client("2001:db8::ffff:2"), "2001:db8::");
        assert_eq!(client("2001:db8:0:1::1"), "2001:db8:0:1::");
    }
}
