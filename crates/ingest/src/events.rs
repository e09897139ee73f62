//! The events of ingest: each one is a log line and a metric.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use penstock_core::causes::chain;
use penstock_core::data::EventKind;
use penstock_core::servers::Failing;
use penstock_core::stream::StreamId;
use penstock_core::units::seconds;
use penstock_telemetry::metrics::{Counter, Gauge, Histogram, Metric, Metrics};
use penstock_telemetry::traces::SpanContext;
use penstock_wire::{BadFrame, BodyKind, Event, FrameError};
use tracing::{debug, error, info, warn};

use crate::filter_events::FilterEvents;
use crate::found::Found;
use crate::incidents::Incidents;
use crate::intake::resets::Reset;
use crate::intake::seam::Gap;
use crate::intake::tries::Disposition;
use crate::progress::Progress;
use crate::servers::Servers;
use crate::stream::bulk::{Blocker, Bulk};
use crate::verification_events::VerificationEvents;

/// Logs and counts what happens.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    servers: Servers,
    metrics: Metrics,
    progress: Progress,
    found: Found,
    bytes: Counter,
    kinds: Kinds,
    repeats: Counter,
    batches: Counter,
    entries: Histogram,
    publish_seconds: Histogram,
    frame_seconds: Histogram,
    cursor: Gauge,
    lag: Gauge,
    connected: Gauge,
    paused: Gauge,
    lease: Gauge,
    trimmed: Counter,
    trim_failures: Counter,
    length: Gauge,
    redis_memory: Gauge,
    redis_memory_limit: Gauge,
    bulk: Counter,
    bulk_length: Gauge,
    bulk_closed: Gauge,
    bulk_logged: Arc<AtomicBool>,
    holding: Gauge,
    checkpoints_still: Gauge,
    left_out: Gauge,
    broadcast: Counter,
    verification: VerificationEvents,
    filter: FilterEvents,
}

#[derive(Clone, Debug)]
struct Kinds {
    commit: Counter,
    identity: Counter,
    account: Counter,
    sync: Counter,
    info: Counter,
    other: Counter,
}

/// A batch that is in the stream.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Entries written.
    pub(crate) entries: usize,
    /// Entries that went to the second stream.
    pub(crate) aside: usize,
    /// Why entries above their repo's rate did not go there.
    pub(crate) closed: Option<Blocker>,
    /// The cursor it set.
    pub(crate) cursor: Option<u64>,
    /// The median time of recent events; single ones may be far off.
    pub(crate) usual_time: Option<Timestamp>,
    /// Gaps, resets and losses counted with it.
    pub(crate) incidents: Incidents,
    /// Dead letters written.
    pub(crate) letters: u64,
    /// The ID of its last entry.
    pub(crate) last_id: Option<StreamId>,
    /// When it was sent.
    pub(crate) sent: Instant,
    /// When its first frame was received.
    pub(crate) received: Instant,
    /// The trace of one of its events, if there is any.
    pub(crate) trace: Option<SpanContext>,
}

/// What one round of requeuing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Entries put back at the tail.
    pub(crate) back: Sample,
    /// Entries that had been put back often enough: now dead letters.
    pub(crate) letters: Sample,
    /// Entries that had left the stream: lost.
    pub(crate) lost: Sample,
}

/// The number of entries of one kind, and one example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) count: u64,
    pub(crate) id: String,
    pub(crate) consumer: String,
}

// === impl Events ===

impl Events {
    pub(crate) fn new(metrics: &Metrics, progress: Progress, found: Found, servers: Servers) -> Self {
        let counter = |metric| metrics.counter(metric, None);
        let gauge = |metric| metrics.gauge(metric, None);
        let kind = |kind: &'static str| metrics.counter(Metric::EventsReceived, kind);
        // Created now, so that a scrape shows 0 before the first one.
        for metric in [
            Metric::Gaps,
            Metric::Resets,
            Metric::DataLoss,
            Metric::RecordsMissing,
            Metric::Requeued,
            Metric::RequeueLost,
        ] {
            counter(metric);
        }
        Self {
            bytes: counter(Metric::BytesReceived),
            kinds: Kinds {
                commit: kind("commit"),
                identity: kind("identity"),
                account: kind("account"),
                sync: kind("sync"),
                info: kind("info"),
                other: kind("other"),
            },
            repeats: counter(Metric::RepeatsSkipped),
            batches: counter(Metric::BatchesPublished),
            entries: metrics.histogram(Metric::PublishEntries, None),
            publish_seconds: metrics.histogram(Metric::PublishSeconds, None),
            frame_seconds: metrics.histogram(Metric::FrameToPublishedSeconds, None),
            cursor: gauge(Metric::Cursor),
            lag: gauge(Metric::IngestLagSeconds),
            connected: gauge(Metric::Connected),
            paused: gauge(Metric::Paused),
            lease: gauge(Metric::LeaseHeld),
            trimmed: counter(Metric::TrimmedEntries),
            trim_failures: counter(Metric::TrimFailures),
            length: gauge(Metric::StreamLength),
            redis_memory: gauge(Metric::RedisMemoryBytes),
            redis_memory_limit: gauge(Metric::RedisMemoryLimitBytes),
            bulk: counter(Metric::BulkEntries),
            bulk_length: gauge(Metric::BulkLength),
            bulk_closed: gauge(Metric::BulkClosed),
            bulk_logged: Arc::default(),
            holding: gauge(Metric::HoldingGroups),
            left_out: gauge(Metric::LeftOutGroups),
            checkpoints_still: gauge(Metric::CheckpointsStill),
            broadcast: counter(Metric::BroadcastEvents),
            verification: VerificationEvents::new(metrics, found.clone()),
            filter: FilterEvents::new(metrics),
            metrics: metrics.clone(),
            progress,
            found,
            servers,
        }
    }

    /// Returns whether the servers answer.
    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// A request to Redis that is made again and again failed: its line is due now and then, and not while Redis is away.
    pub(crate) fn is_due(&self, failing: &mut Failing, error: &(dyn std::error::Error + 'static)) -> bool {
        let is_due = failing.failed(Instant::now(), self.servers.redis.circumstances(error)).is_some();
        if !is_due {
            debug!(error = chain(error), "redis request failed, retrying");
        }
        is_due
    }

    /// Returns what was found of the commits.
    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
    }

    pub(crate) fn event(&self, kind: EventKind) {
        match kind {
            EventKind::Commit => self.kinds.commit.inc(),
            EventKind::Identity => self.kinds.identity.inc(),
            EventKind::Account => self.kinds.account.inc(),
        };
    }

    pub(crate) fn sync(&self) {
        self.kinds.sync.inc();
    }

    pub(crate) fn other(&self) {
        self.kinds.other.inc();
    }

    pub(crate) fn info(&self, name: &str, message: Option<&str>) {
        self.kinds.info.inc();
        info!(name, said = message, "relay info");
    }

    pub(crate) fn repeat(&self) {
        self.repeats.inc();
    }

    pub(crate) fn gap(&self, host: &str, gap: Gap) {
        warn!(host, after = gap.after, first = gap.first, outdated = gap.outdated, "possible gap after resuming");
    }

    pub(crate) fn data_loss(&self, host: &str, evidence: &'static str) {
        error!(host, evidence, "events lost: the relay no longer has them");
    }

    /// Logs once a minute; `suppressed` is how many lines were left out since the last one.
    pub(crate) fn reset(
        &self,
        host: &str,
        cursor: Option<u64>,
        seq: Option<u64>,
        reset: Reset,
        suppressed: Option<u32>,
    ) {
        let Some(suppressed) = suppressed else { return };
        match reset {
            Reset::FromOldest => {
                error!(
                    host,
                    cursor, seq, suppressed, "the relay restarted its sequence, reading from its oldest event"
                );
            }
            Reset::Live => error!(
                host,
                cursor,
                seq,
                suppressed,
                "the relay restarted its sequence again within the hour, continuing with live events; its backlog is not read again"
            ),
        }
    }

    pub(crate) fn refused(&self, bad: &BadFrame) {
        self.metrics.counter(Metric::FramesRefused, bad.reason.name()).inc();
        let (did, reason) = (bad.did.as_deref(), &bad.reason);
        if bad.kind == BodyKind::Sync {
            warn!(seq = bad.seq, kind = %bad.kind, did, %reason, "frame refused");
        } else {
            warn!(seq = bad.seq, kind = %bad.kind, did, %reason, "frame dead-lettered");
        }
    }

    /// Returns what is told of the filter.
    pub(crate) fn filter(&self) -> &FilterEvents {
        &self.filter
    }

    /// Returns what tells of verification.
    pub(crate) fn verification(&self) -> &VerificationEvents {
        &self.verification
    }

    pub(crate) fn parts_left_out(&self, event: &Event) {
        for part in &event.left_out {
            self.metrics.counter(Metric::PartsLeftOut, part.reason.name()).inc();
        }
        if let Some(part) = event.left_out.first() {
            let (did, reason, parts) = (&event.did, &part.reason, event.left_out.len());
            let uri = part.path.as_deref().map(|path| format!("at://{did}/{path}"));
            warn!(seq = event.seq, %did, uri, %reason, parts, "parts of a commit dead-lettered, the rest is kept");
        }
    }

    pub(crate) fn missing(&self, event: &Event) {
        self.metrics.counter(Metric::RecordsMissing, None).inc_by(event.missing as u64);
        let (did, rev, missing) = (&event.did, event.rev.as_deref(), event.missing);
        warn!(seq = event.seq, %did, rev, missing, "commit is missing records that its repo has");
    }

    pub(crate) fn unreadable(&self, error: &FrameError, cursor: Option<u64>, disposition: Disposition) {
        match disposition {
            Disposition::ReadAgain(times) => {
                self.metrics.counter(Metric::FramesRefused, error.name()).inc();
                warn!(error = chain(error), cursor, times, "unreadable frame, reconnecting at the cursor");
            }
            Disposition::SetAside(times) => {
                self.metrics.counter(Metric::FramesRefused, error.name()).inc();
                error!(error = chain(error), cursor, times, "unreadable frame dead-lettered");
            }
            Disposition::AlreadySetAside => {
                debug!(error = chain(error), cursor, "unreadable frame was dead-lettered before");
            }
        }
    }

    pub(crate) fn foreign_cursor(&self, found: &str, expected: &str, refusals: u32) {
        error!(
            found,
            expected,
            refusals,
            "another program changed the cursor: if it is still running, stop it or give it its own cursor key (redis.cursorKey)"
        );
    }

    pub(crate) fn crowded(&self, entry: &str, after: Duration, quiet: Duration) {
        error!(
            entry,
            after_seconds = seconds(after),
            quiet_seconds = seconds(quiet),
            "another program is writing to the stream, standing by until it stops: stop it, or give one of the two its own stream (redis.streamKey, redis.cursorKey)"
        );
    }

    pub(crate) fn alone(&self, after: Duration) {
        info!(after_seconds = seconds(after), "the other program stopped writing, taking over after its last entry");
    }

    pub(crate) fn lost(&self, host: &str, checkpoint: Option<u64>, is_configured: bool) {
        if is_configured {
            error!(host, checkpoint, "redis lost its data, resuming from the checkpoint in postgresql");
        } else {
            error!(host, "redis lost its data and there is no checkpoint for this host, reading from its oldest event");
        }
    }

    pub(crate) fn oversized(&self, size: u64, cursor: Option<u64>, times: u32) {
        self.metrics.counter(Metric::FramesRefused, "oversized").inc();
        warn!(size, cursor, times, "frame too large, reconnecting at the cursor");
    }

    pub(crate) fn passed_over(&self, size: u64, cursor: Option<u64>, host: &str) {
        self.metrics.counter(Metric::FramesRefused, "oversized").inc();
        error!(host, size, cursor, "frame too large, skipped: its content is unknown");
    }

    pub(crate) fn cut(&self, seq: Option<u64>, cursor: Option<u64>, times: u32) {
        self.metrics.counter(Metric::FramesRefused, "cut").inc();
        warn!(seq, cursor, times, "connection ended in the middle of a frame, reconnecting at the cursor");
    }

    pub(crate) fn never_whole(&self, host: &str, seq: u64) {
        self.metrics.counter(Metric::FramesRefused, "cut").inc();
        error!(host, seq, "frame never arrives complete, skipped: its content is unknown");
    }

    pub(crate) fn unanswered(&self, host: &str, error: &str, times: u32) {
        debug!(host, error, times, "the relay is quiet and a second connection to it failed");
    }

    pub(crate) fn requeued(&self, round: &Round) {
        let Round { back, letters, lost } = round;
        let count = |metric, label: Option<&'static str>, sample: &Sample| {
            self.metrics.counter(metric, label).inc_by(sample.count);
            sample.count > 0
        };
        if count(Metric::Requeued, None, back) {
            let Sample { count, id, consumer } = back;
            warn!(count, id, consumer, "requeued entries that their consumer never acknowledged");
        }
        if count(Metric::DeadLetters, Some("ingest"), letters) {
            let Sample { count, id, consumer } = letters;
            error!(count, id, consumer, "dead-lettered entries that no worker acknowledged after several requeues");
        }
        if count(Metric::RequeueLost, None, lost) {
            let Sample { count, id, consumer } = lost;
            error!(count, id, consumer, "entries lost: they left the stream before their consumer acknowledged them");
        }
    }

    pub(crate) fn trim_failed(&self) {
        self.trim_failures.inc();
    }

    pub(crate) fn connected(&self, host: &str, ask: Option<u64>, why: &'static str) {
        self.connected.set(1.0);
        self.progress.set_connected(true);
        info!(host, cursor = ask, why, "connected to the relay");
    }

    pub(crate) fn disconnected(&self) {
        self.connected.set(0.0);
        self.progress.set_connected(false);
    }

    pub(crate) fn reconnect(&self, reason: &'static str) {
        self.metrics.counter(Metric::Reconnects, reason).inc();
    }

    pub(crate) fn publish_refused(&self, reason: &'static str) {
        self.metrics.counter(Metric::PublishesRefused, reason).inc();
    }

    pub(crate) fn published(&self, batch: &Published) {
        self.batches.inc();
        self.entries.observe(batch.entries as f64);
        let trace = batch.trace.as_ref();
        self.publish_seconds.observe_in(batch.sent.elapsed().as_secs_f64(), trace);
        self.frame_seconds.observe_in(batch.received.elapsed().as_secs_f64(), trace);
        if batch.letters > 0 {
            self.metrics.counter(Metric::DeadLetters, "ingest").inc_by(batch.letters);
        }
        // Logged when seen, counted here with the batch that passed them, as in Redis.
        let Incidents { gaps, resets, losses } = batch.incidents;
        if !batch.incidents.is_empty() {
            for (metric, count) in [(Metric::Gaps, gaps), (Metric::Resets, resets), (Metric::DataLoss, losses)] {
                self.metrics.counter(metric, None).inc_by(u64::from(count));
            }
        }
        self.bulk.inc_by(batch.aside as u64);
        if let Some(why) = batch.closed.as_ref().filter(|why| why.is_to_show())
            && !self.bulk_logged.swap(true, Ordering::Relaxed)
        {
            warn!(%why, "a repo exceeds its rate, its events stay in the first stream until every reader reads the second");
        }
        if let Some(cursor) = batch.cursor {
            self.cursor.set(cursor as f64);
        }
        self.progress.record_published(batch.entries, batch.cursor, batch.usual_time);
    }

    /// Sets the cursor that was found at start.
    pub(crate) fn resumed(&self, cursor: Option<u64>, event_time: Option<Timestamp>) {
        self.progress.record_resumed(cursor, event_time);
        self.cursor.set(cursor.unwrap_or_default() as f64);
    }

    pub(crate) fn lag(&self, lag: Duration) {
        self.lag.set(lag.as_secs_f64());
    }

    pub(crate) fn lease(&self, held: bool) {
        self.lease.set(f64::from(u8::from(held)));
    }

    pub(crate) fn broadcast(&self, events: usize) {
        self.broadcast.inc_by(events as u64);
    }

    pub(crate) fn trimmed(&self, entries: u64) {
        self.trimmed.inc_by(entries);
    }

    pub(crate) fn fill(&self, length: u64, bulk: u64, holding: usize, left_out: usize) {
        self.length.set(length as f64);
        self.bulk_length.set(bulk as f64);
        self.holding.set(holding as f64);
        self.left_out.set(left_out as f64);
    }

    /// Redis was asked for its memory.
    pub(crate) fn redis_memory(&self, used: u64, limit: Option<u64>) {
        self.redis_memory.set(used as f64);
        self.redis_memory_limit.set(limit.unwrap_or_default() as f64);
    }

    /// Records who reads the second stream.
    pub(crate) fn readers(&self, bulk: &Bulk) {
        let is_closed = matches!(bulk, Bulk::Closed(why) if why.is_to_show());
        self.bulk_closed.set(f64::from(u8::from(is_closed)));
        if matches!(bulk, Bulk::Open(_)) {
            // Should it close again, that is worth another line.
            self.bulk_logged.store(false, Ordering::Relaxed);
        }
    }

    /// Entries of the second stream were moved to the first.
    pub(crate) fn unloaded(&self, entries: u64) {
        if entries > 0 {
            self.metrics.counter(Metric::Requeued, None).inc_by(entries);
            warn!(entries, "nobody reads the second stream, moved its entries to the tail of the first");
        }
    }

    pub(crate) fn paused(&self, paused: bool, length: u64, used_memory: u64) {
        self.paused.set(f64::from(u8::from(paused)));
        if paused {
            warn!(length, used_memory, "redis reached the high watermark, pausing");
        } else {
            info!(length, used_memory, "redis is below the low watermark, resuming");
        }
    }

    /// Without a database: records whether the workers' checkpoints have stopped.
    pub(crate) fn checkpoints_stopped(&self, is_so: bool) {
        self.checkpoints_still.set(f64::from(u8::from(is_so)));
        if is_so {
            error!(
                "checkpoints have stopped since redis lost its data: set DATABASE_URL (postgres.url) for ingest; if redis loses its data again, events not yet in postgresql are lost"
            );
        }
    }

    pub(crate) fn left_out(&self, group: &str) {
        warn!(group, "consumer group was inactive for the hold time, its unread entries no longer hold back trimming");
    }
}
