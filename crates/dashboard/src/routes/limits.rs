//! How fast and for how long a client may ask.

use std::net::IpAddr;
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

use super::client::Client;
use super::problem::Problem;
use crate::App;

/// How long an answer may take, its request's body included; but for the live ones.
const PATIENCE: Duration = Duration::from_secs(30);

/// After how many requests those clients are forgotten that have been quiet since: their number bounds the memory.
const FORGET_EVERY: u64 = 4096;

const SLOW: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the request timed out");
const TOO_FAST: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too many requests from this address (dashboard.postRate): wait a second",
);

/// Counts what each client address asks to change.
#[derive(Debug)]
pub(crate) struct Rates {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock, NoOpMiddleware<std::time::Instant>>,
    asked: AtomicU64,
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

    pub(super) fn allow(&self, client: IpAddr) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&client).is_ok()
    }
}

/// Refuses clients that ask for changes faster than `dashboard.postRate`.
pub(super) async fn rate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() || app.rates.allow(Client::of(request.extensions())) {
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
        let allowed = |address: &str| (0..10).filter(|_| rates.allow(address.parse().unwrap())).count();
        assert_eq!(allowed("192.0.2.1"), 3);
        assert_eq!(allowed("192.0.2.1"), 0, "the same client");
        assert_eq!(allowed("192.0.2.2"), 3);
    }

    #[test]
    fn quiet_clients_are_forgotten() {
        let rates = Rates::new(NonZeroU32::new(1_000_000).unwrap());
        for at in 0..3 * FORGET_EVERY as u32 {
            rates.allow(IpAddr::V4(at.into()));
        }
        assert!(rates.limiter.len() < 2 * FORGET_EVERY as usize, "{}", rates.limiter.len());
    }
}
