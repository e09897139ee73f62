//! Every metric's name, in one table.

/// Says what a metric is called and how it is read.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// The name as it is scraped: `penstock_`, the service, the thing, the unit; `_total` on counters.
    pub name: &'static str,
    /// One sentence without its full stop.
    pub help: &'static str,
    /// How its values move.
    pub kind: Kind,
    /// The one label, if any; its values are literals in the code, so that their number is bounded.
    pub label: Option<&'static str>,
}

/// How a metric's values move.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Rises only.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations into buckets with these upper bounds, ascending.
    Histogram(&'static [f64]),
}

/// Upper bounds for work within one process or one round trip, 100 µs to 10 s.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds for entries in a batch, 1 to 10,000.
const ENTRIES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0];

macro_rules! metrics {
    ($($variant:ident: $kind:expr, $name:literal $(by $label:literal)?, $help:literal;)+) => {
        /// Names every metric of every service; [`Metric::definition`] says how each is scraped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Metric {
            $(#[doc = $help] #[doc = concat!("(`", $name, "`).")] $variant,)+
        }

        impl Metric {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),+];

            /// Returns the name, help, kind and label of the metric.
            pub const fn definition(self) -> &'static Definition {
                match self {
                    $(Metric::$variant => {
                        const DEFINITION: Definition =
                            Definition { name: $name, help: $help, kind: $kind, label: metrics!(@label $($label)?) };
                        &DEFINITION
                    })+
                }
            }
        }
    };
    (@label $label:literal) => { Some($label) };
    (@label) => { None };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    // Every service.
    DeadLetters: Counter, "penstock_dead_letters_total" by "source", "Entries and frames put among the dead letters";
    SpansExported: Counter, "penstock_telemetry_spans_exported_total", "Spans that the collector took";
    SpansDropped: Counter, "penstock_telemetry_spans_dropped_total", "Spans that found no place in the queue to the collector";
    ExportFailures: Counter, "penstock_telemetry_export_failures_total" by "signal", "Times the collector did not take what it was sent";
    LogLinesSuppressed: Counter, "penstock_log_lines_suppressed_total", "Warnings and errors left out of the log because they repeated too often";

    // Ingest.
    EventsReceived: Counter, "penstock_ingest_events_total" by "kind", "Events received from the relay";
    BytesReceived: Counter, "penstock_ingest_received_bytes_total", "Bytes of frames received from the relay";
    FramesRefused: Counter, "penstock_ingest_frames_refused_total" by "reason", "Frames that were not readable or out of bounds";
    Reconnects: Counter, "penstock_ingest_reconnects_total" by "reason", "Connections to the relay given up";
    Gaps: Counter, "penstock_ingest_gaps_total", "Possible gaps seen where reading resumed";
    Resets: Counter, "penstock_ingest_sequence_resets_total", "Times a relay's sequence went back";
    DataLoss: Counter, "penstock_ingest_data_loss_total", "Gaps known to have lost events";
    RepeatsSkipped: Counter, "penstock_ingest_repeats_skipped_total", "Events skipped because the cursor had passed them";
    BatchesPublished: Counter, "penstock_ingest_batches_total", "Batches written to the stream";
    PublishesRefused: Counter, "penstock_ingest_publishes_refused_total" by "reason", "Batches that the fence refused or that failed";
    PublishEntries: Histogram(ENTRIES), "penstock_ingest_batch_entries", "Entries in a batch written to the stream";
    PublishSeconds: Histogram(SECONDS), "penstock_ingest_publish_duration_seconds", "Time from sending a batch to its answer";
    FrameToPublishedSeconds: Histogram(SECONDS), "penstock_ingest_frame_to_published_seconds", "Time from receiving a frame to its entry being readable";
    Cursor: Gauge, "penstock_ingest_cursor", "Sequence number up to which the stream is complete";
    IngestLagSeconds: Gauge, "penstock_ingest_lag_seconds", "Age of the newest event written to the stream";
    Connected: Gauge, "penstock_ingest_connected", "Whether the relay is connected, 0 or 1";
    Paused: Gauge, "penstock_ingest_paused", "Whether reading is paused because Redis is full, 0 or 1";
    LeaseHeld: Gauge, "penstock_ingest_lease_held", "Whether this process holds the ingest lease, 0 or 1";
    TrimmedEntries: Counter, "penstock_ingest_trimmed_entries_total", "Entries trimmed after every holding group acknowledged them";
    TrimFailures: Counter, "penstock_ingest_trim_failures_total", "Times the stream could not be trimmed";
    Requeued: Counter, "penstock_ingest_requeued_entries_total", "Entries that replaced workers never acknowledged, put back at the stream's tail";
    RequeueLost: Counter, "penstock_ingest_pending_lost_total", "Entries that left the stream while replaced workers held them, lost";
    StreamLength: Gauge, "penstock_ingest_stream_length", "Entries in the stream";
    HoldingGroups: Gauge, "penstock_ingest_holding_groups", "Consumer groups whose unread entries keep the stream from being trimmed";
    LeftOutGroups: Gauge, "penstock_ingest_left_out_groups", "Consumer groups that showed no sign of life and no longer hold";
    BroadcastEvents: Counter, "penstock_ingest_broadcast_events_total", "Events published on the broadcast channel";

    // Worker.
    EntriesRead: Counter, "penstock_worker_entries_read_total" by "kind", "Entries read from the stream";
    EntriesAcked: Counter, "penstock_worker_entries_acked_total", "Entries acknowledged after their transaction";
    EntriesClaimed: Counter, "penstock_worker_entries_claimed_total", "Entries taken over from a consumer that let them lie";
    EntriesDeleted: Counter, "penstock_worker_entries_deleted_total", "Pending entries that had gone from the stream, lost";
    ApplyEntries: Histogram(ENTRIES), "penstock_worker_batch_entries", "Entries in a batch written to PostgreSQL";
    BatchSeconds: Histogram(SECONDS), "penstock_worker_batch_duration_seconds", "Time from a batch being full to its acknowledgement";
    TransactionSeconds: Histogram(SECONDS), "penstock_worker_transaction_duration_seconds", "Time of a batch's transaction, commit included";
    RowsWritten: Counter, "penstock_worker_rows_written_total" by "table", "Rows inserted, updated or deleted";
    NotificationsRefused: Counter, "penstock_worker_notifications_refused_total", "Notifications not made because their URI is longer than its column";
    Retries: Counter, "penstock_worker_retries_total" by "reason", "Batches tried again";
    RecordsRefused: Counter, "penstock_worker_records_refused_total", "Changes of records not written because their account opted out";
    InFlight: Gauge, "penstock_worker_entries_in_flight", "Entries read and not yet acknowledged by this process";
    Pending: Gauge, "penstock_worker_group_pending", "Entries delivered to the consumer group and not acknowledged";
    Lag: Gauge, "penstock_worker_group_lag", "Entries in the stream that the consumer group has not read";
    WorkerLagSeconds: Gauge, "penstock_worker_lag_seconds", "Time from the stream to PostgreSQL of the newest entry applied last, 0 when nothing waits";
    Checkpoint: Gauge, "penstock_worker_checkpoint", "Sequence number up to which PostgreSQL surely holds the present host's events, as last kept by this process";
    CountsPublished: Counter, "penstock_worker_counts_published_total", "Times the counts of rows were published to Redis";
    MessagesWritten: Counter, "penstock_worker_messages_written_total", "Messages of the message buffer written to PostgreSQL";

    // Dashboard.
    HttpRequests: Counter, "penstock_dashboard_http_requests_total" by "route", "HTTP requests answered";
    SseClients: Gauge, "penstock_dashboard_sse_clients", "Clients on the event stream";
    WebSocketClients: Gauge, "penstock_dashboard_websocket_clients", "Clients on the statistics socket";
    EventsFannedOut: Counter, "penstock_dashboard_events_fanned_out_total", "Events handed to clients, one for each client";
    SlowClientsCut: Counter, "penstock_dashboard_slow_clients_cut_total", "Clients disconnected because they did not keep up";

    // Operator.
    ReconcileSeconds: Histogram(SECONDS), "penstock_operator_reconcile_duration_seconds", "Time of one reconcile of a pipeline";
    ReconcileErrors: Counter, "penstock_operator_reconcile_errors_total" by "reason", "Reconciles that did not come to their end";
    ChildrenApplied: Counter, "penstock_operator_children_applied_total", "Children of pipelines written by server-side apply";
    ChildrenDeleted: Counter, "penstock_operator_children_deleted_total", "Children of pipelines deleted because nothing asks for them any more";
    StatusWrites: Counter, "penstock_operator_status_writes_total", "Times the status of a pipeline was written";
    ScalingSeconds: Histogram(SECONDS), "penstock_operator_scaling_duration_seconds", "Time of one look at a pipeline's Redis and workers, with what follows from it";
    Decisions: Counter, "penstock_operator_decisions_total" by "reason", "Decisions about the number of workers";
    ScalePatches: Counter, "penstock_operator_scale_patches_total", "Times a number of workers was changed";
    Pipelines: Gauge, "penstock_operator_pipelines" by "phase", "Pipelines by phase";
    PipelinesLagUnknown: Gauge, "penstock_operator_pipelines_lag_unknown", "Pipelines whose lag is not known";
    ObservedBacklog: Gauge, "penstock_operator_backlog_entries", "Entries that wait for a worker, of all pipelines together, as far as known";
    ObservedStranded: Gauge, "penstock_operator_stranded_entries", "Entries that a consumer holds and lets lie, of all pipelines together, as far as known";
    ObservedLagSeconds: Gauge, "penstock_operator_ingest_lag_seconds", "Event time against now of the pipeline that is furthest behind";
    DesiredWorkers: Gauge, "penstock_operator_workers_desired", "Workers there should be, of all pipelines together";
    ReadyWorkers: Gauge, "penstock_operator_workers_ready", "Workers that are ready, of all pipelines together";
    Leading: Gauge, "penstock_operator_leader", "Whether this process leads, 0 or 1";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_follow_prometheus_conventions() {
        let mut seen = HashSet::new();
        for (index, metric) in Metric::ALL.iter().enumerate() {
            assert_eq!(*metric as usize, index);
            let Definition { name, help, kind, .. } = metric.definition();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("penstock_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(matches!(kind, Kind::Counter), name.ends_with("_total"), "{name}");
            assert!(!help.ends_with('.'), "{name}");
            if let Kind::Histogram(bounds) = kind {
                assert!(bounds.is_sorted() && bounds.iter().all(|bound| *bound > 0.0), "{name}");
            }
        }
    }
}
