// Makes the Grafana dashboards: `node dashboards.mjs FOLDER` writes one JSON file each. `make generate` puts them here and into the chart.
//
// A dashboard is a list of rows, a row a list of panels; where a panel stands follows from its width. In an expression `$S` selects
// the pipelines that are chosen at the top, and `$I` is Grafana's interval of rates.
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const RUNBOOKS = "https://github.com/penstock/penstock/blob/main/docs/runbooks";
const PROMETHEUS = { type: "prometheus", uid: "$datasource" };
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
    ...more,
    targets: targets([[expr]], { instant: true, range: false }),
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
const graph = (title, description, unit, queries, { width = 8, stacked = false, limit, min = 0, ...more } = {}) =>
  panel("timeseries", title, description, {
    width,
    ...more,
    targets: targets(queries),
    fieldConfig: {
      defaults: {
        unit,
        min,
        custom: {
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
const table = (title, description, expr, columns, { width = 24, links = {}, ...more } = {}) =>
  panel("table", title, description, {
    width,
    height: 6,
    ...more,
    targets: targets([[expr]], { instant: true, range: false, format: "table" }),
    fieldConfig: {
      defaults: { noValue: "nothing" },
      overrides: Object.entries(links).map(([column, url]) => ({
        matcher: { id: "byName", options: column },
        properties: [{ id: "links", value: [{ title: "Open", url, targetBlank: true }] }],
      })),
    },
    transformations: [{ id: "filterFieldsByName", options: { include: { names: columns } } }],
    options: { showHeader: true },
  });

/** CPU, memory and open files of the processes that show `metric`. */
const costs = (metric, select = "$S") => {
  const those = (name) => `${name}{${select}} and on (job, instance) ${metric}{${select}}`;
  return [
    graph("CPU", "Cores in use.", "none", [
      [`rate(process_cpu_seconds_total{${select}}[$I]) and on (job, instance) ${metric}{${select}}`, "{{pod}}"],
    ]),
    graph("Memory", "Resident memory. The limits are in docs/operations.md.", "bytes", [[those("process_resident_memory_bytes"), "{{pod}}"]]),
    graph("Open files", "File descriptors: sockets, most of all.", "none", [[those("process_open_fds"), "{{pod}}"]]),
  ];
};

// === the dashboards ===

const ALL_PARTS = "penstock_ingest_connected|penstock_worker_entries_in_flight|penstock_dashboard_sse_clients";
const LAG = "max(penstock_ingest_lag_seconds{$S} and penstock_ingest_lease_held{$S} == 1)";
const LOST =
  "(sum(increase(penstock_ingest_data_loss_total{$S}[24h])) or vector(0)) + (sum(increase(penstock_worker_entries_deleted_total{$S}[24h])) or vector(0))";
const rates = (metric, by, legend = `{{${by}}}`) => [`sum by (${by}) (rate(${metric}{$S}[$I]))`, legend];
const counts = (metric, by, legend = `{{${by}}}`) => [`sum by (${by}) (increase(${metric}{$S}[$I]))`, legend];

const overview = [
  ["Is it keeping up?", [
    stat("Relay", "Whether the ingest of every pipeline reads its relay.", "none",
      "min(max by (namespace, pipeline) (penstock_ingest_connected{$S}))",
      { words: { 0: ["away", "bad"], 1: ["connected", "good"] }, alerts: ["PenstockIngestDisconnected", "PenstockIngestAbsent"] }),
    stat("Lag", "Age of the newest event in the stream. A quiet relay makes it grow, too.", "s", LAG,
      { thresholds: [[60, "look"], [300, "bad"]], alerts: ["PenstockIngestLagging"] }),
    stat("Not read", "Entries of the stream that no worker has read.", "short", "max(penstock_worker_group_lag{$S})",
      { thresholds: [[50000, "look"], [250000, "bad"]], alerts: ["PenstockBacklogGrowing"] }),
    stat("Time to drain", "What waits, by what workers wrote in five minutes.", "s",
      "max(penstock_worker_group_lag{$S}) / sum(rate(penstock_worker_entries_acked_total{$S}[5m]))",
      { thresholds: [[120, "look"], [1800, "bad"]], alerts: ["PenstockBacklogGrowing", "PenstockStalled"] }),
    stat("Workers", "Workers that answer.", "none", "count(penstock_worker_entries_in_flight{$S})", { alerts: ["PenstockWorkersAbsent"] }),
    stat("Reading", "Paused: the stream is full, and ingest waits for the workers.", "none", "max(penstock_ingest_paused{$S})",
      { words: { 0: ["goes on", "good"], 1: ["paused", "bad"] }, alerts: ["PenstockStreamFull"] }),
    stat("Lost, 24 h", "Gaps known to have lost events, and entries that left the stream unread.", "short", LOST,
      { thresholds: [[0.5, "bad"]], decimals: 0, alerts: ["PenstockDataLoss", "PenstockEntriesDeleted"] }),
    stat("Dead letters, 24 h", "Entries and frames that failed for good.", "short", "sum(increase(penstock_dead_letters_total{$S}[24h]))",
      { thresholds: [[0.5, "look"]], decimals: 0, alerts: ["PenstockDeadLetters", "PenstockManyDeadLetters"] }),
  ]],
  ["What broke, and what do I do?", [
    table("Alerts that fire", "Each name leads to its runbook. Empty as long as nothing is wrong, or no rules are loaded.",
      'sort_desc(ALERTS{alertname=~"Penstock.+",alertstate="firing"})', ["alertname", "severity", "namespace", "pipeline", "reason", "source", "pod"],
      { width: 16, links: { alertname: `${RUNBOOKS}/\${__data.fields.alertname}.md` } }),
    table("What runs", "One line a process, with its version.", "penstock_build_info{$S}", ["namespace", "pipeline", "component", "pod", "instance", "version"],
      { width: 8 }),
  ]],
  ["Relay to stream to PostgreSQL", [
    graph("Events in, entries out", "What comes from the relay, what is written to the stream, and what PostgreSQL has.", "ops", [
      ["sum(rate(penstock_ingest_events_total{$S}[$I]))", "received"],
      ["sum(rate(penstock_ingest_batch_entries_sum{$S}[$I]))", "written to the stream"],
      ["sum(rate(penstock_worker_entries_acked_total{$S}[$I]))", "in PostgreSQL"],
    ]),
    graph("Lag", "Age of the newest event in the stream, and the time of the newest entry from there into PostgreSQL.", "s", [
      ["max by (namespace, pipeline) (penstock_ingest_lag_seconds{$S} and penstock_ingest_lease_held{$S} == 1)", "to the stream {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_lag_seconds{$S})", "to PostgreSQL {{namespace}}/{{pipeline}}"],
    ], { limit: 300, alerts: ["PenstockIngestLagging", "PenstockRowsLate"] }),
    graph("What waits", "Entries unread, and entries read but not yet acknowledged.", "short", [
      ["max by (namespace, pipeline) (penstock_worker_group_lag{$S})", "unread {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_group_pending{$S})", "pending {{namespace}}/{{pipeline}}"],
    ], { alerts: ["PenstockBacklogGrowing", "PenstockStalled"] }),
  ]],
  ["Where is the time going?", [
    percentiles("Frame to stream", "From a frame's receipt to its entry being readable.", "s", "penstock_ingest_frame_to_published_seconds"),
    percentiles("Batch to acknowledgement", "From a worker's batch being full to its acknowledgement, with retries.", "s", "penstock_worker_batch_duration_seconds"),
    percentiles("Transaction", "One transaction in PostgreSQL, commit included.", "s", "penstock_worker_transaction_duration_seconds",
      { alerts: ["PenstockDatabaseRefusing"] }),
  ]],
  ["Trouble", [
    graph("Connections given up", "By reason.", "short", [counts("penstock_ingest_reconnects_total", "reason")], { alerts: ["PenstockIngestFlapping"] }),
    graph("Transactions tried again", "By what PostgreSQL said.", "short", [counts("penstock_worker_retries_total", "reason")],
      { alerts: ["PenstockDatabaseRefusing"] }),
    graph("Set aside, taken over", "Dead letters by who made them; entries taken over from a consumer that let them lie.", "short", [
      counts("penstock_dead_letters_total", "source", "dead letter: {{source}}"),
      ["sum(increase(penstock_worker_entries_claimed_total{$S}[$I]))", "taken over"],
    ], { alerts: ["PenstockDeadLetters"] }),
  ]],
  ["Are traces and logs whole?", [
    graph("Spans", "Taken by the collector, and dropped because the queue to it was full.", "ops", [
      ["sum(rate(penstock_telemetry_spans_exported_total{$S}[$I]))", "taken"],
      ["sum(rate(penstock_telemetry_spans_dropped_total{$S}[$I]))", "dropped"],
    ]),
    graph("Exports that failed", "The collector is away or refuses. It costs nothing else.", "short",
      [counts("penstock_telemetry_export_failures_total", "signal")]),
    graph("Log lines left out", "Warnings and errors that repeated too often.", "short",
      [["sum by (pod) (increase(penstock_log_lines_suppressed_total{$S}[$I]))", "{{pod}}"]]),
  ]],
];

const ingest = [
  ["Now", [
    stat("Relay", "Whether the relay is connected.", "none", "max(penstock_ingest_connected{$S})",
      { words: { 0: ["away", "bad"], 1: ["connected", "good"] }, alerts: ["PenstockIngestDisconnected"] }),
    stat("Lag", "Age of the newest event in the stream.", "s", LAG, { thresholds: [[60, "look"], [300, "bad"]], alerts: ["PenstockIngestLagging"] }),
    stat("Writers", "Processes that hold the lease: one, always.", "none", "sum(penstock_ingest_lease_held{$S})",
      { words: { 0: ["none", "bad"] }, alerts: ["PenstockIngestDisconnected"] }),
    stat("Standing by", "Processes that wait for the lease.", "none", "count(penstock_ingest_lease_held{$S} == 0) or vector(0)"),
    stat("Reading", "Paused: the stream is full.", "none", "max(penstock_ingest_paused{$S})",
      { words: { 0: ["goes on", "good"], 1: ["paused", "bad"] }, alerts: ["PenstockStreamFull"] }),
    stat("Stream", "Entries in the stream.", "short", "max(penstock_ingest_stream_length{$S})",
      { thresholds: [[250000, "look"], [400000, "bad"]], alerts: ["PenstockStreamFilling"] }),
    stat("Groups left out", "Consumer groups that showed no sign of life and no longer hold the stream.", "none", "max(penstock_ingest_left_out_groups{$S})",
      { thresholds: [[1, "look"]], alerts: ["PenstockGroupLeftOut"] }),
    stat("Gaps lost, 24 h", "Gaps known to have lost events.", "short", "sum(increase(penstock_ingest_data_loss_total{$S}[24h]))",
      { thresholds: [[0.5, "bad"]], decimals: 0, alerts: ["PenstockDataLoss"] }),
  ]],
  ["From the relay", [
    graph("Events", "By kind.", "ops", [rates("penstock_ingest_events_total", "kind")], { stacked: true }),
    graph("Bytes", "Frames received.", "Bps", [["sum(rate(penstock_ingest_received_bytes_total{$S}[$I]))", "received"]]),
    graph("Lag and cursor", "Seconds behind, and numbers a second by which the cursor moves (right).", "s", [
      ["max by (namespace, pipeline) (penstock_ingest_lag_seconds{$S} and penstock_ingest_lease_held{$S} == 1)", "lag {{namespace}}/{{pipeline}}"],
      ["sum(deriv(penstock_ingest_cursor{$S}[$I]) and penstock_ingest_lease_held{$S} == 1)", "cursor"],
    ], {
      alerts: ["PenstockIngestLagging"],
      overrides: [{ matcher: { id: "byName", options: "cursor" }, properties: [{ id: "unit", value: "ops" }, { id: "custom.axisPlacement", value: "right" }] }],
    }),
    graph("Connections given up", "By reason: silent, closed, refused, asked for.", "short", [counts("penstock_ingest_reconnects_total", "reason")],
      { alerts: ["PenstockIngestFlapping"] }),
    graph("Frames refused", "By what was wrong with them. Each is among the dead letters.", "short", [counts("penstock_ingest_frames_refused_total", "reason")],
      { alerts: ["PenstockDeadLetters"] }),
    graph("Seams", "What was seen where reading resumed.", "short", [
      ["sum(increase(penstock_ingest_gaps_total{$S}[$I]))", "possible gaps"],
      ["sum(increase(penstock_ingest_data_loss_total{$S}[$I]))", "known losses"],
      ["sum(increase(penstock_ingest_sequence_resets_total{$S}[$I]))", "sequences that began again"],
      ["sum(increase(penstock_ingest_repeats_skipped_total{$S}[$I]))", "repeats skipped"],
    ], { alerts: ["PenstockGap", "PenstockDataLoss", "PenstockSequenceReset"] }),
  ]],
  ["Into the stream", [
    percentiles("Frame to stream", "From a frame's receipt to its entry being readable.", "s", "penstock_ingest_frame_to_published_seconds"),
    heatmap("Frame to stream, spread", "How many batches took how long.", "s", "penstock_ingest_frame_to_published_seconds"),
    percentiles("One batch to Redis", "From sending a batch to its answer: Redis and the network.", "s", "penstock_ingest_publish_duration_seconds"),
    percentiles("Entries in a batch", "Many: ingest is catching up, or Redis is slow.", "short", "penstock_ingest_batch_entries"),
    graph("Batches", "Written, and refused by the fence or by Redis.", "ops", [
      ["sum(rate(penstock_ingest_batches_total{$S}[$I]))", "written"],
      rates("penstock_ingest_publishes_refused_total", "reason", "refused: {{reason}}"),
    ], { alerts: ["PenstockPublishRefused", "PenstockRedisLost"] }),
    graph("Live events", "Published on the broadcast channel; sampled above ingest.broadcastRate.", "ops",
      [["sum(rate(penstock_ingest_broadcast_events_total{$S}[$I]))", "broadcast"]]),
  ]],
  ["The stream", [
    graph("Length", "Entries that some group has not acknowledged. At 80 % of the cap ingest stops reading.", "short",
      [["max by (namespace, pipeline) (penstock_ingest_stream_length{$S})", "{{namespace}}/{{pipeline}}"]],
      { limit: 400000, alerts: ["PenstockStreamFilling", "PenstockStreamFull"] }),
    graph("Trimmed", "Entries trimmed after every holding group acknowledged them; attempts that failed; what replaced workers let lie.", "ops", [
      ["sum(rate(penstock_ingest_trimmed_entries_total{$S}[$I]))", "trimmed"],
      ["sum(rate(penstock_ingest_trim_failures_total{$S}[$I]))", "failures"],
      ["sum(rate(penstock_ingest_requeued_entries_total{$S}[$I]))", "put back at the tail"],
      ["sum(rate(penstock_ingest_pending_lost_total{$S}[$I]))", "lost before they were read"],
    ]),
    graph("Consumer groups", "Groups that hold the stream, and those left out.", "none", [
      ["max(penstock_ingest_holding_groups{$S})", "holding"],
      ["max(penstock_ingest_left_out_groups{$S})", "left out"],
    ], { alerts: ["PenstockGroupLeftOut"] }),
  ]],
  ["What it costs", costs("penstock_ingest_connected")],
];

const workers = [
  ["Now", [
    stat("Workers", "Workers that answer.", "none", "count(penstock_worker_entries_in_flight{$S})", { alerts: ["PenstockWorkersAbsent"] }),
    stat("Entries", "Acknowledged a second.", "ops", "sum(rate(penstock_worker_entries_acked_total{$S}[5m]))", { alerts: ["PenstockStalled"] }),
    stat("Not read", "Entries that no worker has read.", "short", "max(penstock_worker_group_lag{$S})",
      { thresholds: [[50000, "look"], [250000, "bad"]], alerts: ["PenstockBacklogGrowing"] }),
    stat("Pending", "Entries read and not acknowledged, of all workers, dead ones too.", "short", "max(penstock_worker_group_pending{$S})"),
    stat("Time to drain", "What waits, by what was written in five minutes.", "s",
      "max(penstock_worker_group_lag{$S}) / sum(rate(penstock_worker_entries_acked_total{$S}[5m]))", { thresholds: [[120, "look"], [1800, "bad"]] }),
    stat("Busy", "Share of the time that workers spend in batches; near 100 %: more workers, or a faster database.", "percentunit",
      "sum(rate(penstock_worker_batch_duration_seconds_sum{$S}[5m])) / count(penstock_worker_entries_in_flight{$S})",
      { thresholds: [[0.9, "look"]] }),
    stat("Dead letters, 24 h", "Entries that failed for good.", "short", 'sum(increase(penstock_dead_letters_total{source="worker",$S}[24h]))',
      { thresholds: [[0.5, "look"]], decimals: 0, alerts: ["PenstockDeadLetters", "PenstockManyDeadLetters"] }),
    stat("Gone unread, 24 h", "Entries that left the stream before they were written.", "short", "sum(increase(penstock_worker_entries_deleted_total{$S}[24h]))",
      { thresholds: [[0.5, "bad"]], decimals: 0, alerts: ["PenstockEntriesDeleted"] }),
  ]],
  ["From the stream", [
    graph("Read", "By kind; others are entries that could not be decoded.", "ops", [rates("penstock_worker_entries_read_total", "kind")], { stacked: true }),
    graph("What waits", "Unread, and pending.", "short", [
      ["max by (namespace, pipeline) (penstock_worker_group_lag{$S})", "unread {{namespace}}/{{pipeline}}"],
      ["max by (namespace, pipeline) (penstock_worker_group_pending{$S})", "pending {{namespace}}/{{pipeline}}"],
    ], { alerts: ["PenstockBacklogGrowing"] }),
    graph("Stream to PostgreSQL", "How long the newest entry took from the stream into PostgreSQL.", "s",
      [["penstock_worker_lag_seconds{$S}", "{{pod}}"]], { limit: 120, alerts: ["PenstockRowsLate"] }),
    graph("In flight", "Entries that each worker holds.", "short", [["penstock_worker_entries_in_flight{$S}", "{{pod}}"]]),
    graph("Acknowledged by worker", "A worker that falls behind the others lies on a slow node, or holds a hot repo.", "ops",
      [["sum by (pod) (rate(penstock_worker_entries_acked_total{$S}[$I]))", "{{pod}}"]], { stacked: true, alerts: ["PenstockStalled"] }),
    graph("Taken over", "Entries of consumers that let them lie: dead workers.", "short",
      [["sum by (pod) (increase(penstock_worker_entries_claimed_total{$S}[$I]))", "{{pod}}"]], { alerts: ["PenstockRestarting"] }),
    graph("Workers", "Workers that answer.", "none", [["count by (namespace, pipeline) (penstock_worker_entries_in_flight{$S})", "{{namespace}}/{{pipeline}}"]],
      { alerts: ["PenstockWorkersFlapping", "PenstockWorkersAbsent"] }),
    graph("Messages", "Of the message buffer, where it is enabled.", "ops", [["sum(rate(penstock_worker_messages_written_total{$S}[$I]))", "written"]]),
  ]],
  ["Into PostgreSQL: where is the time going?", [
    percentiles("Batch to acknowledgement", "From a batch being full to its acknowledgement, with retries.", "s", "penstock_worker_batch_duration_seconds"),
    percentiles("Transaction", "One transaction, commit included.", "s", "penstock_worker_transaction_duration_seconds", { alerts: ["PenstockDatabaseRefusing"] }),
    graph("Share of a batch", "What part of a batch's time is its transaction; the rest is Redis, retries and waiting.", "percentunit", [
      ["sum(rate(penstock_worker_transaction_duration_seconds_sum{$S}[$I])) / sum(rate(penstock_worker_batch_duration_seconds_sum{$S}[$I]))", "in the transaction"],
    ]),
    heatmap("Transactions, spread", "How many took how long.", "s", "penstock_worker_transaction_duration_seconds"),
    percentiles("Entries in a batch", "Near worker.batchSize: workers are behind.", "short", "penstock_worker_batch_entries"),
    graph("Rows", "Inserted, updated or deleted, by table.", "ops", [rates("penstock_worker_rows_written_total", "table")], { stacked: true }),
  ]],
  ["What broke?", [
    graph("Tried again", "Transactions, by what PostgreSQL said. Deadlocks and races are nothing.", "short", [counts("penstock_worker_retries_total", "reason")],
      { alerts: ["PenstockDatabaseRefusing"] }),
    graph("Dead letters", "Entries that failed for good.", "short", [counts("penstock_dead_letters_total", "source")],
      { alerts: ["PenstockDeadLetters", "PenstockManyDeadLetters"] }),
    graph("Checkpoint behind the cursor", "Numbers that would be read once more, should Redis be lost.", "short",
      [["max by (namespace, pipeline) (penstock_ingest_cursor{$S}) - max by (namespace, pipeline) (penstock_worker_checkpoint{$S} > 0)", "{{namespace}}/{{pipeline}}"]],
      { alerts: ["PenstockRedisLost"] }),
  ]],
  ["What it costs", [
    ...costs("penstock_worker_entries_in_flight"),
    graph("Counts published", "Times the counts of rows went to Redis.", "ops", [["sum(rate(penstock_worker_counts_published_total{$S}[$I]))", "published"]]),
  ]],
];

const O = 'namespace=~"$namespace"';
const operator = [
  ["Now", [
    stat("Leader", "Operators that lead: one, always.", "none", `sum(penstock_operator_leader{${O}})`,
      { words: { 0: ["none", "bad"] }, alerts: ["PenstockOperatorNoLeader", "PenstockOperatorDown"] }),
    stat("Operators", "Operators that answer.", "none", `count(penstock_operator_leader{${O}})`, { alerts: ["PenstockOperatorDown"] }),
    stat("Pipelines", "All that it looks after.", "none", `sum(max by (phase) (penstock_operator_pipelines{${O}}))`),
    stat("Not ready", "Failed or degraded.", "none", `sum(max by (phase) (penstock_operator_pipelines{phase=~"failed|degraded",${O}}))`,
      { thresholds: [[1, "bad"]], alerts: ["PenstockPipelineNotReady"] }),
    stat("Lag unknown", "Pipelines of which it is not known what waits. Their workers are held.", "none", `max(penstock_operator_pipelines_lag_unknown{${O}})`,
      { thresholds: [[1, "look"]], alerts: ["PenstockLagUnknown"] }),
    stat("Workers wanted", "Of all pipelines together.", "none", `max(penstock_operator_workers_desired{${O}})`),
    stat("Workers ready", "Of all pipelines together.", "none", `max(penstock_operator_workers_ready{${O}})`),
    stat("Furthest behind", "Event time against now.", "s", `max(penstock_operator_ingest_lag_seconds{${O}})`,
      { thresholds: [[60, "look"], [300, "bad"]], alerts: ["PenstockIngestLagging"] }),
  ]],
  ["How many workers, and why?", [
    graph("Workers", "Wanted and ready, of all pipelines together.", "none", [
      [`max(penstock_operator_workers_desired{${O}})`, "wanted"],
      [`max(penstock_operator_workers_ready{${O}})`, "ready"],
    ], { alerts: ["PenstockWorkersFlapping"] }),
    graph("Backlog", "Entries that wait for a worker, of all pipelines together, as far as known.", "short",
      [[`max(penstock_operator_backlog_entries{${O}})`, "waiting"]], { alerts: ["PenstockBacklogGrowing"] }),
    graph("Decisions", "By reason; docs/autoscaling.md says what each means and what to do.", "short",
      [[`sum by (reason) (increase(penstock_operator_decisions_total{${O}}[$I]))`, "{{reason}}"]], { stacked: true }),
    graph("Workers by pipeline", "As their own metrics show them, of every namespace.", "none",
      [['count by (namespace, pipeline) (penstock_worker_entries_in_flight)', "{{namespace}}/{{pipeline}}"]], { alerts: ["PenstockWorkersFlapping"] }),
    graph("Changes of the number", "Each is a write to a Deployment's scale.", "short", [[`sum(increase(penstock_operator_scale_patches_total{${O}}[$I]))`, "changes"]],
      { alerts: ["PenstockWorkersFlapping"] }),
    percentiles("One look", "Time to see a pipeline's Redis and workers, decide, and carry it out.", "s", "penstock_operator_scaling_duration_seconds", { select: O }),
  ]],
  ["Carrying pipelines out", [
    graph("Pipelines", "By phase.", "none", [[`max by (phase) (penstock_operator_pipelines{${O}})`, "{{phase}}"]],
      { stacked: true, alerts: ["PenstockPipelineNotReady"] }),
    percentiles("One reconcile", "Time to carry out a pipeline.", "s", "penstock_operator_reconcile_duration_seconds", { select: O }),
    graph("Failures", "Reconciles that did not come to their end, by reason.", "short",
      [[`sum by (reason) (increase(penstock_operator_reconcile_errors_total{${O}}[$I]))`, "{{reason}}"]], { alerts: ["PenstockReconcileFailing"] }),
    graph("Written", "Children applied and deleted, statuses written.", "short", [
      [`sum(increase(penstock_operator_children_applied_total{${O}}[$I]))`, "applied"],
      [`sum(increase(penstock_operator_children_deleted_total{${O}}[$I]))`, "deleted"],
      [`sum(increase(penstock_operator_status_writes_total{${O}}[$I]))`, "statuses"],
    ]),
    graph("Leader", "Which process leads.", "none", [[`penstock_operator_leader{${O}}`, "{{pod}}"]], { alerts: ["PenstockOperatorNoLeader"] }),
  ]],
  ["What it costs", costs("penstock_operator_leader", O)],
];

const service = [
  ["Now", [
    stat("Dashboards", "Processes that answer.", "none", "count(penstock_dashboard_sse_clients{$S})", { width: 4, alerts: ["PenstockDashboardAbsent"] }),
    stat("Requests", "A second, of all routes.", "reqps", "sum(rate(penstock_dashboard_http_requests_total{$S}[5m]))", { width: 4 }),
    stat("Event streams", "Clients of /api/events/stream.", "none", "sum(penstock_dashboard_sse_clients{$S})", { width: 4, thresholds: [[10000, "look"]] }),
    stat("Statistics sockets", "Clients of /ws/stats.", "none", "sum(penstock_dashboard_websocket_clients{$S})", { width: 4, thresholds: [[10000, "look"]] }),
    stat("Events handed out", "A second, one for each client.", "ops", "sum(rate(penstock_dashboard_events_fanned_out_total{$S}[5m]))", { width: 4 }),
    stat("Clients cut, 1 h", "They did not keep up: slow networks, or a dashboard that lacks CPU.", "short",
      "sum(increase(penstock_dashboard_slow_clients_cut_total{$S}[1h]))", { width: 4, decimals: 0, thresholds: [[100, "look"]] }),
  ]],
  ["Requests and clients", [
    graph("Requests", "By route.", "reqps", [rates("penstock_dashboard_http_requests_total", "route")], { stacked: true }),
    graph("Live clients", "By process and kind.", "none", [
      ["penstock_dashboard_sse_clients{$S}", "events {{pod}}"],
      ["penstock_dashboard_websocket_clients{$S}", "statistics {{pod}}"],
    ]),
    graph("Clients cut", "Because they did not keep up.", "short", [["sum by (pod) (increase(penstock_dashboard_slow_clients_cut_total{$S}[$I]))", "{{pod}}"]]),
    graph("Events handed out", "One for each client.", "ops", [["sum by (pod) (rate(penstock_dashboard_events_fanned_out_total{$S}[$I]))", "{{pod}}"]]),
    graph("What there is to hand out", "Live events that ingest broadcasts.", "ops", [["sum(rate(penstock_ingest_broadcast_events_total{$S}[$I]))", "broadcast"]]),
    graph("Memory for each client", "Resident memory by live clients: at most about 40 kB beyond what an idle process takes.", "bytes", [
      ["(process_resident_memory_bytes{$S} and on (job, instance) penstock_dashboard_sse_clients{$S}) / on (job, instance) (penstock_dashboard_sse_clients{$S} > 100)", "{{instance}}"],
    ]),
  ]],
  ["What it costs", costs("penstock_dashboard_sse_clients")],
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
  { name: "datasource", label: "Prometheus", type: "datasource", query: "prometheus", current: {} },
  variable("namespace", "Namespace", `label_values({__name__=~"${metrics}"}, namespace)`),
  ...(hasPipelines ? [variable("pipeline", "Pipeline", `label_values({__name__=~"${metrics}",namespace=~"$namespace"}, pipeline)`)] : []),
];

const dashboard = (name, title, description, rows, metrics = ALL_PARTS, hasPipelines = true) => ({
  uid: `penstock-${name}`,
  title: `Penstock / ${title}`,
  description,
  tags: ["penstock"],
  schemaVersion: 39,
  editable: true,
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

const dashboards = {
  overview: dashboard("overview", "Overview", "Is it keeping up, where is the time going, what broke, what do I do.", overview),
  ingest: dashboard("ingest", "Ingest", "From the relay's socket into the stream.", ingest, "penstock_ingest_connected"),
  workers: dashboard("workers", "Workers", "From the stream into PostgreSQL.", workers, "penstock_worker_entries_in_flight"),
  operator: dashboard("operator", "Operator and autoscaler", "How many workers there are and why, and how pipelines are carried out.", operator, "penstock_operator_leader", false),
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
