/** From totals that grow to events a second. */

import type { Metrics } from "./api";
import { type Span, pointsOf } from "./history";

export type Kind = "commit" | "identity" | "account";
export const KINDS: readonly Kind[] = ["commit", "identity", "account"];

/** Rates of one span of time; null: nothing is known of it. */
export interface Point {
  /** The end of the span, or the middle of a longer one, in seconds since the epoch, by the server's clock. */
  at: number;
  /** What came into the streams. */
  incoming: number | null;
  commit: number | null;
  identity: number | null;
  account: number | null;
}

interface Totals {
  at: number;
  added: number | null;
  all: number;
  commit: number;
  identity: number;
  account: number;
}

/** Spans that are shorter are joined to the next. */
const SHORTEST = 0.9;

/** Totals older than this do not count for the rate of now, in seconds. */
const SPAN_OF_NOW = 7;

const UNKNOWN = { incoming: null, commit: null, identity: null, account: null };

/** A hole at least so long, and three times the usual span, is left empty. */
const HOLE = 8;

/** The rates of the last minutes. */
export class Rates {
  readonly points: Point[] = [];
  #last: Totals | null = null;
  #recent: Totals[] = [];
  #span = 2;

  /** @param window how far back points are kept, in seconds. */
  constructor(readonly window: number) {}

  /** Takes what the server counted. */
  take(metrics: Metrics): void {
    const now = totals(metrics);
    if (!Number.isFinite(now.at)) return;
    const last = this.#last;
    // The first frame of a new stream repeats the last look.
    if (last && now.at <= last.at && now.at > last.at - HOLE) return;
    const span = last ? now.at - last.at : 0;
    // Totals that fell were reset; a clock that was set back says nothing of the time between.
    const reset = last && (now.all < last.all || span < 0 || KINDS.some((kind) => now[kind] < last[kind]));
    if (!last || reset) {
      this.#recent = [now];
      this.#last = now;
      if (reset) this.#push({ at: Math.max(now.at, (this.points.at(-1)?.at ?? 0) + 0.001), ...UNKNOWN });
      return;
    }
    if (span < SHORTEST) return;
    if (span > Math.max(HOLE, 3 * this.#span)) {
      // The rate over a hole is right as a mean, but what happened in it was not seen.
      this.#push({ at: last.at + 0.001, ...UNKNOWN });
      this.#recent = [];
    } else {
      this.#span = span;
    }
    this.#push({
      at: now.at,
      // Its total may fall by itself, as when Redis was emptied.
      incoming: now.added === null || last.added === null || now.added < last.added ? null : (now.added - last.added) / span,
      commit: (now.commit - last.commit) / span,
      identity: (now.identity - last.identity) / span,
      account: (now.account - last.account) / span,
    });
    this.#last = now;
    this.#recent.push(now);
    while (this.#recent.length > 2 && now.at - (this.#recent[0]?.at ?? 0) > SPAN_OF_NOW) this.#recent.shift();
  }

  /** Fills the time before the page was opened with what the server knows. */
  before(history: readonly Span[]): void {
    const first = this.points.findIndex((point) => point.commit !== null);
    const until = this.points[first]?.at ?? Infinity;
    const now = this.#last?.at ?? Infinity;
    const known = pointsOf(history.filter((span) => span.timestamp / 1000 + span.seconds <= Math.min(until, now)));
    const newest = known.at(-1)?.at ?? now;
    this.points.splice(0, Math.max(first, 0));
    this.points.unshift(...known.filter((point) => point.at > Math.min(now, newest) - this.window));
  }

  /** Fills a time that was hardly seen, until the newest minute, with the means of whole minutes. */
  between(history: readonly Span[], since: number): void {
    const now = this.#last?.at ?? Infinity;
    const known = pointsOf(history.filter((span) => span.timestamp / 1000 >= since && span.timestamp / 1000 + span.seconds <= now));
    const until = known.at(-1)?.at;
    if (until === undefined) return;
    const from = this.points.findIndex((point) => point.at > since);
    const to = this.points.findIndex((point) => point.at > until);
    if (from < 0) this.points.push(...known);
    else this.points.splice(from, (to < 0 ? this.points.length : to) - from, ...known);
  }

  /** Events a second over the last few seconds; null while unknown. */
  now(kind: Kind | "all"): number | null {
    const first = this.#recent[0];
    const last = this.#recent.at(-1);
    if (!first || !last || last.at <= first.at) return null;
    return (last[kind] - first[kind]) / (last.at - first.at);
  }

  #push(point: Point): void {
    this.points.push(point);
    while (this.points.length > 2 && (this.points[0]?.at ?? 0) < point.at - this.window) this.points.shift();
  }
}

/** The greatest and the newest value. */
export function extent(points: readonly Point[], kind: Kind): { peak: number; last: number | null } {
  let peak = 0;
  for (const point of points) peak = Math.max(peak, point[kind] ?? 0);
  return { peak, last: points.at(-1)?.[kind] ?? null };
}

function totals(metrics: Metrics): Totals {
  const counts = metrics.eventCounts;
  return {
    at: Date.parse(metrics.lastUpdate) / 1000,
    added: metrics.flow.entriesAdded ?? null,
    all: metrics.eventsProcessed,
    commit: counts["#commit"],
    identity: counts["#identity"],
    account: counts["#account"],
  };
}
