//! Asks a healer over HTTP: one connection an answer, for a few answers every few seconds.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use penstock_core::backfill::{BackfillRequest, BackfillStatus, Backlog};
use penstock_core::causes::chain;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is read: a backfill may name 10,000 repos.
const LARGEST: usize = 4 * 1024 * 1024;

/// How much of a refusal is told.
const LONGEST_WORDS: usize = 300;

/// One of the healers of a pipeline, whichever its Service gives.
pub(super) struct Healer {
    url: String,
    token: String,
}

/// Why a healer gave no answer of use.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// None answers.
    #[error("no healer answers at {url}: {why}")]
    Unreachable { url: String, why: String },
    /// It does not take the token: another version of the settings, while pods are rolled.
    #[error("the healer at {url} does not take the operator's token: see kubectl rollout status of its Deployment")]
    Token { url: String },
    /// It refuses what it is asked for.
    #[error("the healer refused it: {words}")]
    Refused { words: String },
    /// It answers otherwise than this version expects.
    #[error("the healer at {url} answered {what}")]
    Foreign { url: String, what: String },
}

// === impl Healer ===

impl Healer {
    pub(super) fn new(url: &str, token: String) -> Self {
        Self { url: url.to_owned(), token }
    }

    /// Returns how far a backfill is; none where it knows none of that name.
    pub(super) async fn backfill(&self, name: &str) -> Result<Option<BackfillStatus>, AskError> {
        match self.ask(Method::GET, &format!("/backfills/{name}"), None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            answer => self.read(answer).map(Some),
        }
    }

    /// Registers a backfill, or changes its pace.
    pub(super) async fn put(&self, name: &str, request: &BackfillRequest) -> Result<(), AskError> {
        let body = serde_json::to_vec(request).map_err(|error| self.foreign(&error))?;
        let answer = self.ask(Method::PUT, &format!("/backfills/{name}"), Some(body)).await?;
        self.done(answer)
    }

    /// Removes a backfill and what waits because of it; one that is not there is removed already.
    pub(super) async fn delete(&self, name: &str) -> Result<(), AskError> {
        match self.ask(Method::DELETE, &format!("/backfills/{name}"), None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(()),
            answer => self.done(answer),
        }
    }

    /// Returns what waits to be repaired.
    pub(super) async fn backlog(&self) -> Result<Backlog, AskError> {
        let answer = self.ask(Method::GET, "/backlog", None).await?;
        self.read(answer)
    }

    fn read<T: DeserializeOwned>(&self, (status, body): (StatusCode, Bytes)) -> Result<T, AskError> {
        self.done((status, body.clone()))?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(&error))
    }

    fn done(&self, (status, body): (StatusCode, Bytes)) -> Result<(), AskError> {
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(AskError::Token { url: self.url.clone() }),
            _ if status.is_client_error() => Err(AskError::Refused { words: words(&body) }),
            _ => Err(AskError::Unreachable { url: self.url.clone(), why: format!("{status}, {}", words(&body)) }),
        }
    }

    async fn ask(&self, method: Method, route: &str, body: Option<Vec<u8>>) -> Result<(StatusCode, Bytes), AskError> {
        let asked = timeout(PATIENCE, self.ask_in_time(method, route, body)).await;
        asked.unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {} s", PATIENCE.as_secs()))))
    }

    async fn ask_in_time(
        &self,
        method: Method,
        route: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), AskError> {
        let uri: Uri = format!("{}{route}", self.url).parse().map_err(|error| self.foreign(&error))?;
        let (host, port) = (uri.host().unwrap_or("localhost"), uri.port_u16().unwrap_or(80));
        // Closes with the answer: the next one may be another healer.
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|error| self.unreachable(error.to_string()))?;
        let broke = |error: hyper::Error| self.unreachable(chain(&error));
        let (mut sender, driver) = handshake(TokioIo::new(stream)).await.map_err(broke)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{host}:{port}"))
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.foreign(&error))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(broke)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes();
            Ok((status, body))
        };
        tokio::pin!(driver);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The answer may be there although the connection is closed.
            _ = &mut driver => answer.await,
        }
    }

    fn unreachable(&self, why: String) -> AskError {
        AskError::Unreachable { url: self.url.clone(), why }
    }

    fn foreign(&self, what: &dyn fmt::Display) -> AskError {
        AskError::Foreign { url: self.url.clone(), what: what.to_string() }
    }
}

impl fmt::Debug for Healer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Healer").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Returns what an answer says of a failure, as a sentence.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let told = serde_json::from_slice::<serde_json::Value>(body).ok();
    let told = told.as_ref().and_then(|told| {
        ["message", "error", "detail"].into_iter().find_map(|key| told.get(key)?.as_str().map(str::to_owned))
    });
    let words = told.unwrap_or_else(|| text.trim().to_owned());
    words.chars().take(LONGEST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_healers_words() {
        assert_eq!(words(br#"{"error":"rate: repos a second"}"#), "rate: repos a second");
        assert_eq!(words(b"no such route\n"), "no such route");
        assert_eq!(words("é".repeat(500).as_bytes()).chars().count(), LONGEST_WORDS);
    }

    #[test]
    fn the_token_is_not_printed() {
        let healer = Healer::new("http://p-heal.ns.svc:9464", "secret".to_owned());
        assert!(!format!("{healer:?}").contains("secret"));
    }
}
