import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, change } from "./bytes";
import { type View, alone, applied, grouped, pan, pathOf, pointsOf, zoomBy, zoomTo } from "./history";

const END = 1_800_000_000;
const DAY: View = { seconds: 86_400, zoom: null };
const LIVE: View = { seconds: 600, zoom: null };

test("a part that was dragged over is looked at, in either direction", () => {
  assert.deepEqual(zoomTo(DAY, END - 7_200, END - 3_600, END).zoom, [END - 7_200, END - 3_600]);
  assert.deepEqual(zoomTo(DAY, END - 3_600, END - 7_200, END).zoom, [END - 7_200, END - 3_600]);
  assert.equal(zoomTo(DAY, END - 86_400, END, END).zoom, null, "all of it is no part");
});

test("a part is never shorter than its points, nor outside the range", () => {
  for (const [view, length] of [[DAY, 300], [LIVE, 20]] as const) {
    for (const at of [END - view.seconds, END - view.seconds / 2, END]) {
      const [from, to] = zoomTo(view, at, at + 1, END).zoom ?? [0, 0];
      assert.ok(Math.abs(to - from - length) < 1e-6, `${to - from} instead of ${length}`);
      assert.ok(from >= END - view.seconds && to <= END);
    }
  }
});

test("keys zoom around a time and back out to the whole range", () => {
  const near = zoomBy(DAY, 0.5, END - 43_200, END);
  assert.deepEqual(near.zoom, [END - 64_800, END - 21_600]);
  assert.equal(zoomBy(near, 2, null, END).zoom, null);
  assert.deepEqual(zoomBy(DAY, 0.5, END, END).zoom, [END - 43_200, END], "what is pointed at stays where it is");
  const edge = zoomBy(zoomBy(DAY, 0.5, END, END), 0.5, END, END);
  assert.equal(zoomBy(zoomBy(edge, 2, null, END), 2, null, END).zoom, null);
});

test("panning stays within the range", () => {
  const near = zoomTo(DAY, END - 7_200, END - 3_600, END);
  assert.deepEqual(pan(near, -0.5, END).zoom, [END - 9_000, END - 5_400]);
  assert.deepEqual(pan(near, 9, END).zoom, [END - 3_600, END]);
  assert.deepEqual(pan(near, -99, END).zoom, [END - 86_400, END - 82_800]);
  assert.equal(pan(DAY, 1, END), DAY);
});

test("the server is asked for what is looked at", () => {
  assert.equal(pathOf(DAY), "api/activity?seconds=86400");
  assert.equal(pathOf({ ...DAY, zoom: [END - 600.5, END - 0.5] }), `api/activity?seconds=601&until=${END}`);
});

test("what is unknown of one kind is unknown of all", () => {
  const [known, gap] = pointsOf([
    { timestamp: END * 1000, seconds: 60, incoming: 5, commit: 1, identity: 2, account: 0 },
    { timestamp: END * 1000 + 60_000, seconds: 60, incoming: null, commit: null, identity: null, account: null },
  ]);
  assert.ok(known && gap);
  assert.deepEqual([known.at, applied(known), gap.at, applied(gap)], [END + 30, 3, END + 90, null]);
});

test("a point between two gaps is drawn", () => {
  assert.deepEqual(alone([1, null, 2, null, 3, 4, null, null, 5]), [0, 2, 8]);
  assert.deepEqual(alone([]), []);
});

test("starts that fall together are one mark, and another version is said", () => {
  const mark = (seconds: number, service: string, instance: string, version = "0.1.0") => ({ timestamp: (END + seconds) * 1000, service, instance, version });
  const groups = grouped([mark(0, "ingest", "a"), mark(3_000, "worker", "w-1"), mark(3_010, "worker", "w-2"), mark(9_000, "worker", "w-1", "0.2.0")], 86_400);
  assert.deepEqual(groups, [
    { at: END, rollout: false, words: "ingest a started (0.1.0)" },
    { at: END + 3_000, rollout: false, words: "2 worker starts (0.1.0)" },
    { at: END + 9_000, rollout: true, words: "worker w-1 started (0.1.0 → 0.2.0)" },
  ]);
  assert.equal(grouped([mark(0, "worker", "a"), mark(30, "ingest", "b")], 86_400)[0]?.words, "worker a started (0.1.0), ingest b started (0.1.0)");
});

test("sizes have three digits and the unit that fits", () => {
  assert.deepEqual([0, 999, 1_000, 8_192, 50 * 1024 ** 2, 1_500_000_000, 5e13].map(bytes), ["0 B", "999 B", "0.98 KiB", "8.00 KiB", "50.0 MiB", "1.40 GiB", "45.5 TiB"]);
  assert.deepEqual([0, 2_048, -2_048].map(change), ["0 B", "+2.00 KiB", "−2.00 KiB"]);
});
