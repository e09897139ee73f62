//! What stands in for a kubelet: a node's server, which gives logs and forwards ports, as the API server asks for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Starts one; logs are by container, and every port that is forwarded is this dashboard's.
pub(crate) async fn start(logs: BTreeMap<&'static str, String>, dashboard: SocketAddr) -> SocketAddr {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, logs) = (acceptor.clone(), logs.clone());
            tokio::spawn(async move {
                if let Ok(socket) = acceptor.accept(socket).await {
                    serve(socket, &logs, dashboard).await;
                }
            });
        }
    });
    address
}

async fn serve(mut socket: TlsStream<TcpStream>, logs: &BTreeMap<&'static str, String>, dashboard: SocketAddr) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    if path.starts_with("/portForward/") {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            derive_accept_key(header("sec-websocket-key").as_bytes()),
            header("sec-websocket-protocol").split(',').next().unwrap_or_default().trim(),
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
        let asked = path.rsplit_once("port=").map(|(_, port)| port.parse().unwrap()).unwrap_or(8000);
        forward(WebSocketStream::from_raw_socket(socket, Role::Server, None).await, asked, dashboard).await;
    } else {
        // /containerLogs/namespace/pod/container?…
        let container = path.split(['/', '?']).nth(4).unwrap_or_default();
        let (status, log) = match logs.get(container) {
            Some(log) => ("200 OK", log.as_str()),
            None => ("404 Not Found", "no such container"),
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{log}", log.len());
        let _ = socket.write_all(answer.as_bytes()).await;
        let _ = socket.shutdown().await;
    }
}

/// Channel 0 carries the bytes, channel 1 errors; the first message of each names the port.
async fn forward(socket: WebSocketStream<TlsStream<TcpStream>>, port: u16, dashboard: SocketAddr) {
    let (mut out, mut back) = socket.split();
    for channel in [0, 1] {
        let [low, high] = port.to_le_bytes();
        out.send(Message::binary(vec![channel, low, high])).await.unwrap();
    }
    let (mut read, mut write) = TcpStream::connect(dashboard).await.unwrap().into_split();
    let there = async {
        while let Some(Ok(message)) = back.next().await {
            if let Message::Binary(bytes) = message
                && let Some((0, bytes)) = bytes.split_first()
                && write.write_all(bytes).await.is_err()
            {
                return;
            }
        }
    };
    let here = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let Ok(count @ 1..) = read.read(&mut bytes).await else { return };
            let message = [&[0], bytes.get(..count).unwrap_or_default()].concat();
            if out.send(Message::binary(message)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = here => {}
    }
    let _ = out.close().await;
}
