/** What is to be said of the pipeline in one line. Pure: everything it knows is handed in. */

import type { Ingest, Metrics, Ready } from "./api";
import { age, duration, full, host, percent, rate, several } from "./format";

/** How a thing stands; each has its own shape and word, so that colour is never alone. */
export type Tone = "good" | "warn" | "bad" | "idle" | "unknown";

/** The live stream, as this page sees it. */
export type Link = "connecting" | "open" | "lost" | "refused";

export interface Verdict {
  tone: Tone;
  /** The headline without its figures: what the tab and a screen reader say. */
  short: string;
  /** Read at three metres. */
  headline: string;
  /** Read by whoever came nearer. */
  why: string;
}

export interface Known {
  link: Link;
  /** How old the newest metrics are, in seconds; null: there are none. */
  ageSeconds: number | null;
  stale: boolean;
  /** What the server says is wrong. */
  problem: string;
  metrics: Metrics | null;
  ingest: Ingest | null;
  ready: Ready | null;
}

/** Up to how far behind the relay rows are current, in seconds. */
export const CURRENT = 10;

/** From how far behind on, with no end in sight, it is no longer a warning, in seconds. */
const FAR_BEHIND = 60;

/** From where the error rate is worth a word, in percent. */
export const ERROR_WARN = 1;

/** For how long nothing must be written before it is called stalled, in seconds. */
export const STALLED = 20;

/** A stream that is full within this time is worth a word, in seconds. */
const FULL_SOON = 6 * 3600;

/** Fewer entries than these are no backlog, however they grow. */
const SMALL = 1_000;

/** Metrics are stale once they are older than this, in seconds. */
export function staleAfter(interval: number): number {
  return Math.max(5, 3 * interval);
}

/** How far rows are behind the relay, in seconds, without the time in which it had nothing to send; null: unknown. */
export function behind({ rowsAgeSeconds, flow }: Metrics): number | null {
  if (rowsAgeSeconds === null) return null;
  return flow.waiting === 0 ? Math.max(0, rowsAgeSeconds - (flow.quietSeconds ?? 0)) : rowsAgeSeconds;
}

/** Whether entries pile up: what waits grows, or another consumer group holds the stream. */
export function isFilling({ flow, firehoseStatus }: Metrics): boolean {
  return flow.streamFullSeconds !== null && flow.streamFullSeconds < FULL_SOON && firehoseStatus.streamLength > SMALL;
}

export function verdict(known: Known): Verdict {
  const { metrics, link } = known;
  if (link === "refused") {
    return verdictOf("warn", "Sign in to see metrics", known.problem || "This dashboard requires a token.");
  }
  if (!metrics || known.ageSeconds === null) {
    const why = known.problem || (link === "lost" ? "The dashboard is not responding. Retrying." : "");
    return why ? verdictOf("bad", isRedis(known.problem) ? "Redis not responding" : "No metrics yet", sentence(why)) : verdictOf("unknown", "Connecting", "Waiting for the first metrics.");
  }
  if (known.stale) return stale(known, known.ageSeconds);
  const [first, ...others] = faults(known, metrics);
  if (first) {
    const also = others.length > 0 ? ` Also: ${others.map(([name]) => name[0]?.toLowerCase() + name.slice(1)).join(", ")}.` : "";
    return verdictOf("bad", first[0], first[1] + also);
  }
  return ofRows(known, metrics);
}

/** The words of the tab. */
export function title({ tone, short }: Verdict): string {
  return `${SIGNS[tone]}${short} · Penstock`;
}

const SIGNS: Record<Tone, string> = { good: "", warn: "▲ ", bad: "■ ", idle: "", unknown: "? " };

/** Old metrics are never called good, whatever they say. */
function stale({ link, problem }: Known, ageSeconds: number): Verdict {
  const last = `Last update ${age(ageSeconds)} ago.`;
  if (link === "open" && isRedis(problem)) return verdictOf("bad", "Redis not responding", `${last} Nothing is written until it is back; ingest then resumes at its cursor.`);
  const why = link === "open" ? "The dashboard is connected, but sends no metrics." : "The dashboard is not responding. Retrying.";
  return verdictOf("bad", "Stale", sentence(problem) || why, `Stale: last update ${age(ageSeconds)} ago`);
}

/** What stands still, the nearest to the rows first. */
function faults({ ready }: Known, metrics: Metrics): [string, string][] {
  const { flow, firehoseStatus: relay } = metrics;
  const found: [string, string][] = [];
  const waiting = waits(metrics);
  if (flow.database === "unreachable" || (flow.database !== "writing" && ready?.checks.database === "unhealthy")) {
    found.push(["PostgreSQL not responding", `${waiting || "Nothing waits yet."} Events stay in the stream and are written once it is back.`]);
  }
  if (flow.workersAlive === 0) {
    found.push(["No workers running", waiting || "Nothing waits yet; what comes is not written."]);
  } else if (flow.stalledSeconds >= STALLED) {
    found.push(["Workers stalled", `Nothing written for ${age(flow.stalledSeconds)}. ${waiting}`]);
  }
  if (!relay.url && !relay.connected) {
    found.push(["No ingest running", "No ingest has reported in the last 10 s. No new events arrive."]);
  } else if (!relay.connected) {
    found.push(["Relay not connected", `Ingest is retrying ${host(relay.url)}. ${waiting || "All events received so far are in PostgreSQL."}`]);
  }
  if (metrics.redisLacking) found.push(["Redis permissions missing", sentence(metrics.redisLacking)]);
  return found;
}

/** What the age of rows says, where everything runs. */
function ofRows({ ingest }: Known, metrics: Metrics): Verdict {
  const { flow, errorRate, firehoseStatus: relay } = metrics;
  const lag = behind(metrics);
  const waiting = waits(metrics);
  const letters = relay.deadLetterLength ? ` ${several(relay.deadLetterLength, "dead letter")} ${relay.deadLetterLength === 1 ? "needs" : "need"} attention.` : "";
  if (lag === null) {
    if (flow.waiting === 0 && metrics.eventsProcessed === 0) return verdictOf("idle", "Waiting for the first events", "Connected to the relay. Nothing has arrived yet.");
    return verdictOf("unknown", "Age of rows unknown", `${waiting} Ingest has not reported the time of its newest event.`.trim());
  }
  const speeds = `${speed(flow.writtenPerSecond)} written per second, ${speed(flow.incomingPerSecond)} incoming.`;
  if (ingest?.paused) {
    return verdictOf("warn", "Ingest is paused", `The stream is full. Ingest resumes once workers have made room. ${waiting}`, `Ingest is paused, rows ${duration(lag)} behind`);
  }
  if (lag > CURRENT) {
    // Where nothing waits here, what is late waits at the relay, and ingest reads it as fast as it comes.
    const drains = (flow.drainSeconds ?? 0) > 0;
    const catchesUp = drains || flow.waiting === 0;
    const left = flow.waiting === 0 ? " Everything received is written; the relay is sending older events." : drains ? ` Caught up in about ${duration(flow.drainSeconds ?? 0)}.` : fills(metrics);
    const short = catchesUp ? "Catching up" : "Rows behind";
    return verdictOf(!catchesUp && lag > FAR_BEHIND ? "bad" : "warn", short, `${waiting} ${speeds}${left}`.trim(), catchesUp ? `Catching up: rows ${duration(lag)} behind` : `Rows ${duration(lag)} behind`);
  }
  if (isFilling(metrics)) {
    const held = (flow.waiting ?? 0) > SMALL ? waiting : "Rows are current, but another consumer group holds the stream.";
    return verdictOf("warn", "Backlog growing", `${held}${fills(metrics)} ${speeds}`, `Backlog growing, rows ${duration(lag)} behind`);
  }
  if (errorRate >= ERROR_WARN) return verdictOf("warn", "Many entries failing", `${percent(errorRate)} of all entries failed permanently.${letters}`);
  if ((flow.quietSeconds ?? 0) > CURRENT) {
    return verdictOf("idle", "Quiet", `Connected. No events for ${age(flow.quietSeconds ?? 0)}; all earlier ones are in PostgreSQL.${letters}`);
  }
  return verdictOf("good", "Current", `${speeds}${letters}`, `Current: rows ${duration(lag)} behind`);
}

/** What waits, and for how long; empty: nothing. */
function waits({ flow, rowsAgeSeconds }: Metrics): string {
  if (!flow.waiting) return "";
  const oldest = rowsAgeSeconds === null ? "" : `, the oldest ${duration(rowsAgeSeconds)} old`;
  return `${flow.waitingExact ? "" : "At least "}${several(flow.waiting, "entry", "entries")} not in PostgreSQL yet${oldest}.`;
}

function fills({ flow }: Metrics): string {
  return flow.streamFullSeconds === null ? "" : ` The stream is full in about ${duration(flow.streamFullSeconds)}.`;
}

function verdictOf(tone: Tone, short: string, why: string, headline = short): Verdict {
  return { tone, short, headline, why };
}

function isRedis(problem: string): boolean {
  return /^redis /i.test(problem);
}

function speed(value: number | null): string {
  return value === null ? "? events" : `${rate(value)} events`;
}

function sentence(text: string): string {
  if (!text) return "";
  const begun = text[0]?.toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Every digit of how far rows are behind, for a title. */
export function behindInFull(metrics: Metrics): string {
  const lag = behind(metrics);
  return lag === null ? "" : `${full(lag)} s`;
}
