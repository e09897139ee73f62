// What the page says when each part of a real pipeline goes, stands still and comes back, and after how many seconds. The short form shows
// what can be shown fast; with PENSTOCK_SITUATIONS=all (make situations) all of it, with screenshots in PENSTOCK_SHOTS.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";
import { proxy } from "./proxy.mjs";
import { Rig, lack } from "./rig.mjs";

const ALL = process.env.PENSTOCK_SITUATIONS === "all";
const SHOTS = process.env.PENSTOCK_SHOTS;
const WIDTHS = { 390: 844, 768: 1024, 1400: 900, 2560: 1440 };
const limits = { timeout: ALL ? 1_800_000 : 240_000, skip: lack };

/** Without a slot of its own the machine may be slow: so much is added to what a person waits for. */
const SLACK = Number(process.env.PENSTOCK_SLACK ?? (ALL ? 3 : 30));
const CURRENT = /^Current: rows \d+\.\d s behind$/;

let rig;
let browser;
let front;
let page;
let opened;
const table = [];
/** Words that do not fit where they stand. */
const cutAnywhere = new Set();

before(async () => {
  if (lack) return;
  rig = await new Rig().prepare();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  front?.stop();
  await rig?.end();
  for (const { name, headline, seconds, stages, title } of table) {
    console.log(`${String(seconds.toFixed(1)).padStart(5)} s  ${name}: ${headline} | ${stages.join(", ")} | ${title}`);
  }
  if (SHOTS && table.length > 0) writeFileSync(join(SHOTS, "situations.json"), JSON.stringify(table, null, 1));
});

async function openPage() {
  const own = await (await fetch(rig.url)).text();
  const built = readFileSync(new URL("../dist/index.html", import.meta.url), "utf8");
  front?.stop();
  front = own === built ? null : await proxy(rig.url);
  await opened?.close();
  opened = await open(browser, front?.url ?? rig.url, {}, ".headline");
  page = opened.page;
}

const words = () => page.evaluate(() => ({
  headline: document.querySelector(".headline").textContent,
  why: document.querySelector(".why").textContent,
  tone: document.querySelector("header.top").className.replace("top ", ""),
  stages: [...document.querySelectorAll(".stage .state")].map((state) => state.textContent),
  title: document.title,
}));

/** Waits until the page says so, for so many seconds; notes after how many it did. */
async function says(name, headline, within, expected = {}) {
  const begin = performance.now();
  let said;
  for (;;) {
    said = await words();
    const holds = headline.test(said.headline) && (!expected.stages || expected.stages.every((word, at) => new RegExp(`^(${word})$`).test(said.stages[at])));
    if (holds) break;
    const waited = (performance.now() - begin) / 1000;
    assert.ok(waited < within + SLACK, `${name}: after ${waited.toFixed(1)} s the page says ${JSON.stringify(said)}\n${rig.said()}`);
    await page.waitForTimeout(100);
  }
  const seconds = (performance.now() - begin) / 1000;
  if (expected.why) assert.match(said.why, expected.why, name);
  if (expected.tone) assert.equal(said.tone, expected.tone, name);
  assert.match(said.title, { bad: /^■ /, warn: /^▲ /, good: /^Current/, idle: /^[A-Z]/, unknown: /^\? / }[said.tone], name);
  table.push({ name, seconds, ...said });
  await shoot(name);
  return seconds;
}

async function shoot(name) {
  if (!SHOTS || !ALL) return;
  mkdirSync(SHOTS, { recursive: true });
  for (const [width, height] of Object.entries(WIDTHS)) {
    await page.setViewportSize({ width: Number(width), height });
    for (const theme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= room, `${name}: ${wide} px wide in ${room} px`);
      const cut = await page.$$eval(".headline, .stage .state", (lines) => lines.filter((line) => line.scrollWidth > line.clientWidth + 1).map((line) => line.textContent));
      for (const words of cut) cutAnywhere.add(`${words} at ${width} px`);
      await page.screenshot({ path: join(SHOTS, `${String(table.length).padStart(2, "0")} ${name.replace(/\W+/g, "-")} ${width} ${theme}.png`) });
    }
  }
  await page.setViewportSize({ width: 1400, height: 900 });
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
}

const PARTS = ["redis", "postgres", "relay", "ingest", "worker-0", "worker-1", "dashboard"];
/** A claim about a pipeline that runs: one that fails leaves nothing broken to the next. */
const claim = (name, run) => test(name, limits, async () => {
  await rig.heal(...PARTS);
  if (!page) await openPage();
  await run();
});
const skip = limits.skip || (ALL ? false : "PENSTOCK_SITUATIONS is not all");
const long = (name, run) => test(name, { ...limits, skip }, async () => {
  await rig.heal(...PARTS);
  await run();
});
const back = (name, within = 45) => says(`${name}, back`, CURRENT, within, { tone: "good", stages: ["Connected", "Reading", "Steady|All written", "Writing", "Current"] });

test("before anything runs", { ...limits, skip }, async () => {
  await rig.start("dashboard");
  await openPage();
  await says("nothing runs but the dashboard", /^No workers running$/, 8, { tone: "bad", why: /Also: no ingest running/ });
  await rig.start("worker-0", "worker-1");
  await says("workers run, no ingest", /^No ingest running$/, 10, { tone: "bad" });
  await rig.start("ingest");
  await says("no relay to connect to", /^Relay not connected$/, 15, { tone: "bad" });
});

test("all is well", limits, async () => {
  if (!ALL) await rig.start("dashboard", "worker-0", "worker-1", "ingest");
  await rig.start("relay");
  if (!ALL) await openPage();
  await back("first start", 60);
});

claim("the death of the last worker is said within five seconds", async () => {
  await rig.kill("worker-0", "worker-1");
  await says("all workers gone", /^No workers running$/, 5, { tone: "bad", stages: ["Connected", "Reading", ".*", "None running", ".*"] });
  if (ALL) {
    await says("all workers gone, for a while", /^No workers running$/, 1, {});
    await page.waitForTimeout(15_000);
    await says("all workers gone for 15 s", /^No workers running$/, 1, { tone: "bad", why: /entries not in PostgreSQL yet, the oldest \d+ s old/, stages: ["Connected", "Reading", "Waiting|Filling", "None running", "Not written"] });
  }
  await rig.start("worker-0", "worker-1");
  await back("workers");
});

claim("a PostgreSQL that is gone is said to be", async () => {
  await rig.kill("postgres");
  await says("PostgreSQL gone", /^PostgreSQL not responding$/, 8, { tone: "bad", why: /written once it is back/, stages: ["Connected", "Reading", ".*", ".*", "No answer"] });
  await rig.start("postgres");
  await back("PostgreSQL");
});

claim("a Redis that is gone is said to be", async () => {
  await rig.kill("redis");
  await says("Redis gone", /^Redis not responding$/, 12, { tone: "bad", stages: ["Unknown", "Unknown", "Unknown", "Unknown", "Unknown"] });
  await rig.start("redis");
  await back("Redis", 60);
});

claim("a relay that is gone is said to be", async () => {
  await rig.kill("relay");
  await says("relay gone", /^Relay not connected$/, 8, { tone: "bad", stages: ["Not connected", "Retrying", ".*", ".*", ".*"] });
  await rig.start("relay");
  await back("relay", 60);
});

claim("an ingest that is gone is said to be", async () => {
  await rig.kill("ingest");
  await says("ingest gone", /^No ingest running$/, 14, { tone: "bad", stages: ["Unknown", "Not running", ".*", ".*", ".*"] });
  await rig.start("ingest");
  await back("ingest", 60);
});

long("what stands still", async () => {
  rig.freeze("worker-0", "worker-1");
  await says("all workers frozen", /^No workers running$/, 5, { tone: "bad" });
  rig.thaw("worker-0", "worker-1");
  await back("frozen workers");

  rig.freeze("postgres");
  await says("PostgreSQL frozen", /^PostgreSQL not responding$/, 10, { tone: "bad" });
  rig.thaw("postgres");
  await back("frozen PostgreSQL");

  const unlock = await rig.lock();
  await says("PostgreSQL answers and writes nothing", /^Workers stalled$/, 30, { tone: "bad", why: /Nothing written for 2\d s/ });
  await unlock();
  await back("locked PostgreSQL");

  rig.freeze("redis");
  await says("Redis frozen", /^Redis not responding$/, 15, { tone: "bad" });
  rig.thaw("redis");
  await back("frozen Redis", 60);

  rig.freeze("relay");
  await says("relay frozen", /^(Quiet|Relay not connected)$/, 20, {});
  await says("relay frozen for long", /^Relay not connected$/, 90, { tone: "bad" });
  rig.thaw("relay");
  await back("frozen relay", 60);

  rig.freeze("ingest");
  await says("ingest frozen", /^(Quiet|No ingest running)$/, 14, {});
  await says("ingest frozen for 10 s", /^No ingest running$/, 14, { tone: "bad" });
  rig.thaw("ingest");
  await back("frozen ingest", 60);
});

long("two at once, and after a backlog", async () => {
  await rig.kill("postgres", "worker-0", "worker-1");
  await says("PostgreSQL and all workers gone", /^PostgreSQL not responding$/, 10, { tone: "bad", why: /Also: no workers running/ });
  await page.waitForTimeout(20_000);
  await rig.start("postgres");
  await says("PostgreSQL back, no workers", /^No workers running$/, 10, { tone: "bad" });
  await rig.start("worker-0");
  await back("after a backlog", 60);
  await rig.start("worker-1");
});

long("a PostgreSQL that is slow", async () => {
  rig.slow(14);
  await says("PostgreSQL slow", /^(Rows|Catching up: rows) \d+ s behind$/, 60, { tone: "warn", stages: ["Connected", "Reading", ".*", "Writing|Not writing", "Behind|Not written"] });
  rig.slow(0);
  await back("slow PostgreSQL", 60);

  await rig.kill("worker-0", "worker-1");
  await page.waitForTimeout(40_000);
  rig.slow(0.4);
  rig.workers = ["worker.batchSize=100"];
  await rig.start("worker-0");
  await says("catching up", /^Catching up: rows \d+ s behind$/, 20, { tone: "warn", why: /Caught up in about/, stages: ["Connected", "Reading", "Draining", "Writing", "Behind"] });
  rig.slow(0);
  rig.workers = [];
  await back("catching up", 60);
  await rig.start("worker-1");
});

long("the dashboard itself", async () => {
  await rig.kill("dashboard");
  await says("dashboard gone", /^Stale: last update \d+ s ago$/, 10, { tone: "bad", why: /not responding/ });
  await rig.start("dashboard");
  await back("dashboard", 60);

  rig.freeze("dashboard");
  await says("dashboard frozen", /^Stale: last update \d+ s ago$/, 10, { tone: "bad" });
  rig.thaw("dashboard");
  await back("frozen dashboard", 60);

  await rig.kill("redis");
  await openPage();
  await says("opened while Redis is gone", /^Redis not responding$/, 10, { tone: "bad" });
  await rig.start("redis");
  await back("opened without Redis", 60);

  await rig.kill("dashboard");
  rig.dashboard = ["dashboard.readToken=sesame"];
  await rig.start("dashboard");
  await says("a token was set", /^Sign in to see metrics$/, 30, { tone: "warn" });
});

test("nothing went wrong on the page itself", limits, async () => {
  // Colours that still pass over from those of the last picture have no contrast of their own.
  await page.waitForTimeout(1_500);
  await opened.accessible();
  assert.deepEqual([...cutAnywhere], [], "cut");
});
