// Whose page it is, as whom it is looked at, and what time it is.
import assert from "node:assert/strict";
import { open, says } from "./browser.mjs";
import { browser, claim, stub } from "./claims.mjs";

const facts = (page) => page.$$eval(".plate dl > div", (facts) => facts.map((fact) => [...fact.children].map((part) => part.textContent).join(" ")));
const buttons = (page) => page.$$eval(".plate button", (all) => all.map((button) => button.textContent));

claim("the page says whose it is, and where more is", async () => {
  const { page, sound, close } = await open(browser, stub.url);
  await says(page, ".plate dl", /relay1/);
  assert.deepEqual(await facts(page), ["Pipeline bluesky", "Namespace social", "Relay relay1.us-east.bsky.network", "Version 0.1.0"]);
  const links = await page.$$eval(".plate a", (all) => all.map((link) => [link.textContent, link.href]));
  assert.deepEqual(links, [["Docs", "https://docs.penstock.test/"], ["API", `${stub.url}api/openapi.json`], ["Metrics", `${stub.url}api/metrics`]]);
  await page.waitForFunction(() => document.title === "Current · social/bluesky");
  await sound();
  await close();
});

claim("outside a cluster there is no namespace, and the tab has the usual name", async () => {
  Object.assign(stub.about, { pipeline: "default", namespace: null });
  const { page, close } = await open(browser, stub.url);
  await says(page, ".plate dl", /relay1/);
  assert.equal((await facts(page)).slice(0, 2).join(), "Pipeline default,Relay relay1.us-east.bsky.network");
  await page.waitForFunction(() => document.title === "Current · Penstock");
  await close();
});

// Which tokens are set, which one was given; what the page says of it, and what it offers.
for (const [name, tokens, given, role, offered] of [
  ["no token is set, and changes are open", {}, null, "Admin", []],
  ["no token is set, and changes are closed", { isLocal: false }, null, "Read only", []],
  ["an admin token is set", { adminToken: "a-1" }, null, "Read only", ["Sign in"]],
  ["the admin token was given", { adminToken: "a-1" }, "a-1", "Signed in as admin", ["Sign out"]],
  ["the read token was given, and an admin token is set", { readToken: "r-1", adminToken: "a-1" }, "r-1", "Signed in, read only", ["Sign in as admin", "Sign out"]],
]) {
  claim(`as whom: ${name}`, async () => {
    Object.assign(stub, tokens);
    const { page, accessible, close } = await open(browser, stub.url, {}, ".headline");
    if (given) {
      if (!tokens.readToken) await page.getByRole("button", { name: "Sign in" }).click();
      await page.getByLabel("Token").fill(given);
      await page.keyboard.press("Enter");
    }
    await says(page, ".who span", new RegExp(`^${role}$`));
    assert.deepEqual((await buttons(page)).filter((name) => name.startsWith("Sign")), offered);
    await page.waitForSelector("main .events");
    await accessible();
    await close();
  });
}

claim("whoever signs out reads no more than whoever never signed in", async () => {
  stub.readToken = "read-91c2";
  const { page, accessible, shot, close } = await open(browser, stub.url, {}, ".gate");
  await says(page, ".headline", /^Sign in to see metrics$/);
  // Nothing of an empty dashboard, and nothing that is not theirs to see.
  assert.equal(await page.locator(".panel, .pipeline, .readouts, .plate dl, .plate nav, .top .age").count(), 0);
  assert.equal(await page.locator("input").count(), 1);
  await accessible();
  await shot("gate");
  await page.getByLabel("Token").fill("wrong");
  await page.keyboard.press("Enter");
  await says(page, ".wrong", /not known/);
  await page.getByLabel("Token").fill("read-91c2");
  await page.keyboard.press("Enter");
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  assert.equal(await page.locator(".gate").count(), 0);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForSelector(".gate");
  assert.equal(stub.calls.at(-1), "DELETE /api/session");
  assert.ok(!(await page.content()).includes("bluesky"));
  await close();
});

claim("a session that ends under the page hides what it showed", async () => {
  stub.readToken = "read-91c2";
  const { page, close } = await open(browser, stub.url, {}, ".gate");
  await page.getByLabel("Token").fill("read-91c2");
  await page.keyboard.press("Enter");
  await says(page, ".headline", /^Current: rows 0\.9 s behind$/);
  const { port } = stub;
  await stub.stop();
  stub.readToken = "read-changed";
  await stub.start(port);
  await page.waitForSelector(".gate");
  assert.equal(await page.locator(".panel").count(), 0);
  await close();
});

claim("a refusal that no token would change asks for none", async () => {
  stub.isLocal = false;
  const { page, close } = await open(browser, stub.url);
  await page.getByRole("button", { name: "Reconnect" }).click();
  await says(page, "dialog[open] .detail", /set dashboard\.adminToken/);
  assert.equal(await page.locator("dialog[open] input").count(), 0);
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await close();
});

claim("what is off is neither shown nor asked for", async () => {
  stub.bufferOn = false;
  stub.without.add("/api/workers").add("/api/dead-letters/groups");
  stub.letters = [];
  const { page, sound, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  page.on("websocket", (socket) => asked.push(new URL(socket.url()).pathname));
  await page.keyboard.press("r");
  await says(page, ".said", /^Refreshed/);
  await page.waitForTimeout(1_000);
  assert.deepEqual(await Promise.all([".buffer", ".workers", ".letters"].map((panel) => page.locator(panel).count())), [0, 0, 0]);
  assert.ok(asked.includes("/api/about"));
  assert.deepEqual(asked.filter((path) => ["/queue/status", "/messages", "/ws/stats"].includes(path)), []);
  // What is left has the room of what is not there.
  const [events, board] = await page.evaluate(() => [".events", "main"].map((selector) => document.querySelector(selector).getBoundingClientRect().width));
  assert.ok(events > 0.95 * board, `${events} px of ${board} px`);
  await sound();
  await close();
});

claim("dead letters that this dashboard cannot list are counted nevertheless", async () => {
  stub.without.add("/api/dead-letters/groups");
  const { page, close } = await open(browser, stub.url);
  await says(page, ".letters .empty", /^3 dead letters in Redis\. .* cannot list them/);
  await close();
});

/** All times of day on the page, of one moment each: their hours. */
const hours = async (page) => ({
  clock: (await page.textContent(".clock")).slice(0, 2),
  event: (await page.textContent(".events tbody td.time")).slice(0, 2),
  letter: (await page.textContent(".letters time")).slice(0, 2),
  message: (await page.textContent(".buffer td.time")).slice(0, 2),
});

for (const [zone, name, ahead] of [["Asia/Tokyo", "\\+09:00", 9], ["America/New_York", "E[DS]T", null], ["Asia/Kathmandu", "\\+05:45", null], ["UTC", "UTC", 0]]) {
  claim(`one clock: UTC, or local where that is ${zone}`, async () => {
    const at = new Date().toISOString();
    stub.messages = [{ id: 1, user_id: 1, channel_id: 1, content: "hello", created_at: at, inserted_at: at }];
    stub.letters = stub.letters.slice(0, 1).map((letter) => ({ ...letter, id: `${Date.now()}-0` }));
    const { page, close } = await open(browser, stub.url, { zone });
    await says(page, ".clock", /^\d\d:\d\d:\d\d UTC$/);
    await page.waitForSelector(".events tbody td.time");
    await page.waitForSelector(".buffer td.time");
    await page.locator(".letters .group .inspect").first().click();
    await page.waitForSelector(".letters time");
    const near = (shown, utc) => Object.entries(shown).every(([, hour]) => [0, 1].includes((Number(hour) - utc + 24) % 24));
    const began = new Date(at).getUTCHours();
    assert.ok(near(await hours(page), began), `${JSON.stringify(await hours(page))} at ${at}`);
    await says(page, ".events thead", /Time, UTC/);
    await says(page, ".relay dl", / UTC/);
    await page.getByRole("button", { name: "Time: UTC" }).click();
    await says(page, ".clock", new RegExp(`^\\d\\d:\\d\\d:\\d\\d ${name}$`));
    await says(page, ".events thead", new RegExp(`Time, ${name}`));
    await says(page, ".relay dl", new RegExp(` ${name}`));
    if (ahead !== null) assert.ok(near(await hours(page), (began + ahead) % 24), JSON.stringify(await hours(page)));
    await page.reload();
    await says(page, ".clock", new RegExp(name));
    await page.getByRole("button", { name: "Time: local" }).click();
    await says(page, ".clock", /UTC$/);
    await close();
  });
}
