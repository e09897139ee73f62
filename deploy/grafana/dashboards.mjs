// Makes the Grafana dashboards: `node dashboards.mjs FOLDER` writes one JSON file each. `make generate` puts them here and into the chart.
// Where the runbooks are published elsewhere, the chart's `runbooks.url` and scripts/set-runbooks.sh put that address in.
//
// A dashboard is a list of rows, a row a list of panels; where a panel stands follows from its width. In an expression `$S` selects
// the pipelines that are chosen at the top, and `$I` is Grafana's interval of rates.
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const RUNBOOKS = "https://github.com/penstock/penstock/blob/main/docs/runbooks";
const PROMETHEUS = { type: "prometheus", uid: "$datasource" };
// What an axis says of its unit, where the unit itself has no word beside the number.
const AXES = { ops: "per second", reqps: "requests per second", short: "count", none: "number", percentunit: "share" };
const COLOURS = { good: "green", look: "orange", bad: "red" };

// === panels ===

const filled = (expr) =>
  expr.replaceAll("$S", 'namespace=~"$namespace",pipeline=~"$pipeline"').replaceAll("$I", "$__rate_interval");

const targets = (queries, more = {}) =>
  queries.map(([expr, legend = "", exemplar = false], index) => ({
    refId: String.fromCharCode(65 + index),
    expr: filled(expr),
    legendFormat: legend,
    datasource: PROMETHEUS,
    ...(exemplar && { exemplar: true }),
    ...more,
  }));

/** What every panel has; `alerts` are those whose runbooks it links. */
const panel = (type, title, description, { width, height = 8, alerts = [], ...own }) => ({
  type,
  title,
  description,
  datasource: PROMETHEUS,
  gridPos: { w: width, h: height },
  ...(alerts.length > 0 && {
    links: alerts.map((alert) => ({ title: `Runbook: ${alert}`, url: `${RUNBOOKS}/${alert}.md`, targetBlank: true })),
  }),
  ...own,
});

/** Thresholds [[from, "good" | "look" | "bad"], …]; what is below the first is good. */
const steps = (thresholds) => ({
  mode: "absolute",
  steps: [{ color: COLOURS.good, value: null }, ...thresholds.map(([value, colour]) => ({ color: COLOURS[colour], value }))],
});

/** One number, now. `words` names values: {0: ["away", "bad"]}. */
const stat = (title, description, unit, expr, { thresholds = [], words, width = 3, decimals, ...more } = {}) =>
  panel("stat", title, description, {
    width,
    height: 4,
    // A rate of now is one over five minutes at least.
    interval: "5m",
    ...more,
    targets: targets([[expr, title]], { instant: true, range: false }),
    fieldConfig: {
      defaults: {
        unit,
        noValue: "–",
        ...(decimals !== undefined && { decimals }),
        thresholds: steps(thresholds),
        ...(words && {
          mappings: [
            {
              type: "value",
              options: Object.fromEntries(
                Object.entries(words).map(([value, [text, colour]], index) => [value, { text, color: COLOURS[colour], index }]),
              ),
            },
          ],
        }),
      },
      overrides: [],
    },
    options: { colorMode: "background", graphMode: "none", reduceOptions: { calcs: ["lastNotNull"] } },
  });

/** Curves over time: queries [[expression, legend], …]. */
const graph = (title, description, unit, queries, { width = 8, stacked = false, limit, min = 0, axis = AXES[unit], ...more } = {}) =>
  panel("timeseries", title, description, {
    width,
    ...more,
    targets: targets(queries),
    fieldConfig: {
      defaults: {
        unit,
        min,
        custom: {
          ...(axis && { axisLabel: axis }),
          fillOpacity: stacked ? 40 : 8,
          showPoints: "never",
          ...(stacked && { stacking: { mode: "normal" } }),
          ...(limit !== undefined && { thresholdsStyle: { mode: "dashed" } }),
        },
        ...(limit !== undefined && { thresholds: steps([[limit, "bad"]]) }),
      },
      overrides: [],
    },
    options: { legend: { displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi", sort: "desc" } },
  });

/** The median, 95th and 99th percentile of a histogram, with its exemplars: points that lead to a trace. */
const percentiles = (title, description, unit, metric, more = {}) =>
  graph(
    title,
    description,
    unit,
    [0.5, 0.95, 0.99].map((share) => [
      `histogram_quantile(${share}, sum by (le) (rate(${metric}_bucket{${more.select ?? "$S"}}[$I])))`,
      `p${share * 100}`,
      share === 0.99,
    ]),
    (({ select, ...rest }) => rest)(more),
  );

/** How the observations of a histogram spread over its buckets. */
const heatmap = (title, description, unit, metric, more = {}) =>
  panel("heatmap", title, description, {
    width: 8,
    ...more,
    targets: targets([[`sum by (le) (increase(${metric}_bucket{$S}[$I]))`, "{{le}}", true]], { format: "heatmap" }),
    options: { calculate: false, yAxis: { unit }, color: { mode: "scheme", scheme: "Oranges" }, cellGap: 0, tooltip: { mode: "single" } },
  });

/** A table of an instant query, in the columns named. */
const table = (title, description, expr, columns, { width = 24, links = {}, sortBy, ...more } = {}) =>
  panel("table", title, description, {
    width,
    height: 6,
    ...more,
    targets: targets([[expr]], { instant: true, range: false, format: "table" }),
    fieldConfig: {
      defaults: { noValue: "nothing", unit: "none" },
      overrides: Object.entries(links).map(([column, url]) => ({
        matcher: { id: "byName", options: column },
        properties: [{ id: "links", value: [{ title: "Open", url, targetBlank: true }] }],
      })),
    },
    transformations: [{ id: "filterFieldsByName", options: { include: { names: columns } } }],
    options: { showHeader: true, ...(sortBy && { sortBy: [{ displayName: sortBy, desc: false }] }) },
  });

/** CPU, memory and open files of the processes that show `metric`. */
const costs = (metric, select = "$S") => {
  const those = (name) => `${name}{${select}} and on (job, instance) ${metric}{${select}}`;
  return [
    graph("CPU", "CPU cores in use.", "none", [
      [`rate(process_cpu_seconds_total{${select}}[$I]) and on (job, instance) ${metric}{${select}}`, "{{pod}}"],
    ]),
    graph("Memory", "Resident memory. The limits are in docs/operations.md.", "bytes", [[those("process_resident_memory_bytes"), "{{pod}}"]]),
    graph("Open files", "File descriptors, mostly sockets.", "none", [[those("process_open_fds"), "{{pod}}"]]),
  ];
};

// === the dashboards ===

const ALL_PARTS = "penstock_ingest_connected|penstock_worker_entries_in_flight|penstock_dashboard_sse_clients";
const LAG = "max(penstock_ingest_lag_seconds{$S} and penstock_ingest_lease_held{$S} == 1)";
const LOST =
  "(sum(increase(penstock_ingest_data_loss_total{$S}[24h])) or vector(0)) + (sum(increase(penstock_worker_entries_deleted_total{$S}[24h])) or vector(0))";
// An alert of the operator has no pipeline, and is shown whichever pipelines are chosen.
const FIRING = 'ALERTS{alertname=~"Penstock.+",alertstate="firing",namespace=~"$namespace|",pipeline=~"$pipeline|"}';
const rates = (metric, by, legend = `{{${by}}}`) => [`sum by (${by}) (rate(${metric}{$S}[$I]))`, legend];
const counts = (metric, by, legend = `{{${by}}}`) => [`sum by (${by}) (increase(${metric}{$S}[$I]))`, legend];

const overview = [
  ["Is it keeping up?", [
    stat("Relay", "Whether every pipeline's ingest is connected to its relay.", "none",
      "min(max by (namespace, pipeline) (penstock_ingest_connected{$S}))",
      { words: { 0: ["disconnected", "bad"], 1: ["connected", "good"] }, alerts: ["PenstockIngestDisconnected", "PenstockIngestAbsent"] }),
    stat("Age of rows", "How far PostgreSQL is behind the relay. It also grows while the relay is quiet.", "s", "max(penstock_dashboard_rows_age_seconds{$S})",
      { thresholds: [[60, "look"], [300, "bad"]], alerts: ["PenstockRowsOld", "PenstockIngestLagging"] }),
    stat("Unread", "Stream entries that no worker has read yet.", "short", "max(penstock_worker_group_lag{$S})",
      { thresholds: [[50000, "look"], [250000, "bad"]], alerts: ["PenstockBacklogGrowing"] }),
    stat("Time to drain", "Backlog divided by the write rate of the last five minutes.", "s",
      "max(penstock_worker_group_lag{$S}) / sum(rate(penstock_worker_entries_acked_total{$S}[$I]))",
      { thresholds: [[120, "look"], [1800, "bad"]], alerts: ["PenstockBacklogGrowing", "PenstockStalled"] }),
    stat("Workers", "Workers being scraped.", "none", "count(penstock_worker_entries_in_flight{$S})", { alerts: ["PenstockWorkersAbsent"] }),
    stat("Reading", "Paused means the stream is full and ingest waits for the workers.", "none", "max(penstock_ingest_paused{$S})",
      { words: { 0: ["yes", "good"], 1: ["paused", "bad"] }, alerts: ["PenstockStreamFull"] }),
    stat("Lost, 24 h", "Gaps known to have lost events, and entries that left the stream unread.", "short", LOST,
      { thresholds: [[0.5, "bad"]], decimals: 0, alerts: ["PenstockDataLoss", "PenstockEntriesDeleted"] }),
    stat("Dead letters, 24 h", "Entries and frames that failed permanently.", "short", "sum(increase(penstock_dead_letters_total{$S}[24h]))",
      { thresholds: [[0.5, "look"]], decimals: 0, alerts: ["PenstockDeadLetters", "PenstockManyDeadLetters"] }),
  ]],
  ["What broke, and what do I do?", [
    table("Alerts that fire", "By pipeline; each name links to its runbook. Empty if nothing is wrong, or if no rules are loaded.",
      FIRING, ["namespace", "pipeline", "alertname", "severity", "reason", "source", "pod"],
      { width: 16, sortBy: "pipeline", links: { alertname: `${RUNBOOKS}/\${__data.fields.alertname}.md` } }),
    table("Processes", "One line per process, with its version.", "penstock_build_info{$S}", ["namespace", "pipeline", "component", "pod", "instance", "version"],
      { width: 8 }),
    graph("Alerts that fired, by pipeline", "How many alerts fired at a time. An alert of the operator has no pipeline.", "none",
      [[`sum by (namespace, pipeline) (${FIRING})`, "{{namespace}}/{{pipeline}}"]], { width: 24, stacked: true, height: 5, axis: "alerts" }),
  ]],
  ["Relay to stream to PostgreSQL", [
    graph("Age of rows", "How far PostgreSQL is behind the relay: the age of the oldest event not in it, or of the newest event when none waits.", "s",
      [["max by (namespace, pipeline) (penstock_dashboard_rows_age_seconds{$S})", "{{namespace}}/{{pipeline}}"]], { width: 12, limit: 300, alerts: ["PenstockRowsOld"] }),
    graph("Events in, entries out", "Events received from the relay, entries written to the stream, and entries stored in PostgreSQL.", "ops", [
      ["sum(rate(penstock_ingest_events_total{$S}[$I]))", "received"],
      ["sum(rate(penstock_ingest_batch_entries_sum{$S}[$I]))", "written to the stream"],
      ["sum(rate(penstock_worker_entries_acked_total{$S}[$I]))", "in PostgreSQL"],
    ], { width: 12 }),
    graph("Lag", "Age of the newest event in the stream, and time the newest entry took from there to PostgreSQL.", "s", [
      ["max by (namespace, pipeline) (penstock_ingest_lag_seconds{$S} and penstock_ingest_lease_held{$S} == 1)", "to the stream {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_lag_seconds{$S})", "to PostgreSQL {{namespace}}/{{pipeline}}"],
    ], { width: 12, limit: 300, alerts: ["PenstockIngestLagging", "PenstockRowsLate"] }),
    graph("Backlog", "Entries not yet read, and entries read but not yet acknowledged.", "short", [
      ["max by (namespace, pipeline) (penstock_worker_group_lag{$S})", "unread {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_group_pending{$S})", "pending {{namespace}}/{{pipeline}}"],
    ], { width: 12, alerts: ["PenstockBacklogGrowing", "PenstockStalled"] }),
  ]],
  ["Is there room in Redis and PostgreSQL?", [
    stat("Redis memory", "Used memory, as a share of maxmemory. No number without a maxmemory. At 80 % ingest stops reading.", "percentunit",
      "max(penstock_redis_memory_bytes{$S} / (penstock_redis_memory_limit_bytes{$S} > 0))",
      { width: 8, thresholds: [[0.6, "look"], [0.8, "bad"]], alerts: ["PenstockStreamFull"] }),
    stat("PostgreSQL size", "The whole database, with the tables of other programs.", "bytes", "max(penstock_store_database_bytes{$S})", { width: 8 }),
    stat("Growth a day", "By which the database would grow in 24 hours if it went on as in the last six.", "bytes",
      "sum(max by (namespace, pipeline) (deriv(penstock_store_database_bytes{$S}[6h]))) * 86400", { width: 8 }),
    graph("Redis memory", "Used, and Redis' maxmemory where it has one. What other programs keep there counts too.", "bytes", [
      ["max by (namespace, pipeline) (penstock_redis_memory_bytes{$S})", "used {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_redis_memory_limit_bytes{$S} > 0)", "maxmemory {{namespace}}/{{pipeline}}"],
    ], { width: 12, alerts: ["PenstockStreamFull", "PenstockStreamFilling"] }),
    graph("Redis keys", "The size of each key that can grow, as Redis estimates it.", "bytes",
      [["max by (namespace, pipeline, key) (penstock_redis_key_bytes{$S}) > 0", "{{key}} {{namespace}}/{{pipeline}}"]], { width: 12 }),
    graph("PostgreSQL size", "The whole database, and the tables that workers write with their indexes.", "bytes", [
      ["max by (namespace, pipeline) (penstock_store_database_bytes{$S})", "database {{namespace}}/{{pipeline}}"],
      ["sum by (namespace, pipeline) (max by (namespace, pipeline, table) (penstock_store_bytes{$S}))", "tables that workers write {{namespace}}/{{pipeline}}"],
    ], { width: 12 }),
    graph("Largest tables", "The ten largest tables that workers write, with their indexes.", "bytes",
      [["topk(10, max by (namespace, pipeline, table) (penstock_store_bytes{$S}))", "{{table}} {{namespace}}/{{pipeline}}"]], { width: 12 }),
  ]],
  ["Where does the time go?", [
    percentiles("Frame to stream", "From receiving a frame to its entry being readable.", "s", "penstock_ingest_frame_to_published_seconds"),
    percentiles("Batch to acknowledgement", "From a worker's batch being full to its acknowledgement, including retries.", "s", "penstock_worker_batch_duration_seconds"),
    percentiles("Transaction", "One PostgreSQL transaction, including commit.", "s", "penstock_worker_transaction_duration_seconds",
      { alerts: ["PenstockDatabaseRefusing"] }),
  ]],
  ["Problems", [
    graph("Reconnects", "By reason.", "short", [counts("penstock_ingest_reconnects_total", "reason")], { alerts: ["PenstockIngestFlapping"] }),
    graph("Retried transactions", "By PostgreSQL error.", "short", [counts("penstock_worker_retries_total", "reason")],
      { alerts: ["PenstockDatabaseRefusing"] }),
    graph("Dead letters and takeovers", "Dead letters by source; entries taken over from dead consumers.", "short", [
      counts("penstock_dead_letters_total", "source", "dead letter: {{source}}"),
      ["sum(increase(penstock_worker_entries_claimed_total{$S}[$I]))", "taken over"],
    ], { alerts: ["PenstockDeadLetters"] }),
  ]],
  ["Are traces and logs complete?", [
    graph("Spans", "Accepted by the collector, and dropped because the export queue was full.", "ops", [
      ["sum(rate(penstock_telemetry_spans_exported_total{$S}[$I]))", "accepted"],
      ["sum(rate(penstock_telemetry_spans_dropped_total{$S}[$I]))", "dropped"],
    ]),
    graph("Failed exports", "The collector is unavailable or rejects them. Nothing else is affected.", "short",
      [counts("penstock_telemetry_export_failures_total", "signal")]),
    graph("Suppressed log lines", "Warnings and errors that repeated too often.", "short",
      [["sum by (pod) (increase(penstock_log_lines_suppressed_total{$S}[$I]))", "{{pod}}"]]),
  ]],
];

const ingest = [
  ["Now", [
    stat("Relay", "Whether ingest is connected to the relay.", "none", "max(penstock_ingest_connected{$S})",
      { words: { 0: ["disconnected", "bad"], 1: ["connected", "good"] }, alerts: ["PenstockIngestDisconnected"] }),
    stat("Lag", "Age of the newest event in the stream.", "s", LAG, { thresholds: [[60, "look"], [300, "bad"]], alerts: ["PenstockIngestLagging"] }),
    stat("Writers", "Processes that hold the lease; always exactly one.", "none", "sum(penstock_ingest_lease_held{$S})",
      { words: { 0: ["none", "bad"] }, alerts: ["PenstockIngestDisconnected"] }),
    stat("Standbys", "Processes waiting for the lease.", "none", "count(penstock_ingest_lease_held{$S} == 0) or vector(0)"),
    stat("Reading", "Paused means the stream is full.", "none", "max(penstock_ingest_paused{$S})",
      { words: { 0: ["yes", "good"], 1: ["paused", "bad"] }, alerts: ["PenstockStreamFull"] }),
    stat("Stream", "Entries in the stream.", "short", "max(penstock_ingest_stream_length{$S})",
      { thresholds: [[250000, "look"], [400000, "bad"]], alerts: ["PenstockStreamFilling"] }),
    stat("Inactive groups", "Consumer groups that were inactive for too long: trimming no longer waits for them.", "none", "max(penstock_ingest_left_out_groups{$S})",
      { thresholds: [[1, "look"]], alerts: ["PenstockGroupLeftOut"] }),
    stat("Gaps lost, 24 h", "Gaps known to have lost events.", "short", "sum(increase(penstock_ingest_data_loss_total{$S}[24h]))",
      { thresholds: [[0.5, "bad"]], decimals: 0, alerts: ["PenstockDataLoss"] }),
  ]],
  ["From the relay", [
    graph("Events", "By kind.", "ops", [rates("penstock_ingest_events_total", "kind")], { stacked: true }),
    graph("Bytes", "Frames received.", "Bps", [["sum(rate(penstock_ingest_received_bytes_total{$S}[$I]))", "received"]]),
    graph("Lag and cursor", "Seconds behind, and sequence numbers per second by which the cursor advances (right).", "s", [
      ["max by (namespace, pipeline) (penstock_ingest_lag_seconds{$S} and penstock_ingest_lease_held{$S} == 1)", "lag {{namespace}}/{{pipeline}}"],
      ["sum(deriv(penstock_ingest_cursor{$S}[$I]) and penstock_ingest_lease_held{$S} == 1)", "cursor"],
    ], {
      alerts: ["PenstockIngestLagging"],
      overrides: [{ matcher: { id: "byName", options: "cursor" }, properties: [{ id: "unit", value: "ops" }, { id: "custom.axisPlacement", value: "right" }] }],
    }),
    graph("Reconnects", "By reason: silent, closed, refused, requested.", "short", [counts("penstock_ingest_reconnects_total", "reason")],
      { alerts: ["PenstockIngestFlapping"] }),
    graph("Rejected and missing", "Frames and parts of commits that were rejected, by reason; all but #sync are dead-lettered. Records missing from their commit.", "short", [
      counts("penstock_ingest_frames_refused_total", "reason", "frame: {{reason}}"),
      counts("penstock_ingest_parts_left_out_total", "reason", "part: {{reason}}"),
      ["sum(increase(penstock_ingest_records_missing_total{$S}[$I]))", "records missing"],
    ],
      { alerts: ["PenstockDeadLetters"] }),
    graph("Gaps and resets", "What was found where reading resumed.", "short", [
      ["sum(increase(penstock_ingest_gaps_total{$S}[$I]))", "possible gaps"],
      ["sum(increase(penstock_ingest_data_loss_total{$S}[$I]))", "known losses"],
      ["sum(increase(penstock_ingest_sequence_resets_total{$S}[$I]))", "sequence resets"],
      ["sum(increase(penstock_ingest_repeats_skipped_total{$S}[$I]))", "repeats skipped"],
    ], { alerts: ["PenstockGap", "PenstockDataLoss", "PenstockSequenceReset"] }),
  ]],
  ["Verification", [
    graph("Commits", "By what came of them: passed; failed, counted and written, or refused; unresolved: the key of the account could not be had; broken: something before was not received.", "ops",
      [rates("penstock_ingest_verified_total", "result")], { stacked: true, alerts: ["PenstockVerificationFailing", "PenstockIdentityUnresolved"] }),
    graph("Failed, by reason", "Commits that proved wrong.", "short",
      [['sum by (reason) (increase(penstock_ingest_verified_total{result=~"failed|refused",$S}[$I]))', "{{reason}}"]], { alerts: ["PenstockVerificationFailing"] }),
    graph("Repos desynchronized", "Repos marked because something of them was not received, or because their hosts said so.", "short",
      [counts("penstock_ingest_desynchronized_total", "reason")], { alerts: ["PenstockReposDesynchronized"] }),
    graph("Identity requests", "To the directory and to hosts that accounts name, by what came of them.", "reqps",
      [["sum by (kind, result) (rate(penstock_identity_requests_total{$S}[$I]))", "{{kind}}: {{result}}"]], { alerts: ["PenstockIdentityUnresolved"] }),
    graph("Identities looked up", "Found in memory, found in the table, or resolved over the network.", "ops", [rates("penstock_identity_cache_total", "result")], { stacked: true }),
  ]],
  ["Into the stream", [
    percentiles("Frame to stream", "From receiving a frame to its entry being readable.", "s", "penstock_ingest_frame_to_published_seconds"),
    heatmap("Frame to stream, distribution", "Number of batches by duration.", "s", "penstock_ingest_frame_to_published_seconds"),
    percentiles("One batch to Redis", "From sending a batch to its reply: Redis and the network.", "s", "penstock_ingest_publish_duration_seconds"),
    percentiles("Entries in a batch", "High: ingest is catching up, or Redis is slow.", "short", "penstock_ingest_batch_entries"),
    graph("Batches", "Written, and refused by the fence or Redis.", "ops", [
      ["sum(rate(penstock_ingest_batches_total{$S}[$I]))", "written"],
      rates("penstock_ingest_publishes_refused_total", "reason", "refused: {{reason}}"),
    ], { alerts: ["PenstockPublishRefused", "PenstockRedisLost"] }),
    graph("Live events", "Published on the broadcast channel; sampled above ingest.broadcastRate.", "ops",
      [["sum(rate(penstock_ingest_broadcast_events_total{$S}[$I]))", "broadcast"]]),
  ]],
  ["The stream", [
    graph("Length", "Entries that at least one group has not acknowledged. At 80 % of the cap, ingest stops reading.", "short",
      [["max by (namespace, pipeline) (penstock_ingest_stream_length{$S})", "{{namespace}}/{{pipeline}}"],
        ["max by (namespace, pipeline) (penstock_ingest_bulk_stream_length{$S})", "of repos above their rate {{namespace}}/{{pipeline}}"]],
      { limit: 400000, alerts: ["PenstockStreamFilling", "PenstockStreamFull"] }),
    graph("Trimmed", "Entries trimmed after every active group acknowledged them; failed attempts; entries abandoned by replaced workers.", "ops", [
      ["sum(rate(penstock_ingest_trimmed_entries_total{$S}[$I]))", "trimmed"],
      ["sum(rate(penstock_ingest_trim_failures_total{$S}[$I]))", "failures"],
      ["sum(rate(penstock_ingest_requeued_entries_total{$S}[$I]))", "requeued"],
      ["sum(rate(penstock_ingest_pending_lost_total{$S}[$I]))", "lost before they were read"],
    ]),
    graph("Consumer groups", "Groups that trimming waits for, and inactive ones.", "none", [
      ["max(penstock_ingest_holding_groups{$S})", "holding"],
      ["max(penstock_ingest_left_out_groups{$S})", "inactive"],
    ], { alerts: ["PenstockGroupLeftOut"] }),
  ]],
  ["Resource usage", costs("penstock_ingest_connected")],
];

const workers = [
  ["Now", [
    stat("Workers", "Workers being scraped.", "none", "count(penstock_worker_entries_in_flight{$S})", { alerts: ["PenstockWorkersAbsent"] }),
    stat("Entries", "Acknowledged per second.", "ops", "sum(rate(penstock_worker_entries_acked_total{$S}[$I]))", { alerts: ["PenstockStalled"] }),
    stat("Not read", "Entries that no worker has read.", "short", "max(penstock_worker_group_lag{$S})",
      { thresholds: [[50000, "look"], [250000, "bad"]], alerts: ["PenstockBacklogGrowing"] }),
    stat("Pending", "Entries read but not acknowledged, by all workers including dead ones.", "short", "max(penstock_worker_group_pending{$S})"),
    stat("Time to drain", "Backlog divided by the write rate of the last five minutes.", "s",
      "max(penstock_worker_group_lag{$S}) / sum(rate(penstock_worker_entries_acked_total{$S}[$I]))", { thresholds: [[120, "look"], [1800, "bad"]] }),
    stat("Busy", "Share of time workers spend in batches. Near 100 %: add workers, or speed up the database.", "percentunit",
      "sum(rate(penstock_worker_batch_duration_seconds_sum{$S}[$I])) / count(penstock_worker_entries_in_flight{$S})",
      { thresholds: [[0.9, "look"]] }),
    stat("Dead letters, 24 h", "Entries that failed permanently.", "short", 'sum(increase(penstock_dead_letters_total{source="worker",$S}[24h]))',
      { thresholds: [[0.5, "look"]], decimals: 0, alerts: ["PenstockDeadLetters", "PenstockManyDeadLetters"] }),
    stat("Deleted unread, 24 h", "Entries that left the stream before they were written.", "short", "sum(increase(penstock_worker_entries_deleted_total{$S}[24h]))",
      { thresholds: [[0.5, "bad"]], decimals: 0, alerts: ["PenstockEntriesDeleted"] }),
  ]],
  ["From the stream", [
    graph("Read", "By kind; `other` are entries that could not be decoded.", "ops", [rates("penstock_worker_entries_read_total", "kind")], { stacked: true }),
    graph("Backlog", "Unread and pending entries.", "short", [
      ["max by (namespace, pipeline) (penstock_worker_group_lag{$S})", "unread {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_group_pending{$S})", "pending {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_bulk_lag{$S})", "unread, of repos above their rate {{namespace}}/{{pipeline}}"],
    ], { alerts: ["PenstockBacklogGrowing"] }),
    graph("Stream to PostgreSQL", "How long the newest entry took from the stream to PostgreSQL.", "s",
      [["penstock_worker_lag_seconds{$S}", "{{pod}}"]], { limit: 120, alerts: ["PenstockRowsLate"] }),
    graph("In flight", "Entries held by each worker.", "short", [["penstock_worker_entries_in_flight{$S}", "{{pod}}"]]),
    graph("Acknowledged by worker", "A worker slower than the others runs on a slow node, or processes a hot repo.", "ops",
      [["sum by (pod) (rate(penstock_worker_entries_acked_total{$S}[$I]))", "{{pod}}"]], { stacked: true, alerts: ["PenstockStalled"] }),
    graph("Taken over", "Entries taken over from dead workers.", "short",
      [["sum by (pod) (increase(penstock_worker_entries_claimed_total{$S}[$I]))", "{{pod}}"]], { alerts: ["PenstockRestarting"] }),
    graph("Workers", "Workers being scraped.", "none", [["count by (namespace, pipeline) (penstock_worker_entries_in_flight{$S})", "{{namespace}}/{{pipeline}}"]],
      { alerts: ["PenstockWorkersFlapping", "PenstockWorkersAbsent"] }),
    graph("Messages", "From the message buffer, if enabled.", "ops", [["sum(rate(penstock_worker_messages_written_total{$S}[$I]))", "written"]]),
  ]],
  ["Into PostgreSQL: where does the time go?", [
    percentiles("Batch to acknowledgement", "From a batch being full to its acknowledgement, including retries.", "s", "penstock_worker_batch_duration_seconds"),
    percentiles("Transaction", "One transaction, including commit.", "s", "penstock_worker_transaction_duration_seconds", { alerts: ["PenstockDatabaseRefusing"] }),
    graph("Share of a batch", "Share of a batch's time spent in its transaction; the rest is Redis, retries and waiting.", "percentunit", [
      ["sum(rate(penstock_worker_transaction_duration_seconds_sum{$S}[$I])) / sum(rate(penstock_worker_batch_duration_seconds_sum{$S}[$I]))", "in the transaction"],
    ]),
    heatmap("Transactions, distribution", "Number of transactions by duration.", "s", "penstock_worker_transaction_duration_seconds"),
    percentiles("Entries in a batch", "Near worker.batchSize: workers are behind.", "short", "penstock_worker_batch_entries"),
    graph("Rows", "Inserted, updated or deleted, by table.", "ops", [rates("penstock_worker_rows_written_total", "table")], { stacked: true }),
  ]],
  ["What broke?", [
    graph("Retries", "Retried transactions by PostgreSQL error. Deadlocks and races are harmless.", "short", [counts("penstock_worker_retries_total", "reason")],
      { alerts: ["PenstockDatabaseRefusing"] }),
    graph("Dead letters", "Entries that failed permanently.", "short", [counts("penstock_dead_letters_total", "source")],
      { alerts: ["PenstockDeadLetters", "PenstockManyDeadLetters"] }),
    graph("Checkpoint behind the cursor", "Sequence numbers that would be reread if Redis were lost.", "short",
      [["max by (namespace, pipeline) (penstock_ingest_cursor{$S}) - max by (namespace, pipeline) (penstock_worker_checkpoint{$S} > 0)", "{{namespace}}/{{pipeline}}"]],
      { alerts: ["PenstockRedisLost"] }),
  ]],
  ["Resource usage", [
    ...costs("penstock_worker_entries_in_flight"),
    graph("Counts published", "How often row counts were published to Redis.", "ops", [["sum(rate(penstock_worker_counts_published_total{$S}[$I]))", "published"]]),
  ]],
];

const O = 'namespace=~"$namespace"';
const operator = [
  ["Now", [
    stat("Leader", "Leading operators; always exactly one.", "none", `sum(penstock_operator_leader{${O}})`,
      { words: { 0: ["none", "bad"] }, alerts: ["PenstockOperatorNoLeader", "PenstockOperatorDown"] }),
    stat("Operators", "Operators being scraped.", "none", `count(penstock_operator_leader{${O}})`, { alerts: ["PenstockOperatorDown"] }),
    stat("Pipelines", "All pipelines the operator manages.", "none", `sum(max by (phase) (penstock_operator_pipelines{${O}}))`),
    stat("Not ready", "Failed or degraded.", "none", `sum(max by (phase) (penstock_operator_pipelines{phase=~"failed|degraded",${O}}))`,
      { thresholds: [[1, "bad"]], alerts: ["PenstockPipelineNotReady"] }),
    stat("Lag unknown", "Pipelines whose backlog is unknown. Their number of workers is kept as it is.", "none", `max(penstock_operator_pipelines_lag_unknown{${O}})`,
      { thresholds: [[1, "look"]], alerts: ["PenstockLagUnknown"] }),
    stat("Workers wanted", "Total of all pipelines.", "none", `max(penstock_operator_workers_desired{${O}})`),
    stat("Workers ready", "Total of all pipelines.", "none", `max(penstock_operator_workers_ready{${O}})`),
    stat("Furthest behind", "Age of the newest event.", "s", `max(penstock_operator_ingest_lag_seconds{${O}})`,
      { thresholds: [[60, "look"], [300, "bad"]], alerts: ["PenstockIngestLagging"] }),
  ]],
  ["How many workers, and why?", [
    graph("Workers", "Wanted and ready, total of all pipelines.", "none", [
      [`max(penstock_operator_workers_desired{${O}})`, "wanted"],
      [`max(penstock_operator_workers_ready{${O}})`, "ready"],
    ], { alerts: ["PenstockWorkersFlapping"] }),
    graph("Backlog", "Entries waiting for a worker, total of all pipelines, as far as known.", "short",
      [[`max(penstock_operator_backlog_entries{${O}})`, "waiting"]], { alerts: ["PenstockBacklogGrowing"] }),
    graph("Decisions", "By reason; docs/autoscaling.md explains each one.", "short",
      [[`sum by (reason) (increase(penstock_operator_decisions_total{${O}}[$I]))`, "{{reason}}"]], { stacked: true }),
    graph("Workers by pipeline", "From the workers' own metrics, in all namespaces.", "none",
      [['count by (namespace, pipeline) (penstock_worker_entries_in_flight)', "{{namespace}}/{{pipeline}}"]], { alerts: ["PenstockWorkersFlapping"] }),
    graph("Scale changes", "Each is a write to a Deployment's scale.", "short", [[`sum(increase(penstock_operator_scale_patches_total{${O}}[$I]))`, "changes"]],
      { alerts: ["PenstockWorkersFlapping"] }),
    percentiles("One scaling decision", "Time to observe a pipeline's Redis and workers, decide, and scale.", "s", "penstock_operator_scaling_duration_seconds", { select: O }),
  ]],
  ["Reconciling pipelines", [
    graph("Pipelines", "By phase.", "none", [[`max by (phase) (penstock_operator_pipelines{${O}})`, "{{phase}}"]],
      { stacked: true, alerts: ["PenstockPipelineNotReady"] }),
    percentiles("One reconcile", "Time to reconcile a pipeline.", "s", "penstock_operator_reconcile_duration_seconds", { select: O }),
    graph("Failures", "Failed reconciles, by reason.", "short",
      [[`sum by (reason) (increase(penstock_operator_reconcile_errors_total{${O}}[$I]))`, "{{reason}}"]], { alerts: ["PenstockReconcileFailing"] }),
    graph("Written", "Child objects applied and deleted, statuses written.", "short", [
      [`sum(increase(penstock_operator_children_applied_total{${O}}[$I]))`, "applied"],
      [`sum(increase(penstock_operator_children_deleted_total{${O}}[$I]))`, "deleted"],
      [`sum(increase(penstock_operator_status_writes_total{${O}}[$I]))`, "statuses"],
    ]),
    graph("Leader", "Which process is the leader.", "none", [[`penstock_operator_leader{${O}}`, "{{pod}}"]], { alerts: ["PenstockOperatorNoLeader"] }),
  ]],
  ["Resource usage", costs("penstock_operator_leader", O)],
];

const service = [
  ["Now", [
    stat("Dashboards", "Processes being scraped.", "none", "count(penstock_dashboard_sse_clients{$S})", { width: 4, alerts: ["PenstockDashboardAbsent"] }),
    stat("Requests", "Requests per second, all routes.", "reqps", "sum(rate(penstock_dashboard_http_requests_total{$S}[$I]))", { width: 4 }),
    stat("Event streams", "Clients of /api/events/stream.", "none", "sum(penstock_dashboard_sse_clients{$S})", { width: 4, thresholds: [[10000, "look"]] }),
    stat("Statistics sockets", "Clients of /ws/stats.", "none", "sum(penstock_dashboard_websocket_clients{$S})", { width: 4, thresholds: [[10000, "look"]] }),
    stat("Events delivered", "Per second, counted per client.", "ops", "sum(rate(penstock_dashboard_events_fanned_out_total{$S}[$I]))", { width: 4 }),
    stat("Clients disconnected, 1 h", "They could not keep up: slow networks, or a dashboard short of CPU.", "short",
      "sum(increase(penstock_dashboard_slow_clients_cut_total{$S}[1h]))", { width: 4, decimals: 0, thresholds: [[100, "look"]] }),
  ]],
  ["Requests and clients", [
    graph("Requests", "By route.", "reqps", [rates("penstock_dashboard_http_requests_total", "route")], { stacked: true }),
    graph("Live clients", "By process and kind.", "none", [
      ["penstock_dashboard_sse_clients{$S}", "events {{pod}}"],
      ["penstock_dashboard_websocket_clients{$S}", "statistics {{pod}}"],
    ]),
    graph("Clients disconnected", "Because they could not keep up.", "short", [["sum by (pod) (increase(penstock_dashboard_slow_clients_cut_total{$S}[$I]))", "{{pod}}"]]),
    graph("Connections refused", "Closed at once because there were too many: in all (full), or from one address (peer).", "short",
      [counts("penstock_dashboard_connections_refused_total", "reason")]),
    graph("Wrong tokens", "Tokens and sessions that were wrong, and tries that were refused because their client had guessed too often.", "short",
      [counts("penstock_dashboard_token_guesses_total", "outcome")]),
    graph("Events delivered", "Counted per client.", "ops", [["sum by (pod) (rate(penstock_dashboard_events_fanned_out_total{$S}[$I]))", "{{pod}}"]]),
    graph("Events broadcast", "Live events that ingest broadcasts.", "ops", [["sum(rate(penstock_ingest_broadcast_events_total{$S}[$I]))", "broadcast"]]),
    graph("Memory per client", "Resident memory per live client: at most about 40 kB above an idle process.", "bytes", [
      ["(process_resident_memory_bytes{$S} and on (job, instance) penstock_dashboard_sse_clients{$S}) / on (job, instance) (penstock_dashboard_sse_clients{$S} > 100)", "{{instance}}"],
    ]),
  ]],
  ["Resource usage", costs("penstock_dashboard_sse_clients")],
];

// === what surrounds the panels ===

const placed = (rows) => {
  const panels = [];
  let [x, y, high] = [0, 0, 0];
  const put = (item, w, h) => {
    if (x + w > 24) [x, y, high] = [0, y + high, 0];
    const { overrides, ...rest } = item;
    if (overrides) rest.fieldConfig.overrides = overrides;
    panels.push({ id: panels.length + 1, ...rest, gridPos: { x, y, w, h } });
    x += w;
    high = Math.max(high, h);
  };
  for (const [title, items] of rows) {
    [x, y, high] = [0, y + high, 0];
    put({ type: "row", title, collapsed: false, panels: [] }, 24, 1);
    for (const item of items) put(item, item.gridPos.w, item.gridPos.h);
  }
  return panels;
};

const variable = (name, label, query) => ({
  name,
  label,
  type: "query",
  datasource: PROMETHEUS,
  query: { query, refId: name },
  definition: query,
  refresh: 2,
  sort: 1,
  multi: true,
  includeAll: true,
  // Matches what has no such label, too: `penstock run`, or services scraped outside Kubernetes.
  allValue: ".*",
  current: { text: ["All"], value: ["$__all"] },
});

const variables = (metrics, hasPipelines) => [
  { name: "datasource", label: "Data source", type: "datasource", query: "prometheus", current: {} },
  variable("namespace", "Namespace", `label_values({__name__=~"${metrics}"}, namespace)`),
  ...(hasPipelines ? [variable("pipeline", "Pipeline", `label_values({__name__=~"${metrics}",namespace=~"$namespace"}, pipeline)`)] : []),
];

const dashboard = (name, title, description, rows, metrics = ALL_PARTS, hasPipelines = true) => ({
  uid: `penstock-${name}`,
  title: `Penstock / ${title}`,
  description,
  tags: ["penstock"],
  schemaVersion: 39,
  editable: false,
  refresh: "30s",
  time: { from: "now-3h", to: "now" },
  timezone: "",
  graphTooltip: 1,
  templating: { list: variables(metrics, hasPipelines) },
  annotations: {
    list: [
      {
        name: "Starts",
        enable: true,
        iconColor: "blue",
        datasource: PROMETHEUS,
        expr: filled(`changes(process_start_time_seconds{${hasPipelines ? "$S" : O}}[$__interval]) > 0 and on (job, instance) penstock_build_info`),
        titleFormat: "{{pod}} started",
      },
    ],
  },
  links: [
    { type: "dashboards", tags: ["penstock"], title: "Penstock", asDropdown: true, includeVars: true, keepTime: true },
    { type: "link", title: "Runbooks", url: `${RUNBOOKS}/README.md`, icon: "doc", targetBlank: true },
  ],
  panels: placed(rows),
});

const heal = [
  ["Now", [
    stat("Healers", "Healers being scraped. In Kubernetes there are none while nothing asks for them.", "none", "count(penstock_heal_running{$S})"),
    stat("Due", "Repos that may be read now.", "short", "max(penstock_heal_due{$S})", { alerts: ["PenstockHealingStuck"] }),
    stat("Being read", "Repos that healers read or write at this moment.", "short", "sum(penstock_heal_running{$S})"),
    stat("Records", "Records written or found equal, per second.", "ops", "sum(rate(penstock_heal_records_total{$S}[$I]))"),
    stat("Given up, 24 h", "Repos that are gone, or that no host has.", "short", 'sum(increase(penstock_heal_repairs_total{result="given_up",$S}[24h]))',
      { decimals: 0 }),
    stat("Differences, 24 h", "Rows that differed from their repo when it was audited.", "short", "sum(increase(penstock_heal_differences_total{$S}[24h]))",
      { thresholds: [[0.5, "look"]], decimals: 0 }),
    stat("Proven", "Share of the active repos whose rows were compared with their host, or written from it, at least once.", "percentunit", "max(penstock_heal_proven_ratio{$S})"),
    stat("Oldest proof", "How long ago the repo that was proven longest ago was proven.", "s", "max(penstock_heal_oldest_proof_seconds{$S})"),
  ]],
  ["What waits, and what comes of it?", [
    graph("Waiting, by reason", "Repos that wait to be read again. Those of backfills come last.", "short",
      [["max by (reason) (penstock_heal_waiting{$S})", "{{reason}}"]], { stacked: true, alerts: ["PenstockHealingStuck", "PenstockReposDesynchronized"] }),
    graph("Due and being read", "Due: may be read now. What waits and is not due waits for its host.", "short", [
      ["max by (namespace, pipeline) (penstock_heal_due{$S})", "due {{namespace}}/{{pipeline}}"],
      ["sum by (namespace, pipeline) (penstock_heal_running{$S})", "being read {{namespace}}/{{pipeline}}"],
    ], { alerts: ["PenstockHealingStuck"] }),
    graph("Repos, by result", "healed: equal to the host now. retried: its host did not give it, later again. given_up: gone, or no host has it.", "ops",
      [rates("penstock_heal_repairs_total", "result")], { stacked: true, alerts: ["PenstockHealingStuck"] }),
    graph("Records, by result", "kept: stood there already. newer: an event after the snapshot stands there.", "ops",
      [rates("penstock_heal_records_total", "result")], { stacked: true }),
  ]],
  ["Is the database equal to the repos?", [
    graph("Differences", "What audits found: missing, too many, different, or a count that is wrong.", "short", [counts("penstock_heal_differences_total", "kind")]),
    graph("Share proven", "Share of the active repos that were proven at least once.", "percentunit",
      [["max by (namespace, pipeline) (penstock_heal_proven_ratio{$S})", "{{namespace}}/{{pipeline}}"]]),
    graph("Oldest proof", "With heal.auditRate it stays below the time that a round takes.", "s",
      [["max by (namespace, pipeline) (penstock_heal_oldest_proof_seconds{$S})", "{{namespace}}/{{pipeline}}"]]),
  ]],
  ["Resource usage", costs("penstock_heal_running")],
];

const dashboards = {
  overview: dashboard("overview", "Overview", "Is it keeping up, where does the time go, what broke, what do I do.", overview),
  ingest: dashboard("ingest", "Ingest", "From the relay's socket into the stream.", ingest, "penstock_ingest_connected"),
  workers: dashboard("workers", "Workers", "From the stream into PostgreSQL.", workers, "penstock_worker_entries_in_flight"),
  heal: dashboard("heal", "Healing", "Repos that are read again from their hosts: what waits, how fast it goes, how much is proven.", heal, "penstock_heal_running"),
  operator: dashboard("operator", "Operator and autoscaler", "How many workers there are and why, and how pipelines are reconciled.", operator, "penstock_operator_leader", false),
  dashboard: dashboard("dashboard", "Dashboard service", "The API, the live streams and their clients.", service, "penstock_dashboard_sse_clients"),
};

const [folder] = process.argv.slice(2);
if (!folder) {
  console.error("say where to: node dashboards.mjs FOLDER");
  process.exit(64);
}
for (const [name, { panels, ...head }] of Object.entries(dashboards)) {
  // A panel stands on a line of its own, so that a change shows as one.
  const lines = panels.map((item) => JSON.stringify(item)).join(",\n");
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(head).slice(0, -1)},"panels":[\n${lines}\n]}\n`);
}
