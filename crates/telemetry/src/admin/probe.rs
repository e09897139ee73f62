//! The smallest client of the admin server, for a container that has no curl.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout;

use crate::TelemetryError;
use crate::logs::parse_filter;

/// How long the whole question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most of an answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Asks the admin server at `address` for `/healthz`, within 2 s; 0.0.0.0 and [::] mean this machine.
///
/// # Errors
///
/// [`TelemetryError::AskHealth`] when nothing answers there, [`TelemetryError::Unhealthy`] when the answer is not 200.
pub async fn healthcheck(address: impl ToSocketAddrs + Display) -> Result<(), TelemetryError> {
    match request(&address, "GET /healthz", "").await? {
        (true, _) => Ok(()),
        (false, answer) => Err(TelemetryError::Unhealthy { address: address.to_string(), answer }),
    }
}

/// Asks the admin server at `address` for its log level, or changes it; returns the one in use then.
///
/// # Errors
///
/// [`TelemetryError::ParseLogFilter`] when the level is none, before anybody is asked; [`TelemetryError::AskHealth`] when
/// nothing answers there, [`TelemetryError::Refused`] when the server is not on this host.
pub async fn ask_log_level(
    address: impl ToSocketAddrs + Display,
    change: Option<&str>,
) -> Result<String, TelemetryError> {
    if let Some(level) = change {
        parse_filter(level)?;
    }
    let line = if change.is_some() { "PUT /log-level" } else { "GET /log-level" };
    match request(&address, line, change.unwrap_or_default()).await? {
        (true, level) => Ok(level),
        (false, answer) => Err(TelemetryError::Refused { address: address.to_string(), answer }),
    }
}

/// Sends a request; returns whether the answer is 200, and then its body, else its status and body.
async fn request(
    address: &(impl ToSocketAddrs + Display),
    line: &str,
    body: &str,
) -> Result<(bool, String), TelemetryError> {
    let asked = timeout(PATIENCE, ask(address, line, body)).await;
    let asked = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let answer = asked.map_err(|source| TelemetryError::AskHealth { address: address.to_string(), source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok((true, body.to_owned())),
        _ => Ok((false, format!("{status} {}", body.trim()))),
    }
}

async fn ask(address: &(impl ToSocketAddrs + Display), line: &str, body: &str) -> io::Result<String> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in lookup_host(address).await? {
        match connect(candidate).await {
            Ok(mut stream) => {
                let length = body.len();
                let request = format!(
                    "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                stream.write_all(request.as_bytes()).await?;
                let mut answer = Vec::new();
                stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Connects; an address to listen on is not always one to connect to.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let (ipv4, ipv6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => TcpStream::connect((ipv4, port)).await,
        // Listened on, it takes both, and a host need not have both.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            TcpStream::connect([SocketAddr::from((ipv6, port)), SocketAddr::from((ipv4, port))].as_slice()).await
        }
        _ => TcpStream::connect(address).await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_to_listen_on_is_asked_on_this_machine_and_so_is_a_name() {
        for host in ["0.0.0.0", "[::]", "localhost"] {
            // What does not listen on IPv6 at all, as on a host without it.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            });
            healthcheck(format!("{host}:{port}")).await.unwrap();
            server.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_error_after_two_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = healthcheck(address).await.unwrap_err();
        assert!(matches!(&error, TelemetryError::AskHealth { source, .. } if source.kind() == io::ErrorKind::TimedOut));
    }
}
