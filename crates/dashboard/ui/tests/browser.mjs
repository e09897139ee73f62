// What every page test uses: a browser, and a page that is watched.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SHOTS = process.env.PENSTOCK_SHOTS;

/** Where Debian and others put Chromium. */
export const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));

/** How long to wait for what must come, in ms: a loaded machine is slow. */
export const PATIENCE = 60_000;

export function launch() {
  const quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  // Chromium has no sandbox for root, as in a container.
  return chromium.launch({ executablePath: CHROMIUM, args: [...quiet, ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])] });
}

/** Opens the page and waits until it shows figures, or what is asked for. */
export async function open(browser, url, options = {}, until = "main") {
  const context = await browser.newContext({ viewport: { width: options.width ?? 1440, height: options.height ?? 900 }, colorScheme: options.theme ?? "light", reducedMotion: options.still ? "reduce" : "no-preference", ...(options.zone ? { timezoneId: options.zone } : {}) });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const faults = [];
  page.on("console", (message) => {
    // The browser itself logs every answer that is no success; which of them are right, the tests say.
    if (message.type() === "error" && !/Failed to load resource|WebSocket connection/.test(message.text())) faults.push(message.text());
    if (/Content.Security.Policy/i.test(message.text())) faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(String(error.stack)));
  page.on("request", (request) => {
    if (!request.url().startsWith(url.split("#")[0]) && !/^(data|about|blob):/.test(request.url())) faults.push(`asked elsewhere: ${request.url()}`);
  });
  await page.addInitScript(() => {
    window.shifts = [];
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        if (entry.hadRecentInput) continue;
        window.shifts.push({ value: entry.value, of: entry.sources.map((source) => source.node?.outerHTML?.slice(0, 120) ?? source.node?.textContent) });
      }
    }).observe({ type: "layout-shift", buffered: true });
  });
  await page.goto(url);
  await page.waitForSelector(until);
  return {
    page,
    /** Whether nothing went wrong since the page was opened. */
    async sound() {
      assert.deepEqual(faults, []);
      const shifts = await page.evaluate(() => window.shifts);
      const sum = shifts.reduce((sum, { value }) => sum + value, 0);
      assert.ok(sum < 0.05, `the layout shifted by ${sum}: ${JSON.stringify(shifts)}`);
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= room, `${wide} px wide in ${room} px`);
    },
    /** Whether axe finds no fault at all. */
    async accessible() {
      await page.evaluate(AXE);
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`), []);
    },
    async shot(name) {
      if (!SHOTS) return;
      mkdirSync(SHOTS, { recursive: true });
      await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
    },
    close: () => context.close(),
  };
}

/** Waits until a text stands where a selector points. */
export async function says(page, selector, pattern) {
  await page.waitForFunction(
    ([selector, source, flags]) => new RegExp(source, flags).test(document.querySelector(selector)?.textContent ?? ""),
    [selector, pattern.source, pattern.flags],
  ).catch(async () => {
    assert.match((await page.textContent(selector)) ?? "", pattern);
  });
}

/** The number that a figure shows, from its title where it has one. */
export async function figure(page, name) {
  const text = await page.evaluate((name) => {
    const term = [...document.querySelectorAll("dt")].find((term) => term.textContent === name);
    const value = term?.nextElementSibling?.querySelector(".value") ?? term?.nextElementSibling;
    return value?.querySelector("[title]")?.getAttribute("title") ?? value?.textContent ?? "";
  }, name);
  return Number(text.replaceAll(",", ""));
}
