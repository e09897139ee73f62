//! What a handle looks like, and which ones can never resolve.
//!
//! <https://atproto.com/specs/handle>

/// The longest name, in bytes.
const LONGEST: usize = 253;

/// The longest label of it.
const LONGEST_LABEL: usize = 63;

/// Top-level domains that are nobody's.
const NOBODYS: [&str; 8] = ["local", "arpa", "invalid", "localhost", "internal", "example", "alt", "onion"];

/// Returns whether a text is a domain name of two labels or more that could be a handle; either case.
pub(crate) fn is_name(text: &str) -> bool {
    let labels = || text.split('.');
    text.len() <= LONGEST
        && labels().count() >= 2
        && labels().all(is_label)
        && labels().next_back().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_alphabetic()))
}

/// Returns whether nobody can own a name: its top-level domain is reserved. `.test` is for private networks.
pub(crate) fn is_nobodys(name: &str, private: bool) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    NOBODYS.iter().any(|tld| tld.eq_ignore_ascii_case(last)) || (!private && last.eq_ignore_ascii_case("test"))
}

/// Returns the handle that an `at://` URI claims, in lower case.
pub(crate) fn claimed(uri: &str) -> Option<String> {
    let name = uri.strip_prefix("at://")?;
    is_name(name).then(|| name.to_ascii_lowercase())
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    (1..=LONGEST_LABEL).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_a_name_that_could_be_registered() {
        let long = format!("{}.com", "a".repeat(63));
        let longer = format!("{}.com", "a".repeat(64));
        let longest = format!("{}com", "a.".repeat(125));
        let over = format!("{}comm", "a.".repeat(125));
        for (name, is) in [
            ("a.co", true),
            ("jay.bsky.social", true),
            ("8.cn", true),
            ("xn--notarealidn.com", true),
            ("A-0c.TEST", true),
            (long.as_str(), true),
            (longer.as_str(), false),
            (longest.as_str(), true),
            (over.as_str(), false),
            ("jo@hn.test", false),
            ("john..test", false),
            ("xn--bcher-.tld", false),
            ("john.0", false),
            ("cn.8", false),
            ("www.maséc.com", false),
            ("org", false),
            ("name.org.", false),
            (".com", false),
            ("-a.com", false),
            ("a_b.com", false),
            ("a.com/x", false),
            ("a.com:80", false),
            ("", false),
        ] {
            assert_eq!(is_name(name), is, "{name}");
        }
        assert_eq!(claimed("at://Alice.Example.COM").as_deref(), Some("alice.example.com"));
        assert_eq!(claimed("https://alice.example.com"), None);
        assert_eq!(claimed("at://alice.example.com/"), None);
    }

    #[test]
    fn reserved_names_are_nobodys() {
        for (name, public, private) in [
            ("alice.com", false, false),
            ("alice.test", true, false),
            ("alice.local", true, true),
            ("handle.invalid", true, true),
            ("alice.ONION", true, true),
            ("1.0.0.127.in-addr.arpa", true, true),
            ("local.com", false, false),
        ] {
            assert_eq!((is_nobodys(name, false), is_nobodys(name, true)), (public, private), "{name}");
        }
    }
}
