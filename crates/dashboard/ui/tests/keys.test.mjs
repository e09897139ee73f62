// Single keys, and the list of them.
import assert from "node:assert/strict";
import { open, says } from "./browser.mjs";
import { browser, claim, stub } from "./claims.mjs";

const focused = (page) => page.evaluate(() => document.activeElement?.getAttribute("placeholder") ?? document.activeElement?.textContent ?? "");
const isPaused = (page) => page.$eval(".events .pause", (button) => button.textContent === "Resume");
/** Whether the page did anything at a key, after the page had time to. */
const settledPause = async (page) => {
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  return isPaused(page);
};

claim("p pauses the live events and resumes them", async () => {
  const { page, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  await page.keyboard.press("p");
  await page.getByRole("button", { name: "Resume" }).waitFor();
  await page.keyboard.press("p");
  await page.getByRole("button", { name: "Pause" }).waitFor();
  await close();
});

claim("a slash goes to the filter, and what is typed there is text", async () => {
  const { page, close } = await open(browser, stub.url, { height: 600 });
  await page.waitForSelector(".events tbody tr");
  await page.keyboard.press("/");
  assert.equal(await focused(page), "Collection");
  // In sight, and not behind the status.
  assert.ok(await page.evaluate(() => {
    const { left, top, width, height } = document.activeElement.getBoundingClientRect();
    return document.elementFromPoint(left + width / 2, top + height / 2) === document.activeElement;
  }));
  await page.keyboard.type("p/r?");
  assert.equal(await page.inputValue(":focus"), "p/r?");
  assert.equal(await settledPause(page), false);
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await close();
});

claim("r asks for everything again, in a new stream", async () => {
  const { page, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await page.keyboard.press("r");
  await says(page, ".said", /^Refreshed at \d\d:\d\d:\d\d UTC/);
  for (const path of ["/api/events/stream", "/api/ingest", "/ready", "/api/workers", "/api/dead-letters/groups", "/api/activity"]) assert.ok(asked.includes(path), `${path} is not among ${asked}`);
  await says(page, ".headline", /^Current/);
  await close();
});

claim("a question mark lists the keys; the list holds the focus and gives it back", async () => {
  const { page, accessible, shot, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  await page.getByRole("button", { name: "Reconnect" }).focus();
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  assert.deepEqual(await page.$$eval("dialog.keys kbd", (keys) => keys.map((key) => key.textContent)), ["/", "w", "p", "r", "?", "Esc"]);
  assert.equal(await focused(page), "Close");
  await accessible();
  await shot("keys");
  for (let at = 0; at < 6; at += 1) {
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.activeElement.closest("dialog[open]") !== null), await focused(page));
  }
  // Behind the list nothing happens.
  await page.keyboard.press("p");
  assert.equal(await settledPause(page), false);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog[open]"));
  assert.equal(await focused(page), "Reconnect");
  // And again: what was closed by Escape is known to be closed.
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "Keys" }).click();
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await close();
});

claim("keys of the browser and of others are left alone", async () => {
  const { page, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  for (const keys of ["Control+p", "Alt+p", "Meta+p", "Shift+P", "Control+/", "x"]) {
    await page.evaluate(() => addEventListener("keydown", (event) => { window.taken = event.defaultPrevented; }, { once: true }));
    const [held, key] = keys.includes("+") ? keys.split("+") : ["", keys];
    // Dispatched, so that the browser itself prints nothing.
    await page.evaluate(([held, key]) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ctrlKey: held === "Control", altKey: held === "Alt", metaKey: held === "Meta", shiftKey: held === "Shift" })), [held, key]);
    assert.equal(await settledPause(page), false, keys);
    assert.equal(await page.evaluate(() => window.taken), false, keys);
  }
  await page.evaluate(() => document.querySelector(".events select").focus());
  await page.keyboard.press("p");
  assert.equal(await settledPause(page), false, "in a list of choices");
  await close();
});

claim("whoever turns single keys off has them off, also tomorrow", async () => {
  const { page, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  await page.keyboard.press("?");
  await page.getByLabel("These keys are on").uncheck();
  await page.keyboard.press("Escape");
  await page.keyboard.press("p");
  assert.equal(await settledPause(page), false);
  await page.reload();
  await page.waitForSelector(".events tbody tr");
  await page.keyboard.press("p");
  assert.equal(await settledPause(page), false);
  await page.getByRole("button", { name: "Keys" }).click();
  await page.getByLabel("These keys are on").check();
  await page.keyboard.press("Escape");
  await page.keyboard.press("p");
  await page.getByRole("button", { name: "Resume" }).waitFor();
  await close();
});
