//! What happens in a worker: each event writes its line of log and moves its metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_core::data::EventKind;
use penstock_core::lag::{Backlog, Lag};
use penstock_core::stream::StreamId;
use penstock_core::units::{seconds, tenths};
use penstock_telemetry::metrics::{Counter, Gauge, Histogram, Metric, Metrics};
use penstock_telemetry::traces::SpanContext;
use tracing::{debug, error, info, warn};

use crate::action::Action;
use crate::consumer::{Burial, Joined, KeySize, StandstillReason};
use crate::progress::{Progress, Snapshot};
use crate::store::{Checked, Checkpoint, ClaimedAccounts, Claims, HostAnswer, Settled, TableSize, Unswept};

/// The counters and the log of one worker.
#[derive(Debug)]
pub(crate) struct Events {
    metrics: Metrics,
    progress: Progress,
    read: [Counter; 4],
    acknowledged: Counter,
    claimed: Counter,
    deleted: Counter,
    dead_letters: Counter,
    alone: Counter,
    messages: Counter,
    published: Counter,
    refused: Counter,
    batch_entries: Histogram,
    batch_seconds: Histogram,
    transaction_seconds: Histogram,
    in_flight: Gauge,
    pending: Gauge,
    lag: Gauge,
    bulk_pending: Gauge,
    bulk_lag: Gauge,
    lag_seconds: Gauge,
    checkpoint: Gauge,
    checkpoint_still: Gauge,
}

// === impl Events ===

impl Events {
    pub(crate) fn new(metrics: Metrics, progress: Progress) -> Self {
        let counter = |metric| metrics.counter(metric, None);
        let gauge = |metric| metrics.gauge(metric, None);
        let histogram = |metric| metrics.histogram(metric, None);
        Self {
            read: ["commit", "identity", "account", "other"].map(|kind| metrics.counter(Metric::EntriesRead, kind)),
            acknowledged: counter(Metric::EntriesAcked),
            claimed: counter(Metric::EntriesClaimed),
            deleted: counter(Metric::EntriesDeleted),
            dead_letters: metrics.counter(Metric::DeadLetters, "worker"),
            alone: counter(Metric::EntriesAlone),
            messages: counter(Metric::MessagesWritten),
            published: counter(Metric::CountsPublished),
            refused: counter(Metric::RecordsRefused),
            batch_entries: histogram(Metric::ApplyEntries),
            batch_seconds: histogram(Metric::BatchSeconds),
            transaction_seconds: histogram(Metric::TransactionSeconds),
            in_flight: gauge(Metric::InFlight),
            pending: gauge(Metric::Pending),
            lag: gauge(Metric::Lag),
            bulk_pending: gauge(Metric::BulkPending),
            bulk_lag: gauge(Metric::BulkLag),
            lag_seconds: gauge(Metric::WorkerLagSeconds),
            checkpoint: gauge(Metric::Checkpoint),
            checkpoint_still: gauge(Metric::CheckpointStillSeconds),
            metrics,
            progress,
        }
    }

    /// Entries were decoded, or could not be: so many commits, identities, accounts, others.
    pub(crate) fn decoded(&self, kinds: [u64; 4]) {
        for (counter, count) in self.read.iter().zip(kinds) {
            counter.inc_by(count);
        }
    }

    /// What is held changed.
    pub(crate) fn held(&self, entries: usize) {
        self.in_flight.set(entries as f64);
        self.progress.in_flight(entries);
    }

    /// Entries of another consumer, or of an earlier life of this one, were taken over.
    pub(crate) fn claimed(&self, entries: usize) {
        self.claimed.inc_by(entries as u64);
        info!(entries, "took over idle entries");
    }

    /// Entries were removed from the stream while they were pending.
    pub(crate) fn lost(&self, ids: &[StreamId]) {
        self.deleted.inc_by(ids.len() as u64);
        let first = ids.first().map(StreamId::to_string).unwrap_or_default();
        error!(entries = ids.len(), first, "data loss: entries were trimmed from the stream before they were applied");
    }

    /// A transaction was committed.
    pub(crate) fn committed(&self, entries: usize, took: Duration, tables: impl Iterator<Item = (&'static str, u64)>) {
        self.batch_entries.observe(entries as f64);
        self.transaction_seconds.observe_here(took.as_secs_f64());
        let mut rows = 0;
        for (table, count) in tables {
            rows += count;
            self.metrics.counter(Metric::RowsWritten, table).inc_by(count);
        }
        self.progress.wrote(rows);
        debug!(entries, rows, took_seconds = seconds(took), "batch committed");
    }

    /// Notifications were not made because their URI is longer than its column.
    pub(crate) fn refused_notifications(&self, notifications: u64) {
        if notifications > 0 {
            self.metrics.counter(Metric::NotificationsRefused, None).inc_by(notifications);
            debug!(notifications, "notifications not written, their uri is too long");
        }
    }

    /// A transaction failed for a reason that is not the data's fault.
    pub(crate) fn retry(&self, reason: &'static str) {
        self.metrics.counter(Metric::Retries, reason).inc();
    }

    /// Applied entries were acknowledged, up to this one.
    pub(crate) fn acknowledged(&self, entries: u64, newest: Option<StreamId>) {
        self.acknowledged.inc_by(entries);
        if let Some(newest) = newest {
            self.lag_seconds.set(waited(newest));
        }
        self.progress.applied(entries);
    }

    /// A whole batch was settled.
    pub(crate) fn settled(&self, since_full: Duration, trace: Option<&SpanContext>) {
        self.batch_seconds.observe_in(since_full.as_secs_f64(), trace);
    }

    /// A batch holds something that PostgreSQL refuses: its parts are tried.
    pub(crate) fn bisecting(&self, entries: usize, error: &str) {
        warn!(entries, error, "postgres rejected the data of a batch, searching for the bad entry");
    }

    /// A transaction of so many ops took too long; from now on they have so many.
    pub(crate) fn too_slow(&self, ops: usize, now: usize) {
        warn!(ops, now, "transaction took too long, using smaller ones until they succeed");
    }

    /// An entry goes alone: it is too large to stand in memory at once, or one of its ops takes too long.
    pub(crate) fn goes_alone(&self, id: StreamId, weight: usize) {
        self.alone.inc();
        debug!(%id, weight, "writing an entry alone, in parts");
    }

    /// An entry became a dead letter.
    pub(crate) fn buried(&self, letter: &Burial<'_>, new: bool) {
        if new {
            self.dead_letters.inc();
            self.progress.buried();
        }
        let kind = String::from_utf8_lossy(letter.kind);
        let seq: Option<u64> = str::from_utf8(letter.seq).ok().and_then(|seq| seq.parse().ok());
        let did = Some(letter.repo).filter(|did| !did.is_empty());
        let (uri, ops) = letter.first_record().unzip();
        warn!(id = %letter.id, %kind, uri, did, seq, ops, error = letter.error, "entry dead-lettered");
    }

    /// Dead letters of ingest were copied into PostgreSQL.
    pub(crate) fn copied(&self, letters: usize) {
        debug!(letters, "copied dead letters of ingest to postgres");
    }

    /// Dead letters were removed from PostgreSQL because there were too many.
    pub(crate) fn letters_pushed_out(&self, letters: u64) {
        info!(letters, "removed the oldest dead letters from postgres, their limit is reached");
    }

    /// A batch of messages was written and settled: some may have stood already, some been settled by another worker.
    pub(crate) fn messages_written(&self, inserted: u64, settled: u64, took: Duration) {
        self.messages.inc_by(inserted);
        debug!(inserted, settled, took_seconds = seconds(took), "messages written");
    }

    /// A message became a dead letter.
    pub(crate) fn message_buried(&self, error: &str, new: bool) {
        if new {
            self.dead_letters.inc();
            self.progress.buried();
        }
        warn!(error, "message dead-lettered");
    }

    /// Messages of a dead worker went back into the queue.
    pub(crate) fn messages_taken_over(&self, worker: &str, messages: u64) {
        info!(worker, messages, "requeued the messages of a dead worker");
    }

    /// Messages of this worker went back into the queue.
    pub(crate) fn messages_given_back(&self, messages: u64) {
        info!(messages, "requeued messages");
    }

    /// An entry that was held when processes died is tried alone.
    pub(crate) fn suspect(&self, id: StreamId, deliveries: u64, crashes: u64) {
        warn!(%id, deliveries, crashes, "entry was delivered repeatedly, trying it alone");
    }

    /// The group was joined: at the start, or again because it was missing.
    pub(crate) fn joined(&self, group: &str, joined: Joined, again: bool) {
        match joined {
            Joined::There => {}
            Joined::Made if again => {
                error!(group, "consumer group was missing, recreated at the beginning of the stream");
            }
            Joined::Made => info!(group, "consumer group created"),
            Joined::Lost => error!(
                group,
                "consumer group was missing, unread entries may be lost: recreated, and ingest resumes from the checkpoint"
            ),
        }
    }

    /// The checkpoint was saved.
    pub(crate) fn checkpoint(&self, checkpoint: &Checkpoint) {
        self.checkpoint.set(checkpoint.seq as f64);
        debug!(host = checkpoint.host, seq = checkpoint.seq, stream_id = %checkpoint.stream_id, "checkpoint saved");
    }

    /// For how long it has not been known what is settled; with the reason when it is to be logged.
    pub(crate) fn checkpoint_still(&self, still: Duration, why: Option<StandstillReason>) {
        self.checkpoint_still.set(still.as_secs_f64());
        if let Some(why) = why {
            warn!(
                still_seconds = seconds(still),
                why = why.words(),
                "checkpoint is not advancing: if redis is lost, more is read again or missing"
            );
        }
    }

    /// Dead consumers were removed.
    pub(crate) fn reaped(&self, consumers: &[String]) {
        info!(consumers = consumers.join(" "), "removed dead consumers without pending entries");
    }

    /// Another live process has this one's name.
    pub(crate) fn name_shared(&self, consumer: &str) {
        warn!(consumer, "another live worker has the same name: give each its own worker.consumerId (CONSUMER_ID)");
    }

    /// Counts were published.
    pub(crate) fn published(&self, changed: u64) {
        self.published.inc();
        debug!(changed, "counts published");
    }

    /// The public counts were set from the rows there are.
    pub(crate) fn counted(&self, took: Duration) {
        info!(took_seconds = seconds(took), "counts recomputed from the rows");
    }

    /// Changes of records were refused because their accounts opted out.
    pub(crate) fn refused(&self, records: u64) {
        if records > 0 {
            self.refused.inc_by(records);
            debug!(records, "skipped records of accounts that opted out");
        }
    }

    /// Accounts opted out, or back in.
    pub(crate) fn opt_outs(&self, gone: usize, back: usize) {
        if gone > 0 {
            info!(accounts = gone, "accounts opted out: removing their data, writing no more of it");
        }
        if back > 0 {
            info!(accounts = back, "accounts opted back in: writing what is new from now on");
        }
    }

    /// The opt-outs could not be read.
    pub(crate) fn opt_outs_unread(&self, failures: u64, error: &str) {
        warn!(failures, error, "could not read opt-outs from user_settings, known ones stay in force");
    }

    /// Rows of deleted accounts were removed.
    pub(crate) fn swept(&self, rows: u64) {
        self.progress.wrote(rows);
        debug!(rows, "removed rows of deleted accounts");
    }

    /// A step of a deleted account, or of what follows from a post, failed.
    pub(crate) fn sweep_failed(&self, failed: &Unswept) {
        let Unswept { what, attempts, in_trouble, reason, error } = failed;
        self.metrics.counter(Metric::SweepsFailed, *reason).inc();
        if *in_trouble {
            warn!(what, attempts, error, "could not remove what an account or a post left behind, retrying later");
        } else {
            debug!(what, attempts, error, "sweep step failed, retrying after the others");
        }
    }

    /// Events said that accounts are gone, or that they are not.
    pub(crate) fn claims(&self, claims: Claims) {
        for (result, count) in [("made", claims.made), ("withdrawn", claims.withdrawn)] {
            if count > 0 {
                self.metrics.counter(Metric::AccountClaims, result).inc_by(count);
            }
        }
    }

    /// A claim that an account is gone was settled, or could not be.
    pub(crate) fn claim_settled(&self, did: &str, settled: Settled, answer: &HostAnswer) {
        let Some(result) = settled.word() else { return };
        self.metrics.counter(Metric::AccountClaims, result).inc();
        let error = if let HostAnswer::Nobody(error) = answer { Some(&**error) } else { None };
        debug!(did, result, error, "claim that an account is gone was looked into");
    }

    /// Claims that accounts are gone were counted; whether to say so where hosts do not answer.
    pub(crate) fn claimed_accounts(&self, claims: &ClaimedAccounts, is_due: bool) {
        let ClaimedAccounts { unconfirmed, unanswered, deletions, next_seconds } = *claims;
        self.metrics.gauge(Metric::ClaimedAccounts, "unconfirmed").set(unconfirmed as f64);
        self.metrics.gauge(Metric::ClaimedAccounts, "deletion").set(deletions as f64);
        self.metrics.gauge(Metric::NextDeletionSeconds, None).set(next_seconds.unwrap_or(f64::NAN));
        if is_due && unanswered > 0 {
            warn!(accounts = unanswered, "hosts do not say whether accounts are gone, asking again");
        }
    }

    /// A handle was checked, or could not be.
    pub(crate) fn handle_checked(&self, did: &str, checked: &Checked) {
        let (result, error) = match checked {
            Checked::Valid(_) => ("valid", None),
            Checked::Invalid => ("invalid", None),
            Checked::Unknown(error) => ("unresolved", Some(&**error)),
        };
        self.metrics.counter(Metric::HandleChecks, result).inc();
        debug!(did, result, error, "handle checked");
    }

    /// The sizes of tables were read.
    pub(crate) fn table_sizes(&self, sizes: &[TableSize]) {
        for TableSize { table, rows, bytes } in sizes {
            self.metrics.gauge(Metric::StoreRows, *table).set(*rows as f64);
            self.metrics.gauge(Metric::StoreBytes, *table).set(*bytes as f64);
        }
    }

    /// The size of the database was read.
    pub(crate) fn database_size(&self, bytes: u64) {
        self.metrics.gauge(Metric::DatabaseBytes, None).set(bytes as f64);
    }

    /// The sizes of keys were read.
    pub(crate) fn key_sizes(&self, sizes: &[KeySize]) {
        for KeySize { key, length, bytes } in sizes {
            self.metrics.gauge(Metric::RedisKeyLength, *key).set(*length as f64);
            if let Some(bytes) = bytes {
                self.metrics.gauge(Metric::RedisKeyBytes, *key).set(*bytes as f64);
            }
        }
    }

    /// Tombstones were pruned.
    pub(crate) fn pruned(&self, rows: u64) {
        info!(rows, "pruned old tombstones");
    }

    /// The group's backlog was asked for: that of the stream, and of the second one.
    pub(crate) fn backlog(&self, stream: Backlog, bulk: Backlog) {
        self.pending.set(stream.pending as f64);
        self.bulk_pending.set(bulk.pending as f64);
        self.bulk_lag.set(bulk.undelivered.as_f64());
        self.lag.set(stream.undelivered.as_f64());
        if stream.left() == Lag::Exact(0) {
            self.lag_seconds.set(0.0);
        }
        let left = [stream, bulk].map(Backlog::left);
        self.progress
            .lag(left.iter().all(|left| left.is_exact()).then(|| left.iter().map(|left| left.at_least()).sum()));
    }

    /// The summary line is due.
    pub(crate) fn summary(&self, rate: f64) {
        let now = self.progress.snapshot();
        info!(
            total = now.applied,
            per_second = tenths(rate),
            lag = now.lag,
            in_flight = now.in_flight,
            rows = now.rows,
            dead_letters = now.dead_letters,
            "worker summary"
        );
    }

    /// The worker has ended.
    pub(crate) fn stopped(&self) {
        let Snapshot { applied, rows, dead_letters, in_flight, .. } = self.progress.snapshot();
        info!(total = applied, rows, dead_letters, in_flight, "worker stopped");
    }

    /// How many entries were applied so far.
    pub(crate) fn total(&self) -> u64 {
        self.progress.snapshot().applied
    }

    /// A request to Redis or PostgreSQL failed.
    pub(crate) fn failed(&self, action: Action, failures: u64, error: &str) {
        let (from, action) = (action.server(), action.words());
        match from {
            "postgres" => warn!(from, action, failures, error, "postgres request failed, retrying"),
            _ => warn!(from, action, failures, error, "redis request failed, retrying"),
        }
    }

    /// A request to Redis or PostgreSQL failed, and no line is due.
    pub(crate) fn failed_again(&self, action: Action, error: &str) {
        debug!(from = action.server(), action = action.words(), error, "request failed, retrying");
    }

    /// A request that failed succeeds again.
    pub(crate) fn recovered(&self, action: Action, after: Duration) {
        let (from, action) = (action.server(), action.words());
        match from {
            "postgres" => info!(from, action, after_seconds = seconds(after), "postgres request succeeds again"),
            _ => info!(from, action, after_seconds = seconds(after), "redis request succeeds again"),
        }
    }
}

/// Where a kind stands in [`Events::decoded`].
pub(crate) fn place(kind: Option<EventKind>) -> usize {
    match kind {
        Some(EventKind::Commit) => 0,
        Some(EventKind::Identity) => 1,
        Some(EventKind::Account) => 2,
        None => 3,
    }
}

/// Returns for how many seconds an entry has been in the stream, by the clocks of Redis and of this host.
pub(crate) fn waited(id: StreamId) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now.saturating_sub(id.ms) as f64 / 1000.0
}

#[cfg(test)]
mod tests;
