//! How fast and for how long a client may ask.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::timeout;

use super::problem::Problem;
use crate::App;

/// How long an answer may take, its request's body included; but for the live ones.
const PATIENCE: Duration = Duration::from_secs(30);

/// After how many requests those clients are forgotten that have been quiet since: their number bounds the memory.
const FORGET_EVERY: u64 = 4096;

const SLOW: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there was no answer in time");
const TOO_FAST: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "this address sends more requests than it may (dashboard.postRate): wait a second",
);

/// Whose connection a request came over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Counts what each client address asks to change.
#[derive(Debug)]
pub(crate) struct Rates {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock, NoOpMiddleware<std::time::Instant>>,
    asked: AtomicU64,
}

// === impl Peer ===

impl Peer {
    /// Returns whom it is counted as: of IPv6 a whole network of 64 bits, as hosts change within theirs at will.
    fn client(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        }
    }
}

// === impl Rates ===

impl Rates {
    /// Lets each client ask for that many changes a second, and as many at once.
    pub(crate) fn new(rate: NonZeroU32) -> Self {
        Self {
            limiter: RateLimiter::hashmap_with_clock(Quota::per_second(rate), MonotonicClock),
            asked: AtomicU64::new(1),
        }
    }

    fn allow(&self, peer: Peer) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&peer.client()).is_ok()
    }
}

/// Refuses clients that ask for changes faster than `dashboard.postRate`.
pub(super) async fn rate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    if request.method().is_safe() || peer.is_none_or(|peer| app.rates.allow(peer)) {
        return next.run(request).await;
    }
    TOO_FAST.into_response()
}

/// Gives up on an answer that takes too long.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| SLOW.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_rate_of_its_own() {
        let rates = Rates::new(NonZeroU32::new(3).unwrap());
        let peer = |address: &str| Peer(address.parse().unwrap());
        let allowed = |address: &str| (0..10).filter(|_| rates.allow(peer(address))).count();
        assert_eq!(allowed("192.0.2.1"), 3);
        assert_eq!(allowed("::ffff:192.0.2.1"), 0, "the same client");
        assert_eq!(allowed("192.0.2.2"), 3);
        assert_eq!(allowed("2001:db8::1"), 3);
        assert_eq!(allowed("2001:db8::ffff:2"), 0, "of the same network");
        assert_eq!(allowed("2001:db8:0:1::1"), 3);
    }

    #[test]
    fn quiet_clients_are_forgotten() {
        let rates = Rates::new(NonZeroU32::new(1_000_000).unwrap());
        for at in 0..3 * FORGET_EVERY as u32 {
            rates.allow(Peer(IpAddr::V4(at.into())));
        }
        assert!(rates.limiter.len() < 2 * FORGET_EVERY as usize, "{}", rates.limiter.len());
    }
}
