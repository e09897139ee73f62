/** The dashboard's own API, and nothing else. Addresses are relative: the page may stand under a path. */

import { signal } from "@preact/signals";
import type { LiveEvent } from "./filter";

export interface Metrics {
  eventsProcessed: number;
  dbRecords: number;
  apiRequestsPerMinute: number;
  stats: Record<"totalUsers" | "totalPosts" | "totalLikes" | "totalReposts" | "totalFollows" | "totalBlocks", number>;
  eventCounts: Record<"#commit" | "#identity" | "#account", number>;
  systemHealth: { cpu: number; memory: number; disk: number; network: string };
  firehoseStatus: {
    connected: boolean;
    url: string;
    currentCursor: string | null;
    queueDepth: number;
    streamLength: number;
    deadLetterLength: number;
  };
  errorRate: number;
  /** How far PostgreSQL is behind the relay; null: unknown. */
  rowsAgeSeconds: number | null;
  flow: Flow;
  /** The memory of Redis; null: it does not tell. */
  redis?: { usedBytes: number; /** Null: no limit. */ maxBytes: number | null } | null;
  /** What the Redis user of the dashboard, or of ingest, may not do although it should. */
  redisLacking?: string | null;
  lastUpdate: string;
}

/** What waits for PostgreSQL, how fast it comes and goes, and who writes it; null: unknown. */
export interface Flow {
  waiting: number | null;
  /** False: more may wait. */
  waitingExact: boolean;
  quietSeconds: number | null;
  stalledSeconds: number;
  /** Entries ever added to the streams. */
  entriesAdded?: number | null;
  incomingPerSecond: number | null;
  writtenPerSecond: number | null;
  drainSeconds: number | null;
  streamFullSeconds: number | null;
  streamCap: number;
  workersAlive: number | null;
  database: "writing" | "reachable" | "unreachable" | "unknown";
}

export interface Ingest {
  eventTime: string | null;
  lagSeconds: number | null;
  paused: boolean;
  gaps: number;
  resets: number;
  dataLoss: number;
  /** Entries in the second stream. */
  bulkLength?: number;
  /** Null: no ingest reports; absent: a dashboard of an older version. */
  verification?: Verification | null;
  /** As above. */
  filter?: Filter | null;
}

/** Which records ingest carries, and what it left out since its process began. */
export interface Filter {
  /** Empty: everything is carried. */
  epoch: string;
  collections: string[];
  repos: number | null;
  excludeRepos: number;
  since: string | null;
  /** Ops, by what left them out. */
  leftOut: Record<string, number>;
}

/** What ingest found of the commits since its process began. */
export interface Verification {
  mode: "off" | "count" | "enforce";
  signatures: "off" | "count" | "enforce";
  since: string;
  verified: number;
  /** By reason. */
  failed: Record<string, number>;
  unresolved: number;
  /** Repos, by reason. */
  desynchronized: Record<string, number>;
  lastFailed: { at: string; did: string; reason: string } | null;
  heldSince: string | null;
}

/** What this browser may do. */
export interface Session {
  read: boolean;
  admin: boolean;
  /** A token is set at the dashboard: there is something to sign in with. */
  tokens: boolean;
  signedIn: "reader" | "admin" | null;
}

/** Whose dashboard it is. */
export interface About {
  pipeline: string;
  namespace: string | null;
  version: string;
  documentation: string;
  messageBuffer: boolean;
}

export interface Ready {
  status: string;
  checks: { firehose: string; database: string; memory: string };
  details?: { reasons: Record<string, string> };
}

export interface Worker {
  name: string;
  idleSeconds: number;
  pending: number;
  alive: boolean;
  entriesPerSecond: number | null;
}

export interface QueueStatus {
  queue_length: number;
  batch_threshold: number;
  batch_progress: number;
  batches_ready: number;
  last_batch?: { batch_id: string | null; size: number | null; completed_at: string | number | null } | null;
}

export interface BufferStats {
  total_messages: number;
  total_batches: number;
  messages_per_second: number;
  queue_length: number;
  avg_batch_size: number;
  batch_threshold: number;
  batch_progress: number;
  batches_ready: number;
  type?: string;
}

export interface Message {
  id: number | string;
  user_id: number;
  channel_id: number;
  content: string;
  created_at: string;
  inserted_at: string;
}

export type Frame =
  | { type: "event"; data: LiveEvent }
  | { type: "metrics"; data: Metrics }
  | { type: "missed"; count?: number; data?: { count?: number } }
  | { type: "connected"; message: string };

/** What the server said no with. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    /** The server's own words. */
    readonly detail: string,
    /** How long to wait, in seconds, where the server says so. */
    readonly retryAfter: number | null = null,
  ) {
    super(detail);
  }

  /** Nobody is signed in, or not as one who may. */
  get forbidden(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

/** How long an answer may take, in ms. */
const PATIENCE = 10_000;

/** Asks, and returns the JSON of the answer; null where it has none. Throws a `Refusal`; status 0: no answer. */
export async function ask<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      // The header that only this page sets: a session is not enough to change something.
      headers: { accept: "application/json", ...(method === "GET" ? {} : { "x-penstock-page": "1" }), ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(PATIENCE),
    });
  } catch {
    throw new Refusal(0, "the dashboard is not responding");
  }
  if (!answer.ok) throw await refusal(answer);
  const text = await answer.text().catch(() => "");
  try {
    return (text ? JSON.parse(text) : null) as T;
  } catch {
    // A development server answers what it does not know with its own page.
    throw new Refusal(404, "the answer is no JSON");
  }
}

/** Reads why a request was refused: problem+json, or a list of what was wrong with the input. */
export async function refusal(answer: Response): Promise<Refusal> {
  const body: unknown = await answer.json().catch(() => null);
  const after = Number(answer.headers.get("retry-after") ?? Number.NaN);
  return new Refusal(answer.status, said(body) ?? `${answer.status} ${answer.statusText}`.trim(), Number.isFinite(after) ? after : null);
}

/** The words in the body of a refusal. */
export function said(body: unknown): string | null {
  if (typeof body !== "object" || body === null) return null;
  const { detail, title } = body as { detail?: unknown; title?: unknown };
  if (typeof detail === "string" && detail) return detail;
  if (Array.isArray(detail)) {
    const parts = detail.map((part: { loc?: unknown[]; msg?: string }) => [part.loc?.at(-1), part.msg].filter(Boolean).join(": "));
    if (parts.length > 0) return parts.join("; ");
  }
  return typeof title === "string" && title ? title : null;
}

/** What is asked for again and again. */
export class Polled<T> {
  readonly value = signal<T | null>(null);
  /** When the value came, in ms of the wall clock; 0: never. */
  readonly at = signal(0);
  /** This dashboard has no such thing. */
  readonly missing = signal(false);
  /** Why the last attempt failed; empty: it did not. */
  readonly problem = signal("");
  #asking: Promise<void> | null = null;

  constructor(
    public path: string,
    /** Answers other than 200 that hold the value nevertheless. */
    readonly also: readonly number[] = [],
  ) {}

  /** Asks once; who asks meanwhile gets the same answer. */
  ask(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #ask(): Promise<void> {
    try {
      this.value.value = await this.#get();
      this.at.value = Date.now();
      this.missing.value = false;
      this.problem.value = "";
    } catch (error) {
      const refused = error instanceof Refusal ? error : new Refusal(0, String(error));
      this.problem.value = refused.detail;
      if (refused.status === 404 || refused.status === 405) this.missing.value = true;
    }
  }

  async #get(): Promise<T> {
    if (this.also.length === 0) return ask<T>(this.path);
    const answer = await fetch(this.path, { signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok && !this.also.includes(answer.status)) throw await refusal(answer);
    return (await answer.json()) as T;
  }
}
