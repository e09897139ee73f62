// Signing in and out at a real dashboard, one without a Redis: PENSTOCK_BIN names the binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { PATIENCE, launch, open, says } from "./browser.mjs";
import { proxy } from "./proxy.mjs";

const binary = process.env.PENSTOCK_BIN;
const limits = { timeout: 180_000, skip: binary ? false : "PENSTOCK_BIN names no binary" };

let browser;
before(async () => { if (binary) browser = await launch(); });
after(() => browser?.close());

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** Runs the claim at a dashboard with these settings, behind the page as it was built. */
async function at(settings, run) {
  const port = await freePort();
  const all = { "dashboard.address": `127.0.0.1:${port}`, "telemetry.adminAddress": "127.0.0.1:0", "redis.url": `redis://127.0.0.1:${await freePort()}`, ...settings };
  const dashboard = spawn(binary, ["dashboard", ...Object.entries(all).flatMap(([path, value]) => ["--set", `${path}=${value}`])], { stdio: "ignore" });
  const front = await proxy(`http://127.0.0.1:${port}/`);
  try {
    const end = Date.now() + PATIENCE;
    while (!(await fetch(`${front.url}api/session`).catch(() => null))?.ok) {
      assert.ok(Date.now() < end && dashboard.exitCode === null, "the dashboard does not answer");
      await new Promise((done) => setTimeout(done, 100));
    }
    await run(front.url);
  } finally {
    front.stop();
    dashboard.kill("SIGKILL");
  }
}

test("a token opens the page, and signing out closes it", limits, () => at({ "pipeline.name": "social/bluesky", "dashboard.readToken": "read-91c2", "dashboard.adminToken": "admin-7f3a" }, async (url) => {
  const { page, close } = await open(browser, url, {}, ".gate");
  await page.getByLabel("Token").fill("wrong");
  await page.keyboard.press("Enter");
  await says(page, ".wrong", /not a token of this dashboard/);
  for (const [token, role] of [["read-91c2", /^Signed in, read only$/], ["admin-7f3a", /^Signed in as admin$/]]) {
    await page.getByLabel("Token").fill(token);
    await page.keyboard.press("Enter");
    await says(page, ".who span", role);
    await says(page, ".plate dl", /bluesky.*social/);
    await says(page, ".headline", /^Redis not responding$/);
    await page.reload();
    await says(page, ".who span", role);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForSelector(".gate");
    assert.equal((await page.context().cookies()).length, 0);
  }
  await close();
}));

test("a dashboard without tokens offers none, and says who may do what", limits, () => at({}, async (url) => {
  const { page, close } = await open(browser, url);
  await says(page, ".who span", /^Read only$/);
  assert.equal(await page.getByRole("button", { name: /^Sign/ }).count(), 0);
  await says(page, ".plate dl", /Pipeline\s*default/);
  await page.waitForSelector(".events");
  assert.equal(await page.locator(".buffer").count(), 0);
  await close();
}));

test("an address with the token signs in, and loses it", limits, () => at({ "dashboard.readToken": "read-91c2", "dashboard.adminToken": "admin/7f3a" }, async (url) => {
  const { page, close } = await open(browser, `${url}#token=${encodeURIComponent("admin/7f3a")}`, {}, ".who");
  await says(page, ".who span", /^Signed in as admin$/);
  assert.equal(page.url(), url);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForSelector(".gate");
  // The page is open already: only what follows the # changes.
  await page.evaluate(() => { location.hash = "#token=read-91c2"; });
  await says(page, ".who span", /^Signed in, read only$/);
  await page.evaluate(() => { location.hash = "#token=wrong"; });
  await says(page, "dialog[open] .detail", /not a token of this dashboard/);
  assert.equal(page.url(), url);
  await close();
}));
