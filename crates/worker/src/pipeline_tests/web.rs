//! A directory, hosts and a name server for one test, on loopback addresses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What is answered to a path; nothing at all without one.
type Replies = Arc<Mutex<HashMap<String, Option<(u16, Value)>>>>;

/// A web server.
pub(super) struct Site {
    pub(super) url: String,
    replies: Replies,
    _task: JoinSet<()>,
}

/// A name server that knows whose handles are.
pub(super) struct Names {
    pub(super) address: SocketAddr,
    owners: Arc<Mutex<HashMap<String, String>>>,
    _task: JoinSet<()>,
}

/// The nth DID of many.
pub(super) fn did(n: u8) -> String {
    format!("did:plc:{}{}{}", "a".repeat(22), char::from(b'a' + n / 26), char::from(b'a' + n % 26))
}

pub(super) fn document(did: &str, host: Option<&str>, handle: &str) -> Value {
    let service =
        host.map(|host| json!({"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": host}));
    let services: Vec<Value> = service.into_iter().collect();
    json!({"id": did, "alsoKnownAs": [format!("at://{handle}")], "verificationMethod": [], "service": services})
}

impl Site {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let replies = Replies::default();
        let mut task = JoinSet::new();
        let shared = Arc::clone(&replies);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(talk(stream, Arc::clone(&shared)));
            }
        });
        Self { url, replies, _task: task }
    }

    /// Answers a path so from here on.
    pub(super) fn says(&self, path: &str, status: u16, body: Value) {
        self.replies.lock().unwrap().insert(path.to_owned(), Some((status, body)));
    }

    /// Keeps silent where a path is asked for.
    pub(super) fn hangs(&self, path: &str) {
        self.replies.lock().unwrap().insert(path.to_owned(), None);
    }

    /// Says of an account what its status is.
    pub(super) fn has(&self, did: &str, active: bool, status: Option<&str>) {
        let body = json!({"did": did, "active": active, "status": status, "rev": "3kaaaaaaaaaaa"});
        self.says(&path_of_status(did), 200, body);
    }

    /// As a directory: where an account is.
    pub(super) fn knows(&self, did: &str, host: Option<&str>, handle: &str) {
        self.says(&format!("/{did}"), 200, document(did, host, handle));
    }
}

pub(super) fn path_of_status(did: &str) -> String {
    format!("/xrpc/com.atproto.sync.getRepoStatus?did={did}")
}

async fn talk(mut stream: TcpStream, replies: Replies) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(read.drain(..end).collect()).unwrap();
        let path = head.split(' ').nth(1).unwrap().replace("%3A", ":");
        let reply = replies.lock().unwrap().get(&path).cloned();
        let (status, body) = match reply {
            Some(Some(reply)) => reply,
            Some(None) => std::future::pending().await,
            None => (404, json!({"message": "nothing here"})),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Names {
    pub(super) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let owners: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(serve(socket, Arc::clone(&owners)));
        Self { address, owners, _task: task }
    }

    /// A handle is this account's from here on.
    pub(super) fn set(&self, handle: &str, did: &str) {
        self.owners.lock().unwrap().insert(format!("_atproto.{handle}"), did.to_owned());
    }
}

/// Answers who asks for texts, and knows nothing else.
async fn serve(socket: UdpSocket, owners: Arc<Mutex<HashMap<String, String>>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let query = &buffer[..length];
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase());
            at = end;
        }
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let owner = owners.lock().unwrap().get(&labels.join(".")).cloned().filter(|_| kind == 16);
        let code = if owner.is_some() { 0x80 } else { 0x83 };
        let answers = u8::from(owner.is_some());
        let mut answer = vec![query[0], query[1], 0x81, code, 0, 1, 0, answers, 0, 0, 0, 0];
        answer.extend(&query[12..at + 5]);
        if let Some(owner) = owner {
            let text = format!("did={owner}");
            let length = u8::try_from(text.len()).unwrap();
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, length + 1, length]);
            answer.extend(text.as_bytes());
        }
        let _ = socket.send_to(&answer, from).await;
    }
}
