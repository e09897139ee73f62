// What the stub says of the accounts and records that are looked up.

const DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const HOUR = 3_600_000;

/** Answers `GET /api/repos/{account}?path=…`; null where it names nothing. */
export function repoAnswer(url) {
  const account = decodeURIComponent(url.pathname.slice("/api/repos/".length));
  const path = url.searchParams.get("path");
  if (!/^did:plc:[a-z0-9]+$|\./.test(account)) return null;
  const did = account.startsWith("did:") ? account : DID;
  const uri = path && `at://${did}/${path}`;
  const at = Date.now();
  const isMissing = path?.endsWith("/missing");
  const none = { found: null, unknown: null };
  return {
    asked: account,
    did,
    uri,
    at,
    answer: isMissing
      ? { word: "missing", good: false, text: "Not stored, though its host has it, and nothing here says why: it was missed.", advice: [`penstock audit ${did} --repair`] }
      : path
        ? { word: "stored", good: true, text: "Stored in posts, since 2026-07-04 14:38:08 UTC, as its host has it.", advice: [] }
        : { word: "held", good: null, text: "Held, last commit of 2026-07-04 14:38:08 UTC. Its host could not be asked: the dashboard asks no hosts while identity.enabled is false.", advice: [] },
    host: path
      ? { ...none, found: { host: "https://morel.us-east.host.bsky.network", handle: "alice.example.com", handleValid: true, active: true, status: null, rev: "3m5xq2k7bzk2a", revAt: at - HOUR, error: null, record: { exists: true, cid: "bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae" }, recordError: null } }
      : { ...none, unknown: "the dashboard asks no hosts while identity.enabled is false" },
    held: {
      ...none,
      found: {
        repo: { rev: "3m5xq2k7bzk2a", revAt: at - HOUR, root: "0707070707070707", active: true, status: null, handle: "alice.example.com", sync: isMissing ? "since" : null, syncAt: isMissing ? at - 2 * HOUR : null, identityAt: null, accountAt: null, deletedThrough: null, sweeping: false, optedOut: false },
        identity: null,
        claim: null,
        repair: isMissing ? { reason: "chain", priority: 50, due: at, attempts: 3, running: false, error: "the host is away", since: at - HOUR } : null,
        collections: [
          { collection: "app.bsky.feed.like", table: "likes", rows: 10_000, more: true },
          { collection: "app.bsky.feed.post", table: "posts", rows: 312, more: false },
          { collection: "com.example.a-very-long-name.of.a.collection.thatNobodyWouldUse", table: "generic_records", rows: 1, more: false },
        ],
        moreCollections: false,
        since: at - 100 * HOUR,
        record: path && { row: isMissing ? null : { table: "posts", cid: "bafy", rev: "3m5xq2k7bzk2a", revAt: at - HOUR, entryAt: at - HOUR, indexedAt: at - HOUR }, wide: null, shadow: null, tombstone: null },
      },
    },
    waiting: { ...none, found: { entries: isMissing ? [{ stream: "firehose:events", id: "1782000000000-0", at, type: "commit", delivered: true, namesRecord: false }] : [], searched: 1234, complete: true } },
    letters: {
      letters: isMissing ? [{ source: "redis", id: "1782000000001-0", origId: "1782000000000-7", at: at - HOUR, type: "commit", error: "op 0: at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/other is longer than 512 bytes", namesRecord: false }] : [],
      more: false,
      redisUnknown: null,
      postgresUnknown: null,
    },
  };
}
