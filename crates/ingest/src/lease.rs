//! The lease of the one writer.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use rand::RngExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::pulse::Pulse;
use crate::scripts;

/// The right to write, held under a token that is random per acquisition.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    client: Client,
    key: String,
    token: String,
    time: Duration,
}

// === impl Lease ===

impl Lease {
    /// Waits until the lease is free and takes it; `None` when cancelled first.
    pub(crate) async fn acquire(
        client: &Client,
        key: String,
        time: Duration,
        cancel: &CancellationToken,
    ) -> Option<Self> {
        let lease = Self { client: client.clone(), key, token: format!("{:032x}", rand::rng().random::<u128>()), time };
        let mut told: Option<Instant> = None;
        loop {
            match lease.try_take().await {
                Ok(true) => return Some(lease),
                Ok(false) if told.is_none() => {
                    told = Some(Instant::now());
                    info!(key = %lease.key, "another ingest holds the lease, standing by");
                }
                Ok(false) => {}
                Err(error) => {
                    if told.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        told = Some(Instant::now());
                        warn!(%error, key = %lease.key, "could not ask for the lease");
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = sleep(time / 6) => {}
            }
        }
    }

    /// Returns the token, which every batch carries.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Returns the name of the lease's key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns how long the lease lasts without renewal, in milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX)
    }

    /// Renews the lease until it turns out to be somebody else's, or until whoever reads has stood still for long.
    pub(crate) async fn keep(&self, pulse: &Pulse) {
        loop {
            sleep(self.time / 3).await;
            if let Some(still) = pulse.still() {
                error!(?still, "reading does not go on, giving the lease up");
                return;
            }
            let renewed: Result<i64, Error> = self
                .client
                .eval(scripts::RENEW, vec![self.key.as_str()], vec![self.token.clone(), self.millis().to_string()])
                .await;
            match renewed {
                Ok(1) => {}
                Ok(_) => return,
                // Whether it is still ours, the fence of each batch decides, in Redis.
                Err(error) => warn!(%error, "could not renew the lease"),
            }
        }
    }

    /// Gives the lease back, so that another ingest need not wait.
    pub(crate) async fn release(&self) {
        let released: Result<i64, Error> =
            self.client.eval(scripts::RELEASE, vec![self.key.as_str()], vec![self.token.as_str()]).await;
        if let Err(error) = released {
            warn!(%error, "could not release the lease, it runs out by itself");
        }
    }

    async fn try_take(&self) -> Result<bool, Error> {
        // A reply that was lost may have been a yes: then the token is ours already.
        let arguments = vec![self.token.clone(), self.millis().to_string()];
        let taken: String = self.client.eval(scripts::TAKE, vec![self.key.as_str()], arguments).await?;
        Ok(taken == "1")
    }
}
