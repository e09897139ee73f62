//! A web server that does what a test says, well or badly.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use url::Url;

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A whole answer.
    Say(u16, Vec<(&'static str, String)>, Bytes),
    /// The start of an answer of which more was announced, and then the end of the connection.
    Cut(Bytes),
    /// Whatever comes, without an announced length, and then the end of the connection: a client cannot tell whether that was all.
    Until(Bytes),
    /// A piece of it now and then.
    Drip(Bytes, Pace),
    /// A body that never ends, as fast as it is read, of these bytes again and again.
    Endless(Bytes),
    /// Nothing, for ever.
    Hang,
    /// The end of the connection.
    Close,
}

/// How fast an answer comes.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Bytes of a piece.
    pub piece: usize,
    /// The time between two of them.
    pub pause: Duration,
    /// From when on the rest comes at once.
    pub hurry: Arc<AtomicBool>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its path, without the query.
    pub path: String,
    query: HashMap<String, String>,
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A web server on a loopback address.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: tokio::sync::Mutex<Listening>,
}

struct Shared {
    answer: Box<Answer>,
    asked: Mutex<Vec<Asked>>,
    /// Answers of which a part is sent.
    begun: AtomicUsize,
}

/// Whether anybody listens.
#[derive(Debug)]
enum Listening {
    Yes(JoinHandle<()>),
    /// The port is kept all the same: nobody else gets it.
    No(Option<TcpSocket>),
}

/// An answer of which a part is sent, until dropped.
struct Begun<'a>(&'a AtomicUsize);

// === impl Reply ===

impl Reply {
    /// Answers with JSON.
    #[must_use]
    pub fn json(status: u16, value: &Value) -> Self {
        Self::Say(status, vec![("content-type", "application/json".into())], value.to_string().into())
    }

    /// Answers with an error of XRPC.
    #[must_use]
    pub fn error(status: u16, error: &str) -> Self {
        Self::json(status, &serde_json::json!({"error": error, "message": "so it is"}))
    }

    /// Answers with bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Say(200, vec![("content-type", "application/vnd.ipld.car".into())], bytes.into())
    }

    /// Sends on to elsewhere.
    #[must_use]
    pub fn to(location: &str) -> Self {
        Self::Say(302, vec![("location", location.to_owned())], Bytes::new())
    }
}

// === impl Pace ===

impl Pace {
    /// Pieces of so many bytes, and a pause between them.
    #[must_use]
    pub fn new(piece: usize, pause: Duration) -> Self {
        Self { piece, pause, hurry: Arc::default() }
    }
}

// === impl Asked ===

impl Asked {
    fn parse(path: &str) -> Self {
        let url = Url::parse(&format!("http://localhost{path}")).ok();
        let query = url.iter().flat_map(|url| url.query_pairs().into_owned()).collect();
        Self { path: path.split('?').next().unwrap_or_default().to_owned(), query }
    }

    /// Returns a parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Returns the method of XRPC that it is for.
    #[must_use]
    pub fn method(&self) -> &str {
        self.path.strip_prefix("/xrpc/").unwrap_or_default()
    }
}

// === impl Server ===

impl Server {
    /// Starts one.
    ///
    /// # Errors
    /// The system has no port to spare.
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Shared { answer: Box::new(answer), asked: Mutex::default(), begun: AtomicUsize::new(0) };
        let shared = Arc::new(shared);
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, listening: tokio::sync::Mutex::new(Listening::Yes(task)) })
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what it was asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// Returns of how many answers a part is sent, and the rest is not.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Goes as a process does that is killed: nobody listens any more, and connections end where they are.
    ///
    /// # Errors
    /// The system does not let it keep its port.
    pub async fn go(&self) -> io::Result<()> {
        let mut listening = self.listening.lock().await;
        let Listening::Yes(task) = &mut *listening else { return Ok(()) };
        task.abort();
        // The port is free once it has ended.
        let _ = task.await;
        let socket = TcpSocket::new_v4()?;
        // Its connections are not quite gone.
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        *listening = Listening::No(Some(socket));
        Ok(())
    }

    /// Comes back where it was.
    ///
    /// # Errors
    /// The system does not let it listen.
    pub async fn come_back(&self) -> io::Result<()> {
        let mut listening = self.listening.lock().await;
        let Listening::No(socket) = &mut *listening else { return Ok(()) };
        if let Some(socket) = socket.take() {
            let task = tokio::spawn(serve(socket.listen(1024)?, Arc::clone(&self.shared)));
            *listening = Listening::Yes(task);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Listening::Yes(task) = self.listening.get_mut() {
            task.abort();
        }
    }
}

// === impl Shared ===

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

// === impl Begun ===

impl<'a> Begun<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // They end with the server.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let _ = talk(stream, &shared).await;
        });
    }
}

async fn talk(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
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
        let head = String::from_utf8_lossy(read.get(..end).unwrap_or_default()).into_owned();
        read.drain(..end);
        let request = Asked::parse(head.split(' ').nth(1).unwrap_or_default());
        lock(&shared.asked).push(request.clone());
        match (shared.answer)(&request) {
            Reply::Say(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                stream.write_all(format!("{head}\r\n").as_bytes()).await?;
                stream.write_all(&body).await?;
            }
            Reply::Cut(body) => {
                let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", body.len() + 1_000);
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
                return stream.shutdown().await;
            }
            Reply::Until(body) => {
                stream.write_all(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n").await?;
                stream.write_all(&body).await?;
                return stream.shutdown().await;
            }
            Reply::Drip(body, pace) => {
                let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await?;
                let _begun = Begun::new(&shared.begun);
                for piece in body.chunks(pace.piece.max(1)) {
                    stream.write_all(piece).await?;
                    if !pace.hurry.load(Ordering::Relaxed) {
                        sleep(pace.pause).await;
                    }
                }
            }
            Reply::Endless(body) => {
                stream.write_all(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n").await?;
                loop {
                    stream.write_all(&body).await?;
                }
            }
            Reply::Hang => std::future::pending().await,
            Reply::Close => return Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
