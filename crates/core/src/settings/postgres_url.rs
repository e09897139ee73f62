//! The address of a PostgreSQL database, read as libpq reads it: several hosts, sockets, and every parameter by name.
//!
//! What is not understood is either without effect, and named, or asks for safety, and refused: nobody may believe that a
//! connection is safer than it is. <https://www.postgresql.org/docs/current/libpq-connect.html>

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::address::{bare_host, escaped, mask};
use super::value::Value;

/// A PostgreSQL database.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    text: String,
    parts: PostgresParts,
}

/// What an address says, part by part.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PostgresParts {
    /// The servers, in the order in which they are tried; none where the address names none.
    pub servers: Vec<PostgresServer>,
    /// The user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// How TLS is used; none where the address does not say.
    pub ssl_mode: Option<SslMode>,
    /// What the server's certificate is checked with.
    pub ssl_root: Option<SslRoot>,
    /// The file of the client's certificate.
    pub ssl_cert: Option<String>,
    /// The file of the client's key.
    pub ssl_key: Option<String>,
    /// Which of the servers is taken.
    pub target: Target,
    /// Whether the servers are tried in random order.
    pub shuffled: bool,
    /// How long a connection to one server may take.
    pub connect_timeout: Option<Duration>,
    /// The name that the server shows for a connection, where the address gives one.
    pub application_name: Option<String>,
    /// Options of the server, such as `-c statement_timeout=5s`.
    pub options: Option<String>,
    /// Names of parameters that have no effect here.
    pub ignored: Vec<String>,
}

/// One server of an address.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresServer {
    /// A name, an IP address without brackets, or the directory of a socket.
    pub host: String,
    /// Default 5432.
    pub port: u16,
}

/// How TLS is used, from the weakest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where the server wants it.
    Allow,
    /// Where the server has it.
    Prefer,
    /// Always; the certificate is checked where a root certificate is named.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

/// What a server's certificate is checked with.
#[derive(Clone, PartialEq, Eq)]
pub enum SslRoot {
    /// The authorities that the system trusts.
    System,
    /// Those in a file.
    File(String),
}

/// Which of several servers is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The first that answers.
    #[default]
    Any,
    /// One that takes writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby; where there is none, any.
    PreferStandby,
}

/// Parameters of others that ask for nothing that could be missed.
const HARMLESS: [&str; 4] = ["fallback_application_name", "uselibpqcompat", "sslcompression", "sslsni"];

/// What the names of parameters hold that ask for safety.
const SAFETY: [&str; 12] =
    ["ssl", "tls", "auth", "channel", "gss", "krb", "crl", "cert", "verif", "encr", "scram", "peer"];

// === impl PostgresUrl ===

impl PostgresUrl {
    /// Returns the address with its password, for the client.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns what it says, password included.
    #[must_use]
    pub fn parts(&self) -> &PostgresParts {
        &self.parts
    }

    /// Puts an address together from its parts; the host may be the directory of a socket.
    #[must_use]
    pub fn from_parts(host: &str, port: u16, database: &str, user: &str, password: Option<&str>) -> Option<Self> {
        let (host, socket) = match host.starts_with('/') {
            true => ("localhost".to_owned(), format!("?host={}", escaped(host))),
            false => (bare_host(host).filter(|host| !host.is_empty() && !host.contains([',', ' ']))?, String::new()),
        };
        let password = password.map(|password| format!(":{}", escaped(password))).unwrap_or_default();
        let (user, database) = (escaped(user), escaped(database));
        Self::parse(&format!("postgres://{user}{password}@{host}:{port}/{database}{socket}"))
    }

    /// Reads an address.
    ///
    /// # Errors
    /// Says what is wrong with it, without anything that may be a secret.
    pub fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(Self::ALLOWED)?;
        // Python's drivers name themselves in the scheme; they mean the same database.
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "postgres" => "postgres",
            "postgresql" | "postgresql+asyncpg" | "postgresql+psycopg" | "postgresql+psycopg2" => "postgresql",
            _ => return Err(Self::ALLOWED.to_owned()),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parts = PostgresParts::default();
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        // A password may hold an @ that was not escaped; a host holds none.
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        parts.user = filled(decoded(user)?);
        parts.password = password.map(decoded).transpose()?;
        parts.database = filled(decoded(database)?);
        let mut places = Places::of(hosts)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.set(&decoded(name)?, &decoded(value)?, &mut places)?;
        }
        parts.servers = places.servers(parts.ssl_mode)?;
        parts.settle()?;
        Ok(Self { text: format!("{scheme}://{rest}"), parts })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.text))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for PostgresUrl {
    const ALLOWED: &'static str = "postgres://[user[:password]@]host[:port][,host[:port]…]/database[?parameter=value&…] with libpq's \
        parameters, such as sslmode=require, target_session_attrs=read-write or host=/directory of a socket";

    fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }

    fn why(text: &str) -> Option<String> {
        Self::read(text).err()
    }

    fn mask(text: &str) -> String {
        mask(text)
    }
}

// === impl PostgresParts ===

impl PostgresParts {
    /// Takes one parameter.
    fn set(&mut self, name: &str, value: &str, places: &mut Places) -> Result<(), String> {
        match name {
            "host" => places.hosts = list(value),
            "hostaddr" => places.addresses = list(value),
            "port" => places.ports = list(value),
            "user" => self.user = filled(value.to_owned()),
            "password" => self.password = Some(value.to_owned()),
            "dbname" => self.database = filled(value.to_owned()),
            "application_name" => self.application_name = filled(value.to_owned()),
            "options" => self.options = filled(value.to_owned()),
            "connect_timeout" => {
                let seconds: i64 = value.trim().parse().map_err(|_| refused(name, "a number of seconds"))?;
                // As libpq: none for zero, and two seconds at least.
                let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                self.connect_timeout = seconds.map(|seconds| Duration::from_secs(seconds.max(2)));
            }
            "target_session_attrs" => {
                self.target = Target::read(value).ok_or_else(|| refused(name, Target::ALLOWED))?;
            }
            "load_balance_hosts" => {
                self.shuffled = match value {
                    "disable" => false,
                    "random" => true,
                    _ => return Err(refused(name, "disable or random")),
                }
            }
            "sslmode" | "ssl-mode" => {
                self.ssl_mode = Some(SslMode::read(value).ok_or_else(|| refused(name, SslMode::ALLOWED))?);
            }
            // As libpq takes it from Java's drivers.
            "ssl" if value == "true" => self.ssl_mode = Some(SslMode::Require),
            "ssl" => return Err("no parameter ssl, which PostgreSQL does not know: write sslmode=require".to_owned()),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
                self.ssl_root = match value {
                    "" => None,
                    "system" => Some(SslRoot::System),
                    file => Some(SslRoot::File(file.to_owned())),
                }
            }
            "sslcert" | "ssl-cert" => self.ssl_cert = filled(value.to_owned()),
            "sslkey" | "ssl-key" => self.ssl_key = filled(value.to_owned()),
            "channel_binding" if value != "require" => {}
            "gssencmode" if value != "require" => {}
            "sslnegotiation" if value == "postgres" => {}
            "sslcertmode" if value != "require" => {}
            "ssl_min_protocol_version" if matches!(value, "" | "TLSv1" | "TLSv1.1" | "TLSv1.2") => {}
            // Asks for less than there is, or for what a library of old used.
            "sslcrl" | "sslcrldir" | "require_auth" | "requirepeer" | "krbsrvname" | "gsslib" | "sslpassword"
                if value.is_empty() => {}
            "channel_binding" => {
                return Err(
                    "no channel_binding=require, which is not supported: leave it out, and let sslmode=verify-full \
                    make sure of the server"
                        .to_owned(),
                );
            }
            "sslpassword" => {
                return Err(
                    "no parameter sslpassword, which is not supported: give sslkey a key without a password".to_owned()
                );
            }
            name if HARMLESS.contains(&name) => {}
            name if SAFETY.iter().any(|word| name.to_ascii_lowercase().contains(word)) => {
                return Err(format!(
                    "no parameter {}, which is not supported: the connection would be less safe than it asks for",
                    shown(name)
                ));
            }
            name => match name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                Some(option) => {
                    let value = value.replace('\\', r"\\").replace(' ', r"\ ");
                    let before = self.options.take().map(|options| options + " ").unwrap_or_default();
                    self.options = Some(format!("{before}-c {option}={value}"));
                }
                None => self.ignored.push(shown(name)),
            },
        }
        Ok(())
    }

    /// Settles what several parameters say together.
    fn settle(&mut self) -> Result<(), String> {
        if self.ssl_root == Some(SslRoot::System) {
            match self.ssl_mode {
                None | Some(SslMode::VerifyFull) => self.ssl_mode = Some(SslMode::VerifyFull),
                Some(_) => {
                    return Err("sslmode=verify-full with sslrootcert=system: anybody gets a certificate of such an \
                        authority for a name of his own"
                        .to_owned());
                }
            }
        }
        // A root certificate is there to be checked with.
        if self.ssl_root.is_some() && self.ssl_mode == Some(SslMode::Require) {
            self.ssl_mode = Some(SslMode::VerifyCa);
        }
        match (&self.ssl_cert, &self.ssl_key) {
            (Some(_), None) => Err("sslkey beside sslcert".to_owned()),
            (None, Some(_)) => Err("sslcert beside sslkey".to_owned()),
            _ => Ok(()),
        }
    }
}

// === impl PostgresServer ===

impl PostgresServer {
    /// Returns whether it is reached over a socket of this machine.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl fmt::Display for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host {
            host if self.is_socket() => write!(f, "{host}/.s.PGSQL.{port}"),
            host if host.parse::<Ipv6Addr>().is_ok() => write!(f, "[{host}]:{port}"),
            host => write!(f, "{host}:{port}"),
        }
    }
}

// === impl SslMode ===

impl SslMode {
    const ALLOWED: &'static str = "disable, allow, prefer, require, verify-ca or verify-full";

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn read(text: &str) -> Option<Self> {
        use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
        let text = text.to_ascii_lowercase();
        [Disable, Allow, Prefer, Require, VerifyCa, VerifyFull].into_iter().find(|mode| mode.name() == text)
    }
}

// === impl Target ===

impl Target {
    const ALLOWED: &'static str = "any, read-write, read-only, primary, standby or prefer-standby";

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }

    fn read(text: &str) -> Option<Self> {
        use Target::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        [Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby].into_iter().find(|target| target.name() == text)
    }
}

/// Hosts, addresses and ports, before it is known which belong together.
struct Places {
    hosts: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<String>,
}

// === impl Places ===

impl Places {
    /// Reads `host:port,[::1]:port,…`.
    fn of(authority: &str) -> Result<Self, String> {
        let mut places = Self { hosts: Vec::new(), addresses: Vec::new(), ports: Vec::new() };
        if authority.is_empty() {
            return Ok(places);
        }
        for place in authority.split(',') {
            let (host, port) = match place.strip_prefix('[') {
                Some(rest) => {
                    let (host, behind) = rest.split_once(']').ok_or("a ] behind an IPv6 address")?;
                    host.parse::<Ipv6Addr>().map_err(|_| "an IPv6 address between [ and ]")?;
                    match behind.strip_prefix(':') {
                        Some(port) => (host, port),
                        None if behind.is_empty() => (host, ""),
                        None => return Err(PostgresUrl::ALLOWED.to_owned()),
                    }
                }
                None => place.split_once(':').unwrap_or((place, "")),
            };
            let host = decoded(host)?;
            if host.contains(|c: char| c.is_whitespace() || c.is_control() || "\\^`{}|<>\"".contains(c)) {
                return Err(PostgresUrl::ALLOWED.to_owned());
            }
            places.hosts.push(host);
            places.ports.push(port.to_owned());
        }
        if places.hosts.iter().all(String::is_empty) && places.ports.iter().all(String::is_empty) {
            places.hosts.clear();
            places.ports.clear();
        }
        Ok(places)
    }

    /// Puts together what belongs together.
    fn servers(self, ssl_mode: Option<SslMode>) -> Result<Vec<PostgresServer>, String> {
        if self.addresses.iter().any(|address| !address.is_empty()) {
            if !self.hosts.is_empty() && ssl_mode == Some(SslMode::VerifyFull) {
                return Err("no hostaddr with sslmode=verify-full, which checks the name in host".to_owned());
            }
            if self.addresses.iter().any(|address| address.parse::<IpAddr>().is_err()) {
                return Err(refused("hostaddr", "IP addresses"));
            }
        }
        let hosts = if self.addresses.is_empty() { self.hosts } else { self.addresses };
        // Of a port alone the host is the client's default.
        let hosts = if hosts.is_empty() && !self.ports.is_empty() { vec![String::new()] } else { hosts };
        if self.ports.len() > 1 && self.ports.len() != hosts.len() {
            return Err(refused("port", "one port, or one for each host"));
        }
        let one = if self.ports.len() == 1 { self.ports.first() } else { None };
        hosts
            .iter()
            .enumerate()
            .map(|(index, host)| {
                let port = match one.or_else(|| self.ports.get(index)).map_or("", |port| port.trim()) {
                    "" => 5432,
                    port => match port.parse() {
                        Ok(0) | Err(_) => return Err(refused("port", "an integer from 1 to 65535")),
                        Ok(port) => port,
                    },
                };
                let host = if host.is_empty() { "localhost" } else { host };
                Ok(PostgresServer { host: host.to_owned(), port })
            })
            .collect()
    }
}

fn refused(name: &str, allowed: &str) -> String {
    format!("{allowed} for the parameter {name}")
}

/// A name of somebody else's, short and on one line.
fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_default).collect()
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn list(value: &str) -> Vec<String> {
    if value.is_empty() { Vec::new() } else { value.split(',').map(|one| one.trim().to_owned()).collect() }
}

/// Replaces `%40` by `@`; a percent sign that begins nothing stays one.
fn decoded(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut read = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                read.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                read.push(byte);
                at += 1;
            }
        }
    }
    if read.contains(&0) {
        return Err("no %00: PostgreSQL takes no NUL".to_owned());
    }
    String::from_utf8(read).map_err(|_| "percent escapes of UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> PostgresParts {
        PostgresUrl::read(text).unwrap_or_else(|why| panic!("{text}: {why}")).parts
    }

    fn servers(text: &str) -> Vec<String> {
        parts(text).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_found_as_libpq_finds_them() {
        for (text, expected) in [
            ("postgres://h/d", &["h:5432"][..]),
            ("postgresql://u:p@h:6000/d", &["h:6000"]),
            ("postgres://[::1]/d", &["[::1]:5432"]),
            ("postgres://u@[2001:db8::1]:6000/d", &["[2001:db8::1]:6000"]),
            ("postgresql://app:pw@/db?host=/dir", &["/dir/.s.PGSQL.5432"]),
            ("postgres:///db?host=/dir&port=6000", &["/dir/.s.PGSQL.6000"]),
            ("postgres://%2Frun%2Fpg:6000/db", &["/run/pg/.s.PGSQL.6000"]),
            ("postgres://u@localhost:5432/d?host=%2Fdir", &["/dir/.s.PGSQL.5432"]),
            ("postgres://a,b:6000,[::1]:7000/d", &["a:5432", "b:6000", "[::1]:7000"]),
            ("postgres:///d?host=a,b&port=1,2", &["a:1", "b:2"]),
            ("postgres:///d?host=a,b&port=6000", &["a:6000", "b:6000"]),
            ("postgres://a,b/d?port=6000", &["a:6000", "b:6000"]),
            ("postgres://name:6000/d?hostaddr=10.0.0.1", &["10.0.0.1:6000"]),
            ("postgres://:6000/d", &["localhost:6000"]),
            ("postgres:///d", &[]),
            ("postgres://", &[]),
        ] {
            assert_eq!(servers(text), expected, "{text}");
        }
    }

    #[test]
    fn every_part_is_read() {
        let all = parts(
            "postgres://us%65r:p%40s@s:w+rd@h/d%2Fb?application_name=a&options=-c%20geqo%3Doff&options[x.y]=a b\
             &connect_timeout=1&target_session_attrs=read-write&load_balance_hosts=random&sslmode=Verify-Full\
             &sslcert=/c&sslkey=/k&sslrootcert=/r&channel_binding=prefer&keepalives=1&schema=x",
        );
        assert_eq!(all.user.as_deref(), Some("user"));
        assert_eq!(all.password.as_deref(), Some("p@s@s:w+rd"), "an @ and a plus that are not escaped stay");
        assert_eq!(all.database.as_deref(), Some("d/b"));
        assert_eq!(all.options.as_deref(), Some(r"-c geqo=off -c x.y=a\ b"));
        assert_eq!(all.connect_timeout, Some(Duration::from_secs(2)));
        assert_eq!((all.target, all.shuffled), (Target::ReadWrite, true));
        assert_eq!(all.ssl_mode, Some(SslMode::VerifyFull));
        assert_eq!((all.ssl_cert.as_deref(), all.ssl_key.as_deref()), (Some("/c"), Some("/k")));
        assert!(all.ssl_root == Some(SslRoot::File("/r".to_owned())));
        assert_eq!(all.ignored, ["keepalives", "schema"]);
        let later = parts("postgres://u:p@h/d?user=v&password=100%&dbname=e");
        assert_eq!((later.user.as_deref(), later.database.as_deref()), (Some("v"), Some("e")));
        assert_eq!(later.password.as_deref(), Some("100%"), "a percent sign that begins nothing");
    }

    #[test]
    fn a_root_certificate_is_checked_with_as_libpq_does() {
        let mode = |query: &str| parts(&format!("postgres://h/d?{query}")).ssl_mode;
        assert_eq!(mode("sslmode=require"), Some(SslMode::Require));
        assert_eq!(mode("sslmode=require&sslrootcert=/ca"), Some(SslMode::VerifyCa));
        assert_eq!(mode("sslrootcert=/ca&sslmode=prefer"), Some(SslMode::Prefer));
        assert_eq!(mode("sslrootcert=system"), Some(SslMode::VerifyFull));
        assert_eq!(mode("sslrootcert=system&sslmode=verify-full"), Some(SslMode::VerifyFull));
        assert_eq!(mode("ssl=true"), Some(SslMode::Require));
        assert_eq!(mode(""), None);
    }

    #[test]
    fn what_asks_for_safety_and_is_not_there_is_refused_by_name() {
        for (query, said) in [
            ("ssl=require", "write sslmode=require"),
            ("ssl=1", "write sslmode=require"),
            ("channel_binding=require", "channel_binding"),
            ("sslpassword=hunter2", "sslpassword"),
            ("sslcrl=/crl", "sslcrl"),
            ("require_auth=scram-sha-256", "require_auth"),
            ("requirepeer=postgres", "requirepeer"),
            ("gssencmode=require", "gssencmode"),
            ("sslnegotiation=direct", "sslnegotiation"),
            ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version"),
            ("sslcertmode=require", "sslcertmode"),
            ("sslaccept=strict", "sslaccept"),
            ("sslrootcert=system&sslmode=require", "sslmode=verify-full"),
            ("sslmode=on", "for the parameter sslmode"),
            ("sslcert=/c", "sslkey"),
            ("sslkey=/k", "sslcert"),
            ("target_session_attrs=master", "for the parameter target_session_attrs"),
            ("load_balance_hosts=yes", "for the parameter load_balance_hosts"),
            ("connect_timeout=soon", "for the parameter connect_timeout"),
            ("hostaddr=name", "for the parameter hostaddr"),
            ("hostaddr=10.0.0.1&sslmode=verify-full", "hostaddr"),
            ("port=0", "for the parameter port"),
            ("port=1,2", "for the parameter port"),
        ] {
            let why = PostgresUrl::why(&format!("postgres://u:hunter2@h/d?{query}")).unwrap_or_default();
            assert!(why.contains(said) && !why.contains("hunter2"), "{query}: {why}");
        }
        for query in [
            "channel_binding=prefer",
            "gssencmode=disable",
            "sslcrl=",
            "sslsni=1",
            "ssl_min_protocol_version=TLSv1.2",
            "sslnegotiation=postgres",
        ] {
            assert!(parts(&format!("postgres://h/d?{query}")).ignored.is_empty(), "{query}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "h/d",
            "mysql://h/d",
            "postgres://h:port/d",
            "postgres://h:99999/d",
            "postgres://[::1/d",
            "postgres://[h]/d",
            "postgres://[::1]x/d",
            "postgres://a b/d",
            "postgres://u:%00@h/d",
            "postgres://%ff@h/d",
        ] {
            assert!(PostgresUrl::parse(bad).is_none(), "{bad:?}");
        }
        assert_eq!(PostgresUrl::parse("postgresql+asyncpg://u:p@h/d").unwrap().expose(), "postgresql://u:p@h/d");
        assert!(!format!("{:?}", PostgresUrl::parse("postgres://u:hunter2@h/d").unwrap()).contains("hunter2"));
    }
}
