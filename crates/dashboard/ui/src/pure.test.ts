import assert from "node:assert/strict";
import { test } from "node:test";
import type { Metrics } from "./api";
import { said } from "./api";
import { ALL, type LiveEvent, isOpen, matches, newest } from "./filter";
import { pieces } from "./bidi";
import { NONE, age, ceiling, clock, clockWithZone, count, distinct, duration, full, host, minute, moment, nearest, offset, percent, rate, several } from "./format";
import { Rates, extent } from "./rates";
import { Parser, backoff } from "./sse";
import { staleAfter } from "./verdict";

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
    rowsAgeSeconds: 0.8,
    flow: { waiting: 0, waitingExact: true, quietSeconds: 0, stalledSeconds: 0, incomingPerSecond: null, writtenPerSecond: null, drainSeconds: 0, streamFullSeconds: null, streamCap: 400_000, workersAlive: 1, database: "writing" },
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

test("an address says where, without what is secret in it", () => {
  assert.equal(host("wss://user:secret@relay.test:443/xrpc"), "relay.test:443");
  assert.equal(host(""), "");
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

test("the time before the page was opened is filled with what the server knows", () => {
  const history = [null, 10, 20].map((commit, at) => ({ timestamp: START + (at - 3) * 60_000, seconds: 60, incoming: commit, commit, identity: 0, account: 0 }));
  // Its end is later than the first figures of the page.
  history.push({ timestamp: START, seconds: 60, incoming: 7, commit: 7, identity: 0, account: 0 });
  const rates = new Rates(600);
  rates.take(metrics(10, 100));
  rates.take(metrics(12, 200));
  rates.before(history);
  rates.before(history);
  assert.deepEqual(rates.points.map((point) => point.commit), [null, 10, 20, 50]);
});

test("what comes in has a rate of its own, also while nothing is applied", () => {
  const rates = new Rates(60);
  const seen = (at: number, added: number | null) => {
    const one = metrics(at, 100);
    return { ...one, flow: { ...one.flow, entriesAdded: added } };
  };
  for (const [at, added] of [[0, 10], [2, 30], [4, null], [6, 50], [8, 70], [10, 5]] as const) rates.take(seen(at, added));
  assert.deepEqual(rates.points.map((point) => [point.incoming, point.commit]), [[10, 0], [null, 0], [null, 0], [10, 0], [null, 0]]);
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

test("figures are stale after three intervals, and not before five seconds", () => {
  assert.deepEqual([0.05, 2, 10].map(staleAfter), [5, 6, 30]);
});

test("the zone is the one that was chosen, with a name or an offset", () => {
  assert.deepEqual([0, 60, 345, 570, -210, -600].map(offset), ["+00:00", "+01:00", "+05:45", "+09:30", "−03:30", "−10:00"]);
  const at = Date.parse("2026-07-04T23:59:58Z");
  assert.deepEqual([clock(at), minute(at), clockWithZone(at), moment(at)], ["23:59:58", "23:59", "23:59:58 UTC", "4 Jul 2026, 23:59:58 UTC"]);
  assert.deepEqual([clock(START - 14 * 3_600_000), clock(Number.NaN), moment(Number.NaN)], ["00:00:00", NONE, NONE]);
});

test("a time of day belongs to the day that makes it nearest to now", () => {
  const day = (text: string, now: string) => new Date(nearest(text, Date.parse(now))).toISOString().slice(0, 19);
  assert.equal(day("14:03:22", "2026-07-04T14:03:24Z"), "2026-07-04T14:03:22");
  assert.equal(day("23:59:58", "2026-07-05T00:00:01Z"), "2026-07-04T23:59:58");
  // The relay's clock is ahead.
  assert.equal(day("00:00:01", "2026-07-04T23:59:59Z"), "2026-07-05T00:00:01");
  assert.deepEqual(["", "soon", "1:2:3"].map((text) => nearest(text, START)), [Number.NaN, Number.NaN, Number.NaN]);
});

test("JSON is cut at the strings that may run from right to left, and only there", () => {
  assert.deepEqual(pieces('{"a": "שלום", "b": "x\\"é"}'), ['{"a": ', '"שלום"', ', "b": ', '"x\\"é"', "}"]);
  assert.deepEqual(pieces('{"a": "b"}'), ['{"a": "b"}']);
  assert.deepEqual(pieces('"\\\\" "é'), ['"\\\\" ', '"é', ""]);
  assert.deepEqual(pieces(""), [""]);
});
