/** All that the page knows, and how it comes to know it. */

import { batch, computed, signal } from "@preact/signals";
import {
  type BufferStats, type DeadLetter, type Frame, type Ingest, type Message, type Metrics, Polled, type QueueStatus,
  type Ready, Refusal, type Worker, ask,
} from "./api";
import { ALL, type Filter, type LiveEvent } from "./filter";
import { type Minute, type Point, Rates, minutes } from "./rates";
import { Stream, backoff } from "./sse";
import { type Link, Stall, staleAfter, verdict } from "./verdict";

/** How far back the live charts reach, in seconds. */
export const WINDOW = 600;

/** How many of the live events are kept: what a filter can look through. */
const KEPT = 2_000;

/** How often the list of live events is drawn, in ms. */
const DRAW = 500;

// The clock

/** The wall clock in ms, to the second: what ages are drawn by. */
export const now = signal(Date.now());

// The figures

export const link = signal<Link>("connecting");
export const metrics = signal<Metrics | null>(null);
/** When the newest figures came. */
export const seen = signal({ wall: 0, page: 0 });
/** Between the last two figures, in seconds. */
const interval = signal(2);
/** Grows with each figure: the series below are no signals themselves. */
export const version = signal(0);
export const rates = new Rates(WINDOW);
export const dayPoints = signal<Point[]>([]);
export const stalledSeconds = signal(0);
/** Why the stream was refused. */
const refused = signal("");
const stall = new Stall();
/** The stream's length in the newest figures, oldest first. */
export const lengths = signal<readonly number[]>([]);

export const ingest = new Polled<Ingest>("api/ingest");
export const ready = new Polled<Ready>("ready", [503]);
export const history = new Polled<Minute[]>("api/metrics/activity-history");
export const workers = new Polled<Worker[] | { workers: Worker[] }>("api/workers");
export const letters = new Polled<{ items: DeadLetter[] }>("api/redis/dead-letters");
export const queue = new Polled<QueueStatus>("queue/status");
export const messages = new Polled<Message[]>("messages?limit=20");

/** How old the newest figures are, in seconds. Both clocks are asked: one stops while the machine sleeps, one may be set. */
export const ageSeconds = computed(() => {
  if (!metrics.value) return null;
  const wall = now.value - seen.value.wall;
  const page = performance.now() - seen.value.page;
  return Math.max(0, wall, page) / 1000;
});
export const stale = computed(() => ageSeconds.value !== null && ageSeconds.value > staleAfter(interval.value));
/** Whether the figures on the page are not to be trusted. */
export const dim = computed(() => metrics.value === null || stale.value);

/** Events applied a second, smoothed over a few seconds. */
export const rateNow = computed(() => (version.value, dim.value ? null : rates.now("all")));

export const workerList = computed(() => {
  const value = workers.value.value;
  return value && (Array.isArray(value) ? value : value.workers);
});

export const judged = computed(() =>
  verdict({
    link: link.value,
    ageSeconds: ageSeconds.value,
    stale: stale.value,
    problem: link.value === "refused" ? refused.value : ingest.problem.value || refused.value,
    metrics: metrics.value,
    ingest: ingest.value.value,
    ready: ready.problem.value ? null : ready.value.value,
    workers: workerList.value,
    rate: rateNow.value,
    stalledSeconds: stalledSeconds.value,
  }),
);

/** Whether all optional panels are known to be there or not: nothing is drawn before, so that nothing moves after. */
export const settled = signal(false);

function takeMetrics(taken: Metrics): void {
  batch(() => {
    const before = metrics.value;
    const span = before ? (Date.parse(taken.lastUpdate) - Date.parse(before.lastUpdate)) / 1000 : 0;
    if (span > 0 && span < 120) interval.value = span;
    rates.take(taken);
    metrics.value = taken;
    now.value = Date.now();
    seen.value = { wall: Date.now(), page: performance.now() };
    lengths.value = [...lengths.value, taken.firehoseStatus.streamLength].slice(-15);
    stalledSeconds.value = stall.look(taken, performance.now() / 1000);
    version.value += 1;
  });
}

// The live events

export const filter = signal<Filter>(ALL);
/** Oldest first. */
export const events = signal<readonly LiveEvent[]>([]);
/** Events that came since the page was opened. */
export const eventsSeen = signal(0);
/** What the server says it did not send, because this page was too slow. */
export const eventsMissed = signal(0);
/** While paused: how many came meanwhile. */
export const held = signal(0);
/** When the newest event came, in ms of the wall clock; 0: none did. */
export const lastEvent = signal(0);
export const paused = signal(false);

let incoming: LiveEvent[] = [];
let came = 0;
/** How many of the next events may be repeats of what came before the stream broke. */
let maybeRepeats = 0;
let repeats = new Set<string>();

function takeEvent(event: LiveEvent): void {
  if (maybeRepeats > 0) {
    maybeRepeats -= 1;
    if (repeats.has(keyOf(event))) return;
  }
  came += 1;
  incoming.push(event);
  if (incoming.length > KEPT) incoming = incoming.slice(-KEPT / 2);
}

function drawEvents(): void {
  if (came === 0) return;
  batch(() => {
    eventsSeen.value += came;
    lastEvent.value = Date.now();
    if (paused.value) {
      held.value += came;
    } else {
      events.value = [...events.value, ...incoming].slice(-KEPT);
      incoming = [];
    }
    came = 0;
  });
}

/** Holds the list still, or lets it go on with what came meanwhile. */
export function pause(on: boolean): void {
  batch(() => {
    paused.value = on;
    if (!on) {
      events.value = [...events.value, ...incoming].slice(-KEPT);
      incoming = [];
    }
    held.value = 0;
  });
}

function keyOf(event: LiveEvent): string {
  return [event.type, event.did, event.timestamp, event.lexicon, event.action].join(" ");
}

const stream = new Stream("api/events/stream", {
  opened() {
    repeats = new Set([...events.value.slice(-100), ...incoming.slice(-100)].map(keyOf));
    maybeRepeats = 50;
    batch(() => {
      link.value = "open";
      refused.value = "";
    });
    void look();
  },
  sent(data) {
    let frame: Frame;
    try {
      frame = JSON.parse(data) as Frame;
    } catch {
      return;
    }
    if (frame.type === "metrics") takeMetrics(frame.data);
    else if (frame.type === "event") takeEvent(frame.data);
    else if (frame.type === "missed") eventsMissed.value += frame.count ?? frame.data?.count ?? 0;
  },
  lost(why) {
    batch(() => {
      link.value = why?.forbidden ? "refused" : "lost";
      refused.value = why?.detail ?? "";
    });
  },
});

// The message buffer

/** The buffer is on, or was when it was last asked. */
export const bufferOn = signal(false);
export const bufferStats = signal<BufferStats | null>(null);
export const bufferSeen = signal(0);
export const bufferVersion = signal(0);
/** Messages a second, one point a second. */
export const bufferPoints: { at: number; value: number | null }[] = [];
let socket: WebSocket | null = null;
let socketAttempt = 0;
let messagesDue: ReturnType<typeof setTimeout> | undefined;
let queueDue: ReturnType<typeof setTimeout> | undefined;

function takeStats(stats: BufferStats): void {
  const at = Date.now();
  const last = bufferPoints.at(-1);
  if (!last || at / 1000 - last.at >= 0.95) {
    if (last && at / 1000 - last.at > 5) bufferPoints.push({ at: last.at + 0.001, value: null });
    bufferPoints.push({ at: at / 1000, value: stats.messages_per_second });
    while ((bufferPoints[0]?.at ?? 0) < at / 1000 - WINDOW) bufferPoints.shift();
  }
  const written = stats.total_messages !== bufferStats.value?.total_messages;
  batch(() => {
    bufferStats.value = stats;
    bufferSeen.value = at;
    bufferVersion.value += 1;
  });
  if (written) messagesDue ??= setTimeout(() => { messagesDue = undefined; void messages.ask(); }, 1_000);
}

function watchBuffer(): void {
  if (socket || !bufferOn.value) return;
  const url = new URL("ws/stats", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const opened = new WebSocket(url);
  socket = opened;
  opened.onmessage = ({ data }) => {
    socketAttempt = 0;
    try {
      takeStats(JSON.parse(String(data)) as BufferStats);
    } catch {
      // A frame that is no JSON says nothing.
    }
  };
  opened.onclose = () => {
    socket = null;
    socketAttempt += 1;
    askQueueIn(backoff(socketAttempt, Math.random()));
  };
}

async function askQueue(): Promise<void> {
  await queue.ask();
  if (queue.missing.value) bufferOn.value = false;
  else if (!queue.problem.value) bufferOn.value = true;
  if (bufferOn.value && !queue.problem.value) {
    watchBuffer();
    if (!messages.value.value) void messages.ask();
  } else if (bufferOn.value) {
    // It was on: asked again until it says what has become of it.
    askQueueIn(10_000);
  }
}

function askQueueIn(ms: number): void {
  clearTimeout(queueDue);
  queueDue = setTimeout(() => void askQueue(), ms);
}

// What only some may do

/** What was refused, and what to do again after signing in. */
export const asked = signal<{ detail: string; again: (() => void) | null } | null>(null);
/** What came of the last action, for a person and a screen reader. */
export const said = signal("");

/** Does what may be refused, and then what follows; after signing in it is done again. */
export async function act(what: string, path: string, method: string, then?: () => void): Promise<void> {
  try {
    await ask(path, method);
    said.value = what;
    then?.();
  } catch (error) {
    const why = error instanceof Refusal ? error : new Refusal(0, String(error));
    if (why.forbidden) asked.value = { detail: why.detail, again: () => void act(what, path, method, then) };
    else said.value = why.status === 404 ? "This dashboard cannot do that." : `Not done: ${why.detail}.`;
  }
}

/** Exchanges the token for a cookie that scripts cannot read; the token is kept nowhere. Returns what went wrong. */
export async function signIn(token: string): Promise<string> {
  try {
    await ask("api/session", "POST", { token });
  } catch (error) {
    const why = error instanceof Refusal ? error : new Refusal(0, String(error));
    return why.status === 404 || why.status === 405 ? "This dashboard takes no tokens." : why.detail;
  }
  stream.start();
  void look();
  return "";
}

// From the start on

async function look(): Promise<void> {
  const all = [ingest, ready, history, workers, letters].map((polled) => polled.ask());
  await Promise.all([...all, askQueue()]);
}

function every(ms: number, polled: Polled<unknown>): void {
  setInterval(() => {
    // What is not looked at need not be asked for; what is missing is asked for again when the stream opens.
    if (!document.hidden && !polled.missing.value) void polled.ask();
  }, ms);
}

export function start(): void {
  history.value.subscribe((value) => {
    if (!value) return;
    rates.before(value);
    dayPoints.value = minutes(value);
    version.value += 1;
  });
  let length = -1;
  metrics.subscribe((value) => {
    const now = value?.firehoseStatus.deadLetterLength ?? length;
    if (length >= 0 && now !== length && !letters.missing.value) void letters.ask();
    length = now;
  });
  setInterval(() => { now.value = Date.now(); }, 1_000);
  setInterval(drawEvents, DRAW);
  every(5_000, ingest);
  every(5_000, ready);
  every(5_000, workers);
  every(60_000, history);
  every(60_000, letters);
  const hurry = () => {
    if (document.hidden) return;
    now.value = Date.now();
    stream.hurry();
    for (const polled of [ingest, ready, workers]) if (!polled.missing.value) void polled.ask();
  };
  document.addEventListener("visibilitychange", hurry);
  addEventListener("online", hurry);
  stream.start();
  const first = new Polled<LiveEvent[]>("api/events/recent");
  void first.ask().then(() => {
    // Newest first, and older than what the stream has brought meanwhile.
    events.value = [...(first.value.value ?? []).reverse(), ...events.value].slice(-KEPT);
  });
  void look();
  const optional = Promise.all([workers.ask(), askQueue()]);
  void Promise.race([optional, new Promise((done) => setTimeout(done, 5_000))]).then(() => { settled.value = true; });
}
