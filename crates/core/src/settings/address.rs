//! The addresses of other systems: relays and Redis; none is ever printed with its password.

use std::fmt;
use std::net::Ipv6Addr;

use url::Url;

use super::value::Value;

/// The path under which every relay and PDS serves its events.
pub const SUBSCRIBE_REPOS: &str = "/xrpc/com.atproto.sync.subscribeRepos";

/// A relay, given as a bare host, an `/xrpc` base or the full path.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayUrl(Url);

/// A Redis, one server or Sentinel or Cluster, with or without TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    url: Url,
    kind: RedisKind,
}

/// What stands behind a Redis address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// One server.
    Single,
    /// A primary that Sentinels know.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

// === impl RelayUrl ===

impl RelayUrl {
    /// Returns the address of the event stream, with a cursor where there is one.
    #[must_use]
    pub fn subscribe(&self, cursor: Option<u64>) -> Url {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let base =
            base.strip_suffix(SUBSCRIBE_REPOS).or_else(|| base.strip_suffix("/xrpc")).unwrap_or(&base).to_owned();
        url.set_path(&format!("{base}{SUBSCRIBE_REPOS}"));
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", &cursor.to_string());
        }
        url
    }

    /// Returns the host, and the port where it is not the scheme's own: what a cursor belongs to.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(mask(self.0.as_str()).trim_end_matches('/'))
    }
}

impl fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for RelayUrl {
    const ALLOWED: &'static str =
        "one or more relay URLs, comma-separated, such as wss://bsky.network or ws://localhost:2583";

    fn parse(text: &str) -> Option<Self> {
        let text = match text.split_once("://") {
            Some(("https", rest)) => format!("wss://{rest}"),
            Some(("http", rest)) => format!("ws://{rest}"),
            Some(_) => text.to_owned(),
            None => format!("wss://{text}"),
        };
        let url = Url::parse(&text).ok()?;
        // A cursor belongs to us; a query of somebody's own could name another one.
        let plain = url.query().is_none() && url.fragment().is_none();
        (matches!(url.scheme(), "ws" | "wss") && url.host_str().is_some_and(|host| !host.is_empty()) && plain)
            .then_some(Self(url))
    }

    fn mask(text: &str) -> String {
        mask(text)
    }
}

// === impl RedisUrl ===

impl RedisUrl {
    /// Returns the address with its password, for the client.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.as_str()
    }

    /// Returns what stands behind the address.
    #[must_use]
    pub fn kind(&self) -> RedisKind {
        self.kind
    }

    /// Says whether it asks for TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.url.scheme().starts_with("rediss")
    }

    /// Returns the host and the port that are connected to first.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let usual = if self.kind == RedisKind::Sentinel { 26379 } else { 6379 };
        let host = self.url.host_str()?.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), self.url.port().unwrap_or(usual)))
    }

    /// Puts an address together from host, port and password.
    #[must_use]
    pub fn from_parts(host: &str, port: u16, password: Option<&str>) -> Option<Self> {
        let mut url = Url::parse("redis://localhost").ok()?;
        url.set_host(Some(&bare_host(host)?)).ok()?;
        url.set_port(Some(port)).ok()?;
        // `set_password` leaves a percent sign as it is.
        url.set_password(password.map(escaped).as_deref()).ok()?;
        Self::parse(url.as_str())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(self.url.as_str()))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for RedisUrl {
    const ALLOWED: &'static str = "redis://[user:password@]host[:port][/database], rediss:// for TLS, \
        redis-sentinel://host:port?sentinelServiceName=name[&sentinelUsername=user&sentinelPassword=password][&node=host:port], redis-cluster://host:port[?node=host:port]";

    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let tls = url.scheme().strip_prefix("rediss").or_else(|| url.scheme().strip_prefix("redis"))?;
        let service = url.query_pairs().any(|(name, value)| name == "sentinelServiceName" && !value.is_empty());
        let kind = match tls {
            "" if service => RedisKind::Sentinel,
            "" => RedisKind::Single,
            "-sentinel" if service => RedisKind::Sentinel,
            "-cluster" => RedisKind::Cluster,
            _ => return None,
        };
        let database = url.path().trim_matches('/');
        let database_fits = database.is_empty() || (kind != RedisKind::Cluster && database.parse::<u8>().is_ok());
        (url.host_str().is_some_and(|host| !host.is_empty()) && database_fits).then_some(Self { url, kind })
    }

    fn mask(text: &str) -> String {
        mask(text)
    }
}

/// Returns a host as it stands in an address; none where the text is more than a host.
pub(super) fn bare_host(host: &str) -> Option<String> {
    // The address of IPv6 needs its brackets; of `h:1` an address would take `h` only.
    let host = host.parse::<Ipv6Addr>().map_or_else(|_| host.to_owned(), |address| format!("[{address}]"));
    (host.starts_with('[') || !host.contains([':', '/', '?', '#', '@', '\\'])).then_some(host)
}

/// Escapes everything that could mean something in an address.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            escaped + char::from(byte).encode_utf8(&mut [0; 4])
        }
        _ => escaped + &format!("%{byte:02X}"),
    })
}

/// Hides what stands between `:` and `@` of an address, and every query value that names a password.
///
/// The text need not be a sound address: a password may hold an @, a slash or a question mark that was not escaped. So
/// what could be one is hidden, up to the last @, and only the user before it is shown.
#[must_use]
pub fn mask(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, text),
    };
    let mut shown = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    let (login, place) = rest.rsplit_once('@').map_or(("", rest), |(login, place)| (login, place));
    if rest.len() > place.len() {
        let user = login.split([':', '@', '/', '?', '#']).next().unwrap_or_default();
        shown += match scheme {
            Some(_) if user.len() == login.len() => user.to_owned(),
            Some(_) => format!("{user}:***"),
            None => "***".to_owned(),
        }
        .as_str();
        shown.push('@');
    }
    // The last @ may be one of a password in the query: then it goes on behind it.
    let mut goes_on = login.rsplit('&').next().is_some_and(|pair| password_start(pair).is_some());
    for (index, pair) in place.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        match (std::mem::take(&mut goes_on), password_start(pair)) {
            (true, _) => shown.push_str("***"),
            (false, Some(start)) => shown.extend([pair.get(..start).unwrap_or_default(), "***"]),
            (false, None) => shown.push_str(pair),
        }
    }
    shown.chars().take(300).collect()
}

/// Whether a text is a scheme, and not the start of a login that happens to hold `://`.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

/// Finds where the value begins of a pair whose name speaks of a password.
fn password_start(pair: &str) -> Option<usize> {
    let name = pair.to_ascii_lowercase().find("password")?;
    pair.get(name..)?.find('=').map(|equals| name + equals + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_relay_reaches_the_same_path() {
        for form in [
            "bsky.network",
            "wss://bsky.network",
            "https://bsky.network/",
            "wss://bsky.network/xrpc",
            "wss://bsky.network/xrpc/",
            "wss://bsky.network/xrpc/com.atproto.sync.subscribeRepos",
        ] {
            let relay = RelayUrl::parse(form).unwrap();
            assert_eq!(
                relay.subscribe(None).as_str(),
                "wss://bsky.network/xrpc/com.atproto.sync.subscribeRepos",
                "{form}"
            );
            assert_eq!(relay.host(), "bsky.network");
        }
        let local = RelayUrl::parse("ws://localhost:2583/base").unwrap();
        assert_eq!(
            local.subscribe(Some(7)).as_str(),
            "ws://localhost:2583/base/xrpc/com.atproto.sync.subscribeRepos?cursor=7"
        );
        assert_eq!(local.host(), "localhost:2583");
        for bad in ["", "ftp://x", "wss://", "wss://x?cursor=1"] {
            assert_eq!(RelayUrl::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn redis_addresses_are_told_apart() {
        let kind = |text| RedisUrl::parse(text).map(|url| url.kind());
        assert_eq!(kind("redis://localhost:6379"), Some(RedisKind::Single));
        assert_eq!(kind("rediss://u:p@h:6380/3"), Some(RedisKind::Single));
        assert_eq!(kind("redis-sentinel://s:26379?sentinelServiceName=main"), Some(RedisKind::Sentinel));
        assert_eq!(kind("redis-sentinel://s:26379"), None);
        assert_eq!(kind("rediss-cluster://a:7000?node=b:7000"), Some(RedisKind::Cluster));
        for bad in ["http://h", "redis://", "redis://h/x", "redis://h:99999", "localhost:6379", "redis-cluster://h:1/2"]
        {
            assert_eq!(kind(bad), None, "{bad:?}");
        }
        let made = RedisUrl::from_parts("h", 1234, Some("p@/:w%41")).unwrap();
        assert_eq!(made.to_string(), "redis://:***@h:1234");
        assert_eq!(made.expose(), "redis://:p%40%2F%3Aw%2541@h:1234");
    }

    #[test]
    fn a_host_is_what_is_connected_to_or_refused() {
        let made = |host| RedisUrl::from_parts(host, 1234, None).map(|url| url.to_string());
        assert_eq!(made("redis.example").as_deref(), Some("redis://redis.example:1234"));
        for address in ["fe80::1", "[fe80::1]"] {
            assert_eq!(made(address).as_deref(), Some("redis://[fe80::1]:1234"));
        }
        for bad in ["", "h:7000", "u:p@h", "u@h", "h/1", "h?x", "h#x", "h\\x", "redis://h", "fe80::1::2", "[fe80::1"] {
            assert_eq!(made(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_hidden_to_its_end_whatever_it_holds() {
        assert_eq!(mask("redis-sentinel://h?sentinelPassword=a@b&node=c"), "redis-sentinel://h:***@***&node=c");
        assert_eq!(mask("redis://h?node=a@b&sentinelPassword=c"), "redis://h:***@b&sentinelPassword=***");
        assert_eq!(mask("redis://h?sentinelPassword=a?b=c"), "redis://h?sentinelPassword=***");
        assert_eq!(mask("redis://u:a?b@h"), "redis://u:***@h");
        assert_eq!(mask("redis://u:@a?b@h"), "redis://u:***@h");
        assert_eq!(mask("redis://u@a?b@h"), "redis://u:***@h");
        assert_eq!(mask("u:a://b@h"), "***@h");
        assert_eq!(mask("redis://u@h?node=a:1"), "redis://u@h?node=a:1");
    }

    #[test]
    fn no_password_is_printed() {
        assert_eq!(mask("redis://user:hunter2@h:1/0"), "redis://user:***@h:1/0");
        assert_eq!(mask("postgres://u:hun/ter@2@h/db"), "postgres://u:***@h/db");
        assert_eq!(mask("postgres://u:hun@ter2@h/db"), "postgres://u:***@h/db");
        assert_eq!(mask("redis://h?sentinelPassword=hunter2&node=a:1"), "redis://h?sentinelPassword=***&node=a:1");
        assert_eq!(mask("user:hunter2@host"), "***@host");
        assert_eq!(mask("wss://bsky.network"), "wss://bsky.network");
        assert!(!format!("{:?}", RelayUrl::parse("wss://u:hunter2@h").unwrap()).contains("hunter2"));
    }
}
