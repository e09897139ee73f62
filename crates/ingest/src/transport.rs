//! The bytes under the WebSocket: TCP or TLS, and the passing over of a message that is too large.

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

use crate::skimmer::Skimmer;

/// How many bytes are read at once where they are looked through.
const CHUNK: usize = 64 * 1024;

/// A connection to a relay.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: MaybeTlsStream<TcpStream>,
    skim: Option<Skim>,
}

#[derive(Debug)]
struct Skim {
    skimmer: Skimmer,
    chunk: Box<[u8]>,
    kept: BytesMut,
}

// === impl Transport ===

impl Transport {
    /// Connects. With a bound, messages over it arrive empty, and their payload takes no memory.
    pub(crate) async fn connect(uri: &Uri, bound: Option<u64>) -> Result<Self, Error> {
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
        let skim = bound.map(|bound| Skim {
            skimmer: Skimmer::new(bound),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            kept: BytesMut::new(),
        });
        Ok(Self { stream, skim })
    }

    /// Returns the size of the message of that number, counted from 1, if it was over the bound.
    pub(crate) fn passed_over(&mut self, message: u64) -> Option<u64> {
        self.skim.as_mut()?.skimmer.emptied(message)
    }
}

/// Trusts whom the system trusts.
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
        let Some(Skim { skimmer, chunk, kept }) = skim else { return stream.poll_read(cx, buf) };
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
