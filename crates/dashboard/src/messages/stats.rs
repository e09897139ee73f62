//! The statistics of the message buffer, and the frames that carry them.

use jiff::Timestamp;
use penstock_core::time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of the message buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stats {
    /// Messages that no worker has taken.
    pub(crate) waiting: u64,
    /// Messages that workers have taken and not written.
    pub(crate) held: u64,
    /// Messages written per second, over the last 10 s.
    pub(crate) rate: f64,
    pub(crate) messages: u64,
    pub(crate) batches: u64,
    /// Messages in a full batch.
    pub(crate) threshold: u64,
    pub(crate) last_batch: LastBatch,
}

/// The most recent batch; size 0 before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LastBatch {
    pub(crate) batch_id: Option<String>,
    pub(crate) size: u64,
    /// RFC 3339.
    pub(crate) completed_at: Option<String>,
}

/// What a worker tells of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Persisted {
    batch_id: String,
    batch_size: u64,
    ids: Vec<String>,
    total_batches: u64,
    total_messages: u64,
    timestamp: String,
}

/// A frame of `/ws/stats`; some fields repeat others for different clients.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatsFrame {
    /// `stats_update`, or `batch_persisted`.
    r#type: &'static str,
    total_messages: u64,
    total_batches: u64,
    /// Messages written per second, over the last 10 s.
    current_rps: f64,
    messages_per_second: f64,
    /// Messages not yet written: queued, or held by workers.
    queue_depth: u64,
    /// Messages that no worker has taken.
    queue_length: u64,
    avg_batch_size: f64,
    /// Messages in a full batch.
    batch_threshold: u64,
    /// Messages towards the next full batch.
    batch_progress: u64,
    batch_progress_percent: f64,
    /// Full batches in the queue.
    batches_ready: u64,
    /// RFC 3339.
    timestamp: String,
    #[serde(flatten)]
    batch: Option<BatchOfFrame>,
}

/// What a frame says besides when a batch was written.
#[derive(Debug, Serialize, JsonSchema)]
struct BatchOfFrame {
    /// Tracking IDs.
    ids: Vec<String>,
    batch_id: String,
    batch_size: u64,
    /// RFC 3339.
    worker_timestamp: String,
}

// === impl Stats ===

impl Stats {
    /// Messages not yet written: queued, or held by workers.
    fn depth(&self) -> u64 {
        self.waiting + self.held
    }

    /// Notes what a batch changed.
    pub(super) fn persisted(&mut self, batch: &Persisted) {
        self.messages = batch.total_messages;
        self.batches = batch.total_batches;
        self.held = self.held.saturating_sub(batch.batch_size);
    }
}

/// Of so many messages, those towards the next full batch, and the full batches.
pub(crate) fn progress(messages: u64, threshold: u64) -> (u64, u64) {
    let threshold = threshold.max(1);
    (messages % threshold, messages / threshold)
}

// === impl StatsFrame ===

impl StatsFrame {
    pub(super) fn new(stats: &Stats, batch: Option<Persisted>, now: Timestamp) -> Self {
        let (batch_progress, batches_ready) = progress(stats.depth(), stats.threshold);
        let hundredths = |number: f64| (number * 100.0).round() / 100.0;
        let share = |part: u64, whole: u64| hundredths(part as f64 / whole.max(1) as f64);
        Self {
            r#type: if batch.is_some() { "batch_persisted" } else { "stats_update" },
            total_messages: stats.messages,
            total_batches: stats.batches,
            current_rps: stats.rate,
            messages_per_second: stats.rate,
            queue_depth: stats.depth(),
            queue_length: stats.waiting,
            avg_batch_size: share(stats.messages, stats.batches),
            batch_threshold: stats.threshold,
            batch_progress,
            batch_progress_percent: share(100 * batch_progress, stats.threshold),
            batches_ready,
            timestamp: time::format(now),
            batch: batch.map(|batch| BatchOfFrame {
                ids: batch.ids,
                batch_id: batch.batch_id,
                batch_size: batch.batch_size,
                worker_timestamp: batch.timestamp,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_carries_all_statistics() {
        let now = time::parse("2026-07-04T14:38:08Z").unwrap();
        let mut stats = Stats {
            waiting: 120,
            held: 7,
            rate: 12.5,
            messages: 100,
            batches: 3,
            threshold: 50,
            last_batch: LastBatch::default(),
        };
        let frame = |stats: &Stats, batch| serde_json::to_string(&StatsFrame::new(stats, batch, now)).unwrap();
        assert_eq!(
            frame(&stats, None),
            r#"{"type":"stats_update","total_messages":100,"total_batches":3,"current_rps":12.5,"messages_per_second":12.5,"queue_depth":127,"queue_length":120,"avg_batch_size":33.33,"batch_threshold":50,"batch_progress":27,"batch_progress_percent":54.0,"batches_ready":2,"timestamp":"2026-07-04T14:38:08.000Z"}"#
        );
        let told = r#"{"type":"persisted","batch_id":"b","batch_size":3,"ids":["i"],"total_batches":4,"total_messages":101,"timestamp":"t"}"#;
        let batch: Persisted = serde_json::from_str(told).unwrap();
        stats.persisted(&batch);
        let frame = frame(&stats, Some(batch));
        assert!(frame.starts_with(r#"{"type":"batch_persisted","total_messages":101,"total_batches":4,"#), "{frame}");
        assert!(frame.contains(r#""queue_depth":124,"queue_length":120,"#), "{frame}");
        assert!(frame.ends_with(r#""ids":["i"],"batch_id":"b","batch_size":3,"worker_timestamp":"t"}"#), "{frame}");
    }
}
