// What a page shows of a time in which nobody saw it.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Metrics } from "./api";
import type { Span } from "./history";
import { Rates } from "./rates";

const START = Date.parse("2026-07-04T14:00:00Z");
const metrics = (seconds: number, all: number) => ({ eventsProcessed: all, eventCounts: { "#commit": all, "#identity": 0, "#account": 0 }, flow: { entriesAdded: null }, lastUpdate: new Date(START + seconds * 1000).toISOString() }) as unknown as Metrics;
const MINUTES: Span[] = Array.from({ length: 12 }, (_, at) => ({ timestamp: START + at * 60_000, seconds: 60, incoming: null, commit: 100 + at, identity: 0, account: 0 }));

test("whole minutes fill what was hardly seen, and only that", () => {
  const rates = new Rates(1_200);
  for (let seconds = 0; seconds <= 100; seconds += 2) rates.take(metrics(seconds, seconds * 10));
  const seen = rates.points.length;
  const since = rates.points.at(-1)?.at ?? 0;
  // Looked at now and then until the tenth minute, then live.
  for (let seconds = 130; seconds <= 580; seconds += 30) rates.take(metrics(seconds, seconds * 10));
  for (let seconds = 602; seconds <= 620; seconds += 2) rates.take(metrics(seconds, seconds * 10));
  rates.between(MINUTES.slice(0, 11), since);
  const points = rates.points.map(({ at, commit }) => [at - START / 1000, commit]);
  assert.deepEqual(points.slice(0, seen).map(([at]) => at), Array.from({ length: seen }, (_, at) => 2 + 2 * at));
  // From the third minute, the first that was not seen at all, to the tenth; the eleventh still runs.
  assert.deepEqual(points.slice(seen, seen + 8), [2, 3, 4, 5, 6, 7, 8, 9].map((minute) => [minute * 60 + 30, 100 + minute]));
  assert.ok(points.slice(seen + 8).every(([at, commit]) => (at ?? 0) > 570 && (commit === null || commit === 10)));
  assert.ok(points.every(([at], nth) => nth === 0 || (at ?? 0) > (points[nth - 1]?.[0] ?? 0)), "in order");
});

test("without a whole minute nothing is filled", () => {
  const rates = new Rates(600);
  for (let seconds = 0; seconds <= 40; seconds += 2) rates.take(metrics(seconds, seconds * 10));
  const before = [...rates.points];
  rates.between(MINUTES.slice(0, 2), START / 1000 + 20);
  rates.between([], 0);
  assert.deepEqual(rates.points, before);
});
