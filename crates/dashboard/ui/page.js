"use strict";
// Everything shown is put in as text, never as markup.

const KEPT = 100; // events in the list
const POINTS = 150; // of the chart, one a frame of metrics
const LIST_MS = 250; // the list is drawn at most so often
const INGEST_MS = 5000;

const at = (id) => document.getElementById(id);
const count = new Intl.NumberFormat();
const show = (id, value, mood = "") => {
  const text = value ?? "–";
  if (at(id).textContent !== text) at(id).textContent = text;
  if (at(id).className !== mood) at(id).className = mood;
};

let open = false; // the stream, as the browser sees it
let last = null; // the newest metrics, with `seen`: when they came, in ms of the page's own clock
let interval = 2000; // between the last two of them
let problem = ""; // what the server says is wrong

// Metrics

function takeMetrics(metrics) {
  const seen = performance.now();
  const before = last;
  last = { ...metrics, seen };
  const { stats, eventCounts, systemHealth: machine, firehoseStatus: relay } = metrics;
  show("total", count.format(metrics.eventsProcessed));
  show("length", count.format(relay.streamLength));
  show("pending", count.format(relay.queueDepth));
  show("dead", count.format(relay.deadLetterLength), relay.deadLetterLength ? "warn" : "");
  const rate = metrics.errorRate;
  show("errors", rate > 0 && rate < 0.01 ? "< 0.01 %" : `${rate.toFixed(2)} %`, rate >= 1 ? "warn" : "");
  show("relay", relay.connected ? "connected" : "not connected", relay.connected ? "good" : "bad");
  show("url", relay.url || null);
  show("cursor", relay.currentCursor);
  for (const kind of ["commit", "identity", "account"]) show(kind, count.format(eventCounts["#" + kind]));
  for (const table of ["Users", "Posts", "Likes", "Reposts", "Follows", "Blocks"]) {
    show(table.toLowerCase(), count.format(stats["total" + table]));
  }
  show("records", count.format(metrics.dbRecords));
  show("machine", `${machine.cpu} %, ${machine.memory} %, ${machine.disk} %`);
  show("network", machine.network || null);

  // The server's clock on both ends: how long the frames took does not count.
  const seconds = before && (Date.parse(metrics.lastUpdate) - Date.parse(before.lastUpdate)) / 1000;
  const events = before && metrics.eventsProcessed - before.eventsProcessed;
  // The first frame of a stream may repeat the last of the stream before; a total that fell was reset.
  if (seconds > 0 && events >= 0) {
    interval = seconds * 1000;
    chart(events / seconds, seconds);
  }
}

const rates = [];

function chart(rate, seconds) {
  rates.push({ rate, seconds });
  if (rates.length > POINTS) rates.shift();
  const peak = Math.max(...rates.map((point) => point.rate));
  const step = 300 / Math.max(rates.length - 1, 14);
  const points = rates.map(({ rate }, index) =>
    `${300 - (rates.length - 1 - index) * step},${38 - (peak ? (rate / peak) * 36 : 0)}`);
  document.querySelector("#chart polyline").setAttribute("points", points.join(" "));
  show("rate", count.format(rate < 10 ? +rate.toFixed(1) : Math.round(rate)));
  show("peak", count.format(Math.round(peak)));
  show("span", duration(rates.reduce((sum, point) => sum + point.seconds, 0)));
}

function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// What ingest says of itself; it also tells why there are no metrics.

async function askIngest() {
  try {
    const answer = await fetch("api/ingest", { signal: AbortSignal.timeout(INGEST_MS) });
    const body = await answer.json();
    problem = answer.ok ? "" : body.detail ?? answer.statusText;
    if (answer.ok) {
      const behind = body.lagSeconds;
      show("lag", body.paused ? "paused: Redis is full" : behind === null ? null : duration(behind),
        body.paused || behind > 60 ? "warn" : "");
      show("gaps", `${count.format(body.gaps)}, ${count.format(body.resets)}`, body.gaps + body.resets ? "warn" : "");
      show("loss", count.format(body.dataLoss), body.dataLoss ? "bad" : "");
    }
  } catch {
    problem = "the dashboard does not answer";
  }
  setTimeout(askIngest, INGEST_MS);
}

// Events

const waiting = [];
let total = 0;
let paused = false;

function takeEvent(event) {
  total += 1;
  if (paused) return;
  waiting.push(event);
  if (waiting.length > KEPT) waiting.shift();
}

function row(event) {
  const item = document.createElement("li");
  const cell = (tag, name, text) => {
    const part = document.createElement(tag);
    part.className = name;
    part.textContent = part.title = text ?? "";
    item.append(part);
  };
  cell("time", "", event.timestamp);
  cell("span", "kind", event.type);
  cell("span", "", event.lexicon);
  cell("span", "", event.action);
  cell("span", "did", event.did);
  return item;
}

function drawEvents() {
  if (total) show("seen", `${count.format(total)} seen${paused ? ", paused" : ""}`, "age");
  if (paused || !waiting.length) return;
  at("events").prepend(...waiting.splice(0).reverse().map(row));
  while (at("events").childElementCount > KEPT) at("events").lastElementChild.remove();
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  waiting.length = 0;
  at("pause").setAttribute("aria-pressed", String(paused));
  drawEvents();
});

// The stream. The browser connects again by itself, except after an answer that is no stream.

function listen() {
  const stream = new EventSource("api/events/stream");
  stream.onopen = () => { open = true; };
  stream.onerror = () => {
    open = false;
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
  stream.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "metrics") takeMetrics(frame.data);
    else if (frame.type === "event") takeEvent(frame.data);
    tell();
  };
}

// Whether what is shown is true now, and how old it is.

function tell() {
  const age = last ? performance.now() - last.seen : Infinity;
  const stale = age > Math.max(5000, 3 * interval);
  at("figures").classList.toggle("stale", stale);
  show("age", last ? `last update ${duration(age / 1000)} ago` : "no figures yet", "age");
  let [state, text] = ["good", "Live"];
  if (!open) [state, text] = ["waiting", last ? "Reconnecting" : "Connecting"];
  else if (stale) [state, text] = last ? ["bad", "Stale"] : ["waiting", "Waiting for figures"];
  else if (!last.firehoseStatus.connected) [state, text] = ["bad", "Relay not connected"];
  at("state").dataset.state = state;
  if (at("state").textContent !== text) at("state").textContent = text;
  const why = stale && problem ? `These figures are ${last ? "old" : "missing"}: ${problem}` : "";
  at("notice").hidden = !why;
  if (at("notice").textContent !== why) at("notice").textContent = why;
}

fetch("api/events/recent").then((answer) => (answer.ok ? answer.json() : [])).then((events) => {
  // Newest first, and older than what the stream has brought meanwhile.
  at("events").append(...events.map(row));
}).catch(() => {});
listen();
askIngest();
setInterval(tell, 1000);
setInterval(drawEvents, LIST_MS);
