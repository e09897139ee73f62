// `penstock status` and `penstock top` say what the page says: both tests read the same situations.
import assert from "node:assert/strict";
import { test } from "node:test";
import shared from "../../../console/src/situations.json";
import type { Ingest, Metrics, Ready } from "./api";
import { verdict } from "./verdict";

type Tree = { [name: string]: unknown };
interface Situation {
  name: string;
  tone: string;
  headline: string;
  /** How the explanation begins. */
  why: string;
  metrics?: Tree;
  ingest?: Tree;
  ready?: Tree;
}

const SHARED = shared as unknown as { metrics: Metrics; ingest: Ingest; ready: Ready; situations: Situation[] };

/** The value with these differences. */
function changed<T>(value: T, differences: Tree = {}): T {
  const out = structuredClone(value) as Tree;
  for (const [name, different] of Object.entries(differences)) {
    out[name] = different && typeof different === "object" ? changed(out[name], different as Tree) : different;
  }
  return out as T;
}

for (const { name, tone, headline, why, ...parts } of SHARED.situations) {
  test(`the console and the page: ${name}`, () => {
    const metrics = changed(SHARED.metrics, parts.metrics);
    const said = verdict({ link: "open", ageSeconds: 1, stale: false, problem: "", metrics, ingest: changed(SHARED.ingest, parts.ingest), ready: changed(SHARED.ready, parts.ready) });
    assert.deepEqual([said.tone, said.headline], [tone, headline]);
    assert.ok(said.why.startsWith(why), said.why);
  });
}
