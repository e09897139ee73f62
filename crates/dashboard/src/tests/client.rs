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
        let mut headers = HashMap::<String, String>::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let all = headers.entry(name.to_lowercase()).or_default();
            *all = if all.is_empty() { value.to_owned() } else { format!("{all}, {value}") };
        }
        // Packed ones are no text; nobody looks into them.
        Self { status, headers, body: String::from_utf8_lossy(body).into_owned() }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Checks that it is what the API's description says of a route.
    pub(super) fn fits(&self, method: &str, route: &str) {
        let api = crate::openapi();
        let method = method.to_lowercase();
        let operation = &api["paths"][route][&method];
        let described = &operation["responses"];
        let described = described.get(self.status.to_string()).unwrap_or(&described["default"]);
        let kind = self.header("content-type").split(';').next().unwrap();
        let Some(shape) = described["content"].get(kind).map(|content| content["schema"].clone()) else {
            assert!(described["content"] == serde_json::json!({}) && self.body.is_empty(), "{method} {route}: {kind}");
            return;
        };
        let mut shape = shape;
        shape["components"] = api["components"].clone();
        let is_json = kind.ends_with("/json") || kind.ends_with("+json");
        let body = if is_json { self.json() } else { Value::String(self.body.clone()) };
        let checked = jsonschema::validator_for(&shape).unwrap().validate(&body).map_err(|error| error.to_string());
        assert_eq!(checked, Ok(()), "{method} {route}: {body}");
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
    send(address, method, path, headers, "").await
}

/// Sends a body of JSON.
pub(super) async fn tell(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    send(address, method, path, &[], body).await
}

/// Sends a body of whatever the headers say.
pub(super) async fn send_as(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let length = body.len().to_string();
    exchange(address, method, path, &[headers, &[("content-length", &length)]].concat(), body).await
}

/// Asks with the admin token of a dashboard that is given none.
pub(super) async fn administrate(address: SocketAddr, method: &str, path: &str) -> Answer {
    ask(address, method, path, &[("authorization", &format!("Bearer {}", super::ADMIN))]).await
}

impl Stream {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, 256 * 1024, &[]).await
    }

    /// Opens one that saw an event last.
    pub(super) async fn resume(address: SocketAddr, id: &str) -> Self {
        Self::open_with(address, 256 * 1024, &[("last-event-id", id)]).await
    }

    /// Opens one over a connection that is to be kept, as proxies do.
    pub(super) async fn open_kept(address: SocketAddr) -> Self {
        Self::open_with(address, 256 * 1024, &[("connection", "keep-alive")]).await
    }

    /// Opens one whose kernel holds at most about `buffer` bytes that were not read.
    pub(super) async fn open_with(address: SocketAddr, buffer: u32, headers: &[(&str, &str)]) -> Self {
        Self::open_at(address, "/api/events/stream", buffer, headers).await
    }

    /// Opens one that wants only some events.
    pub(super) async fn filtered(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_at(address, &format!("/api/events/stream?{query}"), 256 * 1024, headers).await
    }

    async fn open_at(address: SocketAddr, path: &str, buffer: u32, headers: &[(&str, &str)]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        write_head(&mut socket, "GET", path, headers).await;
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
        self.next_with_id(kind).await.map(|(_, data)| data)
    }

    /// Reads on to the next frame of a kind, and returns its id, empty where it has none, and its data.
    pub(super) async fn next_with_id(&mut self, kind: &str) -> Option<(String, Value)> {
        loop {
            let frame = self.frame().await?;
            let (id, data) = frame.split_once('\n').unwrap_or(("", &frame));
            let Some(json) = data.strip_prefix("data: ") else { continue };
            let mut json: Value = serde_json::from_str(json).unwrap();
            if json["type"] == kind {
                return Some((id.trim_start_matches("id: ").to_owned(), json["data"].take()));
            }
        }
    }
}

async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let length = body.len().to_string();
    let of_body = [("content-type", "application/json"), ("content-length", &length)];
    let headers = if body.is_empty() { headers.to_vec() } else { [headers, &of_body].concat() };
    exchange(address, method, path, &headers, body).await
}

async fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    write_head(&mut socket, method, path, headers).await;
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let (head, body) = split(&bytes).unwrap();
    Answer::parse(head, body)
}

/// Calls the server `dash.test:8000`, unless a header says otherwise.
async fn write_head(socket: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)]) {
    let host = headers.iter().any(|(name, _)| *name == "host");
    let host = if host { "" } else { "host: dash.test:8000\r\n" };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.0\r\n{host}{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
}

fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).unwrap(), &bytes[end + 4..]))
}
