//! The page: a few small files in the binary, which load nothing from elsewhere.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use penstock_core::settings::{BasePath, MessageBuffer};
use serde_json::{Map, Value, json};

use super::problem::Problem;

/// Its own script and style, its own API, and an icon of its own making; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page, as the build left it.
struct File {
    name: &'static str,
    /// Its content type.
    kind: &'static str,
    /// A hash of its content, in quotes.
    tag: &'static str,
    /// Its name holds a hash: what it names never changes.
    immutable: bool,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

/// The page itself first.
static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// What `GET /` answers.
#[derive(Clone)]
pub(super) struct Index {
    /// For a program.
    overview: Bytes,
    /// The page where it stands under a base path; `None`: as the build left it, its addresses relative to its own.
    based: Option<Based>,
}

/// The page with its base path in it, so that its addresses hold whatever a proxy made of the request's path.
#[derive(Clone)]
struct Based {
    page: Bytes,
    tag: String,
    /// Lets the page say its base.
    policy: String,
}

/// Says what is here: the service, its batches, and each route with what it is for.
pub(super) fn overview(description: &Value, base: &BasePath, buffer: &MessageBuffer) -> Bytes {
    let methods = description["paths"].as_object().into_iter().flatten().flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        let path = format!("{}{path}", base.prefix());
        methods.map(move |(method, route)| (format!("{} {path}", method.to_uppercase()), route["summary"].clone()))
    });
    let overview = json!({
        "service": "penstock",
        "version": env!("CARGO_PKG_VERSION"),
        "status": "running",
        "batch_config": {"batch_size": buffer.batch_size, "timeout_seconds": buffer.batch_delay.as_secs_f64()},
        "endpoints": methods.collect::<Map<String, Value>>(),
        "documentation": format!("{}/api/openapi.json", base.prefix()),
    });
    Bytes::from(overview.to_string())
}

/// Says whether a client would rather have JSON than a page: it names it, and names no page or that later.
fn asks_for_json(asked: &HeaderMap) -> bool {
    let weight = |kind: &str| {
        listed(asked, header::ACCEPT).find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(kind);
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
        })
    };
    let json: f64 = weight("application/json").unwrap_or(0.0);
    json > weight("text/html").unwrap_or(0.0)
}

/// `GET /assets/{name}`.
pub(super) async fn asset(Path(name): Path<String>, asked: HeaderMap) -> Result<Response, Problem> {
    answer(&name, &asked)
}

fn answer(name: &str, asked: &HeaderMap) -> Result<Response, Problem> {
    let file = FILES.iter().find(|file| file.name == name);
    file.map(|file| file.answer(asked)).ok_or(Problem::new(StatusCode::NOT_FOUND, "the page has no such file"))
}

// === impl Index ===

impl Index {
    pub(super) fn new(base: &BasePath, overview: Bytes) -> Self {
        Self { overview, based: Based::new(base) }
    }

    /// `GET /`: the page, or for a program what is here.
    pub(super) fn answer(&self, asked: &HeaderMap) -> Result<Response, Problem> {
        let mut answer = match &self.based {
            _ if asks_for_json(asked) => super::json(self.overview.clone()),
            Some(based) => based.answer(asked),
            None => answer("index.html", asked)?,
        };
        answer.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
        Ok(answer)
    }
}

// === impl Based ===

impl Based {
    fn new(base: &BasePath) -> Option<Self> {
        let index = FILES.iter().find(|file| file.name == "index.html").filter(|_| !base.is_root())?;
        let page = std::str::from_utf8(index.plain).ok()?;
        // A base path is made of characters that mean nothing in HTML and in a header.
        let page = page.replacen("<head>", &format!("<head>\n<base href=\"{}\">", base.folder()), 1);
        let tag = format!("{}{}\"", index.tag.trim_end_matches('"'), base.prefix());
        Some(Self { page: page.into(), tag, policy: POLICY.replace("base-uri 'none'", "base-uri 'self'") })
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_SECURITY_POLICY, self.policy.as_str()),
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, self.tag.as_str()),
        ];
        if is_known(asked, &self.tag) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.page.clone()).into_response()
    }
}

// === impl File ===

impl File {
    fn answer(&self, asked: &HeaderMap) -> Response {
        let kept = if self.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
        headers.insert(header::ETAG, HeaderValue::from_static(self.tag));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_known(asked, self.tag) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        match self.gzip {
            Some(packed) if takes_gzip(asked) => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                (headers, packed).into_response()
            }
            _ => (headers, self.plain).into_response(),
        }
    }
}

/// Says whether a client has what is tagged so.
fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    listed(asked, header::IF_NONE_MATCH).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    listed(asked, header::ACCEPT_ENCODING).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// The items of a header that is a list.
fn listed(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn file(immutable: bool) -> File {
        let packed: &[u8] = b"packed";
        File { name: "a.js", kind: "text/javascript", tag: "\"1f\"", immutable, plain: b"plain", gzip: Some(packed) }
    }

    #[test]
    fn the_page_stays_small_and_loads_nothing_from_elsewhere() {
        let size = |file: &File| file.gzip.unwrap_or(file.plain).len();
        assert_eq!(FILES[0].name, "index.html");
        assert!(FILES.iter().map(size).sum::<usize>() <= 80_000);
        for file in FILES {
            let text = String::from_utf8_lossy(file.plain).replace("http://www.w3.org/", "");
            assert!(!text.contains("http:") && !text.contains("https:"), "{}", file.name);
        }
        let page = String::from_utf8_lossy(FILES[0].plain);
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("<script>"));
        for file in &FILES[1..] {
            assert!(page.contains(file.name), "{} is embedded and never loaded", file.name);
        }
    }

    #[test]
    fn json_goes_to_those_who_ask_for_it_and_the_page_to_all_others() {
        let asks = |accept| asks_for_json(&asking(header::ACCEPT, accept));
        for accept in [
            "application/json",
            "application/json, text/plain, */*",
            "Application/JSON; charset=utf-8",
            "text/html;q=0.5,application/json;q=0.8",
        ] {
            assert!(asks(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html, application/json",
            "application/json;q=0, */*",
            "application/jsonx",
        ] {
            assert!(!asks(accept), "{accept}");
        }
        assert!(!asks_for_json(&HeaderMap::new()));
    }

    #[test]
    fn gzip_goes_to_those_who_take_it() {
        for taken in ["gzip", "br, GZIP;q=0.5", "deflate , gzip ;q=1"] {
            assert!(takes_gzip(&asking(header::ACCEPT_ENCODING, taken)), "{taken}");
        }
        for refused in ["", "br", "gzip;q=0", "gzip; q=0.0", "x-gzip"] {
            assert!(!takes_gzip(&asking(header::ACCEPT_ENCODING, refused)), "{refused}");
        }
        let packed = file(true).answer(&asking(header::ACCEPT_ENCODING, "gzip"));
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        assert_eq!(packed.headers()["cache-control"], "public, max-age=31536000, immutable");
        let plain = file(false).answer(&HeaderMap::new());
        assert!(!plain.headers().contains_key("content-encoding"));
        assert_eq!(plain.headers()["vary"], "accept-encoding");
        assert_eq!(plain.headers()["cache-control"], "no-cache");
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        for known in ["\"1f\"", "W/\"1f\"", "\"0\", \"1f\"", "*"] {
            assert_eq!(file(false).answer(&asking(header::IF_NONE_MATCH, known)).status(), 304, "{known}");
        }
        assert_eq!(file(false).answer(&asking(header::IF_NONE_MATCH, "\"1e\"")).status(), 200);
    }
}
