/** What is looked up, how it is asked for, and what the answer looks like. */

import type { Tone } from "./verdict";

interface Part<T> {
  found: T | null;
  /** Why it is not known. */
  unknown: string | null;
}

interface Place {
  table: string;
  entryAt: number | null;
  indexedAt: number | null;
  revAt: number | null;
}

export interface RepoReport {
  asked: string;
  did: string | null;
  uri: string | null;
  answer: { word: string; good: boolean | null; text: string; advice: string[] };
  held: Part<{
    repo: {
      rev: string | null;
      revAt: number | null;
      active: boolean | null;
      status: string | null;
      handle: string | null;
      sync: string | null;
      syncAt: number | null;
      optedOut: boolean;
    } | null;
    claim: { status: string | null; since: number | null } | null;
    repair: { reason: string; attempts: number; running: boolean; since: number | null } | null;
    collections: { collection: string; table: string; rows: number; more: boolean }[];
    record: { row: Place | null; wide: Place | null; shadow: { table: string } | null; tombstone: Place | null } | null;
  }>;
  host: Part<{
    host: string | null;
    handle: string | null;
    handleValid: boolean | null;
    active: boolean | null;
    status: string | null;
    rev: string | null;
    revAt: number | null;
    error: string | null;
    record: { exists: boolean; cid: string | null } | null;
    recordError: string | null;
  }>;
  waiting: Part<{ entries: { stream: string; id: string; type: string; delivered: boolean }[]; searched: number; complete: boolean }>;
  letters: {
    letters: { source: string; id: string; at: number; error: string }[];
    more: boolean;
    redisUnknown: string | null;
    postgresUnknown: string | null;
  };
}

const KINDS: Record<string, string> = { post: "app.bsky.feed.post", lists: "app.bsky.graph.list", feed: "app.bsky.feed.generator" };

/** What was written, as it stands in the address: of a page of bsky.app the AT-URI. */
export function addressOf(text: string): string {
  const trimmed = text.trim();
  const link = /^https?:\/\/bsky\.app\/profile\/([^/?#]+)(?:\/(post|lists|feed)\/([^/?#]+))?\/?(?:[?#].*)?$/.exec(trimmed);
  if (!link?.[1]) return trimmed;
  return link[2] && link[3] ? `at://${link[1]}/${KINDS[link[2]]}/${link[3]}` : link[1];
}

/** Where it is asked for. Slashes stand in the query: on the way they could become others. */
export function pathOf(text: string): string {
  const rest = addressOf(text).replace(/^at:\/\//, "").replace(/^@/, "");
  const [account = "", ...path] = rest.split("/");
  const query = path.length > 1 ? `?path=${encodeURIComponent(path.join("/"))}` : "";
  return `api/repos/${encodeURIComponent(account) || "-"}${query}`;
}

/** The fragment of the page's address that names it. */
export function hashOf(text: string): string {
  // As browsers write it: what needs no escape in a fragment has none.
  return `#repo=${encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("%2F", "/")}`;
}

/** What a fragment names; null where it is another one. */
export function askedIn(hash: string): string | null {
  const found = /^#repo=(.*)$/s.exec(hash)?.[1];
  if (found === undefined) return null;
  try {
    return addressOf(decodeURIComponent(found));
  } catch {
    return found;
  }
}

/** How it looks: as it should be, not so, or not known. */
export function toneOf(good: boolean | null): Tone {
  return good === null ? "unknown" : good ? "good" : "warn";
}
