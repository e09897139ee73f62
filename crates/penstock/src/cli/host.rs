//! An address to connect to: a name, IPv4 or IPv6, and a port.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(String);

// === impl HostPort ===

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || "must be host:port, such as 127.0.0.1:9465, [::1]:9465 or bluesky-ingest:9464".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        port.parse::<u16>().map_err(|_| refused())?;
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match address {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            // Without brackets nobody knows where an IPv6 address ends.
            None => {
                !host.is_empty() && !host.contains([':', '/', '@', '[', ']']) && !host.contains(char::is_whitespace)
            }
        };
        if is_host { Ok(Self(text.to_owned())) } else { Err(refused()) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_kinds_are_hosts() {
        for good in ["127.0.0.1:1", "[::1]:9464", "[fd00:10::5]:9464", "localhost:65535", "a.b.svc.cluster.local:80"] {
            assert_eq!(good.parse::<HostPort>().map(|host| host.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["", "a", ":1", "a:", "a:65536", "a:http", "::1:9464", "[::1]", "[a]:1", "http://a:1", "u@a:1", "a b:1"]
        {
            let error = bad.parse::<HostPort>().unwrap_err();
            assert!(error.starts_with("must be host:port"), "{bad}: {error}");
        }
    }
}
