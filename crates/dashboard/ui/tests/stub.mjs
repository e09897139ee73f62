// A dashboard of canned figures, for what a real pipeline does not do on demand: standing still, refusing, falling over.
// `node tests/stub.mjs [port]` serves the built page with it.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { lettersAnswer, wants } from "./stub-letters.mjs";
import { repoAnswer } from "./stub-repos.mjs";

const DIST = new URL("../dist/", import.meta.url).pathname;
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8" };

/** What src/routes/page.rs sends with the page. */
export const POLICY = readFileSync(new URL("../../src/routes/page.rs", import.meta.url), "utf8")
  .match(/const POLICY: &str = "([^;]*(?:;[^"]*)*)";/)[1].replace(/\\\s*\n\s*/g, "");

const COLLECTIONS = ["app.bsky.feed.like", "app.bsky.feed.like", "app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.graph.follow", "app.bsky.feed.repost", "org.example.custom.note"];

export class Stub {
  /** May be changed at any time: the next answer says so. */
  metrics = {
    eventsProcessed: 48_213_907, dbRecords: 41_903_112, apiRequestsPerMinute: 42,
    stats: { totalUsers: 2_310_442, totalPosts: 7_201_338, totalLikes: 25_119_803, totalReposts: 3_120_955, totalFollows: 3_980_121, totalBlocks: 170_453 },
    eventCounts: { "#commit": 47_731_768, "#identity": 289_283, "#account": 192_856 },
    systemHealth: { cpu: 38, memory: 61, disk: 47, network: "↓ 2.3 MB/s ↑ 410.0 KB/s" },
    firehoseStatus: { connected: true, isConnected: true, url: "wss://relay1.us-east.bsky.network", currentCursor: "28123456789", queueDepth: 212, streamLength: 1_204, deadLetterLength: 3 },
    errorRate: 0.000_03, rowsAgeSeconds: 0.9, redis: { usedBytes: 1_288_490_188, maxBytes: 2_147_483_648 },
    flow: {
      waiting: 180, waitingExact: true, quietSeconds: 0.1, stalledSeconds: 0, entriesAdded: 50_000_000, incomingPerSecond: 402.3, writtenPerSecond: 401.1, drainSeconds: 0, streamFullSeconds: null,
      streamCap: 400_000, workersAlive: 3, database: "writing",
    },
    lastUpdate: "",
  };
  verification = {
    mode: "enforce", signatures: "enforce", since: "2026-07-04T14:00:00Z", verified: 1_204_311, failed: {}, unresolved: 0, desynchronized: { sync: 2 }, lastFailed: null, heldSince: null,
  };
  ingest = { eventTime: "", lagSeconds: 0.8, paused: false, gaps: 0, resets: 0, dataLoss: 0, bulkLength: 41, verification: this.verification };
  ready = { status: "ready", checks: { firehose: "connected", database: "healthy", memory: "ok" } };
  workers = [0, 1, 2].map((at) => ({ name: `bluesky-worker-6c9d7f5b8-${"qx7lk w2mzn t8vrb".split(" ")[at]}`, idleSeconds: 0.1 * at, pending: 60 + 9 * at, alive: true, entriesPerSecond: 141 - 7 * at }));
  letters = [
    ["commit", "op 0: uri is longer than 512 bytes"],
    ["commit", "op 1: invalid byte sequence for encoding “UTF8”"],
    ["raw", "the CAR holds a block whose hash does not fit"],
  ].map(([type, error], at) => ({
    id: `${Date.now() - 600_000 * (at + 1)}-${at}`, type, error, seq: String(28_123_000_000 + at), origId: null, deliveries: "1", consumer: "bluesky-worker-6c9d7f5b8-qx7lk",
    data: type === "raw" ? "omF0ZyNjb21taXRib3AB" : JSON.stringify({ repo: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", rev: "3m5xq2k7c2s2a", ops: [{ action: "create", path: "app.bsky.feed.like/3m5xq2k7bzk2a", record: { $type: "app.bsky.feed.like", createdAt: "2026-07-04T14:38:08.999Z" } }] }),
  }));
  /** Whether the dashboard lists what only PostgreSQL has. */
  lettersPostgres = "listed";
  /** The newest events, with their ids. */
  log = [];
  messages = [];
  /** Messages a second that come by themselves. */
  messageRate = 120;
  buffer = { queue: 31, size: 50, messages: 120_431, batches: 2_612 };
  bufferOn = true;
  /** Events a second. */
  rate = 400;
  /** Set: how many come in at each look, whatever is applied. */
  came = null;
  /** No figures: what a dashboard does whose Redis is away. */
  silent = false;
  /** Routes that this dashboard does not have. */
  without = new Set();
  /** Where no admin token is set: whether admin routes are open, which no dashboard does; so claims need not sign in. */
  isLocal = true;
  /** Set: admin routes ask for it. */
  adminToken = null;
  /** Set: everything asks for it. */
  readToken = null;
  /** What `/api/about` answers, but for the message buffer. */
  about = { pipeline: "bluesky", namespace: "social", version: "0.1.0", documentation: "https://docs.penstock.test/" };
  /** Activity of the past, or none. */
  history = true;
  /** How much of it is kept, in seconds. */
  keptSeconds = 8 * 86_400;
  /** Minutes of which nothing is known: from and until how many minutes ago. */
  hole = [300, 330];
  /** Starts of services: how many minutes ago, which, whose, of which version. */
  starts = [[5, "worker", "bluesky-worker-6c9d7f5b8-qx7lk", "0.1.0"], [298, "worker", "bluesky-worker-6c9d7f5b8-qx7lk", "0.1.0"], [299, "ingest", "bluesky-ingest-0", "0.1.0"], [2_000, "worker", "bluesky-worker-6c9d7f5b8-w2mzn", "0.0.9"]];
  tables = {
    growthSeconds: 86_400,
    tables: [
      ["penstock.waiting_cids", 24_800_113, 8.3e9, 410e6], ["likes", 25_119_000, 7.9e9, 1.1e9], ["posts", 7_201_000, 6.2e9, 640e6], ["follows", 3_980_000, 1.2e9, 45e6],
      ["reposts", 3_121_000, 980e6, 61e6], ["users", 2_310_000, 910e6, 12e6], ["feed_items", 10_322_000, 2.4e9, 300e6], ["blocks", 170_000, 46e6, -2e6], ["penstock.tombstones", null, 8_192, null],
    ],
  };
  calls = [];
  /** Which ranges of activity were asked for: seconds, and whether with an end. */
  ranges = [];
  #server = null;
  /** Each with what it asked for. */
  #streams = new Map();
  #sockets = new Set();
  #ticks = [];
  #id = 0;

  async start(port = 0) {
    this.#server = createServer((request, response) => this.#answer(request, response).catch((error) => response.destroy(error)));
    this.#server.on("upgrade", (request, socket) => this.#upgrade(request, socket));
    await new Promise((done) => this.#server.listen(port, "127.0.0.1", done));
    this.port = this.#server.address().port;
    this.url = `http://127.0.0.1:${this.port}/`;
    this.metrics.lastUpdate = new Date().toISOString();
    this.#ticks = [setInterval(() => this.#event(), 100), setInterval(() => this.#figures(), 2_000), setInterval(() => this.#stats(), 500)];
    return this;
  }

  /** How many live streams and sockets there are. */
  get clients() {
    return { streams: this.#streams.size, sockets: this.#sockets.size };
  }

  /** Ends as a process does that was killed. */
  async stop() {
    if (!this.#server?.listening) return;
    this.#ticks.forEach(clearInterval);
    const closed = new Promise((done) => this.#server.close(done));
    this.#server.closeAllConnections();
    for (const socket of this.#sockets) socket.destroy();
    this.#streams.clear();
    this.#sockets.clear();
    await closed;
  }

  /** Adds events to the totals as if they were applied over so many seconds. */
  advance(seconds) {
    const wave = 1 + 0.25 * Math.sin(Date.now() / 40_000) + 0.08 * (Math.random() - 0.5);
    const events = Math.round(this.rate * seconds * wave);
    const [identities, accounts] = [Math.round(events * 0.006 * (0.5 + Math.random())), Math.round(events * 0.004 * (0.5 + Math.random()))];
    const m = this.metrics;
    m.eventsProcessed += events;
    m.flow.entriesAdded += Math.round(this.came ?? events);
    m.eventCounts["#identity"] += identities;
    m.eventCounts["#account"] += accounts;
    m.eventCounts["#commit"] += events - identities - accounts;
    if (m.firehoseStatus.currentCursor !== null) m.firehoseStatus.currentCursor = String(Number(m.firehoseStatus.currentCursor) + events);
    if (this.rate > 0) [m.flow.incomingPerSecond, m.flow.writtenPerSecond] = [events / seconds, events / seconds];
    if (this.rate > 0) m.firehoseStatus.streamLength = 900 + Math.round(500 * Math.random());
  }

  #now() {
    this.metrics.firehoseStatus.deadLetterLength = this.letters.filter(({ source }) => source !== "postgres").length;
    this.ingest.eventTime = this.ingest.lagSeconds === null ? null : new Date(Date.now() - 1000 * this.ingest.lagSeconds).toISOString();
    return this.metrics;
  }

  #send(type, data) {
    this.#id += 1;
    const frame = `id: stub-${this.#id}\ndata: ${JSON.stringify({ type, data })}\n\n`;
    if (type === "event") this.log = [...this.log.slice(-999), { event: data, frame }];
    for (const [stream, asked] of this.#streams) if (type !== "event" || wants(asked, data)) stream.write(frame);
  }

  #figures() {
    if (this.silent) return;
    this.advance(2);
    this.metrics.lastUpdate = new Date().toISOString();
    this.#send("metrics", this.#now());
  }

  event(over = {}) {
    const at = Math.floor(Math.random() * 1e9).toString(36).padStart(6, "a");
    return { type: "#commit", lexicon: COLLECTIONS[this.#id % COLLECTIONS.length], did: `did:plc:${at}${at}${at}${at}`.slice(0, 32), action: this.#id % 9 === 0 ? "delete" : "create", timestamp: new Date().toISOString().slice(11, 19), rkey: `3m${at}`, rev: `3n${at}`, seq: 28_123_000_000 + this.#id, ...over };
  }

  /** Sends one event. */
  send(over) {
    this.#send("event", this.event(over));
  }

  #event() {
    if (this.rate === 0 || this.silent) return;
    const kind = this.#id % 23;
    if (kind === 0) this.#send("event", this.event({ type: "#identity", lexicon: "com.atproto.identity", action: "→ alice.example.com" }));
    else if (kind === 1) this.#send("event", this.event({ type: "#account", lexicon: "com.atproto.account", action: "inactive" }));
    else this.#send("event", this.event());
  }

  #stats() {
    if (this.messageRate > 0) {
      this.buffer.queue += Math.round(this.messageRate / 2);
      while (this.buffer.queue >= this.buffer.size) {
        this.buffer.queue -= this.buffer.size;
        this.buffer.messages += this.buffer.size;
        this.buffer.batches += 1;
      }
    }
    const b = this.buffer;
    const frame = Buffer.from(JSON.stringify({
      type: "stats_update", total_messages: b.messages, total_batches: b.batches, current_rps: this.messageRate, messages_per_second: this.messageRate * (0.9 + 0.2 * Math.random()),
      queue_depth: b.queue, queue_length: b.queue, avg_batch_size: b.batches ? b.messages / b.batches : 0, batch_threshold: b.size, batch_progress: b.queue % b.size, batch_progress_percent: 0,
      batches_ready: Math.floor(b.queue / b.size), timestamp: new Date().toISOString(),
    }));
    const head = frame.length < 126 ? Buffer.from([0x81, frame.length]) : Buffer.from([0x81, 126, frame.length >> 8, frame.length & 255]);
    for (const socket of this.#sockets) socket.write(Buffer.concat([head, frame]));
  }

  #upgrade(request, socket) {
    if (!this.bufferOn || this.#refused(request)) return socket.end("HTTP/1.1 404 Not Found\r\n\r\n");
    const key = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ${key}\r\n\r\n`);
    this.#sockets.add(socket);
    socket.on("error", () => {}).on("close", () => this.#sockets.delete(socket));
    // A page that takes its leave is let go at once.
    socket.on("data", (frame) => { if ((frame[0] & 15) === 8) socket.end(); });
  }

  #refused(request) {
    const cookie = request.headers.cookie ?? "";
    return this.readToken !== null && !cookie.includes(`session=${this.readToken}`) && !cookie.includes(`session=${this.adminToken}`);
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    const { pathname: path } = url;
    const method = request.method;
    const problem = (status, detail) => {
      response.writeHead(status, { "content-type": "application/problem+json" });
      response.end(JSON.stringify({ title: "refused", status, detail }));
    };
    const json = (body, status = 200, headers = {}) => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(JSON.stringify(body));
    };
    let body = "";
    for await (const piece of request) body += piece;
    if (method !== "GET") this.calls.push(`${method} ${path}${decodeURIComponent(url.search).replaceAll("+", " ")}`);
    const file = path === "/" ? "index.html" : path.slice(1);
    if (method === "GET" && (path === "/" || path.startsWith("/assets/")) && existsSync(join(DIST, file))) {
      response.writeHead(200, { "content-type": TYPES[extname(file)], "content-security-policy": POLICY });
      return response.end(readFileSync(join(DIST, file)));
    }
    if (this.without.has(path)) return problem(404, "no such route");
    if (path === "/api/session" && method === "POST") {
      const { token } = JSON.parse(body);
      if (token !== this.readToken && token !== this.adminToken) return problem(401, "this token is not known");
      return json(null, 200, { "set-cookie": `session=${token}; HttpOnly; SameSite=Strict; Path=/` });
    }
    if (path === "/api/session" && method === "DELETE") return json(null, 200, { "set-cookie": "session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0" });
    if (path === "/api/session") {
      const held = (token) => token !== null && (request.headers.cookie ?? "").includes(`session=${token}`);
      const signedIn = held(this.adminToken) ? "admin" : held(this.readToken) ? "reader" : null;
      return json({ read: !this.#refused(request), admin: this.adminToken === null ? this.isLocal : signedIn === "admin", tokens: this.readToken !== null || this.adminToken !== null, signedIn });
    }
    if (this.#refused(request) && path !== "/ready") return problem(401, "this dashboard asks for a token");
    if (path === "/api/about") return json({ ...this.about, messageBuffer: this.bufferOn });
    const admin = this.adminToken === null ? this.isLocal : (request.headers.cookie ?? "").includes(`session=${this.adminToken}`);
    const away = this.silent && "redis does not answer, so the state of the pipeline is unknown";
    if (path.startsWith("/api/") && away && path !== "/api/events/stream") return problem(503, away);
    if (method === "GET" && path.startsWith("/api/repos/")) {
      const answer = repoAnswer(url);
      return answer ? json(answer) : problem(400, "give a DID such as did:plc:…, a handle such as alice.example.com, or an AT-URI, percent-encoded");
    }
    if (method === "GET") {
      switch (path) {
        case "/api/metrics": return json(this.#now());
        case "/api/ingest": this.#now(); return json(this.ingest);
        case "/ready": return json(this.ready, this.ready.status === "ready" ? 200 : 503);
        case "/api/workers": return json(this.workers);
        case "/api/events/record": {
          const uri = url.searchParams.get("uri");
          const record = uri.includes("app.bsky.feed.post") ? { uri, text: "Hello <b>there</b>", created_at: "2026-07-04T14:38:08.999" } : null;
          return json({ uri, table: record && "posts", record, links: [{ name: "PDSls", href: `https://pdsls.dev/${uri}` }] });
        }
        case "/api/events/recent": return json(this.rate ? Array.from({ length: 10 }, () => this.event()) : []);
        case "/api/metrics/activity-history": return json(this.#day());
        case "/api/activity": return json(this.#activity(new URL(request.url, this.url).searchParams));
        case "/api/tables": return json(this.#tables());
        case "/api/redis/dead-letters": return json({ items: this.letters });
        case "/api/dead-letters/export":
          response.writeHead(200, { "content-type": "application/x-ndjson", "content-disposition": "attachment" });
          return response.end(lettersAnswer(this, method, url));
        case "/queue/status": return this.bufferOn ? json({ queue_length: this.buffer.queue, batch_threshold: this.buffer.size, batch_progress: 0, batches_ready: 0, queued_message_ids: [], last_batch: null }) : problem(404, "no such route");
        case "/messages": return json(this.messages.slice(0, 20));
        case "/api/events/stream":
          response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
          response.write(`retry: 500\ndata: {"type":"connected","message":"Event stream connected"}\n\n`);
          if (!this.silent) response.write(`data: ${JSON.stringify({ type: "metrics", data: this.#now() })}\n\n`);
          if (!request.headers["last-event-id"]) {
            const recent = Number(url.searchParams.get("recent") ?? 0);
            for (const { frame } of this.log.filter(({ event }) => wants(url.searchParams, event)).slice(-recent)) response.write(frame);
          }
          this.#streams.set(response, url.searchParams);
          response.on("close", () => this.#streams.delete(response));
          return undefined;
        default: {
          const one = /^\/api\/redis\/dead-letters\/(\d+-\d+)$/.exec(path)?.[1];
          const letter = one ? this.letters.find(({ id }) => id === one) : path.startsWith("/api/dead-letters") ? lettersAnswer(this, method, url) : null;
          return letter ? json(letter) : problem(404, "no such route");
        }
      }
    }
    if (path === "/messages") {
      const { user_id, channel_id, content } = JSON.parse(body);
      if (!content.trim()) return json({ detail: [{ loc: ["body", "content"], msg: "must not be blank", type: "value_error" }] }, 422);
      const now = new Date().toISOString();
      this.messages.unshift({ id: this.messages.length + 1, user_id, channel_id, content: content.trim(), created_at: now, inserted_at: now });
      this.buffer.messages += 1;
      return json({ message_id: "a1B2c3D4", status: "queued", queued_at: now }, 201);
    }
    if (!admin) return problem(403, "admin routes need a token: set dashboard.adminToken, then sign in with it");
    const [, id, replay] = /^\/api\/redis\/dead-letters(?:\/(\d+-\d+))?(\/replay)?$/.exec(path) ?? [];
    if (path.startsWith("/api/redis/dead-letters") && (method === "DELETE" || replay)) {
      this.letters = id ? this.letters.filter((letter) => letter.id !== id) : [];
      this.#send("metrics", this.#now());
      return json({ success: true });
    }
    if (path.startsWith("/api/dead-letters")) {
      const done = lettersAnswer(this, method, url);
      this.#send("metrics", this.#now());
      return json(done);
    }
    if (path === "/api/firehose/reconnect") return json({ success: true });
    return problem(404, "no such route");
  }

  #activity(asked) {
    const [now, seconds] = [Date.now() / 1000, Number(asked.get("seconds") ?? 86_400)];
    this.ranges.push([seconds, asked.has("until")]);
    const until = Math.min(now, Number(asked.get("until") ?? now));
    const from = Math.max(until - seconds, now - this.keptSeconds);
    const step = seconds <= 900 ? 5 : 60 * ([1, 2, 5, 10, 15, 30, 60].find((step) => seconds / 60 / step <= 750) ?? 240);
    const points = [];
    for (let at = Math.floor((until - seconds) / step) * step; at + step <= until; at += step) {
      const ago = (now - at) / 60;
      const known = this.history && at >= from && !(ago > this.hole[0] && ago - step / 60 < this.hole[1]);
      const wave = 1 + 0.4 * Math.sin(at / 14_000) + 0.05 * Math.sin(at * 7.3);
      const events = this.rate * wave;
      // Behind by half for a while, then catching up.
      const applied = ago > 100 && ago < 140 ? events * 0.5 : ago > 80 && ago <= 100 ? events * 1.9 : events;
      points.push({ timestamp: at * 1000, seconds: step, incoming: known ? events : null, commit: known ? applied * 0.99 : null, identity: known ? applied * 0.006 : null, account: known ? applied * 0.004 : null });
    }
    const marks = this.starts.map(([ago, service, instance, version]) => ({ timestamp: (now - ago * 60) * 1000, service, instance, version })).filter(({ timestamp }) => timestamp >= from * 1000 && timestamp <= until * 1000).reverse();
    return { keptSeconds: this.keptSeconds, points, marks: this.history ? marks : [] };
  }

  #tables() {
    const tables = this.tables.tables.map(([name, rowsEstimate, bytes, bytesPerDay]) => ({ name, rowsEstimate, bytes, bytesPerDay: this.tables.growthSeconds === null ? null : bytesPerDay }));
    return { timestamp: Date.now() - 20_000, growthSeconds: this.tables.growthSeconds, tables };
  }

  #day() {
    const minute = Math.floor(Date.now() / 60_000);
    return Array.from({ length: 1_440 }, (_, at) => {
      const wave = 1 + 0.4 * Math.sin((minute + at) / 230) + 0.05 * Math.sin(at * 7.3);
      const events = this.history ? this.rate * 60 * wave * (at > 700 && at < 712 ? 0.05 : 1) : 0;
      return { timestamp: (minute - 1_439 + at) * 60_000, commit: Math.round(events * 0.99), identity: Math.round(events * 0.006), account: Math.round(events * 0.004) };
    });
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const stub = await new Stub().start(Number(process.argv[2] ?? 8001));
  console.log(`http://127.0.0.1:${stub.port}/`);
}
