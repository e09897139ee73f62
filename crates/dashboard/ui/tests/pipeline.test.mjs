// The page against a pipeline that runs on the bundled recording: PENSTOCK_BIN names the binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PATIENCE, figure, launch, open, says } from "./browser.mjs";
import { proxy } from "./proxy.mjs";

const binary = process.env.PENSTOCK_BIN;
const limits = { timeout: 300_000, skip: binary ? false : "PENSTOCK_BIN names no binary" };

let browser;
let folder;
let port;
let pipeline;
/** The port of the pipeline's Redis. */
let redis;
let front;
/** Where the page is. */
let url;

before(async () => {
  if (!binary) return;
  folder = mkdtempSync(join(tmpdir(), "penstock-page-"));
  // PostgreSQL may run as another user, who must get in.
  chmodSync(folder, 0o755);
  port = await freePort();
  await start();
  const own = await (await fetch(`http://127.0.0.1:${port}/`)).text();
  const built = readFileSync(new URL("../dist/index.html", import.meta.url), "utf8");
  if (own === built) {
    url = `http://127.0.0.1:${port}/`;
  } else {
    console.log("# the binary carries another page: this one is put in front of it");
    front = await proxy(`http://127.0.0.1:${port}/`);
    url = front.url;
  }
  browser = await launch();
});

after(async () => {
  await browser?.close();
  front?.stop();
  await stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

async function start() {
  const settings = [`dashboard.address=127.0.0.1:${port}`].flatMap((setting) => ["--set", setting]);
  const started = spawn(binary, ["run", "--data", join(folder, "data"), "--rate", "150", ...settings], { stdio: ["ignore", "pipe", "pipe"] });
  pipeline = started;
  let said = "";
  for (const output of [started.stdout, started.stderr]) output.on("data", (piece) => {
    said = (said + piece).slice(-4_000);
    redis = /redis:\/\/127\.0\.0\.1:(\d+)/.exec(said)?.[1] ?? redis;
  });
  const end = Date.now() + 2 * PATIENCE;
  while (!(await fetch(`http://127.0.0.1:${port}/api/metrics`).then((answer) => answer.ok, () => false))) {
    assert.equal(started.exitCode, null, `the pipeline ended: ${said}`);
    assert.ok(Date.now() < end, `the pipeline does not start: ${said}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

async function stop() {
  const running = pipeline;
  pipeline = null;
  if (!running || running.exitCode !== null) return;
  const ended = new Promise((done) => running.once("exit", done));
  running.kill("SIGTERM");
  await ended;
}

function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

test("live events and figures come while the recording is replayed", limits, async () => {
  const { page, sound, accessible, shot, close } = await open(browser, url, { width: 1920, height: 1080, theme: "dark" });
  await page.locator(".events tbody tr").nth(20).waitFor();
  await says(page, ".headline", /^(Current: rows .* behind|Many entries failing)$/);
  await says(page, ".stage:nth-child(1) .state", /^Connected$/);
  const first = await figure(page, "Events Processed");
  assert.ok(first > 0);
  await page.waitForFunction((first) => {
    const shown = document.querySelector(".readouts .value [title]")?.getAttribute("title") ?? "";
    return Number(shown.replaceAll(",", "")) > first + 100;
  }, first);
  const { eventsProcessed, stats } = await (await fetch(`http://127.0.0.1:${port}/api/metrics`)).json();
  assert.ok((await figure(page, "Events Processed")) <= eventsProcessed + 1_000);
  const posts = await page.$$eval(".tables tbody tr", (rows) => rows.find((row) => row.cells[0].textContent === "posts")?.cells[1].title);
  assert.ok(stats.totalPosts > 0 && /^[1-9][\d,]*, counted by workers$/.test(posts), posts);
  await page.waitForTimeout(5_000);
  await shot("pipeline");
  await accessible();
  await sound();
  await close();
});

/** Adds an entry that no table takes: its record is a list. */
function addPoison() {
  const data = JSON.stringify({
    repo: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", rev: "3kaaaaaaaaaa2", since: null, time: "2026-07-04T15:00:00Z", commit: "bafy",
    ops: [{ action: "create", path: "app.bsky.feed.post/3kaaaaaaaaaa2", cid: "bafy", record: ["no object"] }],
  });
  const words = ["XADD", "firehose:events", "*", "type", "commit", "data", data];
  const command = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("");
  return new Promise((done, failed) => {
    const socket = connect(Number(redis), "127.0.0.1", () => socket.write(`*${words.length}\r\n${command}`));
    socket.on("error", failed);
    socket.once("data", (answer) => {
      socket.end();
      // The ID, as a string of so many bytes.
      if (answer.toString().startsWith("$")) done(); else failed(new Error(answer.toString()));
    });
  });
}

test("a dead letter is replayed", limits, async () => {
  await addPoison();
  const at = `http://127.0.0.1:${port}/api/dead-letters`;
  const listed = async () => (await (await fetch(at)).json()).items;
  const end = Date.now() + 2 * PATIENCE;
  while ((await listed()).length === 0) {
    assert.ok(Date.now() < end, "no entry fails for good");
    await new Promise((done) => setTimeout(done, 200));
  }
  // As somebody who took the address that the pipeline printed.
  const token = readFileSync(join(folder, "data", "dashboard-token"), "utf8").trim();
  const { page, sound, accessible, shot, close } = await open(browser, `${url}#token=${token}`);
  const group = page.locator(".letters .group").first();
  await group.waitFor();
  await group.getByRole("button", { expanded: false }).click();
  const letter = group.locator(".letter").first();
  await letter.getByRole("button", { expanded: false }).click();
  await says(page, ".letters pre", /"path": "app\.bsky\.feed\.post\/3kaaaaaaaaaa2"/);
  await says(page, ".letters .letter .rows", /URIat:\/\/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\/app\.bsky\.feed\.post\/3kaaaaaaaaaa2/);
  await letter.getByRole("button", { name: /^Replay/ }).click();
  await says(page, ".said", /Replayed one entry/);
  // It fails again, for the same reason, and comes back as a new letter.
  await group.waitFor();
  await page.locator(".workers tbody tr").first().waitFor();
  await shot("letters");
  await accessible();
  await sound();
  await close();
});

test("the server filters: one collection comes alone, and an event of it opens with its row", limits, async () => {
  const { page, sound, close } = await open(browser, url);
  await page.locator(".events tbody tr").nth(5).waitFor();
  await page.getByLabel("Collection contains").fill("app.bsky.feed.post");
  await page.getByLabel("Action").selectOption("create");
  await page.waitForURL((url) => url.searchParams.get("action") === "create");
  await page.locator(".events tbody tr").nth(3).waitFor();
  const cells = await page.$$eval(".events tbody tr", (rows) => rows.map((row) => [row.querySelector(".collection").textContent, row.querySelector(".action").textContent].join(" ")));
  // A post's gate is of a collection whose name holds that one.
  assert.deepEqual([...new Set(cells)].filter((cell) => cell !== "app.bsky.feed.postgate create"), ["app.bsky.feed.post create"]);
  // The oldest that is shown has been written by now.
  const row = page.locator(".events tbody tr", { has: page.getByText("app.bsky.feed.post", { exact: true }) }).last();
  await page.getByRole("button", { name: "Pause" }).click();
  const did = await row.locator("td.did").textContent();
  await row.locator("td.did").click();
  await says(page, "dialog[open] .rows", new RegExp(`URIat://${did}/app\\.bsky\\.feed\\.post/`));
  await says(page, "dialog[open] .note", /As stored in PostgreSQL, posts/);
  await says(page, "dialog[open] pre", new RegExp(`"author_did": "${did}"`));
  await page.getByRole("button", { name: "Close" }).click();
  await sound();
  await close();
});

test("it survives a restart of the pipeline, without being loaded anew", limits, async () => {
  const { page, sound, close } = await open(browser, url);
  await page.locator(".events tbody tr").nth(5).waitFor();
  await page.evaluate(() => { window.same = true; });
  await stop();
  await says(page, ".headline", /^(Stale: last update \d+ s ago|Redis not responding)$/);
  await start();
  await page.waitForFunction(() => !/^(Stale|No metrics)/.test(document.querySelector(".headline").textContent));
  const seen = () => page.textContent(".events .bar .note").then((text) => Number.parseInt(text.replaceAll(",", ""), 10));
  const before = await seen();
  await page.waitForFunction((before) => Number.parseInt(document.querySelector(".events .bar .note").textContent.replaceAll(",", ""), 10) > before + 20, before);
  assert.ok(await page.evaluate(() => window.same));
  await sound();
  await close();
});
