//! Whose request it is: the peer's, or whoever a trusted proxy says it passes on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::Response;
use penstock_core::settings::Network;

use crate::App;
use crate::peer::Peer;

/// Who asks, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client(IpAddr);

// === impl Client ===

impl Client {
    /// Returns who asks; where nothing is known, all are one.
    pub(super) fn of(extensions: &Extensions) -> IpAddr {
        let known = || extensions.get::<Peer>().map(|peer| peer.client());
        let told = extensions.get::<Self>().map(|client| client.0);
        told.or_else(known).unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }
}

/// Notes who asks, for all that comes after.
pub(super) async fn note(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if let Some(Peer(peer)) = request.extensions().get().copied() {
        let client = Client(Peer(passed_on(peer, request.headers(), &app.settings.dashboard.trusted_proxies)).client());
        request.extensions_mut().insert(client);
    }
    next.run(request).await
}

/// Returns the last address that no trusted proxy has: what stands before it anyone may have written.
fn passed_on(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    let mut last = peer;
    for hop in hops.into_iter().rev() {
        if !is_trusted(last) {
            break;
        }
        let Some(address) = address(hop.trim()) else { break };
        last = address;
    }
    last
}

/// Reads an address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bracketed.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use penstock_core::settings::Value;

    use super::*;

    #[test]
    fn whom_a_trusted_proxy_passes_on_is_the_last_that_is_none() {
        let trusted: Vec<Network> = Value::parse("10.0.0.0/8, 127.0.0.1, 2001:db8:1::/48").unwrap();
        for (peer, lines, client) in [
            // Nobody that is trusted: whatever stands there.
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:1::5", &["2001:db8:2::1"], "2001:db8:2::"),
            // What the client wrote itself stands before.
            ("10.0.0.1", &["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["127.0.0.1, 198.51.100.1, 10.2.3.4"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.5", "198.51.100.1", "10.2.3.4"], "198.51.100.1"),
            ("10.0.0.1", &["10.1.1.1, 10.2.3.4"], "10.1.1.1"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8:2::1]:4711"], "2001:db8:2::"),
            ("10.0.0.1", &["[2001:db8:2::1]"], "2001:db8:2::"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.2.3.4"], "10.2.3.4"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            let lines = lines.iter().map(|line| ("x-forwarded-for".parse().unwrap(), HeaderValue::from_static(line)));
            let headers = lines.fold(HeaderMap::new(), |mut headers, (name, line): (axum::http::HeaderName, _)| {
                headers.append(name, line);
                headers
            });
            let found = Peer(passed_on(peer.parse().unwrap(), &headers, &trusted)).client();
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
            assert_eq!(passed_on(peer.parse().unwrap(), &headers, &[]), peer.parse::<IpAddr>().unwrap());
        }
    }
}
