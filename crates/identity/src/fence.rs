//! Which addresses may be connected to: those of the open internet, and the private networks that a setting names.
//!
//! <https://www.iana.org/assignments/iana-ipv4-special-registry> and its counterpart of IPv6 list the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use penstock_core::settings::Network;

/// Networks of IPv4 that are not of the open internet, as first address and bits.
const CLOSED_V4: [([u8; 4], u32); 19] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    // Answers for the machine itself at one large cloud, though it is not listed.
    ([168, 63, 129, 16], 32),
];

/// Those of IPv6 within 2000::/3, which alone is assigned.
const CLOSED_V6: [([u16; 8], u32); 6] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
    ([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// The prefix under which IPv6-only networks reach IPv4.
const NAT64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Of the open internet.
    Open,
    /// Of a private network that the settings name.
    Allowed,
    /// Of one that they do not.
    Forbidden,
}

/// Decides which addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence {
    allowed: Vec<Network>,
}

impl Fence {
    /// Makes one with the private networks that may be asked.
    pub(crate) fn new(allowed: &[Network]) -> Self {
        Self { allowed: allowed.to_vec() }
    }

    /// Returns whether any private network may be asked.
    pub(crate) fn allows_any(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// Says what an address is.
    pub(crate) fn place(&self, address: IpAddr) -> Place {
        if self.allowed.iter().any(|network| network.contains(address)) {
            Place::Allowed
        } else if is_open(address) {
            Place::Open
        } else {
            Place::Forbidden
        }
    }
}

fn is_open(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_open_v4(address),
        IpAddr::V6(address) => is_open_v6(address),
    }
}

fn is_open_v4(address: Ipv4Addr) -> bool {
    !CLOSED_V4.iter().any(|(first, bits)| {
        let differing = address.to_bits() ^ Ipv4Addr::from(*first).to_bits();
        differing.leading_zeros() >= *bits
    })
}

fn is_open_v6(address: Ipv6Addr) -> bool {
    let shared = |first: Ipv6Addr| (address.to_bits() ^ first.to_bits()).leading_zeros();
    if shared(NAT64) >= 96 {
        let [.., a, b, c, d] = address.octets();
        return is_open_v4(Ipv4Addr::new(a, b, c, d));
    }
    let is_assigned = shared(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)) >= 3;
    is_assigned && !CLOSED_V6.iter().any(|(first, bits)| shared(Ipv6Addr::from(*first)) >= *bits)
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Value;

    use super::*;

    #[test]
    fn only_the_open_internet_and_named_networks_may_be_asked() {
        let fence = Fence::new(&[Network::parse("10.9.0.0/16").unwrap(), Network::parse("fd00:9::/32").unwrap()]);
        for (address, place) in [
            // The open internet, and the edges of what is not.
            ("1.1.1.1", Place::Open),
            ("9.255.255.255", Place::Open),
            ("11.0.0.0", Place::Open),
            ("100.63.255.255", Place::Open),
            ("100.128.0.0", Place::Open),
            ("169.253.255.255", Place::Open),
            ("172.15.255.255", Place::Open),
            ("172.32.0.0", Place::Open),
            ("192.167.255.255", Place::Open),
            ("192.169.0.0", Place::Open),
            ("198.17.255.255", Place::Open),
            ("198.20.0.0", Place::Open),
            ("223.255.255.255", Place::Open),
            ("2606:4700::1111", Place::Open),
            ("2a00:1450:4001::1", Place::Open),
            ("64:ff9b::1.1.1.1", Place::Open),
            // This host, private, shared, loopback, link-local with the metadata of clouds.
            ("0.0.0.0", Place::Forbidden),
            ("0.1.2.3", Place::Forbidden),
            ("10.0.0.1", Place::Forbidden),
            ("100.64.0.1", Place::Forbidden),
            ("100.100.100.200", Place::Forbidden),
            ("127.0.0.1", Place::Forbidden),
            ("127.255.255.254", Place::Forbidden),
            ("169.254.169.254", Place::Forbidden),
            ("168.63.129.16", Place::Forbidden),
            ("172.16.0.1", Place::Forbidden),
            ("172.31.255.255", Place::Forbidden),
            ("192.168.1.1", Place::Forbidden),
            ("192.0.0.192", Place::Forbidden),
            // Documentation, benchmarking, relays of 6to4, multicast, reserved, broadcast.
            ("192.0.2.1", Place::Forbidden),
            ("198.51.100.1", Place::Forbidden),
            ("203.0.113.1", Place::Forbidden),
            ("198.18.0.1", Place::Forbidden),
            ("198.19.255.255", Place::Forbidden),
            ("192.88.99.1", Place::Forbidden),
            ("224.0.0.1", Place::Forbidden),
            ("239.255.255.255", Place::Forbidden),
            ("240.0.0.1", Place::Forbidden),
            ("255.255.255.255", Place::Forbidden),
            // IPv6: unspecified, loopback, unique local, link-local, multicast, documentation, and what carries IPv4.
            ("::", Place::Forbidden),
            ("::1", Place::Forbidden),
            ("fc00::1", Place::Forbidden),
            ("fd00:ec2::254", Place::Forbidden),
            ("fe80::1", Place::Forbidden),
            ("fec0::1", Place::Forbidden),
            ("ff02::1", Place::Forbidden),
            ("2001:db8::1", Place::Forbidden),
            ("3fff::1", Place::Forbidden),
            ("2001::1", Place::Forbidden),
            ("2001:2::1", Place::Forbidden),
            ("2001:10::1", Place::Forbidden),
            ("2002:7f00:1::", Place::Forbidden),
            ("2002:a00:1::", Place::Forbidden),
            ("100::1", Place::Forbidden),
            ("5f00::1", Place::Forbidden),
            ("4000::1", Place::Forbidden),
            ("::ffff:1.1.1.1", Place::Forbidden),
            ("::ffff:127.0.0.1", Place::Forbidden),
            ("::127.0.0.1", Place::Forbidden),
            ("64:ff9b::127.0.0.1", Place::Forbidden),
            ("64:ff9b::a9fe:a9fe", Place::Forbidden),
            ("64:ff9b:1::1.1.1.1", Place::Forbidden),
            // Named by the settings.
            ("10.9.1.1", Place::Allowed),
            ("::ffff:10.9.1.1", Place::Allowed),
            ("10.10.0.0", Place::Forbidden),
            ("fd00:9::1", Place::Allowed),
            ("fd00:a::1", Place::Forbidden),
        ] {
            assert_eq!(fence.place(address.parse().unwrap()), place, "{address}");
        }
    }
}
