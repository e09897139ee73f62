//! One GET over a connection to an address that was checked, with bounds on everything that comes back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use penstock_core::causes::innermost;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use super::retry_after;
use crate::error::SettingsError;
use crate::fence::Place;

/// How we introduce ourselves.
const AGENT: &str = concat!("penstock/", env!("CARGO_PKG_VERSION"));

/// What we read of documents, handles and accounts.
const ACCEPT: &str = "application/did+ld+json, application/json, text/plain, */*;q=0.1";

/// The largest head of an answer, in bytes, and how many lines it may have.
const HEAD: usize = 16 * 1024;
const LINES: usize = 100;

/// How long one address may take where there are others.
const OF_ADDRESS: Duration = Duration::from_secs(3);

/// Connections that are kept for the next request, in all, and to one host.
const KEPT: usize = 64;
const KEPT_OF_HOST: usize = 8;

/// How long one is kept.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    tls: bool,
    /// Its name or address, as it stands in an address: in brackets where it is one of IPv6.
    pub(super) host: Box<str>,
    port: u16,
    /// Whether the port was named.
    named: bool,
}

/// An answer within bounds.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
}

/// Why there is none.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    #[error("could not be connected to: {}", innermost(.0))]
    Connect(#[source] io::Error),
    #[error("could not be spoken to over TLS: {}", innermost(.0))]
    Tls(#[source] io::Error),
    #[error("could not be asked: {}", innermost(.0))]
    Ask(#[source] hyper::Error),
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    #[error("answered with compressed data, which was not asked for")]
    Compressed,
    #[error("has an address that no request can be made of")]
    Target,
}

/// Makes requests.
pub(super) struct Client {
    tls: TlsConnector,
    kept: Mutex<HashMap<Box<str>, Vec<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

/// A connection, which ends with this.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

// === impl Target ===

impl Target {
    /// Reads an origin: scheme, name, and perhaps a port.
    pub(super) fn parse(origin: &str, https_port: u16) -> Option<Self> {
        let url = Url::parse(origin).ok()?;
        let tls = url.scheme() == "https";
        let port = url.port().unwrap_or(if tls { https_port } else { 80 });
        Some(Self { tls, host: url.host_str()?.into(), port, named: url.port().is_some() })
    }

    /// Names it among hosts.
    pub(super) fn key(&self) -> Box<str> {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority()).into()
    }

    /// Returns its address as a document would have it.
    pub(super) fn origin(&self) -> String {
        self.key().into()
    }

    /// Says whether it may be asked at an address.
    pub(super) fn may_be_at(&self, place: Place) -> Result<(), &'static str> {
        match place {
            Place::Allowed => Ok(()),
            Place::Forbidden => {
                Err("is at an address in a private network, which identity.allowedNetworks does not name")
            }
            Place::Open if !self.tls => Err("is to be asked over plain HTTP"),
            Place::Open if self.port != 443 => Err("is to be asked at a port other than 443"),
            Place::Open => Ok(()),
        }
    }

    fn authority(&self) -> String {
        if self.named { format!("{}:{}", self.host, self.port) } else { self.host.clone().into() }
    }
}

// === impl Answer ===

impl Answer {
    /// Says whether a directory may have given it.
    pub(super) fn is_of_directory(&self) -> bool {
        match self.status {
            200 => self.body.trim_ascii_start().first() == Some(&b'{'),
            status => matches!(status, 404 | 410),
        }
    }
}

// === impl HttpError ===

impl HttpError {
    /// Returns whether another try may help; what a host says too much, it will say again.
    pub(super) fn is_of_host(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Tls(_) | Self::Ask(_))
    }
}

// === impl Client ===

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Makes one that trusts these authorities, or the system's.
    pub(super) fn new(roots: Option<RootCertStore>) -> Result<Self, SettingsError> {
        let roots = roots.map_or_else(system_roots, Ok)?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), kept: Mutex::default() })
    }

    /// Asks over a connection that is there; none where there is none, or it has ended.
    pub(super) async fn again(&self, target: &Target, path: &str, most: usize) -> Option<Result<Answer, HttpError>> {
        loop {
            let connection = self.take(&target.key())?;
            match self.ask(connection, target, path, most).await {
                // Ended while it was kept, perhaps.
                Err(HttpError::Ask(_)) => {}
                answer => return Some(answer),
            }
        }
    }

    /// Connects to one of these addresses, and asks.
    pub(super) async fn connect(
        &self,
        target: &Target,
        addresses: &[IpAddr],
        path: &str,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let connection = self.open(target, addresses).await?;
        self.ask(connection, target, path, most).await
    }

    /// Connects to one of these addresses.
    pub(super) async fn open(&self, target: &Target, addresses: &[IpAddr]) -> Result<Connection, HttpError> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for (at, address) in addresses.iter().enumerate() {
            let connecting = TcpStream::connect(SocketAddr::new(*address, target.port));
            let is_last = at + 1 == addresses.len();
            let connected = if is_last {
                connecting.await
            } else {
                timeout(OF_ADDRESS, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match connected {
                Ok(stream) => return self.greet(target, stream).await,
                Err(error) => failed = error,
            }
        }
        Err(HttpError::Connect(failed))
    }

    async fn greet(&self, target: &Target, stream: TcpStream) -> Result<Connection, HttpError> {
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return Connection::over(TokioIo::new(stream)).await;
        }
        let bare = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| HttpError::Target)?;
        let stream = self.tls.connect(name, stream).await.map_err(HttpError::Tls)?;
        Connection::over(TokioIo::new(stream)).await
    }

    async fn ask(
        &self,
        mut connection: Connection,
        target: &Target,
        path: &str,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let response = connection.send(target, path, ACCEPT).await?;
        let answer = read(response, most).await?;
        self.keep(target.key(), connection);
        Ok(answer)
    }

    /// Takes a connection that was kept.
    pub(super) fn take(&self, key: &str) -> Option<Connection> {
        let mut kept = self.kept();
        let connections = kept.get_mut(key)?;
        while let Some(Kept { connection, since }) = connections.pop() {
            if since.elapsed() < KEPT_FOR && connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, key: Box<str>, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut kept = self.kept();
        if kept.values().map(Vec::len).sum::<usize>() >= KEPT {
            for connections in kept.values_mut() {
                connections.retain(|kept| kept.since.elapsed() < KEPT_FOR && !kept.connection.sender.is_closed());
            }
            kept.retain(|_, connections| !connections.is_empty());
        }
        if kept.values().map(Vec::len).sum::<usize>() < KEPT {
            let connections = kept.entry(key).or_default();
            if connections.len() < KEPT_OF_HOST {
                connections.push(Kept { connection, since: Instant::now() });
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    async fn over<S>(stream: S) -> Result<Self, HttpError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD).max_headers(LINES);
        let (sender, driving) = builder.handshake(stream).await.map_err(HttpError::Ask)?;
        let driver = tokio::spawn(async {
            // What goes wrong is told to the request.
            let _ = driving.await;
        });
        Ok(Self { sender, driver })
    }

    /// Makes a request, and returns the answer as soon as its head is there.
    pub(super) async fn send(
        &mut self,
        target: &Target,
        path: &str,
        accept: &str,
    ) -> Result<Response<Incoming>, HttpError> {
        let request = Request::get(path)
            .header(header::HOST, target.authority())
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, accept)
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Empty::new())
            .map_err(|_| HttpError::Target)?;
        let response = self.sender.send_request(request).await.map_err(HttpError::Ask)?;
        if is_encoded(response.headers()) {
            return Err(HttpError::Compressed);
        }
        Ok(response)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Reads an answer up to its bound.
async fn read(response: Response<Incoming>, most: usize) -> Result<Answer, HttpError> {
    let (head, mut body) = response.into_parts();
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let declared = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most as u64) {
        return Err(HttpError::TooLarge(most));
    }
    let retry_after = text(header::RETRY_AFTER).and_then(|text| retry_after::read(text, SystemTime::now()));
    let location = text(header::LOCATION).map(str::to_owned);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(HttpError::Ask)?.into_data() {
            if bytes.len() + data.len() > most {
                return Err(HttpError::TooLarge(most));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Answer { status: head.status.as_u16(), body: bytes.into(), retry_after, location })
}

fn is_encoded(headers: &HeaderMap<HeaderValue>) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The certificate authorities of the system.
fn system_roots() -> Result<RootCertStore, SettingsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(SettingsError::Roots { why });
    }
    Ok(roots)
}
