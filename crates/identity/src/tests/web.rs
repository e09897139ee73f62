//! A web server that does what a test says, well or badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A whole answer.
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A body that never ends, as fast as it is read.
    Endless,
    /// A head, and then a byte now and then.
    Drip,
    /// Nothing, for ever.
    Hang,
    /// The end of the connection.
    Close,
}

type Answer = dyn Fn(&str, &str) -> Reply + Send + Sync;

/// A web server on a loopback address.
pub(super) struct Web {
    pub(super) address: SocketAddr,
    answer: Arc<Mutex<Arc<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
    tls: Option<TlsAcceptor>,
}

impl Reply {
    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::Say(status, vec![("content-type", "application/json".into())], value.to_string().into_bytes())
    }

    pub(super) fn text(status: u16, text: &str) -> Self {
        Self::Say(status, Vec::new(), text.as_bytes().to_vec())
    }

    pub(super) fn to(status: u16, location: &str) -> Self {
        Self::Say(status, vec![("location", location.to_owned())], Vec::new())
    }
}

impl Web {
    /// Starts one that answers by host and path.
    pub(super) async fn start(answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", None, answer).await
    }

    /// Starts one with a certificate for some names, and returns who vouches for it.
    pub(super) async fn start_tls(
        names: &[&str],
        answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static,
    ) -> (Self, RootCertStore) {
        let mut authority = CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::start_at("127.0.0.1:0", Some(acceptor), answer).await, roots)
    }

    async fn start_at(
        address: &str,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Arc<Answer>>> = Arc::new(Mutex::new(Arc::new(answer)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, tls.clone(), Arc::clone(&answer), Arc::clone(&asked)));
        Self { address, answer, asked, task, tls }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers otherwise from now on.
    pub(super) fn answer(&self, answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    /// How many requests came.
    pub(super) fn hits(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Which paths were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Stops listening; connections that are open end.
    pub(super) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Listens again.
    pub(super) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (answer, asked) = (Arc::clone(&self.answer), Arc::clone(&self.asked));
        self.task = tokio::spawn(serve(listener, self.tls.clone(), answer, asked));
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answer: Arc<Mutex<Arc<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    // They end with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answer, asked) = (tls.clone(), Arc::clone(&answer), Arc::clone(&asked));
        connections.spawn(async move {
            let _ = greet(stream, tls, &answer, &asked).await;
        });
    }
}

async fn greet(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    answer: &Mutex<Arc<Answer>>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    match tls {
        Some(tls) => talk(tls.accept(stream).await?, answer, asked).await,
        None => talk(stream, answer, asked).await,
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &Mutex<Arc<Answer>>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(read.drain(..end).collect()).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|value| value.trim().to_owned()))
        };
        let host = header("host:").unwrap();
        asked.lock().unwrap().push(path.clone());
        let answer = Arc::clone(&answer.lock().unwrap());
        match answer(&host, &path) {
            Reply::Say(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                stream.write_all(format!("{head}\r\n").as_bytes()).await?;
                stream.write_all(&body).await?;
            }
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 x\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b' '; 8192]).await?;
                }
            }
            Reply::Drip => {
                stream.write_all(b"HTTP/1.1 200 x\r\n\r\n").await?;
                loop {
                    stream.write_all(b" ").await?;
                    sleep(Duration::from_millis(20)).await;
                }
            }
            Reply::Hang => std::future::pending().await,
            Reply::Close => return Ok(()),
        }
    }
}
