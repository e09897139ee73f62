//! What commands do with the engine: one backfill until it is complete, audits that only look.

use std::time::Duration;

use penstock_core::backfill::BackfillStatus;
use penstock_telemetry::tasks::Tasks;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::HealError;

/// How often it is looked how far a backfill is.
const LOOK: Duration = Duration::from_millis(500);

/// How long all tasks together may take to end.
const DRAIN: Duration = Duration::from_secs(8);

/// Of `subject:…` rows there is no repo. After `$1`, or the longest ago proven where that is none.
const AFTER: &str = "SELECT did FROM penstock.repos
 WHERE did > $1 AND active IS NOT FALSE AND forbidden IS NOT TRUE AND did LIKE 'did:%' ORDER BY did LIMIT $2";

const OLDEST: &str = "SELECT did FROM penstock.repos
 WHERE active IS NOT FALSE AND forbidden IS NOT TRUE AND did LIKE 'did:%' ORDER BY proven_at NULLS FIRST, did LIMIT $1";

const PROVE: &str = "UPDATE penstock.repos SET proven_at = clock_timestamp(), proven_rev = $2 WHERE did = $1";

impl Engine {
    /// Reads the repos of the engine's backfill until it is over, or asked to stop; tells how far it is meanwhile.
    ///
    /// # Errors
    /// The backfill is not there any more, or a task died. A database that is away is waited for.
    pub async fn run_backfill(
        &self,
        name: &str,
        stop: CancellationToken,
        mut tell: impl FnMut(&BackfillStatus),
    ) -> Result<Option<BackfillStatus>, HealError> {
        let ended = stop.child_token();
        let mut tasks = Tasks::default();
        let (one, end) = (self.clone(), ended.clone());
        tasks.spawn_fallible("repairs", async move { one.run(end, None).await });
        let (one, end) = (self.clone(), ended.clone());
        tasks.spawn("leases", async move { one.renew(end).await });
        let (one, end) = (self.clone(), ended.clone());
        tasks.spawn("listing", async move { one.list(end).await });
        let watch = async {
            let mut last = None;
            loop {
                match self.backfills().get(name).await {
                    Ok(Some(status)) => {
                        tell(&status);
                        let is_over = status.state.is_over();
                        last = Some(status);
                        if is_over {
                            return last;
                        }
                    }
                    Ok(None) => return None,
                    Err(error) => self.shared.events.database_failed("look how far a backfill is", &error),
                }
                if ended.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                    return last;
                }
            }
        };
        let watched = tokio::select! {
            status = watch => Ok(status),
            error = tasks.first_to_end() => Err(error),
        };
        ended.cancel();
        let drained = tokio::time::timeout(DRAIN, tasks.all_to_end()).await;
        tasks.end(Duration::from_millis(500)).await;
        let status = watched?;
        drained.unwrap_or(Ok(()))?;
        Ok(status)
    }

    /// Names the repos that were proven longest ago, or never, at most so many.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn oldest_proofs(&self, most: u32) -> Result<Vec<String>, HealError> {
        let read = async |tx: &mut PgConnection| sqlx::query_scalar(OLDEST).bind(i64::from(most)).fetch_all(tx).await;
        self.shared.store.in_transaction(read).await.map_err(HealError::database("read which repos there are"))
    }

    /// Names the repos after one in their order, at most so many.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn repos_after(&self, did: &str, most: u32) -> Result<Vec<String>, HealError> {
        let read =
            async |tx: &mut PgConnection| sqlx::query_scalar(AFTER).bind(did).bind(i64::from(most)).fetch_all(tx).await;
        self.shared.store.in_transaction(read).await.map_err(HealError::database("read which repos there are"))
    }

    /// Remembers that a repo was found equal at a rev.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn prove(&self, did: &str, rev: &str) -> Result<(), HealError> {
        let prove = async |tx: &mut PgConnection| sqlx::query(PROVE).bind(did).bind(rev).execute(tx).await;
        let proven = self.shared.store.in_transaction(prove).await;
        proven.map(drop).map_err(HealError::database("remember that a repo is proven"))
    }
}
