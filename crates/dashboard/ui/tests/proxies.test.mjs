// The page behind real proxies, which are set up as docs/proxies.md says; PENSTOCK_BIN names the binary.
import assert from "node:assert/strict";
import { request } from "node:https";
import { after, before, test } from "node:test";
import { createGunzip } from "node:zlib";
import { PATIENCE, launch, says } from "./browser.mjs";
import { BINARY, Place, block, freePort, noted, program, put } from "./proxies.mjs";

const SETUPS = {
  "nginx, which passes the path on": "nginx",
  "nginx, which strips the path": "nginx",
  "nginx, which changes the host": "nginx",
  "nginx on another port, without a base path set": "nginx",
  HAProxy: "haproxy",
  Caddy: "caddy",
};
const GZIP = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;\n";
const lack = !BINARY ? "PENSTOCK_BIN names no binary" : !program("redis-server") ? "there is no redis-server" : !program("openssl") ? "there is no openssl" : null;

let place;
let browser;
const ports = {};
/** nginx as the manual has it, in front of a dashboard. */
let text;
/** Where a dashboard is that keeps idle connections as long as it does by default. */
let quiet;

before(async () => {
  if (lack) return;
  place = new Place();
  await place.redis();
  const { cert, key, both } = place.certificate();
  for (const name of Object.keys(SETUPS)) ports[name] = await freePort();
  const [passed, stripped, changed, plain, haproxy, caddy] = Object.keys(SETUPS);
  const shared = ["dashboard.adminToken=admin-7f3a", "messageBuffer.enabled=true"];
  const under = await place.dashboard([...shared, "dashboard.basePath=/firehose", "dashboard.readToken=read-91c2", `dashboard.allowedOrigins=https://localhost:${ports[changed]}`]);
  // Its figures come once a minute: nothing else pushes an event out of a buffer.
  quiet = await place.dashboard([...shared, "dashboard.metricsInterval=1m"]);
  text = (port, dashboard, ...replacements) => GZIP + put(block("nginx"), ["listen 443 ssl http2", `listen 127.0.0.1:${port} ssl http2`],
    ["dash.example.com", "localhost"], ["/etc/ssl/dash.pem", cert], ["/etc/ssl/dash.key", key], ["dashboard:8000", `127.0.0.1:${dashboard}`], ...replacements);
  if (program("nginx")) {
    const strip = [["location /firehose {", "location /firehose/ {"], ["proxy_pass http://penstock;", "proxy_pass http://penstock/;"]];
    await place.nginx(text(ports[passed], under));
    await place.nginx(text(ports[stripped], under, ...strip));
    await place.nginx(text(ports[changed], under, ["proxy_set_header Host $http_host;", ""]));
    await place.nginx(text(ports[plain], quiet, ...strip));
  }
  if (program("haproxy")) {
    place.haproxy(put(block("haproxy"), ["bind :443 ssl crt /etc/ssl/dash.pem", `bind 127.0.0.1:${ports[haproxy]} ssl crt ${both}`], ["dashboard:8000", `127.0.0.1:${under}`]));
  }
  if (program("caddy")) {
    const own = `{\nadmin off\nskip_install_trust\nauto_https disable_redirects\n}\nhttps://localhost:${ports[caddy]} {\ntls ${cert} ${key}\n`;
    place.caddy(put(block("caddyfile"), ["dash.example.com {\n", own], ["dashboard:8000", `127.0.0.1:${under}`]));
  }
  for (const [name, needed] of Object.entries(SETUPS)) if (program(needed)) await place.open(ports[name]);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await place?.end();
});

/** Has an event sent, as ingest does. */
function publish(collection) {
  place.cli("PUBLISH", "firehose:events:broadcast", JSON.stringify({ type: "#commit", lexicon: collection, did: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", action: "create", timestamp: "12:00:00" }));
}

async function until(holds, what) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `not in time: ${what}: ${place.said()}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

for (const [name, needed] of Object.entries(SETUPS)) {
  const skip = lack ?? (program(needed) ? false : `${needed} is not installed`);
  test(`the page loads, is live, and its administrator is known behind ${name}`, { timeout: 240_000, skip }, async () => {
    const isSet = !/without a base path/.test(name);
    const home = `https://localhost:${ports[name]}/firehose/`;
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    const faults = [];
    const frames = [];
    page.on("console", (message) => {
      if (/Content.Security.Policy|origin|CORS|MIME/i.test(message.text())) faults.push(message.text());
    });
    page.on("pageerror", (error) => faults.push(String(error.stack)));
    page.on("request", (asked) => {
      if (!`${asked.url()}/`.startsWith(home) && !/^(data|about|blob):/.test(asked.url())) faults.push(`asked elsewhere: ${asked.url()}`);
    });
    page.on("response", (answer) => {
      if (answer.status() === 403 || (answer.status() === 404 && /assets/.test(answer.url()))) faults.push(`${answer.status()} ${answer.url()}`);
    });
    page.on("websocket", (socket) => socket.on("framereceived", () => frames.push(socket.url())));

    // Without its last slash, where the proxy lets that through.
    await page.goto(/strips|without/.test(name) ? home : home.slice(0, -1));
    // Where a read token is set, the page is nothing but what asks for it.
    if (isSet) await says(page, ".headline", /^Sign in to see metrics$/);
    else await page.getByRole("button", { name: "Sign in" }).first().click();
    await page.getByLabel("Token").fill("admin-7f3a");
    await page.keyboard.press("Enter");
    await page.waitForSelector("main:not(.gate)");
    assert.equal(new URL(page.url()).pathname, "/firehose/");
    assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol), "h2");

    const collection = `test.behind.n${ports[name]}`;
    await until(async () => {
      publish(collection);
      return (await page.locator(".events tbody").textContent().catch(() => "")).includes(collection);
    }, "an event on the page");
    await until(() => frames.length > 1, "frames of the WebSocket");
    assert.ok(frames.every((url) => url === `${home.replace("https", "wss")}ws/stats`), String(frames));

    const id = place.cli("XADD", "firehose:dead-letters", "*", "type", "commit", "data", "{}", "seq", "1", "origId", "1-0", "deliveries", "1", "error", "no such thing");
    const remove = () => page.evaluate((id) => fetch(`api/redis/dead-letters/${id}`, { method: "DELETE", headers: { "x-penstock-page": "1" } }).then((answer) => answer.status), id);
    assert.equal(await remove(), 200, "the session administrates");
    assert.equal(await remove(), 404, "what is removed is gone");

    const [cookie] = await context.cookies();
    assert.deepEqual({ path: cookie.path, httpOnly: cookie.httpOnly, sameSite: cookie.sameSite, secure: cookie.secure }, { path: isSet ? "/firehose" : "/", httpOnly: true, sameSite: "Strict", secure: true });
    await page.reload();
    await page.waitForSelector("main:not(.gate)");
    assert.deepEqual(faults, []);
    await context.close();
  });
}

/** Asks over TLS, without asking who is there. */
function ask(port, path, headers = {}) {
  return new Promise((done, failed) => {
    request({ host: "localhost", family: 4, port, path, headers, rejectUnauthorized: false }, done).on("error", failed).end();
  });
}

const nginx = lack ?? (program("nginx") ? false : "nginx is not installed");

test("events pass nginx one by one, packed with gzip", { timeout: 240_000, skip: nginx }, async () => {
  const answer = await ask(ports["nginx on another port, without a base path set"], "/firehose/api/events/stream", { "accept-encoding": "gzip" });
  assert.equal(answer.headers["content-encoding"], "gzip");
  assert.equal(answer.headers["cache-control"], "no-cache, no-transform");
  let text = "";
  answer.pipe(createGunzip()).setEncoding("utf8").on("data", (piece) => { text += piece; });
  await until(() => text.includes('"connected"'), "the greeting");
  for (let at = 0; at < 3; at += 1) {
    const before = text.length;
    publish(`test.single.n${at}`);
    await until(() => text.includes(`test.single.n${at}"`), `event ${at}`);
    // Not with what was sent to keep the connection alive; one may have come at the same moment.
    assert.ok(text.slice(before).split(": keepalive").length <= 2, text.slice(before));
  }
  answer.destroy();
});

test("behind nginx that changes the host, the page's files are for all and the rest is for listed pages", { timeout: 240_000, skip: nginx }, async () => {
  const port = ports["nginx, which changes the host"];
  const status = async (path, origin) => {
    const answer = await ask(port, path, { origin });
    answer.resume();
    return answer.statusCode;
  };
  const page = await ask(port, "/firehose/");
  let html = "";
  for await (const piece of page.setEncoding("utf8")) html += piece;
  assert.match(html, /<base href="\/firehose\/">/);
  const files = [...html.matchAll(/"\.\/(assets\/[^"]+)"/g)].map(([, path]) => path);
  assert.ok(files.length > 0, html);
  for (const file of files) assert.equal(await status(`/firehose/${file}`, "https://elsewhere.test"), 200, file);
  assert.equal(await status("/firehose/api/session", `https://localhost:${port}`), 200);
  assert.equal(await status("/firehose/api/session", "https://elsewhere.test"), 403);
});

/** Has nginx keep an idle connection to a dashboard, and returns who closed it. */
async function closer(dashboard, nginxKeeps) {
  const way = await noted(dashboard);
  const port = await freePort();
  await place.nginx(text(port, way.port, ["location /firehose {", "location / {"], ["keepalive_timeout 60s;", `keepalive_timeout ${nginxKeeps};`]));
  await place.open(port);
  for (let at = 0; at < 5; at += 1) {
    const answer = await ask(port, "/api/session");
    assert.equal(answer.statusCode, 200);
    for await (const _ of answer);
  }
  await until(() => way.closed.length > 0, "the idle connection is closed");
  way.stop();
  return [...new Set(way.closed)].join();
}

test("who keeps an idle connection longer is settled by dashboard.keepAlive", { timeout: 240_000, skip: nginx }, async () => {
  assert.equal(await closer(quiet, "2s"), "near", "nginx, which then never sends a request into a connection that is being closed");
  const hasty = await place.dashboard(["dashboard.keepAlive=1s"]);
  assert.equal(await closer(hasty, "60s"), "far", "the dashboard, as it is told to");
});

test("behind nginx as it is by default, which adds no header, nobody administrates without the token", { timeout: 240_000, skip: nginx }, async () => {
  const open = await place.dashboard([]);
  const closed = await place.dashboard(["dashboard.adminToken=admin-7f3a"]);
  for (const [dashboard, wanted] of [[open, [403, 403, 403]], [closed, [401, 401, 200]]]) {
    const port = await freePort();
    await place.nginx(`server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${dashboard}; } }`);
    await place.open(port);
    const own = `127.0.0.1:${dashboard}`;
    const status = async (headers) => {
      const answer = await fetch(`http://127.0.0.1:${port}/api/metrics/refresh`, { method: "POST", headers });
      return answer.status;
    };
    // Once Redis was looked at, it is not that which refuses.
    await until(async () => (await fetch(`http://127.0.0.1:${port}/api/metrics`)).status === 200, "metrics");
    const page = { "x-penstock-page": "1", origin: `http://${own}`, "sec-fetch-site": "same-origin" };
    assert.deepEqual([await status({}), await status(page), await status({ authorization: "Bearer admin-7f3a" })], wanted);
  }
});
