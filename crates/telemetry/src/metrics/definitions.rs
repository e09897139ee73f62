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
    /// The one label, if any; its values are literals in the code, so that their number is bounded. Two labels stand with a comma
    /// between them, and so do their values.
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
    DeadLetters: Counter, "penstock_dead_letters_total" by "source", "Entries and frames dead-lettered";
    SpansExported: Counter, "penstock_telemetry_spans_exported_total", "Spans accepted by the collector";
    SpansDropped: Counter, "penstock_telemetry_spans_dropped_total", "Spans dropped because the export queue was full";
    ExportFailures: Counter, "penstock_telemetry_export_failures_total" by "signal", "Failed exports to the collector";
    LogLinesSuppressed: Counter, "penstock_log_lines_suppressed_total", "Warnings and errors not logged because they repeated too often";

    // Ingest.
    EventsReceived: Counter, "penstock_ingest_events_total" by "kind", "Events received from the relay";
    BytesReceived: Counter, "penstock_ingest_received_bytes_total", "Bytes of frames received from the relay";
    FramesRefused: Counter, "penstock_ingest_frames_refused_total" by "reason", "Frames rejected as unreadable or too large";
    PartsLeftOut: Counter, "penstock_ingest_parts_left_out_total" by "reason", "Ops, records and blocks rejected from commits whose other parts were kept";
    Filtered: Counter, "penstock_ingest_filtered_total" by "rule", "Ops left out by the filter";
    FilterChanges: Counter, "penstock_ingest_filter_changes_total", "Times the filter changed";
    FilterErrors: Counter, "penstock_ingest_filter_errors_total", "Times the filter could not be read anew, so that its previous rules stay in force";
    RecordsMissing: Counter, "penstock_ingest_records_missing_total", "Records and ops missing from a commit although its repo has them";
    RepoStates: Gauge, "penstock_ingest_repo_states", "Repos whose last state is in memory";
    Reconnects: Counter, "penstock_ingest_reconnects_total" by "reason", "Connections to the relay that ended or failed";
    Gaps: Counter, "penstock_ingest_gaps_total", "Possible gaps found where reading resumed";
    Resets: Counter, "penstock_ingest_sequence_resets_total", "Times a relay's sequence went back";
    DataLoss: Counter, "penstock_ingest_data_loss_total", "Gaps known to have lost events";
    RepeatsSkipped: Counter, "penstock_ingest_repeats_skipped_total", "Events skipped because the cursor was already past them";
    BatchesPublished: Counter, "penstock_ingest_batches_total", "Batches written to the stream";
    PublishesRefused: Counter, "penstock_ingest_publishes_refused_total" by "reason", "Batches refused by the fence, or failed";
    PublishEntries: Histogram(ENTRIES), "penstock_ingest_batch_entries", "Entries in a batch written to the stream";
    PublishSeconds: Histogram(SECONDS), "penstock_ingest_publish_duration_seconds", "Time from sending a batch to its response";
    FrameToPublishedSeconds: Histogram(SECONDS), "penstock_ingest_frame_to_published_seconds", "Time from receiving a frame to its entry being readable";
    Cursor: Gauge, "penstock_ingest_cursor", "Sequence number up to which the stream is complete";
    IngestLagSeconds: Gauge, "penstock_ingest_lag_seconds", "Age of the newest event written to the stream";
    Connected: Gauge, "penstock_ingest_connected", "Whether the relay is connected, 0 or 1";
    Paused: Gauge, "penstock_ingest_paused", "Whether reading is paused because Redis is full, 0 or 1";
    LeaseHeld: Gauge, "penstock_ingest_lease_held", "Whether this process holds the ingest lease, 0 or 1";
    TrimmedEntries: Counter, "penstock_ingest_trimmed_entries_total", "Entries trimmed after every active group acknowledged them";
    TrimFailures: Counter, "penstock_ingest_trim_failures_total", "Times the stream could not be trimmed";
    Requeued: Counter, "penstock_ingest_requeued_entries_total", "Entries never acknowledged by replaced workers, requeued at the stream's tail";
    RequeueLost: Counter, "penstock_ingest_pending_lost_total", "Entries lost because they left the stream while pending with replaced workers";
    StreamLength: Gauge, "penstock_ingest_stream_length", "Entries in the stream";
    BulkEntries: Counter, "penstock_ingest_bulk_entries_total", "Entries written to the second stream because their repo exceeded its rate";
    BulkLength: Gauge, "penstock_ingest_bulk_stream_length", "Entries in the second stream";
    BulkClosed: Gauge, "penstock_ingest_bulk_closed", "1 while repos above their rate stay in the first stream, because not all of its readers read the second";
    RedisMemoryBytes: Gauge, "penstock_redis_memory_bytes", "Memory that Redis uses";
    RedisMemoryLimitBytes: Gauge, "penstock_redis_memory_limit_bytes", "Memory that Redis may use, its maxmemory; 0 without a limit";
    HoldingGroups: Gauge, "penstock_ingest_holding_groups", "Consumer groups whose unread entries keep the stream from being trimmed";
    LeftOutGroups: Gauge, "penstock_ingest_left_out_groups", "Inactive consumer groups that trimming no longer waits for";
    CheckpointsStill: Gauge, "penstock_ingest_checkpoints_still", "Whether checkpoints have stopped since Redis was lost, because ingest has no database, 0 or 1";
    Verified: Counter, "penstock_ingest_verified_total" by "result,reason", "Commits that passed verification, failed (counted and written), were refused, or could not be judged, and why";
    Desynchronized: Counter, "penstock_ingest_desynchronized_total" by "reason", "Repos found to have missed something";
    BroadcastEvents: Counter, "penstock_ingest_broadcast_events_total", "Events published on the broadcast channel";

    // Worker.
    EntriesRead: Counter, "penstock_worker_entries_read_total" by "kind", "Entries read from the stream";
    EntriesAcked: Counter, "penstock_worker_entries_acked_total", "Entries acknowledged after their transaction";
    EntriesClaimed: Counter, "penstock_worker_entries_claimed_total", "Entries taken over from a dead consumer";
    EntriesDeleted: Counter, "penstock_worker_entries_deleted_total", "Pending entries lost because they left the stream";
    ApplyEntries: Histogram(ENTRIES), "penstock_worker_batch_entries", "Entries in a batch written to PostgreSQL";
    BatchSeconds: Histogram(SECONDS), "penstock_worker_batch_duration_seconds", "Time from a batch being full to its acknowledgement";
    TransactionSeconds: Histogram(SECONDS), "penstock_worker_transaction_duration_seconds", "Duration of a batch's transaction, including commit";
    RowsWritten: Counter, "penstock_worker_rows_written_total" by "table", "Rows inserted, updated or deleted";
    NotificationsRefused: Counter, "penstock_worker_notifications_refused_total", "Notifications not created because their URI is too long for its column";
    Retries: Counter, "penstock_worker_retries_total" by "reason", "Batches retried";
    EntriesAlone: Counter, "penstock_worker_entries_alone_total", "Entries written alone and in parts, because they are too large for a batch or too slow for one transaction";
    RecordsRefused: Counter, "penstock_worker_records_refused_total", "Record changes not written because their account opted out";
    AccountClaims: Counter, "penstock_worker_account_claims_total" by "result", "Claims that accounts are gone (events that say so): made, withdrawn because the account is active, confirmed, denied by its host, unresolved and asked again, hidden unresolved, deleted";
    ClaimedAccounts: Gauge, "penstock_worker_claimed_accounts" by "state", "Accounts that an event says are gone: unconfirmed by their hosts, or deletions that wait for their time; every worker reports the same value";
    NextDeletionSeconds: Gauge, "penstock_worker_next_deletion_seconds", "Time until the rows of the next deleted account are removed; NaN if none waits";
    HandleChecks: Counter, "penstock_worker_handle_checks_total" by "result", "Handles checked both ways: valid, invalid, or unresolved and checked again";
    SweepsFailed: Counter, "penstock_worker_sweep_failures_total" by "reason", "Failed steps of removing data of deleted accounts and posts; each is retried";
    InFlight: Gauge, "penstock_worker_entries_in_flight", "Entries read and not yet acknowledged by this process";
    Pending: Gauge, "penstock_worker_group_pending", "Entries delivered to the consumer group but not acknowledged";
    Lag: Gauge, "penstock_worker_group_lag", "Entries in the stream that the consumer group has not read";
    BulkPending: Gauge, "penstock_worker_bulk_pending", "Entries of the second stream delivered to the consumer group but not acknowledged";
    BulkLag: Gauge, "penstock_worker_bulk_lag", "Entries in the second stream that the consumer group has not read";
    WorkerLagSeconds: Gauge, "penstock_worker_lag_seconds", "Time the newest applied entry took from the stream to PostgreSQL; 0 if there is no backlog";
    Checkpoint: Gauge, "penstock_worker_checkpoint", "Sequence number up to which PostgreSQL is known to have the current host's events, as last saved by this process";
    CheckpointStillSeconds: Gauge, "penstock_worker_checkpoint_still_seconds", "How long this process has been unable to advance the checkpoint when it was its turn; 0 if it could";
    CountsPublished: Counter, "penstock_worker_counts_published_total", "Times row counts were published to Redis";
    StoreRows: Gauge, "penstock_store_rows" by "table", "Estimated rows of a table that workers write; every worker reports the same value";
    StoreBytes: Gauge, "penstock_store_bytes" by "table", "Size of a table that workers write in bytes, including indexes; every worker reports the same value";
    DatabaseBytes: Gauge, "penstock_store_database_bytes", "Size of the whole PostgreSQL database in bytes; every worker reports the same value";
    RedisKeyLength: Gauge, "penstock_redis_key_length" by "key", "Entries, fields or elements of a Redis key that can grow; every worker reports the same value";
    RedisKeyBytes: Gauge, "penstock_redis_key_bytes" by "key", "Estimated size of a Redis key that can grow in bytes; every worker reports the same value";
    MessagesWritten: Counter, "penstock_worker_messages_written_total", "Messages of the message buffer written to PostgreSQL";

    // Dashboard.
    RowsAgeSeconds: Gauge, "penstock_dashboard_rows_age_seconds", "How far PostgreSQL is behind the relay: the age of the oldest event not in it, or of the newest event when none waits; grows while Redis does not respond, NaN if never known";
    HttpRequests: Counter, "penstock_dashboard_http_requests_total" by "route", "HTTP requests answered";
    SseClients: Gauge, "penstock_dashboard_sse_clients", "Clients on the event stream";
    WebSocketClients: Gauge, "penstock_dashboard_websocket_clients", "Clients on the statistics socket";
    EventsFannedOut: Counter, "penstock_dashboard_events_fanned_out_total", "Events delivered to clients, counted per client";
    ConnectionsRefused: Counter, "penstock_dashboard_connections_refused_total" by "reason", "Connections closed at once because there were too many, in all (full) or from one address (peer)";
    WrongTokens: Counter, "penstock_dashboard_token_guesses_total" by "outcome", "Tokens and sessions shown that were wrong, each counted once, or were refused because their client had guessed too often";
    SlowClientsCut: Counter, "penstock_dashboard_slow_clients_cut_total", "Clients disconnected because they could not keep up";

    // Identities, in every service that resolves them.
    IdentityRequests: Counter, "penstock_identity_requests_total" by "kind,result", "Requests for DID documents, handles and the status of accounts, by what came of them";
    IdentityCache: Counter, "penstock_identity_cache_total" by "result", "Identities looked up, by whether they were in memory, in the table, or in neither";

    // Repos, in every service that reads them.
    RepoRequests: Counter, "penstock_repo_requests_total" by "kind,result", "Requests to hosts for repos, their revs, records and listings, by what came of them";

    // Healer.
    HealRepairs: Counter, "penstock_heal_repairs_total" by "reason,result", "Repos that a healer had in hand, by what came of it: healed, retried later, given_up, or handed_back because the healer stopped or lost its lease";
    HealWaiting: Gauge, "penstock_heal_waiting" by "reason", "Repos that wait to be read again, without those being read; every healer reports the same value";
    HealDue: Gauge, "penstock_heal_due", "Repos that may be read now, without those of suspended backfills; every healer reports the same value";
    HealRunning: Gauge, "penstock_heal_running", "Repos that this healer is reading or writing";
    HealRecords: Counter, "penstock_heal_records_total" by "result", "Records of repos that were read, by what was done: added, changed, removed, kept, newer (something later stands) or rejected";
    HealDifferences: Counter, "penstock_heal_differences_total" by "kind", "Differences between the database and repos that audits found: missing, extra, different or count";
    HealAudits: Counter, "penstock_heal_audits_total" by "proof", "Repos that audits found equal to their host, by the proof: root (the signed commit has the root of what is stored) or records (all of them were compared)";
    HealProvenRatio: Gauge, "penstock_heal_proven_ratio", "Share of known active repos whose rows were compared with their host, or written from it, at least once; every healer reports the same value";
    HealOldestProofSeconds: Gauge, "penstock_heal_oldest_proof_seconds", "Time since the repo that was proven longest ago was proven; NaN if none was; every healer reports the same value";

    // Operator.
    ReconcileSeconds: Histogram(SECONDS), "penstock_operator_reconcile_duration_seconds", "Duration of one reconcile of a pipeline";
    ReconcileErrors: Counter, "penstock_operator_reconcile_errors_total" by "reason", "Failed reconciles";
    ChildrenApplied: Counter, "penstock_operator_children_applied_total", "Child objects of pipelines written by server-side apply";
    ChildrenDeleted: Counter, "penstock_operator_children_deleted_total", "Child objects of pipelines deleted because they are no longer needed";
    StatusWrites: Counter, "penstock_operator_status_writes_total", "Times the status of a pipeline was written";
    ScalingSeconds: Histogram(SECONDS), "penstock_operator_scaling_duration_seconds", "Duration of observing a pipeline's Redis and workers, deciding and scaling";
    Decisions: Counter, "penstock_operator_decisions_total" by "reason", "Decisions about the number of workers";
    ScalePatches: Counter, "penstock_operator_scale_patches_total", "Changes of a pipeline's number of workers";
    Pipelines: Gauge, "penstock_operator_pipelines" by "phase", "Pipelines by phase";
    PipelinesLagUnknown: Gauge, "penstock_operator_pipelines_lag_unknown", "Pipelines whose backlog is unknown";
    ObservedBacklog: Gauge, "penstock_operator_backlog_entries", "Entries waiting for a worker in all pipelines, as far as known";
    ObservedStranded: Gauge, "penstock_operator_stranded_entries", "Entries pending with idle consumers in all pipelines, as far as known";
    ObservedLagSeconds: Gauge, "penstock_operator_ingest_lag_seconds", "Age of the newest event in the pipeline that is furthest behind";
    DesiredWorkers: Gauge, "penstock_operator_workers_desired", "Desired workers in all pipelines";
    ReadyWorkers: Gauge, "penstock_operator_workers_ready", "Ready workers in all pipelines";
    Leading: Gauge, "penstock_operator_leader", "Whether this process is the leader, 0 or 1";
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
