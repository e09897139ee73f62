//! What ingest tells: each event is a log line and a metric, and what the summary and the status are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::stream::StreamId;
use penstock_telemetry::metrics::{Counter, Gauge, Histogram, Metric, Metrics};
use penstock_telemetry::traces::SpanContext;
use penstock_wire::{BadFrame, FrameError};
use tracing::{error, info, warn};

use crate::requeue::{Round, Sample};
use crate::seam::Gap;

/// The running totals of one ingest, for whoever shows them; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    published: AtomicU64,
    cursor: AtomicU64,
    event_millis: AtomicU64,
    connected: AtomicBool,
}

/// Logs and counts what happens.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    metrics: Metrics,
    progress: Progress,
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
    holding: Gauge,
    left_out: Gauge,
    broadcast: Counter,
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

/// What a batch brought, once it is in the stream.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Entries written.
    pub(crate) entries: usize,
    /// The cursor it set.
    pub(crate) cursor: Option<u64>,
    /// How old its events are, whatever single ones say.
    pub(crate) usual_time: Option<Timestamp>,
    /// The ID of its last entry.
    pub(crate) last_id: Option<StreamId>,
    /// When it was sent.
    pub(crate) sent: Instant,
    /// When its first frame was received.
    pub(crate) received: Instant,
    /// The trace of one of its events, if there is any.
    pub(crate) trace: Option<SpanContext>,
}

// === impl Progress ===

impl Progress {
    /// Returns how many entries were written to the stream.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.totals.published.load(Ordering::Relaxed)
    }

    /// Returns the cursor; none before the first event.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        Some(self.totals.cursor.load(Ordering::Relaxed)).filter(|cursor| *cursor > 0)
    }

    /// Returns how old the cursor's event is; none before the first event.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Option<Duration> {
        let millis = Some(self.totals.event_millis.load(Ordering::Relaxed)).filter(|millis| *millis > 0)?;
        let now = u64::try_from(now.as_millisecond()).ok()?;
        Some(Duration::from_millis(now.saturating_sub(millis)))
    }

    /// Says whether the relay's socket is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.totals.connected.load(Ordering::Relaxed)
    }
}

// === impl Telemetry ===

impl Telemetry {
    pub(crate) fn new(metrics: &Metrics, progress: Progress) -> Self {
        let counter = |metric| metrics.counter(metric, None);
        let gauge = |metric| metrics.gauge(metric, None);
        let kind = |kind: &'static str| metrics.counter(Metric::EventsReceived, kind);
        // Taken now, so that a scrape shows them at 0 before the first time.
        for metric in [Metric::Gaps, Metric::Resets, Metric::DataLoss, Metric::Requeued, Metric::RequeueLost] {
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
            holding: gauge(Metric::HoldingGroups),
            left_out: gauge(Metric::LeftOutGroups),
            broadcast: counter(Metric::BroadcastEvents),
            metrics: metrics.clone(),
            progress,
        }
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
        info!(name, message = message.unwrap_or_default(), "the relay says");
    }

    pub(crate) fn repeat(&self) {
        self.repeats.inc();
    }

    pub(crate) fn gap(&self, host: &str, gap: Gap) {
        self.metrics.counter(Metric::Gaps, None).inc();
        warn!(
            host,
            after = gap.after,
            first = gap.first,
            outdated = gap.outdated,
            "possible gap where reading resumed"
        );
    }

    pub(crate) fn data_loss(&self, host: &str, evidence: &'static str) {
        self.metrics.counter(Metric::DataLoss, None).inc();
        error!(host, evidence, "events are lost: the relay no longer has them");
    }

    pub(crate) fn reset(&self, host: &str, cursor: Option<u64>, seq: Option<u64>) {
        self.metrics.counter(Metric::Resets, None).inc();
        error!(host, cursor, seq, "the relay's sequence began again, reading it from its oldest event");
    }

    pub(crate) fn refused(&self, bad: &BadFrame) {
        self.metrics.counter(Metric::FramesRefused, bad.reason.name()).inc();
        self.metrics.counter(Metric::DeadLetters, "ingest").inc();
        warn!(seq = bad.seq, kind = %bad.kind, did = bad.did.as_deref(), reason = %bad.reason, "frame put among the dead letters");
    }

    pub(crate) fn unreadable(&self, error: &FrameError, cursor: Option<u64>, times: u32, given_up: bool) {
        self.metrics.counter(Metric::FramesRefused, error.name()).inc();
        if given_up {
            self.metrics.counter(Metric::DeadLetters, "ingest").inc();
            error!(%error, cursor, times, "frame is unreadable again, put among the dead letters");
        } else {
            warn!(%error, cursor, times, "frame is unreadable, reading again from the cursor");
        }
    }

    pub(crate) fn foreign_cursor(&self, found: &str, expected: &str, refusals: u32) {
        error!(
            found,
            expected,
            refusals,
            "something else wrote the cursor: if another system still does, stop it or give it a cursor key of its own \
             (redis.cursorKey)"
        );
    }

    pub(crate) fn crowded(&self, entry: &str, after: Duration, quiet: Duration) {
        error!(
            entry,
            ?after,
            ?quiet,
            "another program writes this stream, nothing is written until it has been quiet: stop it, or give one of the two a \
             stream of its own (redis.streamKey, redis.cursorKey)"
        );
    }

    pub(crate) fn alone(&self, after: Duration) {
        info!(?after, "the other program has been quiet, taking the stream over where its entries end");
    }

    pub(crate) fn lost(&self, host: &str, checkpoint: Option<u64>, is_configured: bool) {
        if is_configured {
            error!(host, checkpoint, "redis lost what was written to it: resuming at the checkpoint in postgresql");
        } else {
            error!(
                host,
                "redis lost what was written to it, and there are checkpoints of other hosts only: reading this one from its \
                 oldest event"
            );
        }
    }

    pub(crate) fn oversized(&self, size: u64, cursor: Option<u64>, times: u32) {
        self.metrics.counter(Metric::FramesRefused, "oversized").inc();
        warn!(size, cursor, times, "frame is too large to be read, reading again from the cursor");
    }

    pub(crate) fn passed_over(&self, size: u64, cursor: Option<u64>) {
        self.metrics.counter(Metric::FramesRefused, "oversized").inc();
        self.metrics.counter(Metric::DeadLetters, "ingest").inc();
        error!(size, cursor, "frame is too large to be read, passed over: what it told is not known");
    }

    pub(crate) fn requeued(&self, round: &Round) {
        let Round { back, letters, lost } = round;
        let count = |metric, label: Option<&'static str>, sample: &Sample| {
            self.metrics.counter(metric, label).inc_by(sample.count);
            sample.count > 0
        };
        if count(Metric::Requeued, None, back) {
            let Sample { count, id, consumer } = back;
            warn!(
                count,
                id, consumer, "entries that their consumer never acknowledged were put back at the tail of the stream"
            );
        }
        if count(Metric::DeadLetters, Some("ingest"), letters) {
            let Sample { count, id, consumer } = letters;
            error!(
                count,
                id, consumer, "entries that no worker acknowledges, however often put back, are dead letters now"
            );
        }
        if count(Metric::RequeueLost, None, lost) {
            let Sample { count, id, consumer } = lost;
            error!(
                count,
                id, consumer, "entries left the stream before their consumer acknowledged them, they are lost"
            );
        }
    }

    pub(crate) fn trim_failed(&self) {
        self.trim_failures.inc();
    }

    pub(crate) fn connected(&self, host: &str, ask: Option<u64>, why: &'static str) {
        self.connected.set(1.0);
        self.progress.totals.connected.store(true, Ordering::Relaxed);
        info!(host, cursor = ask, why, "connected to the relay");
    }

    pub(crate) fn disconnected(&self) {
        self.connected.set(0.0);
        self.progress.totals.connected.store(false, Ordering::Relaxed);
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
        let totals = &self.progress.totals;
        totals.published.fetch_add(batch.entries as u64, Ordering::Relaxed);
        if let Some(cursor) = batch.cursor {
            totals.cursor.store(cursor, Ordering::Relaxed);
            self.cursor.set(cursor as f64);
        }
        if let Some(time) = batch.usual_time {
            totals.event_millis.store(u64::try_from(time.as_millisecond()).unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// Shows the cursor that was found at start. How old its events are is known better of those written here.
    pub(crate) fn resumed(&self, cursor: Option<u64>, event_time: Option<Timestamp>) {
        let totals = &self.progress.totals;
        let before = totals.cursor.swap(cursor.unwrap_or_default(), Ordering::Relaxed);
        if before != cursor.unwrap_or_default() {
            let millis = event_time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).unwrap_or_default();
            totals.event_millis.store(millis, Ordering::Relaxed);
        }
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

    pub(crate) fn fill(&self, length: u64, holding: usize, left_out: usize) {
        self.length.set(length as f64);
        self.holding.set(holding as f64);
        self.left_out.set(left_out as f64);
    }

    pub(crate) fn paused(&self, paused: bool, length: u64, used_memory: u64) {
        self.paused.set(f64::from(u8::from(paused)));
        if paused {
            warn!(length, used_memory, "redis is full up to the high watermark, reading pauses");
        } else {
            info!(length, used_memory, "redis is below the low watermark, reading goes on");
        }
    }

    pub(crate) fn left_out(&self, group: &str) {
        warn!(
            group,
            "group showed no sign of life for the hold time, its entries no longer keep the stream from being trimmed"
        );
    }
}
