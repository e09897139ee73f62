//! Asks a dashboard: one answer at a time over a connection that is kept, and the live stream over one of its own.

mod connect;
mod sse;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::timeout;

pub(crate) use connect::{Connection, Dial, Dialing, Direct};
pub(crate) use sse::Message;

use crate::api::Problem;
use crate::error::AskError;
use crate::target::Target;
use sse::Parser;

/// How long an answer may take, and a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a live stream may say nothing: the dashboard sends a comment each 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// The largest answer that is read.
const LARGEST: usize = 16 * 1024 * 1024;

/// A dashboard that is asked.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    dial: Box<dyn Dial>,
    /// Whoever asks takes it, and puts it back when the answer is whole.
    kept: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

/// A live stream that is open.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    parser: Parser,
}

// === impl Client ===

impl Client {
    /// Asks a dashboard over TCP, with TLS for `https://`.
    pub(crate) fn direct(target: Target) -> Self {
        let dial = Direct::new(target.url().clone());
        Self::new(target, Box::new(dial))
    }

    /// Asks a dashboard over connections that are made elsewhere.
    pub(crate) fn new(target: Target, dial: Box<dyn Dial>) -> Self {
        Self { target, dial, kept: Mutex::new(None) }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Asks for JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, AskError> {
        let (status, body) = self.bytes(route).await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        parse(route, &body)
    }

    /// Asks for JSON of a route that says by 503, too, how things are.
    pub(crate) async fn get_either<T: DeserializeOwned>(&self, route: &str) -> Result<T, AskError> {
        match self.bytes(route).await? {
            (StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE, body) => parse(route, &body),
            (status, body) => Err(refused(status, &body)),
        }
    }

    /// Asks for an answer as it is.
    pub(crate) async fn bytes(&self, route: &str) -> Result<(StatusCode, Bytes), AskError> {
        let asked = timeout(PATIENCE, self.bytes_in_time(route)).await;
        asked.unwrap_or(Err(AskError::TooSlow(PATIENCE)))
    }

    /// Opens the live stream, with a query that says which events are wanted; with the ID of an event it goes on after that one.
    pub(crate) async fn stream(&self, query: &str, after: Option<&str>) -> Result<Stream, AskError> {
        let mark = if query.is_empty() { "" } else { "?" };
        let opened = timeout(PATIENCE, async {
            let mut request = self.request(&format!("/api/events/stream{mark}{query}"))?;
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
            if let Some(id) = after.and_then(|id| HeaderValue::from_str(id).ok()) {
                request.headers_mut().insert("last-event-id", id);
            }
            let mut sender = self.connect().await?;
            let answer = sender.send_request(request).await.map_err(AskError::Broke)?;
            if answer.status() != StatusCode::OK {
                let (status, body) = whole(answer).await?;
                return Err(refused(status, &body));
            }
            let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            if !kind.starts_with("text/event-stream") {
                let route = "/api/events/stream".to_owned();
                return Err(AskError::Foreign { route, why: format!("it is of the type {kind:?}") });
            }
            Ok(Stream { body: answer.into_body(), parser: Parser::default() })
        });
        opened.await.unwrap_or(Err(AskError::TooSlow(PATIENCE)))
    }

    async fn bytes_in_time(&self, route: &str) -> Result<(StatusCode, Bytes), AskError> {
        let kept = self.kept.lock().await.take();
        if let Some(mut sender) = kept.filter(|sender| !sender.is_closed())
            // The server may have closed it in this moment: then another one tells.
            && let Ok(answer) = self.ask(&mut sender, route).await
        {
            *self.kept.lock().await = Some(sender);
            return Ok(answer);
        }
        let mut sender = self.connect().await?;
        let answer = self.ask(&mut sender, route).await?;
        *self.kept.lock().await = Some(sender);
        Ok(answer)
    }

    async fn ask(&self, sender: &mut SendRequest<Empty<Bytes>>, route: &str) -> Result<(StatusCode, Bytes), AskError> {
        sender.ready().await.map_err(AskError::Broke)?;
        let answer = sender.send_request(self.request(route)?).await.map_err(AskError::Broke)?;
        whole(answer).await
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, AskError> {
        let connection = self.dial.dial().await.map_err(AskError::Connect)?;
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(AskError::Broke)?;
        // It ends with the sender, and by what it fails the sender fails too.
        tokio::spawn(driver);
        Ok(sender)
    }

    fn request(&self, route: &str) -> Result<Request<Empty<Bytes>>, AskError> {
        let url = self.target.url();
        let host = url.host_str().unwrap_or("localhost");
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(self.target.path(route))
            .header(HOST, host)
            .header(USER_AGENT, concat!("penstock/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(AskError::Request)?;
        if let Some(token) = self.target.token() {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|error| AskError::Request(error.into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

// === impl Stream ===

impl Stream {
    /// Waits for the next message.
    ///
    /// # Errors
    /// The stream ended or says nothing any more.
    pub(crate) async fn next(&mut self) -> Result<Message, AskError> {
        loop {
            if let Some(message) = self.parser.next() {
                return Ok(message);
            }
            let frame = timeout(SILENCE, self.body.frame()).await.map_err(|_| AskError::TooSlow(SILENCE))?;
            let frame = frame.ok_or(AskError::Ended)?.map_err(AskError::Broke)?;
            if let Some(data) = frame.data_ref() {
                self.parser.add(data);
            }
        }
    }

    /// Returns how long the dashboard wants to be left alone when it ends.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.parser.retry()
    }
}

async fn whole(answer: Response<Incoming>) -> Result<(StatusCode, Bytes), AskError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    match body {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(AskError::Broke(*error)),
            Err(_) => {
                Err(AskError::Foreign { route: "the request".to_owned(), why: "it is larger than 16 MiB".to_owned() })
            }
        },
    }
}

fn refused(status: StatusCode, body: &[u8]) -> AskError {
    if status == StatusCode::UNAUTHORIZED {
        return AskError::Token;
    }
    let said = serde_json::from_slice::<Problem>(body).unwrap_or_default().detail;
    let said = crate::format::plain(&said).chars().take(300).collect::<String>();
    let detail = if said.is_empty() { format!("it answers {status}") } else { said };
    AskError::Problem { status: status.as_u16(), detail }
}

fn parse<T: DeserializeOwned>(route: &str, body: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(body)
        .map_err(|error| AskError::Foreign { route: route.to_owned(), why: format!("no JSON as expected: {error}") })
}
