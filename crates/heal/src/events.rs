//! What the healer counts and logs: one call, one log line and its metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::backfill::Reason;
use penstock_core::causes::chain;
use penstock_core::servers::{Circumstances, Failing, Kind, Server, is_unanswered};
use penstock_repo::RepoError;
use penstock_telemetry::metrics::{Counter, Gauge, Metric, Metrics};
use penstock_worker::store::{Difference, DifferenceKind, SnapshotWritten};
use tracing::{debug, info, warn};

/// How often it is told what was done, where anything was.
const SUMMARY: Duration = Duration::from_secs(3600);

/// How often it is tried at least whether PostgreSQL answers again.
const POSTGRES: Duration = Duration::from_secs(5);

/// What came of a repo that was in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Healed,
    Retried,
    GivenUp,
    HandedBack,
}

/// Logs and counts what happens.
#[derive(Debug)]
pub(crate) struct Events {
    metrics: Metrics,
    postgres: Server,
    failing: Mutex<Failing>,
    running: Gauge,
    records: [Counter; 6],
    differences: [Counter; 4],
    /// By the root, and by all records.
    audits: [Counter; 2],
    since: Mutex<Since>,
    retried: AtomicU64,
}

/// What was done since it was last told.
#[derive(Debug)]
struct Since {
    at: Instant,
    healed: u64,
    given_up: u64,
    records: u64,
}

const CAME: [Came; 4] = [Came::Healed, Came::Retried, Came::GivenUp, Came::HandedBack];

macro_rules! labels {
    ($($reason:literal),+) => {
        [$([concat!($reason, ",healed"), concat!($reason, ",retried"), concat!($reason, ",given_up"), concat!($reason, ",handed_back")]),+]
    };
}

/// By the place of the reason in [`Reason::ALL`], and of what came in [`CAME`].
const LABELS: [[&str; 4]; 8] =
    labels!("asked", "sync", "chain", "block missing", "seam", "audit", "filter", "backfill");

const KINDS: [DifferenceKind; 4] =
    [DifferenceKind::Missing, DifferenceKind::Extra, DifferenceKind::Different, DifferenceKind::Count];

// === impl Events ===

impl Events {
    /// Takes the handles, so that what never happened shows as 0. `database` is the masked address.
    pub(crate) fn new(metrics: Metrics, database: &str) -> Self {
        let counter = |metric, label: &'static str| metrics.counter(metric, label);
        for label in LABELS.as_flattened() {
            let _ = counter(Metric::HealRepairs, label);
        }
        let means = "no repo is read until it answers; nothing is lost";
        let records = ["added", "changed", "removed", "kept", "newer", "rejected"];
        Self {
            postgres: Server::new(Kind::Postgres, database, means, POSTGRES),
            failing: Mutex::default(),
            running: metrics.gauge(Metric::HealRunning, None),
            records: records.map(|result| counter(Metric::HealRecords, result)),
            differences: KINDS.map(|kind| counter(Metric::HealDifferences, kind.word())),
            audits: ["root", "records"].map(|proof| counter(Metric::HealAudits, proof)),
            since: Mutex::new(Since { at: Instant::now(), healed: 0, given_up: 0, records: 0 }),
            retried: AtomicU64::new(0),
            metrics,
        }
    }

    /// PostgreSQL answered.
    pub(crate) fn answered(&self) {
        self.postgres.answered();
        let over = self.failing.lock().unwrap_or_else(PoisonError::into_inner).over(Instant::now());
        if over.is_some() {
            info!("the healer can use the database again");
        }
    }

    /// PostgreSQL refused something, or did not answer.
    pub(crate) fn database_failed(&self, action: &'static str, error: &(dyn std::error::Error + 'static)) {
        let is_unanswered = is_unanswered(error);
        if is_unanswered {
            self.postgres.failed(error);
        }
        let how = Circumstances { is_away: self.postgres.is_away(), is_unanswered };
        let told = self.failing.lock().unwrap_or_else(PoisonError::into_inner).failed(Instant::now(), how);
        if let Some(failures) = told {
            warn!(action, failures, error = chain(error), "the database refuses a healer, trying again");
        } else {
            debug!(action, error = chain(error), "could not use the database");
        }
    }

    /// Says why PostgreSQL cannot be used, if it is away.
    pub(crate) fn failure(&self) -> Option<String> {
        self.postgres.failure()
    }

    /// So many repos are in hand.
    pub(crate) fn running(&self, many: usize) {
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        self.running.set(many as f64);
    }

    /// A range of a repo was written.
    pub(crate) fn wrote(&self, did: &str, written: &SnapshotWritten) {
        let SnapshotWritten { added, changed, removed, kept, newer, ref rejected, .. } = *written;
        let rejected_count = rejected.len() as u64;
        for (counter, count) in self.records.iter().zip([added, changed, removed, kept, newer, rejected_count]) {
            counter.inc_by(count);
        }
        self.since().records += added + changed + removed;
        for (path, reason) in rejected.iter().take(3) {
            debug!(did, path, reason, "a record of a repo has no place in the tables");
        }
    }

    /// A record cannot be written at all.
    pub(crate) fn refused(&self, did: &str, path: &str, error: &dyn std::error::Error) {
        self.records[5].inc();
        warn!(did, path, error = chain(error), "postgresql rejects a record of a repo, leaving it out");
    }

    /// A repo's rows are as its host has them.
    pub(crate) fn healed(&self, did: &str, reason: Reason, records: u64, is_signed: bool) {
        self.count(reason, Came::Healed);
        self.since().healed += 1;
        if reason == Reason::Backfill {
            debug!(did, records, signed = is_signed, "repo read");
        } else {
            info!(did, reason = reason.word(), records, signed = is_signed, "repo healed");
        }
    }

    /// A repo is tried again later.
    pub(crate) fn retried(&self, did: &str, reason: Reason, error: &RepoError, attempts: u32, pause: Duration) {
        self.count(reason, Came::Retried);
        self.retried.fetch_add(1, Ordering::Relaxed);
        let retry_seconds = pause.as_secs();
        let (reason, kind) = (reason.word(), error.word());
        debug!(did, reason, kind, attempts, retry_seconds, error = chain(error), "repo not read, trying again later");
    }

    /// A repo is given up.
    pub(crate) fn given_up(&self, did: &str, reason: Reason, error: &RepoError, attempts: u32) {
        self.count(reason, Came::GivenUp);
        self.since().given_up += 1;
        let (word, kind) = (reason.word(), error.word());
        if reason == Reason::Backfill {
            debug!(did, reason = word, kind, attempts, error = chain(error), "repo given up");
        } else {
            warn!(did, reason = word, kind, attempts, error = chain(error), "repo cannot be healed, giving up");
        }
    }

    /// The filter leaves a repo out: nothing of it is to be had.
    pub(crate) fn left_out(&self, did: &str, reason: Reason, rule: &str) {
        self.count(reason, Came::GivenUp);
        debug!(did, reason = reason.word(), rule, "repo left out by the filter");
    }

    /// A repo is left to whoever takes it next.
    pub(crate) fn handed_back(&self, reason: Reason) {
        self.count(reason, Came::HandedBack);
    }

    /// An audit found a repo equal, by its root or by all of its records.
    pub(crate) fn proven(&self, by_root: bool) {
        self.audits[usize::from(!by_root)].inc();
    }

    /// An audit compared the records of a repo.
    pub(crate) fn compared(&self, did: &str, differences: &[Difference]) {
        if differences.is_empty() {
            return self.proven(false);
        }
        let count = |kind: DifferenceKind| differences.iter().filter(|one| one.kind == kind).count() as u64;
        let counts = KINDS.map(count);
        for (counter, count) in self.differences.iter().zip(counts) {
            counter.inc_by(count);
        }
        let [missing, extra, different, miscounted] = counts;
        let example = differences.first().map(|one| one.path.as_str()).unwrap_or_default();
        warn!(did, missing, extra, different, miscounted, example, "audit found differences");
    }

    /// A backfill is complete.
    pub(crate) fn finished(&self, backfill: &str, repos: i64, failed: i64, records: i64) {
        info!(backfill, repos, failed, records, "backfill complete");
    }

    /// A relay did not list repos.
    pub(crate) fn not_listed(&self, backfill: &str, relay: &str, error: &RepoError, is_final: bool) {
        let kind = error.word();
        if is_final {
            warn!(backfill, relay, kind, error = chain(error), "relay does not list repos, the backfill has failed");
        } else {
            warn!(backfill, relay, kind, error = chain(error), "relay does not list repos, trying again");
        }
    }

    /// A relay that does not list repos by a collection is asked for all.
    pub(crate) fn all_instead(&self, backfill: &str, instead: &str) {
        info!(backfill, instead, "reading every repo that the relay lists in place of those with the collection");
    }

    /// Counts of what waits are known.
    pub(crate) fn waiting(&self, counts: &[(String, i64)]) {
        for reason in Reason::ALL {
            let of = counts.iter().filter(|(word, _)| word == reason.word());
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let count = of.map(|(_, count)| *count as f64).sum();
            self.metrics.gauge(Metric::HealWaiting, reason.word()).set(count);
        }
    }

    /// The count of what may be read now is known.
    pub(crate) fn due(&self, count: u64) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        self.metrics.gauge(Metric::HealDue, None).set(count as f64);
    }

    /// How much is proven is known.
    pub(crate) fn proofs(&self, share: f64, oldest_seconds: f64) {
        self.metrics.gauge(Metric::HealProvenRatio, None).set(share);
        self.metrics.gauge(Metric::HealOldestProofSeconds, None).set(oldest_seconds);
    }

    /// Tells once an hour what was done, if anything was, and at the end.
    pub(crate) fn summarize(&self, waiting: i64, is_last: bool) {
        let mut since = self.since();
        if !is_last && since.at.elapsed() < SUMMARY {
            return;
        }
        let retried = self.retried.swap(0, Ordering::Relaxed);
        let Since { healed, given_up, records, at } = *since;
        *since = Since { at: Instant::now(), healed: 0, given_up: 0, records: 0 };
        drop(since);
        if healed + given_up + retried > 0 {
            let minutes = at.elapsed().as_secs() / 60;
            info!(repos = healed, given_up, retried, records, waiting, minutes, "repos read");
        }
    }

    fn count(&self, reason: Reason, came: Came) {
        let place = Reason::ALL.iter().position(|one| *one == reason).zip(CAME.iter().position(|one| *one == came));
        if let Some(label) = place.and_then(|(reason, came)| LABELS.get(reason)?.get(came)) {
            self.metrics.counter(Metric::HealRepairs, *label).inc();
        }
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Since> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_own_word() {
        for (reason, labels) in Reason::ALL.iter().zip(LABELS) {
            for label in labels {
                assert_eq!(label.split(',').next(), Some(reason.word()));
            }
        }
    }
}
