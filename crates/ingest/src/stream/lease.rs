//! The lease: only its holder writes.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use penstock_core::causes::chain;
use penstock_core::units::seconds;
use penstock_telemetry::admin::CheckHandle;
use rand::RngExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::scripts;
use crate::servers::Servers;
use crate::watchdog::Watchdog;

/// The right to write, held under a token that is random for each acquisition.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    client: Client,
    key: String,
    token: String,
    time: Duration,
    servers: Servers,
}

// === impl Lease ===

impl Lease {
    /// Waits until the lease is free and takes it; `None` if cancelled first. `check` fails for as long as Redis refuses.
    pub(crate) async fn acquire(
        client: &Client,
        key: String,
        time: Duration,
        servers: &Servers,
        check: &CheckHandle,
        cancel: &CancellationToken,
    ) -> Option<Self> {
        let token = format!("{:032x}", rand::rng().random::<u128>());
        let lease = Self { client: client.clone(), key, token, time, servers: servers.clone() };
        let mut logged_at: Option<Instant> = None;
        loop {
            let taken = lease.try_take().await;
            match &taken {
                Ok(_) => check.ok(),
                Err(error) => check.failing(
                    servers.redis.failure().unwrap_or_else(|| format!("cannot acquire the lease: {}", chain(error))),
                ),
            }
            match taken {
                Ok(true) => return Some(lease),
                Ok(false) if logged_at.is_none() => {
                    logged_at = Some(Instant::now());
                    info!(key = %lease.key, "another ingest holds the lease, standing by");
                }
                Ok(false) => {}
                Err(error) if servers.is_of_outage(&error) => {
                    debug!(error = chain(&error), "could not acquire the lease, retrying");
                }
                Err(error) => {
                    if logged_at.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        logged_at = Some(Instant::now());
                        warn!(error = chain(&error), key = %lease.key, "could not acquire the lease, retrying");
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

    /// Returns how long the lease lasts without being renewed, in milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX)
    }

    /// Renews the lease until it belongs to another ingest, or until reading has stalled.
    pub(crate) async fn keep(&self, watchdog: &Watchdog) {
        loop {
            sleep(self.time / 3).await;
            if let Some(still) = watchdog.stalled_for() {
                error!(still_seconds = seconds(still), "reading has stalled, giving up the lease");
                return;
            }
            let renewed: Result<i64, Error> = self
                .client
                .eval(scripts::RENEW, vec![self.key.as_str()], vec![self.token.clone(), self.millis().to_string()])
                .await;
            match renewed {
                Ok(1) => {}
                Ok(_) => return,
                // Whether it is still ours is decided in Redis, by the fence of each batch.
                Err(error) if self.servers.is_of_outage(&error) => {
                    debug!(error = chain(&error), "could not renew the lease");
                }
                Err(error) => warn!(error = chain(&error), "could not renew the lease"),
            }
        }
    }

    /// Releases the lease, so that another ingest need not wait for it to expire.
    pub(crate) async fn release(&self) {
        let released: Result<i64, Error> =
            self.client.eval(scripts::RELEASE, vec![self.key.as_str()], vec![self.token.as_str()]).await;
        match released {
            Err(error) if self.servers.is_of_outage(&error) => {
                debug!(error = chain(&error), "could not release the lease");
            }
            Err(error) => warn!(error = chain(&error), "could not release the lease, it will expire"),
            Ok(_) => {}
        }
    }

    async fn try_take(&self) -> Result<bool, Error> {
        // The reply to an earlier attempt may have been lost: then the token is ours already.
        let arguments = vec![self.token.clone(), self.millis().to_string()];
        let taken: String = self.client.eval(scripts::TAKE, vec![self.key.as_str()], arguments).await?;
        Ok(taken == "1")
    }
}
