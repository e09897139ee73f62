//! Any host, asked behind the same fence, with answers that are read piece by piece: for what is larger than a document.
//!
//! How long to wait and whom to leave alone is the caller's affair.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use penstock_core::causes::innermost;
use penstock_core::settings;
use rustls::RootCertStore;
use thiserror::Error;
use url::Url;

use super::http::{Client, Connection, HttpError, Target};
use super::names::Names;
use super::shares::{Share, Shares};
use super::{Failed, known, retry_after};
use crate::document::origin;
use crate::error::SettingsError;
use crate::fence::Fence;

/// Asks hosts; clones share everything.
#[derive(Clone, Debug)]
pub struct Web {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fence: Fence,
    names: Names,
    client: Client,
    shares: Shares,
    https_port: u16,
}

/// Where a host is: scheme, name, perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    target: Target,
    is_trusted: bool,
}

/// An answer whose head is there.
#[derive(Debug)]
pub struct Answering {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    /// Kept for the next request, once the body was read.
    connection: Option<(Box<str>, Connection)>,
    shared: Arc<Shared>,
    _share: Option<Share>,
}

/// Why a host was not asked, or gave no whole answer.
#[derive(Debug, Error)]
pub enum WebError {
    /// It could not be reached, or ended the connection.
    #[error("{0}")]
    Failed(Box<str>),
    /// There is no host of this name.
    #[error("is the name of no host")]
    NoSuchName,
    /// It may not be asked, or answers in a way that is not read.
    #[error("{0}")]
    Refused(Box<str>),
    /// Too many requests wait for its address.
    #[error("has too many requests waiting for its address")]
    Busy,
}

// === impl Web ===

impl Web {
    /// Makes what hosts are asked with. Nothing is connected to yet.
    ///
    /// # Errors
    /// A system without certificate authorities or name servers.
    pub fn new(settings: &settings::Identity) -> Result<Self, SettingsError> {
        Self::with(settings, None, None)
    }

    /// Makes one that trusts these authorities instead of the system's, and asks `https` at another port than 443 where no port is
    /// named: for tests.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn with(
        settings: &settings::Identity,
        roots: Option<RootCertStore>,
        https_port: Option<u16>,
    ) -> Result<Self, SettingsError> {
        let shared = Shared {
            fence: Fence::new(&settings.allowed_networks),
            names: Names::new(settings.dns_server, settings.timeout)?,
            client: Client::new(roots)?,
            shares: Shares::new(settings.timeout),
            https_port: https_port.unwrap_or(443),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reads the address of a host that anybody may have written; none where it is none.
    #[must_use]
    pub fn host(&self, text: &str) -> Option<Host> {
        let target = Target::parse(&origin(text)?, self.shared.https_port)?;
        Some(Host { target, is_trusted: false })
    }

    /// Reads the address of a host that the administrator named, wherever it is; none where it is none.
    #[must_use]
    pub fn trusted_host(&self, text: &str) -> Option<Host> {
        self.host(text).map(|host| Host { is_trusted: true, ..host })
    }

    /// Asks for a path, with its query, and returns once the head of the answer is there.
    ///
    /// # Errors
    /// [`WebError`].
    pub async fn get(&self, host: &Host, path: &str, accept: &str) -> Result<Answering, WebError> {
        let key = host.target.key();
        while let Some(mut connection) = self.shared.client.take(&key) {
            match connection.send(&host.target, path, accept).await {
                // Ended while it was kept, perhaps.
                Err(HttpError::Ask(_)) => {}
                answer => return Ok(self.answering(answer?, (key, connection), None)),
            }
        }
        let (mut connection, share) = self.connect(host).await?;
        let answer = connection.send(&host.target, path, accept).await?;
        Ok(self.answering(answer, (key, connection), Some(share)))
    }

    async fn connect(&self, host: &Host) -> Result<(Connection, Share), WebError> {
        let Host { target, is_trusted } = host;
        let addresses = self.shared.names.addresses(&target.host, *is_trusted).await?;
        let open: Vec<IpAddr> =
            if *is_trusted { known(addresses)? } else { target.open_of(&self.shared.fence, addresses)? };
        let first = open.first().copied().ok_or(WebError::NoSuchName)?;
        // One host under very many names has one share.
        let share = self.shared.shares.of(first).await.ok_or(WebError::Busy)?;
        Ok((self.shared.client.open(target, &open).await?, share))
    }

    fn answering(
        &self,
        answer: hyper::Response<Incoming>,
        connection: (Box<str>, Connection),
        share: Option<Share>,
    ) -> Answering {
        let (head, body) = answer.into_parts();
        let status = head.status.as_u16();
        let shared = Arc::clone(&self.shared);
        Answering { status, headers: head.headers, body, connection: Some(connection), shared, _share: share }
    }
}

// === impl Host ===

impl Host {
    /// Names it among hosts: scheme, name, port.
    #[must_use]
    pub fn key(&self) -> Box<str> {
        self.target.key()
    }

    /// Returns its name, or its address where it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.host
    }
}

// === impl Answering ===

impl Answering {
    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns a header, if it is there and of plain text.
    #[must_use]
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.get(HeaderName::from_static(name))?.to_str().ok()
    }

    /// Returns how long the host asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after::read(self.header("retry-after")?, SystemTime::now())
    }

    /// Returns where the answer is, if elsewhere: origin and path, for a request that `host` was asked with.
    #[must_use]
    pub fn elsewhere(&self, host: &Host, path: &str) -> Option<(String, String)> {
        let location = self.headers.get(header::LOCATION)?.to_str().ok()?;
        let here = Url::parse(&format!("{}{path}", host.target.origin())).ok()?;
        let next = here.join(location).ok().filter(|next| next.username().is_empty() && next.password().is_none())?;
        let path = next[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
        Some((next.origin().ascii_serialization(), path))
    }

    /// Returns the next piece of the body; none at its end.
    ///
    /// # Errors
    /// It ended early.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, WebError> {
        loop {
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|error| WebError::Failed(innermost(&error).into()))?;
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                None => {
                    if let Some((key, connection)) = self.connection.take() {
                        self.shared.client.keep(key, connection);
                    }
                    return Ok(None);
                }
            }
        }
    }
}

// === impl WebError ===

impl From<HttpError> for WebError {
    fn from(error: HttpError) -> Self {
        let why = error.to_string().into();
        if error.is_of_host() { Self::Failed(why) } else { Self::Refused(why) }
    }
}

impl From<Failed> for WebError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Host(why) => Self::Failed(why.into()),
            Failed::NoSuchName => Self::NoSuchName,
            Failed::Refused(why) => Self::Refused(why.into()),
            Failed::Busy => Self::Busy,
        }
    }
}
