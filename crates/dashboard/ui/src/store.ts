/** All that the page knows, and how it comes to know it. */

import { batch, computed, signal } from "@preact/signals";
import {
  type About, type BufferStats, type Frame, type Ingest, type Message, type Metrics, Polled, type QueueStatus,
  type Ready, Refusal, type Session, type Worker, ask,
} from "./api";
import { type Filter, type LiveEvent, fromAddress, inOrder, matches, query, toAddress } from "./filter";
import { clockWithZone } from "./format";
import type { History } from "./history";
import { type Groups, type LettersFilter, NO_FILTER, isOpen } from "./letters";
import { Rates } from "./rates";
import { ROUND, restWhenHidden } from "./rest";
import { Stream, backoff } from "./sse";
import { type Known, type Link, staleAfter, verdict } from "./verdict";

/** How far back the live charts reach, in seconds. */
export const WINDOW = 600;

/** How many of the live events are kept: what a filter can look through. */
const KEPT = 2_000;

/** How often the list of live events is drawn, in ms. */
const DRAW = 500;

/** How many of the newest events the server is asked for at first, of those that match. */
const RECENT = 200;

/** How long a filter must stand as it is before the server is asked for it, in ms: it is being typed. */
const TYPING = 400;

// The clock

/** The wall clock in ms, to the second: what ages are drawn by. */
export const now = signal(Date.now());

// Whose page it is, and who looks at it

export const about = new Polled<About>("api/about");
export const session = new Polled<Session>("api/session");
/** The dashboard shows nothing without a token, and none was given. */
export const locked = computed(() => session.value.value?.read === false);

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
/** Why the stream was refused. */
const refused = signal("");

export const ingest = new Polled<Ingest>("api/ingest");
export const ready = new Polled<Ready>("ready", [503]);
/** What came before the page was opened, and the starts of services since. */
export const history = new Polled<History>(`api/activity?seconds=${WINDOW}`);
export const workers = new Polled<Worker[] | { workers: Worker[] }>("api/workers");
export const letters = new Polled<Groups>("api/dead-letters/groups");
export const lettersFilter = signal<LettersFilter>(NO_FILTER);
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

/** How many dead letters there are; the list may know of more than the newest metrics. */
export const lettersKnown = computed(() => {
  const counted = metrics.value?.firehoseStatus.deadLetterLength ?? null;
  const listed = isOpen(lettersFilter.value) ? letters.value.value : null;
  return counted === null ? null : Math.max(counted, listed ? listed.total - listed.onlyInPostgres : 0);
});

/** What the verdict and the stages are judged by. */
export const known = computed(
  (): Known => ({
    link: link.value,
    ageSeconds: ageSeconds.value,
    stale: stale.value,
    problem: link.value === "refused" ? refused.value : ingest.problem.value || refused.value,
    metrics: metrics.value,
    ingest: ingest.value.value,
    ready: ready.problem.value ? null : ready.value.value,
  }),
);

export const judged = computed(() => verdict(known.value));

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
    version.value += 1;
  });
}

// The live events

export const filter = signal<Filter>(fromAddress(location.search));
/** Oldest first. */
export const events = signal<readonly LiveEvent[]>([]);
/** Events that came since the page was opened, or since the filter was changed: only those that match are sent. */
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
/** The last filter that the server was asked for, as a query. */
let askedFor = "";

function takeEvent(event: LiveEvent): void {
  if (maybeRepeats > 0) {
    maybeRepeats -= 1;
    if (repeats.has(event.id ?? "") || repeats.has(keyOf(event))) return;
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
      events.value = inOrder([...events.value, ...incoming]).slice(-KEPT);
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
      events.value = inOrder([...events.value, ...incoming]).filter((event) => matches(filter.value, event)).slice(-KEPT);
      incoming = [];
    }
    held.value = 0;
  });
}

function keyOf(event: LiveEvent): string {
  return [event.type, event.did, event.timestamp, event.lexicon, event.action].join(" ");
}

function streamPath(): string {
  const asked = query(filter.value);
  askedFor = asked.toString();
  asked.append("recent", String(RECENT));
  return `api/events/stream?${asked}`;
}

let typing: ReturnType<typeof setTimeout> | undefined;

/** Shows what matches of what is here at once; the server is asked for more, and the address says so, once nobody types any more. */
export function setFilter(next: Filter): void {
  show(next);
  clearTimeout(typing);
  typing = setTimeout(() => {
    const address = toAddress(location.search, filter.value);
    if (address !== location.search) window.history.pushState(null, "", `${location.pathname}${address}${location.hash}`);
    askForFilter();
  }, TYPING);
}

function show(next: Filter): void {
  batch(() => {
    filter.value = next;
    if (!paused.value) events.value = events.value.filter((event) => matches(next, event));
    incoming = incoming.filter((event) => matches(next, event));
  });
}

function askForFilter(): void {
  if (query(filter.value).toString() === askedFor) return;
  came = 0;
  eventsSeen.value = 0;
  stream.change(streamPath());
}

const stream = new Stream(streamPath(), {
  opened() {
    const here = [...events.value, ...incoming];
    repeats = new Set(here.flatMap((event) => (event.id ? [event.id] : [])).concat(here.slice(-RECENT).map(keyOf)));
    maybeRepeats = RECENT;
    batch(() => {
      link.value = "open";
      refused.value = "";
    });
    void look();
  },
  sent(data, id) {
    let frame: Frame;
    try {
      frame = JSON.parse(data) as Frame;
    } catch {
      return;
    }
    if (frame.type === "metrics") takeMetrics(frame.data);
    else if (frame.type === "event") takeEvent({ ...frame.data, id });
    else if (frame.type === "missed") eventsMissed.value += frame.count ?? frame.data?.count ?? 0;
  },
  lost(why) {
    batch(() => {
      link.value = why?.forbidden ? "refused" : "lost";
      refused.value = why?.detail ?? "";
    });
    // A session ends when its token is changed.
    if (why?.forbidden) void session.ask();
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
  if (socket || !bufferOn.value || resting) return;
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
  // What is off answers nothing, and need not be asked.
  await about.ask();
  if (about.value.value?.messageBuffer === false) {
    bufferOn.value = false;
    return;
  }
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

/** Does what may be refused, and then what follows; after signing in it is done again. What is said of it may depend on the answer. */
export async function act(what: string | ((answer: unknown) => string), path: string, method: string, then?: () => void): Promise<void> {
  try {
    const answer = await ask<unknown>(path, method);
    said.value = typeof what === "string" ? what : what(answer);
    then?.();
  } catch (error) {
    const why = error instanceof Refusal ? error : new Refusal(0, String(error));
    if (why.forbidden) asked.value = { detail: why.detail, again: () => void act(what, path, method, then) };
    else said.value = why.status === 404 ? "This dashboard cannot do that." : `Failed: ${why.detail}.`;
  }
}

/** Exchanges the token for a cookie that scripts cannot read; the token is kept nowhere. Returns what went wrong. */
export async function signIn(token: string): Promise<string> {
  try {
    await ask("api/session", "POST", { token });
  } catch (error) {
    const why = error instanceof Refusal ? error : new Refusal(0, String(error));
    return why.status === 404 || why.status === 405 ? "This dashboard does not accept tokens." : why.detail;
  }
  await session.ask();
  void begin();
  return "";
}

/** Signs in with the token of an address that ends in `#token=…`, as `penstock run` prints it; the address then loses it. */
export async function signInByAddress(): Promise<void> {
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (token === undefined) return;
  window.history.replaceState(window.history.state, "", location.pathname + location.search);
  let wrong = "This address has no token that can be read.";
  try {
    wrong = await signIn(decodeURIComponent(token));
  } catch {
    // What is no percent-encoding is no token.
  }
  if (wrong) asked.value = { detail: wrong, again: null };
  else said.value = "Signed in.";
}

/** Ends the session, and forgets what was shown in it. */
export async function signOut(): Promise<void> {
  try {
    await ask("api/session", "DELETE");
    location.reload();
  } catch (error) {
    said.value = `Failed: ${error instanceof Refusal ? error.detail : String(error)}.`;
  }
}

/** Connects anew and asks for everything anew. */
export function refresh(): void {
  stream.start();
  void look();
  said.value = `Refreshed at ${clockWithZone(Date.now())}.`;
}

// While nobody sees the page

let resting = false;
/** Since when the page has not seen what happens, by the server's clock in seconds. */
let unseenSince = 0;
/** What the interval was before. */
let usual = 2;

const sleeper = {
  sleep() {
    resting = true;
    unseenSince = rates.points.at(-1)?.at ?? 0;
    // One round may come late: browsers slow down what is hidden.
    [usual, interval.value] = [interval.value, ROUND / 1000];
    stream.stop();
    socket?.close();
  },
  round() {
    if (locked.value) return;
    // What has been refused is asked for again when somebody looks.
    if (link.value !== "refused") void ask<Metrics>("api/metrics").then(found, missed);
    void ingest.ask();
    void ready.ask();
  },
  wake() {
    resting = false;
    if (locked.value) return;
    // Until the stream is there again, what was seen last is not old.
    setTimeout(() => { if (!resting) interval.value = usual; }, 3_000);
    stream.hurry();
    void askQueue();
    void history.ask().then(() => {
      rates.between(history.value.value?.points ?? [], unseenSince);
      version.value += 1;
    });
  },
};

function found(taken: Metrics): void {
  if (!resting) return;
  batch(() => {
    link.value = "open";
    refused.value = "";
    takeMetrics(taken);
  });
}

function missed(why: unknown): void {
  if (!resting || !(why instanceof Refusal)) return;
  batch(() => {
    // An answer that says what is missing is an answer.
    link.value = why.forbidden ? "refused" : why.status === 503 ? "open" : "lost";
    refused.value = why.detail;
  });
  if (why.forbidden) void session.ask();
}

// From the start on

async function look(): Promise<void> {
  const all = [session, about, ingest, ready, history, workers, letters].map((polled) => polled.ask());
  await Promise.all([...all, askQueue()]);
}

function every(ms: number, polled: Polled<unknown>): void {
  setInterval(() => {
    // What is not looked at need not be asked for; what is missing is asked for again when the stream opens.
    if (!document.hidden && !locked.value && !polled.missing.value) void polled.ask();
  }, ms);
}

export function start(): void {
  history.value.subscribe((value) => {
    if (!value) return;
    rates.before(value.points);
    version.value += 1;
  });
  let alive: number | null | undefined;
  metrics.subscribe((value) => {
    // The list must not show those whom the headline calls dead.
    if (alive !== undefined && value?.flow.workersAlive !== alive && !workers.missing.value) void workers.ask();
    alive = value?.flow.workersAlive;
  });
  let length = -1;
  metrics.subscribe((value) => {
    const now = value?.firehoseStatus.deadLetterLength ?? length;
    // One that is replayed and fails again leaves the number as it was.
    const list = letters.value.value;
    const differs = !!list && isOpen(lettersFilter.value) && list.complete && list.total - list.onlyInPostgres !== now;
    if (length >= 0 && (now !== length || differs) && !letters.missing.value) void letters.ask();
    length = now;
  });
  // Why no metrics come is known to those routes.
  stale.subscribe((is) => {
    if (is) for (const polled of [ingest, ready]) void polled.ask();
  });
  setInterval(() => { now.value = Date.now(); }, 1_000);
  setInterval(drawEvents, DRAW);
  every(5_000, ingest);
  every(5_000, ready);
  every(5_000, workers);
  every(15_000, history);
  every(60_000, letters);
  const hurry = () => {
    if (document.hidden || locked.value) return;
    now.value = Date.now();
    stream.hurry();
    for (const polled of [ingest, ready, workers]) if (!polled.missing.value) void polled.ask();
  };
  document.addEventListener("visibilitychange", hurry);
  addEventListener("online", hurry);
  addEventListener("popstate", () => {
    show(fromAddress(location.search));
    askForFilter();
  });
  restWhenHidden(sleeper);
  void session.ask().then(() => {
    if (locked.value) link.value = "refused";
    else void begin();
  });
}

/** Looks at everything, for those who may. */
async function begin(): Promise<void> {
  stream.start();
  void look();
  const optional = Promise.all([about.ask(), workers.ask(), askQueue()]);
  await Promise.race([optional, new Promise((done) => setTimeout(done, 5_000))]);
  settled.value = true;
}
