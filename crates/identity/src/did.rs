//! The DIDs that accounts may have: did:plc, and did:web of a whole host.

use std::fmt;

use crate::handle;

/// Where the document of a DID is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did<'a> {
    /// In the directory.
    Plc,
    /// At a host.
    Web {
        /// Its name.
        host: &'a str,
        /// Its port, where it is not the scheme's own.
        port: Option<u16>,
    },
}

/// Why a text is not the DID of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadDid {
    /// It does not begin with `did:plc:` or `did:web:`.
    Method,
    /// 24 letters of base32 do not follow.
    Plc,
    /// It names no host, or a path of it.
    Web,
}

/// How long one may be.
const LONGEST: usize = 2_048;

impl<'a> Did<'a> {
    /// Reads one.
    pub(crate) fn parse(text: &'a str) -> Result<Self, BadDid> {
        if text.len() > LONGEST {
            return Err(BadDid::Method);
        }
        if let Some(id) = text.strip_prefix("did:plc:") {
            let fits = id.len() == 24 && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
            return if fits { Ok(Self::Plc) } else { Err(BadDid::Plc) };
        }
        let id = text.strip_prefix("did:web:").ok_or(BadDid::Method)?;
        let (host, port) = match id.split_once("%3A").or_else(|| id.split_once("%3a")) {
            Some((host, port)) => (host, Some(read_port(port).ok_or(BadDid::Web)?)),
            None => (id, None),
        };
        let is_lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
        if is_lower && (handle::is_name(host) || host == "localhost") {
            Ok(Self::Web { host, port })
        } else {
            Err(BadDid::Web)
        }
    }
}

/// Reads a port as everybody writes it.
fn read_port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for BadDid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "is neither did:plc nor did:web",
            Self::Plc => "is not did:plc: and 24 letters of base32",
            Self::Web => "is not did:web: and the name of a host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_did_is_of_its_method_or_refused() {
        let web = |host, port| Ok(Did::Web { host, port });
        for (text, expected) in [
            ("did:plc:ewvi7nxzyoun6zhxrhs64oiz", Ok(Did::Plc)),
            ("did:plc:ewvi7nxzyoun6zhxrhs64oi", Err(BadDid::Plc)),
            ("did:plc:ewvi7nxzyoun6zhxrhs64oizz", Err(BadDid::Plc)),
            ("did:plc:ewvi7nxzyoun6zhxrhs64oi1", Err(BadDid::Plc)),
            ("did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", Err(BadDid::Plc)),
            ("did:plc:../../../../etc/passwd..", Err(BadDid::Plc)),
            ("did:web:example.com", web("example.com", None)),
            ("did:web:localhost%3A2583", web("localhost", Some(2583))),
            ("did:web:pds.example.com%3A8443", web("pds.example.com", Some(8443))),
            ("did:web:example.com:user", Err(BadDid::Web)),
            ("did:web:example.com%3A", Err(BadDid::Web)),
            ("did:web:example.com%3A080", Err(BadDid::Web)),
            ("did:web:example.com%3A70000", Err(BadDid::Web)),
            ("did:web:example.com%3A+80", Err(BadDid::Web)),
            ("did:web:example.com%2Fetc", Err(BadDid::Web)),
            ("did:web:Example.com", Err(BadDid::Web)),
            ("did:web:127.0.0.1", Err(BadDid::Web)),
            ("did:web:[::1]", Err(BadDid::Web)),
            ("did:web:user@example.com", Err(BadDid::Web)),
            ("did:web:example", Err(BadDid::Web)),
            ("did:web:", Err(BadDid::Web)),
            ("did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF", Err(BadDid::Method)),
            ("", Err(BadDid::Method)),
        ] {
            assert_eq!(Did::parse(text), expected, "{text}");
        }
    }
}
