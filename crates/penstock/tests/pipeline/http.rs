//! The smallest HTTP client. It speaks HTTP/1.0, so that no body comes in chunks.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::PATIENCE;

/// Asks, and returns the status and the body; `None` where nobody answers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    get_with(address, path, "accept: */*").await
}

/// Asks with one more line in the head.
pub(crate) async fn get_with(address: SocketAddr, path: &str, header: &str) -> Option<(u16, String)> {
    answered(request(address, path, header).await?).await
}

/// Sends JSON, and returns the status and the body; `None` where nobody answers.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let length = body.len();
    let head = format!("host: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}");
    socket.write_all(format!("POST {path} HTTP/1.0\r\n{head}\r\n\r\n{body}").as_bytes()).await.ok()?;
    answered(socket).await
}

async fn answered(mut socket: TcpStream) -> Option<(u16, String)> {
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Asks for JSON.
pub(crate) async fn json(address: SocketAddr, path: &str) -> Value {
    let (status, body) = get(address, path).await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A client of `/api/events/stream`.
pub(crate) struct LiveStream {
    socket: TcpStream,
    received: Vec<u8>,
}

// === impl LiveStream ===

impl LiveStream {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { socket: request(address, "/api/events/stream", "accept: */*").await.unwrap(), received: Vec::new() }
    }

    /// Reads on until a frame of this kind has come.
    pub(crate) async fn wait_for(&mut self, kind: &str) {
        let start = format!("data: {{\"type\":\"{kind}\"");
        while !String::from_utf8_lossy(&self.received).contains(&start) {
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.received)).await.unwrap().unwrap();
            assert!(read > 0, "the stream ended before the first {kind}");
        }
    }

    /// Reads on until the server ends the stream.
    pub(crate) async fn end(mut self) {
        timeout(PATIENCE, self.socket.read_to_end(&mut self.received)).await.unwrap().unwrap();
    }
}

async fn request(address: SocketAddr, path: &str, header: &str) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n{header}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    Some(socket)
}
