//! The base path: the same routes with it, for proxies that pass it on, and without it, for those that strip it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use penstock_core::settings::BasePath;

/// Takes the base path off a request that has it.
pub(super) async fn strip(State(base): State<Arc<BasePath>>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = stripped(&base, request.uri()) {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

fn stripped(base: &BasePath, uri: &Uri) -> Option<Uri> {
    let path = base.strip(uri.path())?;
    let mut parts = uri.clone().into_parts();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    parts.path_and_query = Some(format!("{path}{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Value;

    use super::*;

    #[test]
    fn a_request_loses_the_base_path_and_nothing_else() {
        let base = BasePath::parse("/fire/hose").unwrap();
        for (asked, left) in [
            ("/fire/hose", Some("/")),
            ("/fire/hose?a=/fire/hose", Some("/?a=/fire/hose")),
            ("/fire/hose/messages?limit=20", Some("/messages?limit=20")),
            ("/fire/hose/assets/%2e%2e/x", Some("/assets/%2e%2e/x")),
            ("http://dash.test/fire/hose/ready", Some("http://dash.test/ready")),
            ("/fire/hoses/ready", None),
            ("/ready", None),
            ("*", None),
        ] {
            let got = stripped(&base, &asked.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), left, "{asked}");
        }
    }
}
