import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ingest, Metrics, Ready } from "./api";
import { said } from "./api";
import { ALL, type LiveEvent, isOpen, matches, newest } from "./filter";
import { NONE, age, ceiling, count, distinct, duration, entryTime, full, host, percent, rate, several } from "./format";
import { type Minute, Rates, extent, minutes } from "./rates";
import { Parser, backoff } from "./sse";
import { type Known, Stall, staleAfter, trend, verdict } from "./verdict";

const START = Date.parse("2026-07-04T14:00:00Z");

/** Totals as they are so many seconds after the start. */
function metrics(seconds: number, all: number, over: Partial<Metrics["firehoseStatus"]> = {}): Metrics {
  return {
    eventsProcessed: all, dbRecords: 0, apiRequestsPerMinute: 0,
    stats: { totalUsers: 0, totalPosts: 0, totalLikes: 0, totalReposts: 0, totalFollows: 0, totalBlocks: 0 },
    eventCounts: { "#commit": all - 2, "#identity": 1, "#account": 1 },
    systemHealth: { cpu: 0, memory: 0, disk: 0, network: "" },
    firehoseStatus: { connected: true, url: "wss://relay.test", currentCursor: "9", queueDepth: 0, streamLength: 10, deadLetterLength: 0, ...over },
    errorRate: 0,
    lastUpdate: new Date(START + seconds * 1000).toISOString(),
  };
}

test("numbers are short for people and whole in a title", () => {
  assert.deepEqual([0, 999, 1_000, 9_999_999, 12_345_678, 3_456_789_012].map((n) => count(n)), ["0", "999", "1,000", "9,999,999", "12.35M", "3.46B"]);
  assert.equal(count(12_345_678, 1e8), "12,345,678");
  assert.equal(full(3_456_789_012), "3,456,789,012");
  assert.deepEqual([several(1, "gap"), several(0, "gap"), several(2, "loss", "losses")], ["1 gap", "0 gaps", "2 losses"]);
});

test("a rate or share that is not nothing is never shown as nothing", () => {
  assert.deepEqual([0, 0.01, 0.5, 9.94, 9.96, 1_234.5].map(rate), ["0", "< 0.1", "0.5", "9.9", "10", "1,235"]);
  assert.deepEqual([0, 0.001, 0.17, 25, 200].map(percent), ["0%", "< 0.01%", "0.17%", "25%", "200%"]);
});

test("a duration has the units that say something", () => {
  assert.deepEqual([0, 0.84, 9.99, 40.4, 119, 120, 3_599, 7_260, 200_000].map(duration), ["0.0 s", "0.8 s", "10 s", "40 s", "119 s", "2 min", "60 min", "2 h 01 min", "2 d 7 h"]);
  assert.deepEqual([0.9, 9.9, 40].map(age), ["0 s", "9 s", "40 s"]);
  assert.equal(duration(Infinity), NONE);
});

test("the top of an axis is round and never below the value", () => {
  assert.deepEqual([0, Number.NaN, 0.3, 1, 1.1, 2.4, 3, 498, 501].map(ceiling), [1, 1, 0.5, 1, 2, 2.5, 5, 500, 1_000]);
});

test("pods are told apart by their ends", () => {
  assert.deepEqual(distinct(["bluesky-worker-6c9-qx7lk", "bluesky-worker-6c9-w2mzn"]), ["…-qx7lk", "…-w2mzn"]);
  assert.deepEqual(distinct(["bluesky-worker-0"]), ["bluesky-worker-0"]);
  assert.deepEqual(distinct(["w-0", "w-1"]), ["w-0", "w-1"]);
  assert.deepEqual(distinct([]), []);
});

test("addresses and entry ids say where and when", () => {
  assert.equal(host("wss://user:secret@relay.test:443/xrpc"), "relay.test:443");
  assert.equal(host(""), "");
  assert.equal(entryTime("1795282142133-8"), 1_795_282_142_133);
  assert.equal(entryTime("seven"), null);
});

test("rates come from totals and the server's clock", () => {
  const rates = new Rates(60);
  assert.equal(rates.now("all"), null);
  rates.take(metrics(0, 100));
  assert.equal(rates.now("all"), null);
  rates.take(metrics(2, 300));
  assert.equal(rates.now("all"), 100);
  // The first frame of a new stream is the last look again.
  rates.take(metrics(2, 300));
  assert.equal(rates.points.length, 1);
  assert.deepEqual(extent(rates.points, "commit"), { peak: 100, last: 100 });
});

test("the rate of now forgets what is older than some seconds", () => {
  const rates = new Rates(60);
  for (let at = 0; at <= 30; at += 2) rates.take(metrics(at, at < 20 ? at * 100 : 2_000));
  assert.equal(rates.now("all"), 0);
});

test("a total that fell was reset, and leaves a gap instead of a negative rate", () => {
  const rates = new Rates(60);
  for (const [at, all] of [[0, 1_000], [2, 1_200], [4, 10], [6, 30]] as const) rates.take(metrics(at, all));
  assert.deepEqual(rates.points.map((point) => point.commit), [100, null, 10]);
  assert.equal(rates.now("all"), 10);
});

test("a hole in the figures is a hole in the curve", () => {
  const rates = new Rates(600);
  for (const [at, all] of [[0, 0], [2, 200], [60, 6_000], [62, 6_200]] as const) rates.take(metrics(at, all + 2));
  assert.deepEqual(rates.points.map((point) => point.commit), [100, null, 100, 100]);
});

test("points older than the window go", () => {
  const rates = new Rates(10);
  for (let at = 0; at <= 40; at += 2) rates.take(metrics(at, at * 10));
  assert.ok(rates.points.length <= 7, String(rates.points.length));
});

test("frames that come thick are joined", () => {
  const rates = new Rates(60);
  for (let at = 0; at <= 100; at += 1) rates.take(metrics(at / 20, at));
  assert.equal(rates.points.length, 5);
});

test("the time before the page was opened is filled with whole minutes", () => {
  const history: Minute[] = [0, 0, 600, 1_200, 60].map((commit, at) => ({ timestamp: START + (at - 4) * 60_000, commit, identity: 0, account: 0 }));
  assert.deepEqual(minutes(history).map((point) => point.commit), [10, 20]);
  const rates = new Rates(600);
  rates.take(metrics(10, 100));
  rates.take(metrics(12, 200));
  rates.before(history);
  rates.before(history);
  assert.deepEqual(rates.points.map((point) => point.commit), [10, 20, 50]);
});

const event = (over: Partial<LiveEvent>): LiveEvent => ({ type: "#commit", lexicon: "app.bsky.feed.like", did: "did:plc:abc", action: "create", timestamp: "14:00:00", ...over });

test("the filter knows kind, collection, DID and action", () => {
  assert.ok(isOpen(ALL) && isOpen({ ...ALL, did: "  " }) && !isOpen({ ...ALL, action: "create" }));
  const like = event({});
  for (const part of [ALL, { ...ALL, collection: "FEED.like" }, { ...ALL, collection: "app.bsky.feed.*" }, { ...ALL, did: " abc " }, { ...ALL, action: "create" }]) assert.ok(matches(part, like));
  for (const part of [{ ...ALL, without: new Set(["#commit"]) }, { ...ALL, collection: "post" }, { ...ALL, did: "xyz" }, { ...ALL, action: "delete" }]) assert.ok(!matches(part, like));
  assert.ok(matches({ ...ALL, action: "handle" }, event({ type: "#identity", action: "→ alice.test" })));
});

test("the newest that match come first, and no more than asked for", () => {
  const events = ["a", "b", "c", "d"].map((did, at) => event({ did, action: at % 2 ? "delete" : "create" }));
  assert.deepEqual(newest(events, ALL, 3).map((one) => one.did), ["d", "c", "b"]);
  assert.deepEqual(newest(events, { ...ALL, action: "create" }, 3).map((one) => one.did), ["c", "a"]);
});

test("a stream is read however it was cut", () => {
  const text = "retry: 250\r\n: keepalive\n\nid: 7\ndata: {\"a\":\ndata: 1}\n\ndata:two\r\n\r\nevent: x\nid: 8\n\n";
  for (let size = 1; size <= text.length; size += 1) {
    const parser = new Parser();
    const sent = [];
    for (let at = 0; at < text.length; at += size) sent.push(...parser.take(text.slice(at, at + size)));
    assert.deepEqual(sent, [{ data: '{"a":\n1}', id: "7" }, { data: "two", id: "7" }], `pieces of ${size}`);
    assert.deepEqual([parser.id, parser.retry], ["8", 250]);
  }
});

test("attempts come ever more seldom, within bounds", () => {
  assert.deepEqual([0, 1, 3, 10, 99].map((attempt) => backoff(attempt, 0)), [500, 1_000, 4_000, 15_000, 15_000]);
  assert.equal(backoff(0, 1), 250);
});

test("the server's own words are shown", () => {
  assert.equal(said({ title: "Forbidden", detail: "set dashboard.adminToken" }), "set dashboard.adminToken");
  assert.equal(said({ detail: [{ loc: ["body", "content"], msg: "must not be blank" }] }), "content: must not be blank");
  assert.deepEqual([said(null), said("x"), said({}), said({ title: "Not Found" })], [null, null, null, "Not Found"]);
});

const INGEST: Ingest = { eventTime: null, lagSeconds: 0.8, paused: false, gaps: 0, resets: 0, dataLoss: 0 };
const READY: Ready = { status: "ready", checks: { firehose: "connected", database: "healthy", memory: "ok" } };
const FLOWING: Known = { link: "open", ageSeconds: 1, stale: false, problem: "", metrics: metrics(0, 100), ingest: INGEST, ready: READY, workers: null, rate: 498.4, stalledSeconds: 0 };

test("the verdict says the worst that is true", () => {
  const of = (over: Partial<Known>) => verdict({ ...FLOWING, ...over });
  assert.deepEqual(of({}), { tone: "good", headline: "Flowing", why: "498 events a second, 0.8 s behind the relay." });
  assert.equal(of({ link: "connecting", ageSeconds: null, metrics: null }).headline, "Connecting");
  assert.equal(of({ link: "refused" }).headline, "Sign in to see the figures");
  assert.deepEqual(of({ stale: true, ageSeconds: 40, problem: "redis does not answer" }), { tone: "bad", headline: "Stale: last update 40 s ago", why: "Redis does not answer." });
  assert.match(of({ stale: true, ageSeconds: 40, link: "lost" }).why, /does not answer/);
  // Old figures are never called good, whatever they say.
  assert.equal(of({ stale: true, ageSeconds: 40 }).tone, "bad");
  assert.equal(of({ metrics: metrics(0, 1, { connected: false, url: "" }) }).headline, "Nobody ingests");
  assert.equal(of({ metrics: metrics(0, 1, { connected: false }) }).headline, "Relay not connected");
  assert.equal(of({ ready: { status: "not ready", checks: { ...READY.checks, database: "unhealthy" } } }).headline, "PostgreSQL does not answer");
  assert.equal(of({ stalledSeconds: 25, rate: 0 }).headline, "Workers apply nothing");
  assert.equal(of({ ingest: { ...INGEST, paused: true } }).tone, "warn");
  assert.equal(of({ ingest: { ...INGEST, lagSeconds: 240 } }).headline, "Behind by 4 min");
  assert.equal(of({ metrics: { ...metrics(0, 1), errorRate: 3 } }).headline, "Many entries fail");
  assert.equal(of({ rate: 0 }).tone, "idle");
});

test("figures are stale after three intervals, and not before five seconds", () => {
  assert.deepEqual([0.05, 2, 10].map(staleAfter), [5, 6, 30]);
});

test("stalled is only what waits and does not move", () => {
  const stall = new Stall();
  const look = (at: number, all: number, queueDepth: number, streamLength: number) => stall.look(metrics(at, all, { queueDepth, streamLength }), at);
  // Another group holds the stream: its length stays, nothing is pending.
  assert.deepEqual([look(0, 5, 0, 100), look(10, 5, 0, 100), look(20, 5, 0, 100)], [0, 0, 0]);
  // It grows, and nobody reads.
  assert.deepEqual([look(30, 5, 0, 200), look(40, 5, 0, 300)], [10, 20]);
  assert.equal(look(50, 6, 0, 300), 0);
  // Pending, and nobody acknowledges.
  assert.deepEqual([look(60, 6, 9, 300), look(90, 6, 9, 300)], [10, 40]);
});

test("a stream that breathes is level", () => {
  assert.equal(trend([]), "empty");
  assert.equal(trend([0, 300, 10, 280, 5, 290, 40]), "level");
  assert.equal(trend([1_000, 2_000, 3_000, 4_000, 5_000, 6_000]), "filling");
  assert.equal(trend([9_000, 8_000, 7_000, 3_000, 2_000, 1_000]), "draining");
  assert.equal(trend([400_000, 400_500, 401_000, 401_500, 402_000, 402_500]), "level");
  assert.equal(trend([5, 4, 0]), "empty");
});
