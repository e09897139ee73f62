// What the page says of verification.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Verification } from "./api";
import { desynchronized, verified } from "./verification";

const FOUND: Verification = {
  mode: "enforce", signatures: "enforce", since: "2026-07-04T14:00:00Z", verified: 12_345, failed: {}, unresolved: 0, desynchronized: {}, lastFailed: null, heldSince: null,
};
const FAILED: Partial<Verification> = {
  failed: { inversion: 1, signature: 1_200 }, lastFailed: { at: "2026-07-04T14:30:00Z", did: "did:plc:a", reason: "signature" },
};

const CASES: [string, Partial<Verification>, string, boolean, RegExp][] = [
  ["off", { mode: "off", signatures: "off", ...FAILED }, "Off", false, /verify\.mode is off/],
  ["nothing failed", {}, "None refused", false, /^12,345 verified since 2026-07-04T14:00:00Z; signatures enforced$/],
  ["counted, nothing failed", { mode: "count", signatures: "off" }, "None failed", false, /signatures not checked/],
  ["refused", FAILED, "1,201 refused", true, /failed: inversion 1, signature 1,200; last failed: did:plc:a \(signature\)/],
  ["counted", { mode: "count", ...FAILED }, "1,201 failed", true, /signature 1,200/],
  ["unresolved", { unresolved: 7 }, "None refused", false, /key not known: 7/],
  ["held", { heldSince: "2026-07-04T14:31:00Z" }, "Waiting for keys", true, /^since 2026-07-04T14:31:00Z/],
];

for (const [name, over, line, warn, title] of CASES) {
  test(`verification: ${name}`, () => {
    const said = verified({ ...FOUND, ...over });
    assert.deepEqual([said?.line, said?.warn], [line, warn]);
    assert.match(said?.title ?? "", title);
  });
}

test("repos that are marked are counted, and named by reason", () => {
  assert.deepEqual(desynchronized(FOUND), { line: "0 repos", title: "No repo is known to lack something, since 2026-07-04T14:00:00Z", warn: false });
  const marked = desynchronized({ ...FOUND, desynchronized: { since: 1, sync: 2 } });
  assert.deepEqual(marked, { line: "3 repos", title: "since 1, sync 2, since 2026-07-04T14:00:00Z", warn: true });
});

test("an ingest that says nothing of it, and one that verifies nothing, have no line of their own", () => {
  for (const unknown of [null, undefined]) assert.deepEqual([verified(unknown), desynchronized(unknown)], [null, null]);
  assert.equal(desynchronized({ ...FOUND, mode: "off" }), null);
});
