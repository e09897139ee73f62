//! The page: three small files in the binary, which load nothing from elsewhere.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

/// Its own script and style, its own API, and an icon within the page; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub(super) async fn index() -> Response {
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, file("text/html; charset=utf-8", include_str!("../../ui/index.html"))).into_response()
}

/// `GET /page.css`.
pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../ui/page.css"))
}

/// `GET /page.js`.
pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../ui/page.js"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    const FRESH: (HeaderName, &str) = (header::CACHE_CONTROL, "no-cache");
    ([(header::CONTENT_TYPE, kind), FRESH], text).into_response()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_stays_small_and_loads_nothing_from_elsewhere() {
        let files =
            [include_str!("../../ui/index.html"), include_str!("../../ui/page.css"), include_str!("../../ui/page.js")];
        assert!(files.iter().map(|file| file.len()).sum::<usize>() < 20_000);
        for file in files {
            let file = file.replace("http://www.w3.org/2000/svg", "");
            assert!(!file.contains("http:") && !file.contains("https:") && !file.contains("innerHTML"));
        }
    }
}
