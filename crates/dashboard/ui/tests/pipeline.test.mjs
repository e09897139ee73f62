// The page against a pipeline that runs on the bundled recording: PENSTOCK_BIN names the binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
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
  for (const output of [started.stdout, started.stderr]) output.on("data", (piece) => { said = (said + piece).slice(-4_000); });
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
  await says(page, ".headline", /^(Flowing|Many entries fail|Behind by .*)$/);
  await says(page, ".stage:nth-child(1) .state", /^Connected$/);
  const first = await figure(page, "Events Processed");
  assert.ok(first > 0);
  await page.waitForFunction((first) => {
    const shown = document.querySelector(".readouts .value [title]")?.getAttribute("title") ?? "";
    return Number(shown.replaceAll(",", "")) > first + 100;
  }, first);
  const { eventsProcessed, stats } = await (await fetch(`http://127.0.0.1:${port}/api/metrics`)).json();
  assert.ok((await figure(page, "Events Processed")) <= eventsProcessed + 1_000);
  assert.ok(stats.totalPosts > 0 && (await figure(page, "Posts")) > 0);
  await page.waitForTimeout(5_000);
  await shot("pipeline");
  await accessible();
  await sound();
  await close();
});

test("a dead letter is replayed", limits, async () => {
  const at = `http://127.0.0.1:${port}/api/redis/dead-letters`;
  const listed = async () => (await (await fetch(at)).json()).items;
  const end = Date.now() + 2 * PATIENCE;
  // The recording holds records that PostgreSQL does not take.
  while ((await listed()).length === 0) {
    assert.ok(Date.now() < end, "no entry fails for good");
    await new Promise((done) => setTimeout(done, 200));
  }
  const { page, sound, accessible, shot, close } = await open(browser, url);
  const letter = page.locator(".letters li").first();
  await letter.waitFor();
  await letter.getByRole("button", { expanded: false }).click();
  await says(page, ".letters pre", /\{/);
  await letter.getByRole("button", { name: /^Replay/ }).click();
  await says(page, ".said", /Replayed one entry/);
  // It fails again, for the same reason, and comes back as a new letter.
  await letter.waitFor();
  await page.locator(".workers tbody tr").first().waitFor();
  await shot("letters");
  await accessible();
  await sound();
  await close();
});

test("it survives a restart of the pipeline, without being loaded anew", limits, async () => {
  const { page, sound, close } = await open(browser, url);
  await page.locator(".events tbody tr").nth(5).waitFor();
  await page.evaluate(() => { window.same = true; });
  await stop();
  await says(page, ".headline", /^Stale: last update \d+ s ago$/);
  await start();
  await page.waitForFunction(() => !/^(Stale|No figures)/.test(document.querySelector(".headline").textContent));
  const seen = () => page.textContent(".events .bar .note").then((text) => Number.parseInt(text.replaceAll(",", ""), 10));
  const before = await seen();
  await page.waitForFunction((before) => Number.parseInt(document.querySelector(".events .bar .note").textContent.replaceAll(",", ""), 10) > before + 20, before);
  assert.ok(await page.evaluate(() => window.same));
  await sound();
  await close();
});
