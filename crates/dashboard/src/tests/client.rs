//! The smallest HTTP client. It speaks HTTP/1.0, so that no body comes in chunks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long an answer or a frame may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

/// An open event stream.
pub(super) struct Stream {
    pub(super) answer: Answer,
    socket: TcpStream,
    /// Received and not yet read.
    text: Vec<u8>,
}

impl Answer {
    fn parse(head: &str, body: &[u8]) -> Self {
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned()));
        Self { status, headers: headers.collect(), body: String::from_utf8(body.to_vec()).unwrap() }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Checks that it is an error as all errors are, and returns its status.
    pub(super) fn problem(&self) -> u16 {
        let json = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!((&json["type"], &json["status"]), (&"about:blank".into(), &self.status.into()));
        assert!(json["title"].is_string() && json["detail"].is_string(), "{json}");
        self.status
    }
}

pub(super) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &[]).await
}

pub(super) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    send(&mut socket, method, path, headers).await;
    answer(&mut socket).await
}

/// Sends a body of JSON.
pub(super) async fn tell(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let length = body.len().to_string();
    send(&mut socket, method, path, &[("content-type", "application/json"), ("content-length", &length)]).await;
    socket.write_all(body.as_bytes()).await.unwrap();
    answer(&mut socket).await
}

impl Stream {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self::open_with_buffer(address, 256 * 1024).await
    }

    /// Opens one whose kernel holds at most about `buffer` bytes that were not read.
    pub(super) async fn open_with_buffer(address: SocketAddr, buffer: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        send(&mut socket, "GET", "/api/events/stream", &[]).await;
        let mut bytes = Vec::new();
        loop {
            assert!(timeout(PATIENCE, socket.read_buf(&mut bytes)).await.unwrap().unwrap() > 0);
            if let Some((head, body)) = split(&bytes) {
                let answer = Answer::parse(head, b"");
                return Self { answer, socket, text: body.to_vec() };
            }
        }
    }

    /// Reads the next frame, comments included; `None` at the end, however it came.
    pub(super) async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.text.drain(..end + 2).collect();
                return Some(String::from_utf8(frame).unwrap().trim_end().to_owned());
            }
            match timeout(PATIENCE, self.socket.read_buf(&mut self.text)).await.expect("a frame or the end in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads on to the next frame of a kind, and returns its data.
    pub(super) async fn next(&mut self, kind: &str) -> Option<Value> {
        loop {
            let frame = self.frame().await?;
            let Some(json) = frame.strip_prefix("data: ") else { continue };
            let mut json: Value = serde_json::from_str(json).unwrap();
            if json["type"] == kind {
                return Some(json["data"].take());
            }
        }
    }
}

async fn answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let (head, body) = split(&bytes).unwrap();
    Answer::parse(head, body)
}

async fn send(socket: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)]) {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.0\r\nhost: dash.test:8000\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
}

fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).unwrap(), &bytes[end + 4..]))
}
