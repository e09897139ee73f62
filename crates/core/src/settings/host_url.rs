//! The address of a host that holds repos: a mirror, or a relay.

use std::fmt;

use url::Url;

use super::value::Value;

/// An address such as `https://pds.example.com`: scheme, name, perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostUrl(Box<str>);

// === impl HostUrl ===

impl HostUrl {
    /// Returns it without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for HostUrl {
    const ALLOWED: &'static str = "addresses of hosts such as https://pds.example.com, comma-separated";

    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() == "/";
        if !is_bare || !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return None;
        }
        Some(Self(url.origin().ascii_serialization().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_scheme_a_name_and_perhaps_a_port() {
        for (text, expected) in [
            ("https://pds.example.com", "https://pds.example.com"),
            ("https://pds.example.com/", "https://pds.example.com"),
            ("https://PDS.example.com:443", "https://pds.example.com"),
            ("http://127.0.0.1:2583", "http://127.0.0.1:2583"),
            ("http://[::1]:2583/", "http://[::1]:2583"),
        ] {
            assert_eq!(HostUrl::parse(text).map(|host| host.to_string()).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "pds.example.com",
            "ftp://pds.example.com",
            "wss://relay.example.com",
            "https://",
            "https://pds.example.com/xrpc",
            "https://pds.example.com/?a=b",
            "https://user@pds.example.com",
            "https://:secret@pds.example.com",
        ] {
            assert_eq!(HostUrl::parse(bad), None, "{bad}");
        }
    }
}
