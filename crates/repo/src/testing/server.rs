//! A web server that does what a test says, well or badly.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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
    /// A byte of it now and then.
    Drip(Bytes, Duration),
    /// A body that never ends, as fast as it is read, of these bytes again and again.
    Endless(Bytes),
    /// Nothing, for ever.
    Hang,
    /// The end of the connection.
    Close,
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
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

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
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, Arc::new(answer), Arc::clone(&asked)));
        Ok(Self { address, asked, task })
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what it was asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, answer: Arc<Answer>, asked: Arc<Mutex<Vec<Asked>>>) {
    // They end with the server.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let _ = talk(stream, &*answer, &asked).await;
        });
    }
}

async fn talk(mut stream: TcpStream, answer: &Answer, asked: &Mutex<Vec<Asked>>) -> io::Result<()> {
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
        lock(asked).push(request.clone());
        match answer(&request) {
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
            Reply::Drip(body, pause) => {
                let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await?;
                for byte in body {
                    stream.write_all(&[byte]).await?;
                    sleep(pause).await;
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
