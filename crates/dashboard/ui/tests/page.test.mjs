// The page against a dashboard that does what it is told.
import assert from "node:assert/strict";
import { open, says } from "./browser.mjs";
import { browser, claim, stub } from "./claims.mjs";

const rows = (page) => page.locator(".events tbody tr");
const kinds = (page) => page.$$eval(".events tbody td.kind", (cells) => [...new Set(cells.map((cell) => cell.textContent))]);

for (const [name, options] of Object.entries({
  "a phone, light": { width: 360, height: 780, theme: "light" },
  "a phone, dark": { width: 360, height: 780, theme: "dark" },
  "a tablet": { width: 820, height: 1180, theme: "light" },
  "a desk, light": { width: 1440, height: 900, theme: "light" },
  "a wall, dark": { width: 1920, height: 1080, theme: "dark" },
})) {
  claim(`it is whole, still, accessible and quiet on ${name}`, async () => {
    const { page, sound, accessible, shot, close } = await open(browser, stub.url, options);
    await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
    await says(page, ".readouts", /Events Processed/);
    await rows(page).nth(20).waitFor();
    // Some rounds of every kind of frame.
    await page.waitForTimeout(7_000);
    await shot(name.replace(/\W+/g, "-"));
    await accessible();
    await sound();
    const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const light = ground.match(/\d+/g).slice(0, 3).every((part) => Number(part) > 128);
    assert.equal(light, options.theme === "light", ground);
    if (options.width === 1920) {
      const size = await page.$eval(".readouts .value", (value) => Number.parseFloat(getComputedStyle(value).fontSize));
      assert.ok(size >= 48, `${size} px are too small for three metres`);
    }
    await close();
  });
}

claim("what is stale is said to be, is grey, and comes back", async () => {
  const { page, sound, accessible, shot, close } = await open(browser, stub.url, { theme: "dark" });
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  stub.silent = true;
  await says(page, ".headline", /^Redis not responding$/);
  await says(page, ".why", /^Last update \d+ s ago\. Nothing is written/);
  assert.ok(await page.$(".readouts.old"));
  assert.match(await page.title(), /^■ /);
  await says(page, ".relay .note", /as of \d+ s ago/);
  await shot("stale");
  await accessible();
  stub.silent = false;
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  assert.equal(await page.$(".readouts.old"), null);
  await sound();
  await close();
});

claim("it survives a restart of the dashboard, without being loaded anew", async () => {
  const { page, sound, close } = await open(browser, stub.url);
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  await page.evaluate(() => { window.same = true; });
  const { port } = stub;
  await stub.stop();
  await says(page, ".why", /not responding/);
  await says(page, ".headline", /^Stale/);
  await stub.start(port);
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  await says(page, ".events .note", /seen$/);
  assert.ok(await page.evaluate(() => window.same));
  await sound();
  await close();
});

claim("events are filtered by kind, collection, DID and action", async () => {
  const { page, sound, close } = await open(browser, stub.url);
  await rows(page).nth(40).waitFor();
  await page.getByRole("checkbox", { name: "Commits" }).uncheck();
  await says(page, ".events .bar .note", /match/);
  assert.deepEqual((await kinds(page)).filter((kind) => kind === "commit"), []);
  await page.locator(".events").getByRole("button", { name: "Clear" }).click();
  await page.getByLabel("Collection contains").fill("graph.follow");
  await page.waitForFunction(() => [...document.querySelectorAll("td.collection")].every((cell) => cell.textContent === "app.bsky.graph.follow"));
  await page.getByLabel("Action").selectOption("delete");
  await page.waitForFunction(() => [...document.querySelectorAll("td.action")].every((cell) => cell.textContent === "delete"));
  await page.getByLabel("DID contains").fill("did:plc:nobody-has-this");
  await says(page, ".events .empty", /No event matches yet/);
  await page.locator(".events").getByRole("button", { name: "Clear" }).click();
  await rows(page).nth(40).waitFor();
  await sound();
  await close();
});

claim("a pause holds the list still and counts what came", async () => {
  const { page, close } = await open(browser, stub.url);
  await rows(page).nth(10).waitFor();
  const button = page.getByRole("button", { name: "Pause" });
  await button.focus();
  await page.keyboard.press("Space");
  const held = await page.textContent(".events tbody");
  await says(page, ".events .bar .note", /Paused, [1-9]\d* since/);
  await page.waitForTimeout(1_500);
  assert.equal(await page.textContent(".events tbody"), held);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.waitForFunction((held) => document.querySelector(".events tbody").textContent !== held, held);
  await close();
});

claim("dead letters are grouped by reason; one is inspected, replayed, deleted; all are purged after a question", async () => {
  const { page, accessible, sound, shot, close } = await open(browser, stub.url);
  const groups = page.locator(".letters .group");
  await groups.nth(2).waitFor();
  const group = page.locator(".letters .group", { hasText: "uri is longer" });
  await group.getByRole("button", { expanded: false }).click();
  const [first, second] = stub.letters.map((letter) => letter.id);
  const letter = group.locator(".letter").first();
  await letter.getByRole("button", { expanded: false }).click();
  await says(page, ".letters pre", /"repo": "did:plc:ewvi7nxzyoun6zhxrhs64oiz"/);
  await says(page, ".letters .letter .rows", /URIat:\/\/did:plc:ewvi7nxzyoun6zhxrhs64oiz\/app\.bsky\.feed\.like\/3m5xq2k7bzk2a/);
  await accessible();
  await shot("inspect");
  await page.getByLabel(`Replay ${first}`).click();
  await says(page, ".said", /Replayed one entry/);
  await page.locator(".letters .group", { hasText: "byte sequence" }).getByRole("button", { expanded: false }).click();
  await page.getByLabel(`Delete ${second}`).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.equal(stub.letters.length, 2);
  await page.getByLabel(`Delete ${second}`).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await says(page, ".said", /Deleted one/);
  await page.waitForFunction(() => document.querySelectorAll(".letters .group").length === 1);
  assert.deepEqual(stub.calls, [`POST /api/redis/dead-letters/${first}/replay`, `DELETE /api/redis/dead-letters/${second}`]);
  await page.getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.equal(stub.letters.length, 1);
  await page.getByRole("button", { name: "Purge" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
  await says(page, ".letters .empty", /No dead letters/);
  assert.equal(stub.calls.at(-1), "DELETE /api/dead-letters?all=true");
  await sound();
  await close();
});

claim("a dead letter that is open while it is replayed is listed when it fails again", async () => {
  stub.letters = stub.letters.slice(0, 1);
  const [{ id, ...rest }] = stub.letters;
  const { page, close } = await open(browser, stub.url);
  await page.locator(".letters .group").getByRole("button", { expanded: false }).click();
  await page.locator(".letters .letter").first().getByRole("button", { expanded: false }).click();
  await page.getByLabel(`Replay ${id}`).click();
  await says(page, ".letters .empty", /No dead letters/);
  const again = { ...rest, id: `${Date.now()}-7` };
  stub.letters = [again];
  await page.locator(".letters .group").getByRole("button", { expanded: false }).click();
  await page.getByLabel(`Replay ${again.id}`).waitFor();
  await close();
});

claim("all dead letters are replayed at once", async () => {
  const { page, close } = await open(browser, stub.url);
  await page.getByRole("button", { name: "Replay all" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
  await says(page, ".said", /Replayed 3 dead letters/);
  assert.deepEqual(stub.calls, ["POST /api/dead-letters/replay?all=true"]);
  await close();
});

claim("who may not is told what to do; a token is taken and kept nowhere", async () => {
  stub.adminToken = "admin-7f3a";
  const { page, accessible, sound, shot, close } = await open(browser, stub.url);
  await page.getByRole("button", { name: "Reconnect" }).click();
  await says(page, "dialog[open] .detail", /set dashboard\.adminToken/);
  await accessible();
  await shot("refused");
  await page.getByLabel("Token").fill("wrong");
  await page.keyboard.press("Enter");
  await says(page, "dialog[open] .wrong", /not known/);
  await page.getByLabel("Token").fill("admin-7f3a");
  await page.keyboard.press("Enter");
  await says(page, ".said", /Asked ingest to reconnect/);
  assert.deepEqual(stub.calls.slice(-2), ["POST /api/session", "POST /api/firehose/reconnect"]);
  const kept = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, document.documentElement.outerHTML]));
  assert.ok(!kept.includes("admin-7f3a"));
  await sound();
  await close();
});

claim("a dashboard that asks for a token says so, and shows its figures after it", async () => {
  stub.readToken = "read-91c2";
  const { page, close } = await open(browser, stub.url, {}, ".headline");
  await says(page, ".headline", /^Sign in to see metrics$/);
  await page.getByLabel("Token").fill("read-91c2");
  await page.keyboard.press("Enter");
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  await close();
});

claim("an empty pipeline is whole, and panels of what is not there are hidden", async () => {
  Object.assign(stub, { rate: 0, history: false, letters: [], bufferOn: false });
  stub.without.add("/api/workers");
  Object.assign(stub.metrics, { eventsProcessed: 0, dbRecords: 0, errorRate: 0, rowsAgeSeconds: null });
  Object.assign(stub.metrics.flow, { waiting: 0, quietSeconds: null, incomingPerSecond: 0, writtenPerSecond: 0, workersAlive: 0, database: "unknown" });
  for (const key of Object.keys(stub.metrics.eventCounts)) stub.metrics.eventCounts[key] = 0;
  Object.assign(stub.metrics.firehoseStatus, { connected: false, url: "", currentCursor: null, queueDepth: 0, streamLength: 0 });
  stub.ingest.lagSeconds = null;
  const { page, accessible, sound, shot, close } = await open(browser, stub.url);
  await says(page, ".headline", /^No workers running$/);
  await says(page, ".why", /Also: no ingest running/);
  await says(page, ".events .empty", /No events yet/);
  assert.deepEqual(await Promise.all([".buffer", ".workers"].map((panel) => page.locator(panel).count())), [0, 0]);
  await page.waitForTimeout(4_500);
  await shot("empty");
  await accessible();
  await sound();
  await close();
});

claim("what is wrong is said in words, worst first", async () => {
  const { page, shot, close } = await open(browser, stub.url, { width: 1920, height: 1080, theme: "dark" });
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  stub.metrics.firehoseStatus.connected = false;
  await says(page, ".headline", /^Relay not connected$/);
  await says(page, ".stage:nth-child(1) .state", /^Not connected$/);
  stub.ready = { status: "not ready", checks: { firehose: "disconnected", database: "unhealthy", memory: "ok" } };
  stub.metrics.flow.database = "unreachable";
  await says(page, ".headline", /^PostgreSQL not responding$/);
  await shot("trouble");
  stub.metrics.firehoseStatus.connected = true;
  stub.ready = { status: "ready", checks: { firehose: "connected", database: "healthy", memory: "ok" } };
  stub.metrics.flow.database = "writing";
  stub.ingest.paused = true;
  await says(page, ".headline", /^Ingest is paused, rows/);
  stub.ingest.paused = false;
  stub.workers[1].alive = false;
  await says(page, ".workers .note", /2 of 3 alive/);
  await close();
});

claim("what was verified is one line, and what failed stands behind it", async () => {
  const { page, close } = await open(browser, stub.url);
  const row = (name) => `.relay .rows div:nth-child(${{ Verification: 5, Desynchronized: 6 }[name]}) dd`;
  await says(page, row("Verification"), /^None refused$/);
  await says(page, row("Desynchronized"), /^2 repos$/);
  Object.assign(stub.verification, { failed: { signature: 3 }, lastFailed: { at: "2026-07-04T14:30:00Z", did: "did:plc:a", reason: "signature" } });
  await says(page, row("Verification"), /^3 refused$/);
  assert.match(await page.locator(row("Verification")).getAttribute("title"), /failed: signature 3; last failed: did:plc:a/);
  stub.verification.mode = "off";
  await says(page, row("Verification"), /^Off$/);
  await says(page, row("Desynchronized"), /^–$/);
  stub.ingest.verification = null;
  await says(page, row("Verification"), /^–$/);
  await close();
});

claim("the message buffer shows its gauge, takes a message and says what is wrong with one", async () => {
  const { page, sound, close } = await open(browser, stub.url);
  await says(page, ".gauge", /\d+ of 50/);
  const form = page.locator(".send");
  await form.getByLabel("Message").fill("  ");
  await form.getByRole("button", { name: "Send" }).click();
  await says(page, ".answer", /content: must not be blank/);
  await form.getByLabel("Message").fill("Hello <b>there</b>");
  await form.getByRole("button", { name: "Send" }).click();
  await says(page, ".answer", /Queued as a1B2c3D4/);
  await says(page, ".buffer td.content", /^Hello <b>there<\/b>$/);
  await sound();
  await close();
});

claim("the theme is chosen, and remembered", async () => {
  const { page, close } = await open(browser, stub.url, { theme: "light" });
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const light = await ground();
  await page.getByRole("button", { name: "Theme: auto" }).click();
  assert.equal(await ground(), light);
  await page.getByRole("button", { name: "Theme: light" }).click();
  const dark = await ground();
  assert.notEqual(dark, light);
  await page.reload();
  await page.getByRole("button", { name: "Theme: dark" }).waitFor();
  assert.equal(await ground(), dark);
  await close();
});

claim("a screen reader hears changes, not figures; keys reach everything; nothing moves for those who ask", async () => {
  const { page, close } = await open(browser, stub.url, { still: true });
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  await page.evaluate(() => {
    window.spoken = [];
    for (const region of document.querySelectorAll("[role=status], [aria-live], [role=alert]")) {
      new MutationObserver(() => window.spoken.push(region.textContent || region.className)).observe(region, { childList: true, characterData: true, subtree: true });
    }
  });
  await page.waitForTimeout(7_000);
  assert.deepEqual(await page.evaluate(() => window.spoken), []);
  stub.metrics.firehoseStatus.connected = false;
  await page.waitForFunction(() => window.spoken.length > 0);
  assert.deepEqual(await page.evaluate(() => window.spoken), ["Trouble: Relay not connected"]);
  assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
  const reached = [];
  for (let at = 0; at < 40; at += 1) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => {
      const focused = document.activeElement;
      const seen = getComputedStyle(focused).outlineStyle !== "none";
      return `${focused.getAttribute("aria-label") ?? focused.textContent ?? ""}${seen ? "" : " (unseen)"}`;
    }));
  }
  for (const name of ["Skip to the live events", "API", "Time: UTC", "Keys", "Reconnect", "Pause", "Replay all", "Purge", "Live events, newest first"]) assert.ok(reached.includes(name), `${name} is not among ${reached}`);
  await close();
});
