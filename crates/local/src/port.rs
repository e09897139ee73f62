//! Free ports of 127.0.0.1.

use std::net::{Ipv4Addr, TcpListener};

use crate::LocalError;

/// How often another port is tried when the free one was taken meanwhile.
const TRIES: u32 = 5;

/// Starts a server on the given port, or else on the usual one, or else on a free one, and on another where that was taken meanwhile.
pub(crate) async fn starting<T, Started: Future<Output = Result<T, LocalError>>>(
    given: Option<u16>,
    mut usual: Option<u16>,
    start: impl Fn(u16) -> Started,
) -> Result<T, LocalError> {
    let mut tries = if given.is_some() { 0 } else { TRIES };
    loop {
        match start(given.or(usual.take()).map_or_else(free, Ok)?).await {
            Err(error) if error.is_port_taken() && tries > 0 => tries -= 1,
            started => return started,
        }
    }
}

/// Returns a port that was free a moment ago: another process may still take it first.
pub(crate) fn free() -> Result<u16, LocalError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| LocalError::FindPort { source })
}
