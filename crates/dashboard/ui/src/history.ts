/** What the server knows of a range of time, and which range is looked at. Pure. */

import type { Point } from "./rates";

/** Events per second over a span; null: nothing is known of it. */
export interface Span {
  /** Its start, in milliseconds since the epoch. */
  timestamp: number;
  /** Its length. */
  seconds: number;
  incoming: number | null;
  commit: number | null;
  identity: number | null;
  account: number | null;
}

/** A service started. */
export interface Mark {
  timestamp: number;
  service: string;
  instance: string;
  version: string;
}

export interface History {
  /** How long the server keeps minutes. */
  keptSeconds: number;
  points: Span[];
  marks: Mark[];
}

export const RANGES = [
  { name: "10 min", long: "10 minutes", seconds: 600 },
  { name: "1 h", long: "hour", seconds: 3_600 },
  { name: "24 h", long: "24 hours", seconds: 86_400 },
  { name: "7 d", long: "7 days", seconds: 604_800 },
] as const;

/** The range that is drawn from what the page itself has seen. */
export const LIVE = RANGES[0].seconds;

/** What is looked at: a range that ends now, or a part of it, in seconds since the epoch. */
export interface View {
  seconds: number;
  zoom: readonly [number, number] | null;
}

/** The least that one can zoom to: of the live range there are points of seconds, of the others minutes. */
export function least(view: View): number {
  return view.seconds === LIVE ? 20 : 300;
}

/** A part of what is looked at, at least as long as makes sense; the whole range where it is no part. */
export function zoomTo(view: View, from: number, to: number, end: number): View {
  const [a, b] = from < to ? [from, to] : [to, from];
  const missing = Math.max(0, least(view) - (b - a)) / 2;
  const [first, last] = [Math.max(a - missing, end - view.seconds), Math.min(b + missing, end)];
  if (last - first >= view.seconds * 0.98) return { ...view, zoom: null };
  // At an edge the part is moved, not made shorter than makes sense.
  const short = Math.max(0, least(view) - (last - first));
  return { ...view, zoom: first <= end - view.seconds ? [first, last + short] : [first - short, last] };
}

/** Nearer or further by a factor, around a time. */
export function zoomBy(view: View, factor: number, around: number | null, end: number): View {
  const [from, to] = view.zoom ?? [end - view.seconds, end];
  const middle = around ?? (from + to) / 2;
  const length = Math.min(Math.max(least(view), (to - from) * factor), view.seconds);
  const share = to > from ? (middle - from) / (to - from) : 0.5;
  // At an edge it is moved, so that twice nearer and twice further is where one began.
  const first = Math.min(Math.max(middle - share * length, end - view.seconds), end - length);
  return zoomTo(view, first, first + length, end);
}

/** The same length earlier or later, by a share of it. */
export function pan(view: View, share: number, end: number): View {
  if (!view.zoom) return view;
  const [from, to] = view.zoom;
  const by = Math.min(Math.max((to - from) * share, end - view.seconds - from), end - to);
  return { ...view, zoom: [from + by, to + by] };
}

/** Where the server is asked for what is looked at. */
export function pathOf(view: View): string {
  if (!view.zoom) return `api/activity?seconds=${view.seconds}`;
  const [from, to] = view.zoom;
  return `api/activity?seconds=${Math.max(60, Math.ceil(to) - Math.floor(from))}&until=${Math.ceil(to)}`;
}

/** Spans as points, each at its middle. */
export function pointsOf(spans: readonly Span[]): Point[] {
  return spans.map(({ timestamp, seconds, incoming, commit, identity, account }) => ({
    at: timestamp / 1000 + seconds / 2, incoming, commit, identity, account,
  }));
}

/** All kinds together. */
export function applied(point: Point): number | null {
  return point.commit === null || point.identity === null || point.account === null ? null : point.commit + point.identity + point.account;
}

/** Points between two that are unknown: a line would not show them. */
export function alone(values: ArrayLike<number | null | undefined>): number[] {
  const found: number[] = [];
  for (let at = 0; at < values.length; at += 1) {
    if (values[at] != null && values[at - 1] == null && values[at + 1] == null) found.push(at);
  }
  return found;
}

/** Starts that fall together on the axis. */
export interface MarkGroup {
  /** In seconds since the epoch. */
  at: number;
  /** Another version than the one before. */
  rollout: boolean;
  words: string;
}

/** How many marks have room beside each other. */
const SLOTS = 60;

/** Joins starts that would stand on each other; says what started. */
export function grouped(marks: readonly Mark[], seconds: number): MarkGroup[] {
  const groups: Mark[][] = [];
  for (const mark of [...marks].sort((a, b) => a.timestamp - b.timestamp)) {
    const last = groups.at(-1);
    if (last?.[0] && mark.timestamp - last[0].timestamp < (seconds * 1000) / SLOTS) last.push(mark);
    else groups.push([mark]);
  }
  const versions = new Map<string, string>();
  return groups.map((group) => {
    let rollout = false;
    const words = [...new Set(group.map((mark) => mark.service))].map((service) => {
      const of = group.filter((mark) => mark.service === service);
      const version = of.at(-1)?.version ?? "";
      const before = versions.get(service);
      const isNew = before !== undefined && before !== version;
      rollout ||= isNew;
      versions.set(service, version);
      const who = of.length === 1 ? `${service} ${of[0]?.instance ?? ""}`.trim() : `${of.length} ${service} starts`;
      return of.length === 1 ? `${who} started (${isNew ? `${before} → ${version}` : version})` : `${who} (${isNew ? `${before} → ${version}` : version})`;
    });
    return { at: (group[0]?.timestamp ?? 0) / 1000, rollout, words: words.join(", ") };
  });
}
