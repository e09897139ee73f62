//! What happens in a worker: each event writes its line of log and moves its metrics.

use std::time::Duration;

use penstock_core::data::EventKind;
use penstock_core::stream::StreamId;
use penstock_telemetry::metrics::{Counter, Gauge, Histogram, Metric, Metrics};
use penstock_telemetry::traces::SpanContext;
use tracing::{debug, error, info, warn};

use crate::consumer::{Backlog, Joined, Lag};
use crate::progress::{Progress, Snapshot};
use crate::store::Checkpoint;
use crate::traces::waited;
use crate::trouble::Action;

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
    messages: Counter,
    published: Counter,
    refused: Counter,
    batch_entries: Histogram,
    batch_seconds: Histogram,
    transaction_seconds: Histogram,
    in_flight: Gauge,
    pending: Gauge,
    lag: Gauge,
    lag_seconds: Gauge,
    checkpoint: Gauge,
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
            messages: counter(Metric::MessagesWritten),
            published: counter(Metric::CountsPublished),
            refused: counter(Metric::RecordsRefused),
            batch_entries: histogram(Metric::ApplyEntries),
            batch_seconds: histogram(Metric::BatchSeconds),
            transaction_seconds: histogram(Metric::TransactionSeconds),
            in_flight: gauge(Metric::InFlight),
            pending: gauge(Metric::Pending),
            lag: gauge(Metric::Lag),
            lag_seconds: gauge(Metric::WorkerLagSeconds),
            checkpoint: gauge(Metric::Checkpoint),
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
        info!(entries, "took over entries that lay idle");
    }

    /// Entries had left the stream while they were pending.
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
        debug!(entries, rows, took = ?took, "batch committed");
    }

    /// Notifications were not made because their URI is longer than its column.
    pub(crate) fn refused_notifications(&self, notifications: u64) {
        if notifications > 0 {
            self.metrics.counter(Metric::NotificationsRefused, None).inc_by(notifications);
            debug!(notifications, "notifications have no place: their uri is too long");
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
        warn!(entries, error, "a batch was refused for its data, looking for what is at fault");
    }

    /// An entry failed for good.
    pub(crate) fn buried(&self, id: StreamId, kind: &str, error: &str, new: bool) {
        if new {
            self.dead_letters.inc();
            self.progress.buried();
        }
        warn!(%id, kind, error, "an entry failed for good and is among the dead letters");
    }

    /// A batch of messages was written and settled: some may have stood already, some been settled by another worker.
    pub(crate) fn messages_written(&self, inserted: u64, settled: u64, took: Duration) {
        self.messages.inc_by(inserted);
        debug!(inserted, settled, took = ?took, "messages written");
    }

    /// A message failed for good.
    pub(crate) fn message_buried(&self, error: &str, new: bool) {
        if new {
            self.dead_letters.inc();
            self.progress.buried();
        }
        warn!(error, "a message failed for good and is among the dead letters");
    }

    /// Messages of a dead worker went back into the queue.
    pub(crate) fn messages_taken_over(&self, worker: &str, messages: u64) {
        info!(worker, messages, "put messages of a dead worker back into the queue");
    }

    /// Messages of this worker went back into the queue.
    pub(crate) fn messages_given_back(&self, messages: u64) {
        info!(messages, "put messages back into the queue");
    }

    /// An entry that was there when processes died is tried alone.
    pub(crate) fn suspect(&self, id: StreamId, deliveries: u64, crashes: u64) {
        warn!(%id, deliveries, crashes, "an entry was delivered again and again, trying it alone");
    }

    /// The group was joined: at the start, or again since it was gone.
    pub(crate) fn joined(&self, group: &str, joined: Joined, again: bool) {
        match joined {
            Joined::There => {}
            Joined::Made if again => {
                error!(group, "the consumer group was gone and was made again from the stream's beginning");
            }
            Joined::Made => info!(group, "consumer group made"),
            Joined::Lost => error!(
                group,
                "the consumer group was gone and may have taken unread entries with it: made again, and ingest is told to \
                 go back to the checkpoint"
            ),
        }
    }

    /// It was kept up to which event everything is settled.
    pub(crate) fn checkpoint(&self, checkpoint: &Checkpoint) {
        self.checkpoint.set(checkpoint.seq as f64);
        debug!(host = checkpoint.host, seq = checkpoint.seq, stream_id = %checkpoint.stream_id, "checkpoint kept");
    }

    /// Consumers that were no more were removed.
    pub(crate) fn reaped(&self, consumers: &[String]) {
        info!(consumers = consumers.join(" "), "removed consumers that hold nothing and gave no sign of life");
    }

    /// Another live process has this one's name.
    pub(crate) fn name_shared(&self, consumer: &str) {
        warn!(
            consumer,
            "another live worker has the same name: give each a worker.consumerId (CONSUMER_ID) of its own"
        );
    }

    /// Counts were published.
    pub(crate) fn published(&self, changed: u64) {
        self.published.inc();
        debug!(changed, "counts published");
    }

    /// The public counts were set from the rows there are.
    pub(crate) fn counted(&self, took: Duration) {
        info!(took = ?took, "counts set from the rows");
    }

    /// Changes of records were refused because their accounts opted out.
    pub(crate) fn refused(&self, records: u64) {
        if records > 0 {
            self.refused.inc_by(records);
            debug!(records, "records of accounts that opted out were not written");
        }
    }

    /// Accounts opted out, or came back.
    pub(crate) fn opt_outs(&self, gone: usize, back: usize) {
        if gone > 0 {
            info!(accounts = gone, "accounts opted out: what is there of them goes, and no more is written");
        }
        if back > 0 {
            info!(accounts = back, "accounts came back from opting out: what comes from now on is written");
        }
    }

    /// It could not be asked who opted out.
    pub(crate) fn opt_outs_unread(&self, failures: u64, error: &str) {
        warn!(failures, error, "opt-outs could not be read from user_settings, those known stay in force");
    }

    /// Rows of deleted accounts were removed.
    pub(crate) fn swept(&self, rows: u64) {
        self.progress.wrote(rows);
        debug!(rows, "rows of deleted accounts removed");
    }

    /// Traces of deletes were removed.
    pub(crate) fn pruned(&self, rows: u64) {
        info!(rows, "traces of old deletes removed");
    }

    /// The group's backlog was asked for.
    pub(crate) fn backlog(&self, backlog: Backlog) {
        self.pending.set(backlog.pending as f64);
        match backlog.undelivered {
            Lag::Exact(undelivered) => {
                self.lag.set(undelivered as f64);
                if undelivered + backlog.pending == 0 {
                    self.lag_seconds.set(0.0);
                }
                self.progress.lag(Some(undelivered + backlog.pending));
            }
            Lag::Unknown => {
                self.lag.set(f64::NAN);
                self.progress.lag(None);
            }
        }
    }

    /// The summary line is due.
    pub(crate) fn summary(&self, rate: f64) {
        let now = self.progress.snapshot();
        let lag = now.lag.map(|lag| lag.to_string());
        info!(
            total = now.applied,
            per_second = format!("{rate:.1}"),
            lag = lag.as_deref().unwrap_or("unknown"),
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

    /// Redis or PostgreSQL did not do what it was asked.
    pub(crate) fn failed(&self, action: Action, failures: u64, error: &str) {
        warn!(from = action.of(), action = action.words(), failures, error, "failed, trying again");
    }

    /// What failed works again.
    pub(crate) fn recovered(&self, action: Action, after: Duration) {
        info!(from = action.of(), action = action.words(), after = ?after, "works again");
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
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
