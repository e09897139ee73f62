//! Makes connections: TCP, with TLS for `https://`, or whatever else carries bytes.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// What carries bytes to and from a dashboard.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// A connection that is being made.
pub(crate) type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// Makes connections.
pub(crate) trait Dial: Debug + Send + Sync {
    /// Makes one.
    fn dial(&self) -> Dialing<'_>;
}

/// Connections to the host of an address.
#[derive(Debug)]
pub(crate) struct Direct {
    url: Url,
}

// === impl Direct ===

impl Direct {
    pub(crate) fn new(url: Url) -> Self {
        Self { url }
    }
}

impl Dial for Direct {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let host = self.url.host_str().unwrap_or("localhost").trim_matches(['[', ']']);
            let port = self.url.port_or_known_default().unwrap_or(80);
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            if self.url.scheme() != "https" {
                return Ok(Box::new(tcp) as Box<dyn Connection>);
            }
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let tls = TlsConnector::from(Arc::new(tls()?)).connect(name, tcp).await?;
            Ok(Box::new(tls) as Box<dyn Connection>)
        })
    }
}

/// Trusts the machine's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name.
fn tls() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Some certificate of a machine is always odd; what matters is that one fits.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
