/** What is to be said of the pipeline in one line. Pure: everything it knows is handed in. */

import type { Ingest, Metrics, Ready, Worker } from "./api";
import { age, duration, full, host, rate, several } from "./format";

/** How a thing stands; each has its own shape and word, so that colour is never alone. */
export type Tone = "good" | "warn" | "bad" | "idle" | "unknown";

/** The live stream, as this page sees it. */
export type Link = "connecting" | "open" | "lost" | "refused";

export interface Verdict {
  tone: Tone;
  /** Read at three metres. */
  headline: string;
  /** Read by whoever came nearer. */
  why: string;
}

export interface Known {
  link: Link;
  /** How old the newest figures are, in seconds; null: there are none. */
  ageSeconds: number | null;
  stale: boolean;
  /** What the server says is wrong. */
  problem: string;
  metrics: Metrics | null;
  ingest: Ingest | null;
  ready: Ready | null;
  workers: readonly Worker[] | null;
  /** Events applied a second; null while unknown. */
  rate: number | null;
  /** For how long nothing was applied although something waits, in seconds. */
  stalledSeconds: number;
}

/** How far behind the relay is worth a word, in seconds. */
export const LAG_WARN = 60;

/** From where the error rate is worth a word, in percent. */
export const ERROR_WARN = 1;

/** For how long nothing must move before it is called stalled, in seconds. */
export const STALLED = 20;

/** Figures are stale once they are older than this, in seconds. */
export function staleAfter(interval: number): number {
  return Math.max(5, 3 * interval);
}

export function verdict(known: Known): Verdict {
  const { metrics, ingest, link } = known;
  if (link === "refused") {
    return { tone: "warn", headline: "Sign in to see the figures", why: known.problem || "This dashboard asks for a token." };
  }
  if (!metrics || known.ageSeconds === null) {
    const why = known.problem || (link === "lost" ? "The dashboard does not answer. Trying again." : "");
    return { tone: why ? "bad" : "unknown", headline: why ? "No figures yet" : "Connecting", why: why || "Waiting for the first figures." };
  }
  if (known.stale) {
    const why = link === "open" ? "The dashboard answers, but sends no figures." : "The dashboard does not answer. Trying again.";
    return { tone: "bad", headline: `Stale: last update ${age(known.ageSeconds)} ago`, why: sentence(known.problem) || why };
  }
  const relay = metrics.firehoseStatus;
  if (!relay.url && !relay.connected) {
    return { tone: "bad", headline: "Nobody ingests", why: "No ingest has shown itself in the last 10 s. Nothing new arrives." };
  }
  if (known.ready?.checks.database === "unhealthy") {
    return { tone: "bad", headline: "PostgreSQL does not answer", why: "Events wait in the stream and are applied once it is back." };
  }
  if (!relay.connected) {
    const lag = ingest?.lagSeconds ?? null;
    const last = lag === null ? "" : ` The newest event is ${duration(lag)} old.`;
    return { tone: "bad", headline: "Relay not connected", why: `Ingest tries ${host(relay.url)} again.${last}` };
  }
  if (known.stalledSeconds >= STALLED) {
    const stream = several(relay.streamLength, "entry", "entries");
    const why = `For ${age(known.stalledSeconds)} now, with ${stream} in the stream, ${full(relay.queueDepth)} of them pending.`;
    return { tone: "bad", headline: "Workers apply nothing", why };
  }
  if (ingest?.paused) {
    return { tone: "warn", headline: "Ingest is paused", why: "The stream is full. Ingest goes on once workers have made room." };
  }
  const lag = ingest?.lagSeconds ?? 0;
  if (lag > LAG_WARN) {
    return { tone: "warn", headline: `Behind by ${duration(lag)}`, why: `${speed(known.rate)} applied. The newest event in the stream is that old.` };
  }
  if (metrics.errorRate >= ERROR_WARN) {
    return { tone: "warn", headline: "Many entries fail", why: `${metrics.errorRate.toFixed(1)}% of all entries failed for good. The dead letters say why.` };
  }
  if (known.rate === 0) return { tone: "idle", headline: "Quiet", why: "Connected. No events came in the last seconds." };
  const behind = ingest?.lagSeconds == null ? "" : `, ${duration(ingest.lagSeconds)} behind the relay`;
  return { tone: "good", headline: "Flowing", why: `${speed(known.rate)}${behind}.` };
}

/** Watches for a pipeline in which something waits and nothing moves. */
export class Stall {
  #since = 0;
  #processed = -1;
  #length = 0;

  /** Takes a look at the given time, in seconds, and says for how long nothing has moved. */
  look(metrics: Metrics, now: number): number {
    const { queueDepth, streamLength } = metrics.firehoseStatus;
    // The length alone says nothing: other groups may hold the stream. That it grows does.
    const waits = queueDepth > 0 || streamLength > this.#length;
    if (!waits || metrics.eventsProcessed !== this.#processed) {
      this.#processed = metrics.eventsProcessed;
      this.#length = streamLength;
      this.#since = now;
    }
    return now - this.#since;
  }
}

/** Whether the stream fills or drains: small ups and downs are how it lives. */
export function trend(lengths: readonly number[]): "empty" | "level" | "filling" | "draining" {
  const last = lengths.at(-1) ?? 0;
  if (last === 0) return "empty";
  // The middle of the first and of the last three, so that one look decides nothing.
  const middle = (part: readonly number[]) => [...part].sort((a, b) => a - b)[Math.floor(part.length / 2)] ?? 0;
  const [from, to] = [middle(lengths.slice(0, 3)), middle(lengths.slice(-3))];
  const change = to - from;
  if (lengths.length < 6 || Math.abs(change) < Math.max(1_000, 0.2 * Math.max(from, to))) return "level";
  return change > 0 ? "filling" : "draining";
}

function speed(value: number | null): string {
  return value === null ? "Events flow" : `${rate(value)} events a second`;
}

function sentence(text: string): string {
  if (!text) return "";
  const begun = text[0]?.toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
