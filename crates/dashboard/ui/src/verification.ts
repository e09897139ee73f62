/** What is said of the commits that ingest verified. */
import type { Verification } from "./api";
import { full, several } from "./format";

/** One line, what it stands for, and whether somebody should look. */
export interface Said {
  line: string;
  title: string;
  warn: boolean;
}

const total = (counts: Record<string, number>) => Object.values(counts).reduce((sum, count) => sum + count, 0);
const byReason = (counts: Record<string, number>) => Object.entries(counts).map(([reason, count]) => `${reason} ${full(count)}`).join(", ");

/** How many commits failed, and what becomes of those; null where nothing is known. */
export function verified(found: Verification | null | undefined): Said | null {
  if (!found) return null;
  if (found.mode === "off") return { line: "Off", title: "verify.mode is off: no commit is verified", warn: false };
  const failed = total(found.failed);
  const modes = { off: "signatures not checked", count: "signatures counted", enforce: "signatures enforced" };
  const title = [
    `${full(found.verified)} verified since ${found.since}`,
    modes[found.signatures],
    failed > 0 && `failed: ${byReason(found.failed)}`,
    found.unresolved > 0 && `key not known: ${full(found.unresolved)}`,
    found.lastFailed && `last failed: ${found.lastFailed.did} (${found.lastFailed.reason})`,
  ].filter(Boolean).join("; ");
  if (found.heldSince) return { line: "Waiting for keys", title: `since ${found.heldSince}; ${title}`, warn: true };
  const what = found.mode === "enforce" ? "refused" : "failed";
  return { line: failed > 0 ? `${full(failed)} ${what}` : `None ${what}`, title, warn: failed > 0 };
}

/** How many repos are known to lack something; null where nothing is known. */
export function desynchronized(found: Verification | null | undefined): Said | null {
  if (!found || found.mode === "off") return null;
  const marked = total(found.desynchronized);
  const title = marked > 0 ? byReason(found.desynchronized) : "No repo is known to lack something";
  return { line: several(marked, "repo"), title: `${title}, since ${found.since}`, warn: marked > 0 };
}
