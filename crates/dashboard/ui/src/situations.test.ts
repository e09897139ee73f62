// What the page says in each situation: headline, stages and tab. A new situation is a new line here.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Flow, Ingest, Metrics, Ready } from "./api";
import { STAGES, stages } from "./stages";
import { type Known, type Tone, behind, title, verdict } from "./verdict";

const FLOW: Flow = {
  waiting: 120, waitingExact: true, quietSeconds: 0.1, stalledSeconds: 0, incomingPerSecond: 501, writtenPerSecond: 498, drainSeconds: 0, streamFullSeconds: null,
  streamCap: 400_000, workersAlive: 3, database: "writing",
};
const METRICS: Metrics = {
  eventsProcessed: 48_000, dbRecords: 41_000, apiRequestsPerMinute: 0,
  stats: { totalUsers: 0, totalPosts: 0, totalLikes: 0, totalReposts: 0, totalFollows: 0, totalBlocks: 0 },
  eventCounts: { "#commit": 47_000, "#identity": 600, "#account": 400 },
  systemHealth: { cpu: 0, memory: 0, disk: 0, network: "" },
  firehoseStatus: { connected: true, url: "wss://relay.test", currentCursor: "9", queueDepth: 100, streamLength: 900, deadLetterLength: 0 },
  errorRate: 0, rowsAgeSeconds: 0.8, flow: FLOW, lastUpdate: "2026-07-04T14:00:00Z",
};
const INGEST: Ingest = { eventTime: "2026-07-04T14:00:00Z", lagSeconds: 0.8, paused: false, gaps: 0, resets: 0, dataLoss: 0 };
const READY: Ready = { status: "ready", checks: { firehose: "connected", database: "healthy", memory: "ok" } };
const GOOD: Known = { link: "open", ageSeconds: 1, stale: false, problem: "", metrics: METRICS, ingest: INGEST, ready: READY };
const UNFIT: Ready = { status: "not ready", checks: { ...READY.checks, database: "unhealthy" } };

/** The metrics with these differences. */
const flow = (over: Partial<Flow>, age: number | null = 0.8, more: Partial<Metrics> = {}): Metrics => ({ ...METRICS, rowsAgeSeconds: age, flow: { ...FLOW, ...over }, ...more });
const relay = (over: Partial<Metrics["firehoseStatus"]>): Metrics["firehoseStatus"] => ({ ...METRICS.firehoseStatus, ...over });
const NOTHING: Partial<Flow> = { incomingPerSecond: 0, writtenPerSecond: 0 };
const NO_INGEST = relay({ connected: false, url: "" });
const NO_RELAY = relay({ connected: false });

interface Situation {
  name: string;
  known: Partial<Known>;
  tone: Tone;
  headline: string;
  why: RegExp;
  /** Relay, ingest, stream, workers, PostgreSQL. */
  stages: readonly [string, string, string, string, string];
  title: string;
}

const UNKNOWN = ["Unknown", "Unknown", "Unknown", "Unknown", "Unknown"] as const;
const WELL = ["Connected", "Reading", "Steady", "Writing", "Current"] as const;

const SITUATIONS: readonly Situation[] = [
  // Before anything is known.
  { name: "the page was just opened", known: { link: "connecting", ageSeconds: null, metrics: null }, tone: "unknown", headline: "Connecting", why: /first metrics/, stages: UNKNOWN, title: "? Connecting · Penstock" },
  { name: "a token is set", known: { link: "refused", metrics: null, ageSeconds: null, problem: "set the token" }, tone: "warn", headline: "Sign in to see metrics", why: /^set the token$/, stages: UNKNOWN, title: "▲ Sign in to see metrics · Penstock" },
  { name: "a token is set while metrics are there", known: { link: "refused" }, tone: "warn", headline: "Sign in to see metrics", why: /token/, stages: UNKNOWN, title: "▲ Sign in to see metrics · Penstock" },
  { name: "opened while Redis is away", known: { ageSeconds: null, metrics: null, problem: "redis does not answer" }, tone: "bad", headline: "Redis not responding", why: /^Redis does not answer\.$/, stages: UNKNOWN, title: "■ Redis not responding · Penstock" },
  { name: "opened while the dashboard is away", known: { link: "lost", ageSeconds: null, metrics: null }, tone: "bad", headline: "No metrics yet", why: /not responding/, stages: UNKNOWN, title: "■ No metrics yet · Penstock" },
  {
    name: "first start: ingest runs, nothing has come", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: null, database: "reachable" }, null, { eventsProcessed: 0, firehoseStatus: relay({ streamLength: 0 }) }) },
    tone: "idle", headline: "Waiting for the first events", why: /Nothing has arrived/, stages: ["Connected", "Reading", "Empty", "Idle", "Reachable"], title: "Waiting for the first events · Penstock",
  },
  {
    name: "first start: nothing runs but the dashboard", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: null, workersAlive: 0, database: "reachable" }, null, { eventsProcessed: 0, firehoseStatus: relay({ streamLength: 0, connected: false, url: "" }) }) },
    tone: "bad", headline: "No workers running", why: /Nothing waits yet.*Also: no ingest running\./, stages: ["Unknown", "Not running", "Empty", "None running", "Reachable"], title: "■ No workers running · Penstock",
  },
  // All is well.
  { name: "all is well", known: {}, tone: "good", headline: "Current: rows 0.8 s behind", why: /^498 events written per second, 501 events incoming\.$/, stages: WELL, title: "Current · Penstock" },
  { name: "all is well, with dead letters", known: { metrics: flow({}, 0.8, { firehoseStatus: relay({ deadLetterLength: 2 }) }) }, tone: "good", headline: "Current: rows 0.8 s behind", why: /2 dead letters need attention\.$/, stages: WELL, title: "Current · Penstock" },
  {
    name: "a relay that has nothing to send", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: 40, database: "reachable" }, 40.8) },
    tone: "idle", headline: "Quiet", why: /No events for 40 s; all earlier ones are in PostgreSQL/, stages: ["Connected", "Reading", "All written", "Idle", "Reachable"], title: "Quiet · Penstock",
  },
  {
    name: "a quiet relay, and no database to ask", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: 40, database: "unknown" }, 40.8) },
    tone: "idle", headline: "Quiet", why: /No events/, stages: ["Connected", "Reading", "All written", "Idle", "Unknown"], title: "Quiet · Penstock",
  },
  // The relay.
  {
    name: "the relay is gone", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: 12, database: "reachable" }, 13, { firehoseStatus: NO_RELAY }) },
    tone: "bad", headline: "Relay not connected", why: /retrying relay\.test\. All events received so far are in PostgreSQL/, stages: ["Not connected", "Retrying", "All written", "Idle", "Reachable"], title: "■ Relay not connected · Penstock",
  },
  {
    name: "the relay is frozen: its socket is open", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: 25, database: "reachable" }, 25.8) },
    tone: "idle", headline: "Quiet", why: /No events for 25 s/, stages: ["Connected", "Reading", "All written", "Idle", "Reachable"], title: "Quiet · Penstock",
  },
  {
    name: "the relay is back, with what it kept", known: { metrics: flow({ waiting: 0, incomingPerSecond: 4_000, writtenPerSecond: 4_000 }, 300) },
    tone: "warn", headline: "Catching up: rows 5 min behind", why: /the relay is sending older events/, stages: ["Connected", "Reading", "All written", "Writing", "Behind"], title: "▲ Catching up · Penstock",
  },
  // Ingest.
  {
    name: "no ingest, nothing waits", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: 14, database: "reachable" }, 15, { firehoseStatus: NO_INGEST }) },
    tone: "bad", headline: "No ingest running", why: /No new events arrive/, stages: ["Unknown", "Not running", "All written", "Idle", "Reachable"], title: "■ No ingest running · Penstock",
  },
  {
    name: "the stream is full", known: { ingest: { ...INGEST, paused: true }, metrics: flow({ waiting: 400_000, incomingPerSecond: 0, drainSeconds: 800 }, 900) },
    tone: "warn", headline: "Ingest is paused, rows 15 min behind", why: /stream is full.*400,000 entries not in PostgreSQL/, stages: ["Connected", "Paused", "Full", "Writing", "Behind"], title: "▲ Ingest is paused · Penstock",
  },
  // Workers.
  {
    name: "all workers are gone, a moment ago", known: { metrics: flow({ workersAlive: 0, writtenPerSecond: 300, drainSeconds: null, waiting: 1_500 }, 3.2) },
    tone: "bad", headline: "No workers running", why: /^1,500 entries not in PostgreSQL yet, the oldest 3\.2 s old\.$/, stages: ["Connected", "Reading", "Waiting", "None running", "Not written"], title: "■ No workers running · Penstock",
  },
  {
    name: "all workers are gone, and so is what they would write", known: { metrics: flow({ ...NOTHING, workersAlive: 0, waiting: 0, quietSeconds: 8, database: "reachable" }) },
    tone: "bad", headline: "No workers running", why: /Nothing waits yet/, stages: ["Connected", "Reading", "All written", "None running", "Reachable"], title: "■ No workers running · Penstock",
  },
  {
    name: "all workers are gone for minutes", known: { metrics: flow({ workersAlive: 0, writtenPerSecond: 0, drainSeconds: null, waiting: 54_456, stalledSeconds: 200, streamFullSeconds: 1_100, database: "reachable" }, 200, { firehoseStatus: relay({ streamLength: 54_456 }) }) },
    tone: "bad", headline: "No workers running", why: /^54,456 entries not in PostgreSQL yet, the oldest 3 min old\.$/, stages: ["Connected", "Reading", "Filling", "None running", "Not written"], title: "■ No workers running · Penstock",
  },
  {
    name: "PostgreSQL answers, and writes nothing", known: { metrics: flow({ writtenPerSecond: 0, drainSeconds: null, waiting: 12_000, stalledSeconds: 24, database: "reachable" }, 24.5) },
    tone: "bad", headline: "Workers stalled", why: /Nothing written for 24 s\. 12,000 entries/, stages: ["Connected", "Reading", "Waiting", "Stalled", "Not written"], title: "■ Workers stalled · Penstock",
  },
  {
    name: "one of three workers is gone: what it held waits", known: { metrics: flow({ workersAlive: 2, waiting: 420 }, 34) },
    tone: "warn", headline: "Rows 34 s behind", why: /420 entries not in PostgreSQL yet, the oldest 34 s old\./, stages: ["Connected", "Reading", "Waiting", "Writing", "Behind"], title: "▲ Rows behind · Penstock",
  },
  {
    name: "290 a second more than is written, for half a minute", known: { metrics: flow({ incomingPerSecond: 790, writtenPerSecond: 500, drainSeconds: null, streamFullSeconds: 1_350, waiting: 8_700 }, 9.4, { firehoseStatus: relay({ streamLength: 8_900 }) }) },
    tone: "warn", headline: "Backlog growing, rows 9.4 s behind", why: /8,700 entries.*full in about 23 min\..*790 events incoming/, stages: ["Connected", "Reading", "Filling", "Writing", "Current"], title: "▲ Backlog growing · Penstock",
  },
  {
    name: "54,456 entries wait and become more", known: { metrics: flow({ incomingPerSecond: 790, writtenPerSecond: 500, drainSeconds: null, streamFullSeconds: 1_190, waiting: 54_456 }, 200, { firehoseStatus: relay({ streamLength: 54_600 }) }) },
    tone: "bad", headline: "Rows 3 min behind", why: /54,456 entries.*790 events incoming\. The stream is full in about 20 min/, stages: ["Connected", "Reading", "Filling", "Writing", "Behind"], title: "■ Rows behind · Penstock",
  },
  {
    name: "catching up", known: { metrics: flow({ incomingPerSecond: 500, writtenPerSecond: 1_500, drainSeconds: 54, waiting: 54_456 }, 200) },
    tone: "warn", headline: "Catching up: rows 3 min behind", why: /Caught up in about 54 s/, stages: ["Connected", "Reading", "Draining", "Writing", "Behind"], title: "▲ Catching up · Penstock",
  },
  {
    name: "another group holds the stream", known: { metrics: flow({ streamFullSeconds: 3_900 }, 0.8, { firehoseStatus: relay({ streamLength: 60_000 }) }) },
    tone: "warn", headline: "Backlog growing, rows 0.8 s behind", why: /another consumer group holds the stream.*full in about 65 min/, stages: ["Connected", "Reading", "Filling", "Writing", "Current"], title: "▲ Backlog growing · Penstock",
  },
  // PostgreSQL.
  {
    name: "PostgreSQL is gone, and workers wrote some seconds ago", known: { metrics: flow({ database: "unreachable", writtenPerSecond: 200, drainSeconds: null, waiting: 1_800 }, 4), ready: UNFIT },
    tone: "bad", headline: "PostgreSQL not responding", why: /1,800 entries.*written once it is back/, stages: ["Connected", "Reading", "Waiting", "Retrying", "No answer"], title: "■ PostgreSQL not responding · Penstock",
  },
  {
    name: "PostgreSQL is gone for long", known: { metrics: flow({ database: "unreachable", writtenPerSecond: 0, drainSeconds: null, waiting: 30_000, stalledSeconds: 60 }, 61), ready: UNFIT },
    tone: "bad", headline: "PostgreSQL not responding", why: /Also: workers stalled\./, stages: ["Connected", "Reading", "Waiting", "Stalled", "No answer"], title: "■ PostgreSQL not responding · Penstock",
  },
  {
    name: "PostgreSQL is gone, nothing waits", known: { metrics: flow({ ...NOTHING, database: "unreachable", waiting: 0, quietSeconds: 20 }, 21), ready: UNFIT },
    tone: "bad", headline: "PostgreSQL not responding", why: /^Nothing waits yet/, stages: ["Connected", "Reading", "All written", "Retrying", "No answer"], title: "■ PostgreSQL not responding · Penstock",
  },
  {
    name: "only the way from the dashboard to PostgreSQL is cut", known: { ready: UNFIT },
    tone: "good", headline: "Current: rows 0.8 s behind", why: /498 events written/, stages: WELL, title: "Current · Penstock",
  },
  {
    name: "PostgreSQL is slow", known: { metrics: flow({ writtenPerSecond: 40, drainSeconds: null, waiting: 6_000 }, 14, { firehoseStatus: relay({ streamLength: 6_100 }) }) },
    tone: "warn", headline: "Rows 14 s behind", why: /40 events written per second, 501 events incoming/, stages: ["Connected", "Reading", "Waiting", "Writing", "Behind"], title: "▲ Rows behind · Penstock",
  },
  {
    name: "PostgreSQL is back", known: { metrics: flow({ incomingPerSecond: 500, writtenPerSecond: 2_000, drainSeconds: 20, waiting: 30_000 }, 61) },
    tone: "warn", headline: "Catching up: rows 61 s behind", why: /Caught up in about 20 s/, stages: ["Connected", "Reading", "Draining", "Writing", "Behind"], title: "▲ Catching up · Penstock",
  },
  // Redis, and the dashboard itself.
  {
    name: "Redis is gone", known: { stale: true, ageSeconds: 8, problem: "redis does not answer, so the state of the pipeline is unknown" },
    tone: "bad", headline: "Redis not responding", why: /^Last update 8 s ago\. Nothing is written/, stages: UNKNOWN, title: "■ Redis not responding · Penstock",
  },
  { name: "no metrics come, nobody says why", known: { stale: true, ageSeconds: 8 }, tone: "bad", headline: "Stale: last update 8 s ago", why: /sends no metrics/, stages: UNKNOWN, title: "■ Stale · Penstock" },
  { name: "the dashboard is gone", known: { stale: true, ageSeconds: 40, link: "lost" }, tone: "bad", headline: "Stale: last update 40 s ago", why: /not responding/, stages: UNKNOWN, title: "■ Stale · Penstock" },
  {
    name: "Redis is back: the first look says little", known: { metrics: flow({ incomingPerSecond: null, writtenPerSecond: null, drainSeconds: null, waiting: 9_000, database: "reachable" }, 35) },
    tone: "warn", headline: "Rows 35 s behind", why: /9,000 entries/, stages: ["Connected", "Reading", "Waiting", "Not writing", "Not written"], title: "▲ Rows behind · Penstock",
  },
  {
    name: "Redis is back, and has forgotten how much waits", known: { metrics: flow({ waiting: 206, waitingExact: false, incomingPerSecond: 100, writtenPerSecond: 0, drainSeconds: null, database: "reachable" }, 35) },
    tone: "warn", headline: "Rows 35 s behind", why: /^At least 206 entries not in PostgreSQL yet/, stages: ["Connected", "Reading", "Waiting", "Not writing", "Not written"], title: "▲ Rows behind · Penstock",
  },
  {
    name: "Redis was emptied", known: { metrics: flow({ ...NOTHING, waiting: 0, quietSeconds: null, drainSeconds: 0, database: "reachable" }, null) },
    tone: "unknown", headline: "Age of rows unknown", why: /has not reported/, stages: ["Connected", "Reading", "All written", "Idle", "Reachable"], title: "? Age of rows unknown · Penstock",
  },
  {
    name: "something else stands in the place of the streams", known: { metrics: flow({ waiting: null, quietSeconds: null, incomingPerSecond: null, writtenPerSecond: null, drainSeconds: null, workersAlive: null, database: "unknown" }, null) },
    tone: "unknown", headline: "Age of rows unknown", why: /has not reported/, stages: ["Connected", "Reading", "Unknown", "Unknown", "Unknown"], title: "? Age of rows unknown · Penstock",
  },
  // What fails for good.
  {
    name: "many entries fail", known: { metrics: flow({}, 0.8, { errorRate: 3.21, firehoseStatus: relay({ deadLetterLength: 1 }) }) },
    tone: "warn", headline: "Many entries failing", why: /3\.21% of all entries failed permanently\. 1 dead letter needs attention/, stages: WELL, title: "▲ Many entries failing · Penstock",
  },
];

for (const { name, known, ...expected } of SITUATIONS) {
  test(`situation: ${name}`, () => {
    const all = { ...GOOD, ...known };
    const said = verdict(all);
    const words = stages(all);
    assert.deepEqual(
      { tone: said.tone, headline: said.headline, stages: STAGES.map((stage) => words[stage].word), title: title(said) },
      { tone: expected.tone, headline: expected.headline, stages: expected.stages, title: expected.title },
    );
    assert.match(said.why, expected.why);
  });
}

test("green is only what is known to be current", () => {
  // Every figure that may be unknown, and every fault, takes the green away.
  const spoilt: Partial<Known>[] = [
    { stale: true, ageSeconds: 9 }, { link: "refused" }, { metrics: null }, { ingest: { ...INGEST, paused: true } },
    ...[null, 10.1, 200].map((age) => ({ metrics: flow({}, age) })),
    ...([{ workersAlive: 0 }, { stalledSeconds: 20 }, { database: "unreachable" }] as const).map((over) => ({ metrics: flow(over) })),
    ...[NO_RELAY, NO_INGEST].map((firehoseStatus) => ({ metrics: flow({}, 0.8, { firehoseStatus }) })),
  ];
  for (const over of spoilt) assert.notEqual(verdict({ ...GOOD, ...over }).tone, "good", JSON.stringify(over));
  assert.equal(verdict(GOOD).tone, "good");
});

test("no stage is green where nothing is known of it", () => {
  const nothing = { waiting: null, waitingExact: false, quietSeconds: null, stalledSeconds: 0, incomingPerSecond: null, writtenPerSecond: null, drainSeconds: null, streamFullSeconds: null, streamCap: 0, workersAlive: null, database: "unknown" } as const;
  const states = stages({ ...GOOD, metrics: { ...METRICS, rowsAgeSeconds: null, flow: nothing } });
  assert.deepEqual([states.stream.tone, states.workers.tone, states.postgres.tone], ["unknown", "unknown", "unknown"]);
});

test("time in which the relay had nothing to send is not counted as being behind", () => {
  assert.equal(behind(flow({ waiting: 0, quietSeconds: 40 }, 40.8))?.toFixed(1), "0.8");
  assert.equal(behind(flow({ waiting: 1, quietSeconds: 40 }, 40.8)), 40.8);
  assert.equal(behind(flow({ waiting: 0, quietSeconds: 40 }, null)), null);
});
