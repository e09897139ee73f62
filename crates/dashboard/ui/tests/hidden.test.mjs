// A page that nobody sees gives its live stream back, and its tab stays true nevertheless.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PATIENCE, launch, says } from "./browser.mjs";
import { Stub } from "./stub.mjs";

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

/** Has a page whose clock can be put forward, and which can be hidden, in front of a dashboard of its own. */
function claim(name, run) {
  test(name, { timeout: 240_000 }, async () => {
    const stub = await new Stub().start();
    const page = await browser.newPage();
    try {
      await open(page, stub.url);
      await run(page, stub);
    } finally {
      await page.close();
      await stub.stop();
    }
  });
}

async function open(page, url) {
  page.setDefaultTimeout(PATIENCE);
  await page.clock.install();
  await page.addInitScript(() => {
    let hidden = false;
    Object.defineProperty(document, "hidden", { get: () => hidden });
    Object.defineProperty(document, "visibilityState", { get: () => (hidden ? "hidden" : "visible") });
    window.hide = (on) => {
      hidden = on;
      document.dispatchEvent(new Event("visibilitychange"));
    };
  });
  await page.goto(url);
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
}

async function until(holds, what) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await sleep(100);
  }
}

const titled = (page, pattern) => until(async () => pattern.test(await page.title()), `the tab says ${pattern}`);
/** Puts the page's clock forward, as a browser does that slows hidden tabs down. */
const later = (page, seconds) => page.clock.fastForward(seconds * 1_000);

claim("a hidden page gives stream and socket back, and takes them again when it is seen", async (page, stub) => {
  await until(() => stub.clients.streams === 1 && stub.clients.sockets === 1, "the page is live");
  // A look at another tab costs nothing.
  await page.evaluate(() => window.hide(true));
  await later(page, 20);
  await page.evaluate(() => window.hide(false));
  await later(page, 20);
  await sleep(1_000);
  assert.deepEqual(stub.clients, { streams: 1, sockets: 1 });

  await page.evaluate(() => window.hide(true));
  await later(page, 31);
  await until(() => stub.clients.streams === 0 && stub.clients.sockets === 0, "stream and socket are given back");
  for (let round = 0; round < 3; round += 1) {
    await later(page, 31);
    await titled(page, /^Current/);
    assert.deepEqual(stub.clients, { streams: 0, sockets: 0 });
  }

  await page.evaluate(() => { window.same = true; window.hide(false); });
  await until(() => stub.clients.streams === 1 && stub.clients.sockets === 1, "the page is live again");
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  const seen = async () => Number.parseInt((await page.textContent(".events .bar .note")).replaceAll(",", ""), 10);
  const before = await seen();
  await until(async () => (await seen()) > before + 10, "events come again");
  assert.ok(await page.evaluate(() => window.same));
});

claim("the tab of a hidden page says what is wrong, also when nothing answers", async (page, stub) => {
  await page.evaluate(() => window.hide(true));
  await later(page, 31);
  await until(() => stub.clients.streams === 0, "the stream is given back");
  stub.metrics.firehoseStatus.connected = false;
  await later(page, 31);
  await titled(page, /^■ Relay not connected/);
  const { port } = stub;
  await stub.stop();
  for (let round = 0; round < 4; round += 1) await later(page, 31);
  await titled(page, /^■ Stale/);
  stub.metrics.firehoseStatus.connected = true;
  await stub.start(port);
  await page.evaluate(() => window.hide(false));
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
});
