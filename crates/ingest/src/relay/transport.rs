//! The bytes under the WebSocket: TCP or TLS, and the emptying of messages that are too large.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::error::{TlsError, UrlError};
use tokio_tungstenite::tungstenite::{Error, http::Uri};

use crate::relay::skimmer::Skimmer;

/// How many bytes are read at once while they are inspected.
const CHUNK: usize = 64 * 1024;

/// By this many messages the one that was cut before has arrived; a later cut is another matter.
const WATCHED: u64 = 8;

/// What to look for in the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skimming {
    /// Nothing.
    No,
    /// Whether it ends in the middle of one of its first messages.
    Ends,
    /// Messages over a limit: they arrive empty, and their payload takes no memory.
    Over(u64),
}

/// A connection to a relay.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: MaybeTlsStream<TcpStream>,
    skim: Option<Skim>,
}

#[derive(Debug)]
struct Skim {
    skimmer: Skimmer,
    /// The number of messages after which nothing needs inspecting.
    until: Option<u64>,
    chunk: Box<[u8]>,
    kept: BytesMut,
}

// === impl Transport ===

impl Transport {
    /// Connects, and inspects the bytes if asked to.
    pub(crate) async fn connect(uri: &Uri, skimming: Skimming) -> Result<Self, Error> {
        let is_tls = uri.scheme_str() == Some("wss");
        let host = uri.host().ok_or(UrlError::NoHostName)?.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let stream = if is_tls {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::InvalidDnsName)?;
            let connector = TlsConnector::from(Arc::new(trusting()?));
            MaybeTlsStream::Rustls(connector.connect(name, stream).await?)
        } else {
            MaybeTlsStream::Plain(stream)
        };
        let skim = |bound, until| Skim {
            skimmer: Skimmer::new(bound),
            until,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            kept: BytesMut::new(),
        };
        let skim = match skimming {
            Skimming::No => None,
            Skimming::Ends => Some(skim(u64::MAX, Some(WATCHED))),
            Skimming::Over(bound) => Some(skim(bound, None)),
        };
        Ok(Self { stream, skim })
    }

    /// Returns the beginning of the current message if it is incomplete; none where that is not inspected.
    pub(crate) fn unfinished(&self) -> Option<&[u8]> {
        self.skim.as_ref()?.skimmer.unfinished()
    }

    /// Returns the size of a message, counted from 1, if it was over the limit.
    pub(crate) fn passed_over(&mut self, message: u64) -> Option<u64> {
        self.skim.as_mut()?.skimmer.emptied(message)
    }
}

// === impl Skim ===

impl Skim {
    fn is_done(&self) -> bool {
        self.kept.is_empty() && self.until.is_some_and(|until| self.skimmer.is_between(until))
    }
}

/// Trusts the certificate authorities of the system.
fn trusting() -> Result<ClientConfig, io::Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no certificate authorities are installed {why}")));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, skim } = &mut *self;
        let mut stream = Pin::new(stream);
        if skim.as_ref().is_some_and(Skim::is_done) {
            *skim = None;
        }
        let Some(Skim { skimmer, chunk, kept, .. }) = skim else { return stream.poll_read(cx, buf) };
        while kept.is_empty() {
            let mut read = ReadBuf::new(chunk);
            ready!(stream.as_mut().poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            skimmer.feed(read.filled(), kept);
        }
        let taken = kept.len().min(buf.remaining());
        buf.put_slice(&kept.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
