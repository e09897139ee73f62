//! Errors without a shape of their own: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// The most bytes of what axum says of a refusal; it is a line.
const LONGEST_TEXT: usize = 4096;

/// An error as clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
}

/// What is wrong.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Shape<'p> {
    /// Always `about:blank`: the status identifies the kind of problem.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status as text.
    title: &'p str,
    status: u16,
    /// What is wrong and what to do, as text.
    detail: &'p str,
}

// === impl Problem ===

impl Problem {
    /// Redis does not answer.
    pub(crate) const REDIS_AWAY: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "redis does not answer, so the state of the pipeline is unknown");

    /// Says what is wrong, for the person who reads the answer.
    pub(crate) const fn new(status: StatusCode, detail: &'static str) -> Self {
        Self { status, detail: Cow::Borrowed(detail) }
    }

    /// Says what is wrong here and now.
    pub(crate) fn told(status: StatusCode, detail: String) -> Self {
        Self { status, detail: Cow::Owned(detail) }
    }

    /// Returns the status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

/// Turns what axum itself refuses, in plain text, into a problem: a body that is too large, for instance.
pub(super) async fn of_framework(response: Response) -> Response {
    let status = response.status();
    let plain = response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| !kind.as_bytes().ends_with(b"json"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let text = to_bytes(response.into_body(), LONGEST_TEXT).await.unwrap_or_default();
    Problem::told(status, String::from_utf8_lossy(&text).into_owned()).into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let shape = Shape { kind: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, headers, serde_json::to_vec(&shape).unwrap_or_default()).into_response();
        let wait = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "2",
            StatusCode::TOO_MANY_REQUESTS => "1",
            _ => return response,
        };
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(wait));
        response
    }
}
