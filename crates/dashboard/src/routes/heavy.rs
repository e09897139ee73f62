//! Answers that may be heavy: few at a time, and so many a second for a client.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::Client;
use super::limits::Rates;
use super::problem::Problem;
use crate::App;

/// How many dead letters a client may open a second.
const OPENED_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// How many are read at a time.
const OPENED_AT_ONCE: usize = 4;

/// How many downloads there may be at a time.
const DOWNLOADS: usize = 4;

const TOO_FAST: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too many dead letters were opened from this address: wait a second, or download them together",
);
const TOO_MANY: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many downloads are running: try again when one has ended");

/// What heavy answers share.
#[derive(Debug)]
pub(crate) struct Heavy {
    rates: Rates,
    reading: Semaphore,
    downloads: Arc<Semaphore>,
}

// === impl Heavy ===

impl Default for Heavy {
    fn default() -> Self {
        Self {
            rates: Rates::new(OPENED_PER_SECOND),
            reading: Semaphore::new(OPENED_AT_ONCE),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }
}

impl Heavy {
    /// Takes the place of a download, which ends with what is returned.
    pub(super) fn download(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.downloads).try_acquire_owned().map_err(|_| TOO_MANY)
    }
}

/// Lets a client open a dead letter when it is its turn.
pub(super) async fn one(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_read = request.method().is_safe();
    if is_read && !app.heavy.rates.allow(Client::of(request.extensions())) {
        return TOO_FAST.into_response();
    }
    // Never closed; and who waits for too long is given up on by the time that each answer has.
    let _turn = if is_read { app.heavy.reading.acquire().await.ok() } else { None };
    next.run(request).await
}
