//! What is done by the clock: audits, figures of what waits and of what is proven.

use std::time::{Duration, Instant};

use penstock_core::backfill::Reason;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Shared};

/// How often figures are read.
const FIGURES: Duration = Duration::from_secs(10);

/// How often it is counted how many repos are proven, and how many times longer it is left alone than it took.
const PROOFS: (Duration, u32) = (Duration::from_secs(60), 20);

/// How often it is looked whether audits are due.
const AUDITS: Duration = Duration::from_secs(5);

/// The first healer that asks takes what is due for all: $1 repos an hour, $2 how many at most.
const AUDITS_DUE: &str = "\
INSERT INTO penstock.meta AS m (key, value) VALUES ('audited_through', extract(epoch FROM clock_timestamp())::text)
ON CONFLICT (key) DO UPDATE SET value = (CASE
    WHEN m.value::float8 > excluded.value::float8 OR m.value::float8 < excluded.value::float8 - 3600
    THEN excluded.value::float8
    ELSE m.value::float8 + floor((excluded.value::float8 - m.value::float8) * $1 / 3600.0) * 3600.0 / $1 END)::text
RETURNING value";

const THROUGH: &str = "SELECT value::float8 FROM penstock.meta WHERE key = 'audited_through' FOR UPDATE";

/// How many of a thousand audits compare all records although the root would do: it says nothing of columns that are made of a record,
/// nor of counts.
const WHOLE: f64 = 100.0;

/// Those that were given up of late are left alone: each would be the first again. Rows of `subject:…` are of no account.
const QUEUE_AUDITS: &str = "\
INSERT INTO penstock.repairs (did, reason, priority, whole)
SELECT r.did, $2, $3::smallint, random() * 1000 < $4 FROM penstock.repos AS r
 WHERE r.active IS NOT FALSE AND r.forbidden IS NOT TRUE AND r.did LIKE 'did:%'
   AND NOT EXISTS (SELECT FROM penstock.unhealed AS u WHERE u.did = r.did AND u.at > now() - interval '7 days')
   AND NOT EXISTS (SELECT FROM penstock.repairs AS q WHERE q.did = r.did)
 ORDER BY r.proven_at NULLS FIRST, r.did LIMIT $1
ON CONFLICT (did) DO NOTHING";

const PROVEN: &str = "\
SELECT count(proven_at), count(*), extract(epoch FROM clock_timestamp() - min(proven_at))::float8 FROM penstock.repos
 WHERE active IS NOT FALSE AND forbidden IS NOT TRUE AND did LIKE 'did:%'";

/// The most repos that one look queues.
const AT_ONCE: f64 = 1000.0;

impl Engine {
    /// Queues audits until asked to stop, where `heal.auditRate` says so.
    pub async fn schedule_audits(&self, stop: CancellationToken) {
        let rate = self.shared.settings.heal.audit_rate;
        if rate == 0 {
            return stop.cancelled().await;
        }
        while stop.run_until_cancelled(tokio::time::sleep(AUDITS)).await.is_some() {
            if let Err(error) = self.shared.queue_audits(f64::from(rate)).await {
                self.shared.events.database_failed("queue audits", &error);
            }
        }
    }

    /// Reads figures until asked to stop.
    pub async fn read_figures(&self, stop: CancellationToken) {
        let mut next_proofs = Instant::now();
        loop {
            let read = async {
                let counts = self.shared.queue.waiting().await?;
                self.shared.events.waiting(&counts);
                let backlog = self.shared.queue.backlog(self.shared.settings.heal.enabled).await?;
                self.shared.events.due(backlog.due);
                self.shared.events.summarize(counts.iter().map(|(_, count)| count).sum(), false);
                if Instant::now() >= next_proofs {
                    let began = Instant::now();
                    self.shared.queue.forget().await?;
                    let (share, oldest) = self.shared.proven().await?;
                    self.shared.events.proofs(share, oldest);
                    next_proofs = Instant::now() + PROOFS.0.max(began.elapsed() * PROOFS.1);
                }
                Ok::<_, sqlx::Error>(())
            };
            if let Some(Err(error)) = stop.run_until_cancelled(read).await {
                self.shared.events.database_failed("read figures", &error);
            }
            if stop.run_until_cancelled(tokio::time::sleep(FIGURES)).await.is_none() {
                return self.shared.events.summarize(0, true);
            }
        }
    }
}

impl Shared {
    /// Queues as many audits as are due since it was last looked, by any healer.
    async fn queue_audits(&self, rate: f64) -> sqlx::Result<u64> {
        let queue = async |tx: &mut PgConnection| {
            let through: Option<f64> = sqlx::query_scalar(THROUGH).fetch_optional(&mut *tx).await?;
            let now: String = sqlx::query_scalar(AUDITS_DUE).bind(rate).fetch_one(&mut *tx).await?;
            let (Some(through), Ok(now)) = (through, now.parse::<f64>()) else { return Ok(0) };
            let due = ((now - through) * rate / 3600.0).round().clamp(0.0, AT_ONCE);
            if due < 1.0 {
                return Ok(0);
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most 1,000")]
            let due = due as i64;
            let reason = Reason::Audit;
            let queue = sqlx::query(QUEUE_AUDITS).bind(due).bind(reason.word()).bind(reason.priority());
            Ok(queue.bind(WHOLE).execute(tx).await?.rows_affected())
        };
        self.store.in_transaction(queue).await
    }

    /// Returns the share of repos that are proven, and how many seconds ago the first of them was.
    async fn proven(&self) -> sqlx::Result<(f64, f64)> {
        let read = async |tx: &mut PgConnection| sqlx::query_as(PROVEN).fetch_one(tx).await;
        let (proven, all, oldest): (i64, i64, Option<f64>) = self.store.in_transaction(read).await?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let share = if all == 0 { 1.0 } else { proven as f64 / all as f64 };
        Ok((share, oldest.unwrap_or(f64::NAN)))
    }
}
