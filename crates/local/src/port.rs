//! Free ports of 127.0.0.1.

use std::net::{Ipv4Addr, TcpListener};

use crate::LocalError;

/// How often another port is tried when the free one was taken meanwhile.
pub(crate) const TRIES: u32 = 5;

/// Returns a port that was free a moment ago: another process may still take it first.
pub(crate) fn free() -> Result<u16, LocalError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| LocalError::FindPort { source })
}
