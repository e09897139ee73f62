//! What an error of a connection means where the server's or the library's words do not say it.

use std::time::Duration;

use fred::error::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::RedisError;
use crate::settings::{RedisKind, RedisUrl};

/// The start of a TLS handshake that no server accepts: one that speaks TLS answers with an alert, which begins so.
const HELLO: (&[u8], &[u8]) = (&[0x16, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3, b'\r', b'\n'], &[0x15, 0x16]);

/// What a Redis without TLS answers, be it that it wants a password.
const PING: (&[u8], &[u8]) = (b"PING\r\n", b"+-");

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says why there is no connection.
pub(super) async fn connection(url: &RedisUrl, source: Error) -> RedisError {
    let shown = url.to_string();
    let said = source.details().to_owned();
    if url.uses_tls() {
        // What rustls says of the alert of a server that wants to know who asks, and of bytes that are no TLS.
        if said.contains("CertificateRequired") {
            return RedisError::ClientCertificate { url: shown };
        }
        if said.contains("InvalidContentType") || is_silence(&source) && answers(url, PING).await {
            return RedisError::NotTls { url: shown };
        }
    } else if is_silence(&source) && answers(url, HELLO).await {
        return RedisError::Tls { url: shown };
    }
    command(url, source)
}

/// Says why a command failed.
pub(super) fn command(url: &RedisUrl, source: Error) -> RedisError {
    if is_cluster(&source) && url.kind() != RedisKind::Cluster {
        return RedisError::Cluster { url: url.to_string() };
    }
    RedisError::Connect { url: url.to_string(), source }
}

/// Says whether a node of a Cluster refuses what is another node's, or several nodes'.
pub(super) fn is_cluster(error: &Error) -> bool {
    let said = error.details();
    ["MOVED ", "ASK ", "CROSSSLOT"].iter().any(|word| said.contains(word))
}

/// Whether there was no answer: what is no TLS, or nothing but TLS, is waited for in vain or ends the connection.
fn is_silence(error: &Error) -> bool {
    use ErrorKind::{Canceled, IO, Protocol, Timeout, Tls, Unknown};
    matches!(error.kind(), IO | Canceled | Timeout | Unknown | Protocol | Tls)
}

/// Says whether a server answers some bytes with one of those it should.
async fn answers(url: &RedisUrl, (said, expected): (&[u8], &[u8])) -> bool {
    let Some((host, port)) = url.host_and_port() else { return false };
    let asked = async {
        let mut stream = TcpStream::connect((host.as_str(), port)).await.ok()?;
        stream.write_all(said).await.ok()?;
        let mut first = [0];
        stream.read_exact(&mut first).await.ok()?;
        Some(expected.contains(&first[0]))
    };
    timeout(PATIENCE, asked).await.ok().flatten().unwrap_or(false)
}
