//! The types of the settings by which traces and metrics leave a process over OTLP.

use std::fmt;

use url::Url;

use super::address::mask;
use super::value::Value;

/// Where an OpenTelemetry collector listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(Url);

/// Protocol used to reach a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC over HTTP/2, usually on port 4317.
    Grpc,
    /// Protocol Buffers over HTTP/1.1 POST, usually on port 4318.
    HttpProtobuf,
}

/// A share of a whole, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

/// Names with their values, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

/// Names with values that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPairs(Pairs);

// === impl OtlpEndpoint ===

impl OtlpEndpoint {
    /// Returns the address without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Returns the address whole, as one of a single signal is used: nothing is appended to its path.
    #[must_use]
    pub fn whole(&self) -> &str {
        self.0.as_str()
    }
}

impl Value for OtlpEndpoint {
    const ALLOWED: &'static str =
        "a URL such as http://collector:4317, or https://… for TLS; put credentials in telemetry.otlpHeaders";

    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain).then_some(Self(url))
    }

    fn mask(text: &str) -> String {
        mask(text)
    }
}

// === impl OtlpProtocol ===

impl Value for OtlpProtocol {
    const ALLOWED: &'static str = "grpc or http/protobuf";

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" => Some(Self::HttpProtobuf),
            _ => None,
        }
    }
}

// === impl Ratio ===

impl Ratio {
    /// Returns it as a number, 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Value for Ratio {
    const ALLOWED: &'static str = "a fraction from 0 to 1, such as 0.001 or 1/1000";

    fn parse(text: &str) -> Option<Self> {
        let ratio = match text.split_once('/') {
            Some((part, whole)) => part.trim().parse::<f64>().ok()? / whole.trim().parse::<f64>().ok()?,
            None => text.parse().ok()?,
        };
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }
}

// === impl Pairs ===

impl Pairs {
    /// Returns the names with their values.
    #[must_use]
    pub fn get(&self) -> &[(String, String)] {
        &self.0
    }
}

impl Value for Pairs {
    const ALLOWED: &'static str =
        "comma-separated name=value pairs; write a comma within a value as %2C, a percent sign as %25";

    fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_control);
        pairs(text, |name, _| is_name(name))
    }
}

/// Reads pairs whose names and values, unescaped, are as they must be.
fn pairs(text: &str, is_pair: impl Fn(&str, &str) -> bool) -> Option<Pairs> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (unescape(name.trim())?, unescape(value.trim())?);
        is_pair(&name, &value).then_some((name, value))
    };
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs.map(pair).collect::<Option<_>>().map(Pairs)
}

/// Says whether a header may have that name and value: <https://www.rfc-editor.org/rfc/rfc9110#section-5.5>.
fn is_header(name: &str, value: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_shown = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
    !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_shown)
}

/// Undoes percent-encoding, as the OpenTelemetry specification has it in the variables of the environment.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let byte = match (*byte, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

// === impl SecretPairs ===

impl SecretPairs {
    /// Returns the names with their values, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[(String, String)] {
        self.0.get()
    }
}

impl fmt::Debug for SecretPairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Value for SecretPairs {
    const ALLOWED: &'static str = Pairs::ALLOWED;
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        pairs(text, is_header).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_http_address_without_secrets() {
        let endpoint = OtlpEndpoint::parse("http://collector:4317/").unwrap();
        assert_eq!(endpoint.as_str(), "http://collector:4317");
        for bad in ["collector:4317", "grpc://c:1", "http://u:p@c:1", "http://", "http://c:1?key=x"] {
            assert_eq!(OtlpEndpoint::parse(bad), None, "{bad}");
        }
        assert_eq!(OtlpEndpoint::mask("http://u:hunter2@c:1"), "http://u:***@c:1");
    }

    #[test]
    fn a_ratio_is_a_decimal_or_a_fraction() {
        assert_eq!(Ratio::parse("0.25"), Ratio::parse("1/4"));
        assert_eq!(Ratio::parse("1 / 1000").map(Ratio::get), Some(0.001));
        for bad in ["", "2", "-0.1", "1/0", "0/0", "NaN", "one"] {
            assert_eq!(Ratio::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn pairs_are_read_as_opentelemetry_writes_them() {
        let pairs = Pairs::parse("api-key=a%2Cb=, deployment.environment.name = test ,").unwrap();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        assert_eq!(pairs.get(), [("api-key", "a,b="), ("deployment.environment.name", "test")].map(owned));
        let names = Pairs::parse("app.kubernetes.io/name=a b,größe=µ,a%3Db=c=d").unwrap();
        assert_eq!(names.get(), [("app.kubernetes.io/name", "a b"), ("größe", "µ"), ("a=b", "c=d")].map(owned));
        for bad in ["name", "=value", "a=%2", "a=%zz", "a%0Ab=c", "a=%ff"] {
            assert_eq!(Pairs::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn headers_are_never_shown() {
        let headers = SecretPairs::parse("authorization=hunter2").unwrap();
        assert_eq!(format!("{headers:?}"), "***");
        assert_eq!(SecretPairs::mask("authorization"), "***");
    }

    #[test]
    fn what_no_header_can_hold_is_refused() {
        for bad in ["x/y=1", "a b=1", "a=%0Ab", "a=\u{e4}", "a"] {
            assert_eq!(SecretPairs::parse(bad), None, "{bad}");
        }
        let headers = SecretPairs::parse("authorization=Bearer%20x==,x~y=").unwrap();
        let expected = [("authorization", "Bearer x=="), ("x~y", "")];
        assert_eq!(headers.expose(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
