// The chart of all that comes in and is applied, the tables and Redis, against a dashboard that does what it is told.
import assert from "node:assert/strict";
import { open, says } from "./browser.mjs";
import { browser, claim, stub } from "./claims.mjs";

const button = (page, name) => page.getByRole("button", { name, exact: true });
const pressed = (page) => page.$$eval(".choice button[aria-pressed=true]", (buttons) => buttons.map((button) => button.textContent));
const note = ".activity .bar .note";

/** What is drawn in the first strip at a share of its width: how many pixels are blue, and where the blue line and the dark one are, from the top. */
function drawn(page, share) {
  return page.evaluate((share) => {
    const canvas = document.querySelector(".activity .row.all canvas");
    const over = document.querySelector(".activity .row.all .u-over");
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    const left = over.getBoundingClientRect().left - canvas.getBoundingClientRect().left;
    const top = over.getBoundingClientRect().top - canvas.getBoundingClientRect().top;
    const [x, from, height] = [left + share * over.clientWidth, top, over.clientHeight + 3].map((length) => Math.round(length * scale));
    const pixels = canvas.getContext("2d").getImageData(x, from, 1, height).data;
    const found = { blue: 0, line: null, dark: null };
    for (let y = 0; y < height; y += 1) {
      const [red, , blue, alpha] = pixels.slice(4 * y, 4 * y + 4);
      if (alpha > 10 && blue - red > 60) found.blue += 1;
      if (alpha > 150 && blue - red > 60) found.line ??= y;
      if (alpha > 150 && red < 80 && blue < 80) found.dark ??= y;
    }
    return found;
  }, share);
}

async function drag(page, from, to) {
  const box = await page.locator(".activity .row.all .u-over").boundingBox();
  const at = (share) => box.x + share * box.width;
  await page.mouse.move(at(from), box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(at((from + to) / 2), box.y + box.height / 2, { steps: 4 });
  await page.mouse.move(at(to), box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
}

claim("each range is asked for, and one that is not kept says which setting keeps it", async () => {
  const { page, accessible, sound, shot, close } = await open(browser, stub.url);
  await says(page, ".headline", /^Current/);
  assert.deepEqual(await pressed(page), ["10 min"]);
  for (const [name, seconds] of [["1 h", 3_600], ["24 h", 86_400], ["7 d", 604_800]]) {
    await button(page, name).click();
    await page.waitForFunction((name) => document.querySelector(".choice button[aria-pressed=true]")?.textContent === name, name);
    await says(page, ".activity .row.all .note", /on average/);
    for (const end = Date.now() + 20_000; !stub.ranges.some(([asked, until]) => asked === seconds && !until) && Date.now() < end;) await page.waitForTimeout(50);
    assert.ok(stub.ranges.some(([asked, until]) => asked === seconds && !until), `${name}: ${JSON.stringify(stub.ranges)}`);
  }
  await shot("range-7d");
  await accessible();
  stub.keptSeconds = 90_000;
  await button(page, "1 h").click();
  await button(page, "7 d").click();
  await says(page, note, /kept for 25 h 00 min: set redis\.activityRetention to 8d for more/);
  await sound();
  await close();
});

claim("what comes in and what is applied are two lines, and missing minutes are a gap", async () => {
  stub.hole = [600, 700];
  const { page, shot, close } = await open(browser, stub.url);
  await button(page, "24 h").click();
  await says(page, ".activity .row.all .note", /on average/);
  const ago = (minutes) => 1 - minutes / 1_440;
  // How high it is there hangs on the time of day: the figures go up and down.
  const isDrawn = async () => (await drawn(page, ago(800))).blue > 8;
  for (const end = Date.now() + 20_000; !(await isDrawn()) && Date.now() < end;) await page.waitForTimeout(100);
  await shot("range-24h");
  const gap = await drawn(page, ago(650));
  assert.deepEqual(gap, { blue: 0, line: null, dark: null }, "a gap is neither zero nor joined");
  assert.ok(await isDrawn(), JSON.stringify(await drawn(page, ago(800))));
  // While half is applied the dashed line is above the solid one; between two dashes nothing is drawn.
  const columns = await Promise.all([105, 110, 115, 118, 121, 124, 127, 130, 133, 136].map((minutes) => drawn(page, ago(minutes))));
  assert.ok(columns.some(({ line, dark }) => dark !== null && line !== null && line - dark > 6), JSON.stringify(columns));
  await close();
});

claim("dragging over the chart zooms; Escape, a double click and the button show all again", async () => {
  const { page, sound, shot, close } = await open(browser, stub.url);
  await button(page, "24 h").click();
  await says(page, ".activity .row.all .note", /on average/);
  assert.equal(await button(page, "Zoom out").isDisabled(), true);
  stub.ranges = [];
  await drag(page, 0.5, 0.75);
  await says(page, note, /^\d\d:\d\d to \d\d:\d\d; Escape or a double click shows all$/);
  await page.waitForTimeout(1_000);
  const [seconds, until] = stub.ranges.at(-1);
  assert.ok(until && Math.abs(seconds - 21_600) < 1_000, `${seconds}`);
  await shot("zoomed");
  await page.locator(".activity .strips").focus();
  await page.keyboard.press("Escape");
  await says(page, note, /^all time/);
  assert.deepEqual(await pressed(page), ["24 h"]);
  await drag(page, 0.2, 0.6);
  await says(page, note, /Escape/);
  await page.locator(".activity .row.all .u-over").dblclick();
  await says(page, note, /^all time/);
  await drag(page, 0.6, 0.2);
  await says(page, note, /Escape/);
  await button(page, "24 h").click();
  await says(page, note, /^all time/);
  // A click is no drag.
  await page.locator(".activity .row.all .u-over").click();
  await page.waitForTimeout(500);
  assert.match(await page.textContent(note), /^all time/);
  await sound();
  await close();
});

claim("keys walk along the chart, zoom and move it", async () => {
  const { page, close } = await open(browser, stub.url);
  await button(page, "24 h").click();
  await says(page, ".activity .row.all .note", /on average/);
  const chart = page.locator(".activity .strips");
  const said = () => page.textContent(".activity .row.all .note");
  await chart.focus();
  await page.keyboard.press("End");
  await says(page, ".activity .row.all .note", /^\d\d:\d\d$/);
  const newest = await said();
  for (let at = 0; at < 5; at += 1) await page.keyboard.press("ArrowLeft");
  const earlier = await said();
  const minutes = (text) => Number(text.slice(0, 2)) * 60 + Number(text.slice(3));
  assert.equal((minutes(newest) - minutes(earlier) + 1_440) % 1_440, 10, `five points of two minutes: ${earlier} to ${newest}`);
  // Figures keep coming, and what is pointed at stays.
  await page.waitForTimeout(4_500);
  assert.equal(await said(), earlier);
  await page.keyboard.press("+");
  await page.keyboard.press("+");
  await says(page, note, /to \d\d:\d\d; Escape/);
  const before = await page.textContent(note);
  await page.keyboard.press("Shift+ArrowLeft");
  await page.waitForFunction(([selector, before]) => document.querySelector(selector).textContent !== before, [note, before]);
  await page.keyboard.press("-");
  await page.keyboard.press("-");
  await says(page, note, /^all time/);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.closest(".activity")), null, "the chart is no trap");
  await close();
});

claim("the live range is filled from the server, goes on by itself and tells what comes in though nothing is applied", async () => {
  const { page, close } = await open(browser, stub.url);
  await says(page, ".activity .row.all .note", /^now$/);
  await page.waitForTimeout(2_500);
  assert.ok((await drawn(page, 0.3)).blue > 10, "the minutes before the page was opened");
  stub.rate = 0;
  stub.came = 800;
  await says(page, ".activity .row.all .into", /^In 400$/);
  await says(page, ".activity .row.all .value", /^0$/);
  await close();
});

claim("starts are marked and told in words, another version as such", async () => {
  stub.starts = [[300, "worker", "w-1", "0.1.0"], [60, "worker", "w-1", "0.2.0"]];
  stub.hole = [-1, -1];
  const { page, close } = await open(browser, stub.url);
  await says(page, ".marks .note", /^No starts in this time$/);
  await button(page, "24 h").click();
  await says(page, ".marks .note", /^\d\d:\d\d worker w-1 started \(0\.1\.0 → 0\.2\.0\), and 1 earlier$/);
  assert.equal(await page.locator(".marks li").count(), 2);
  await close();
});

claim("tables show rows as counted or estimated, sizes and growth, and say what is not known yet", async () => {
  const { page, accessible, close } = await open(browser, stub.url);
  await says(page, ".tables .note", /^26\.0 GiB, growth over a day$/);
  const row = (name) => page.$$eval(".tables tbody tr", (rows, name) => [...rows.find((row) => row.cells[0].textContent === name).cells].map((cell) => cell.textContent), name);
  assert.deepEqual(await row("likes"), ["likes", "25.12M", "7.36 GiB", "+1.02 GiB"]);
  assert.deepEqual(await row("blocks"), ["blocks", "170,453", "43.9 MiB", "−1.91 MiB"]);
  assert.equal((await row("feed_items"))[1], "≈ 10.32M");
  assert.deepEqual(await row("penstock.tombstones"), ["penstock.tombstones", "–", "8.00 KiB", "–"]);
  await accessible();
  await close();
  stub.tables.growthSeconds = null;
  const young = await open(browser, stub.url);
  await says(young.page, ".tables .note", /growth not known yet/);
  await young.close();
  stub.without.add("/api/tables");
  const without = await open(browser, stub.url);
  await says(without.page, ".tables .rows", /Users2\.31MPosts7\.20M/);
  await without.close();
});

claim("Redis shows its stream against the cap and its memory against the maximum, or that neither is known", async () => {
  const { page, close } = await open(browser, stub.url);
  const dd = (name) => `.redis dl > div:has(dt:text-is("${name}")) dd`;
  const says = async (name, pattern) => {
    const cell = page.locator(dd(name));
    for (const end = Date.now() + 20_000; !pattern.test(await cell.textContent()) && Date.now() < end;) await page.waitForTimeout(50);
    assert.match(await cell.textContent(), pattern);
  };
  await says("Stream", /^[\d,]+ of 400,000$/);
  await says("Second stream", /^41$/);
  await says("Memory", /^1\.20 GiB of 2\.00 GiB$/);
  assert.equal(await page.locator(`${dd("Memory")}.warn`).count(), 0);
  stub.metrics.redis = { usedBytes: 1_932_735_283, maxBytes: 2_147_483_648 };
  await says("Memory", /^1\.80 GiB of/);
  assert.equal(await page.locator(`${dd("Memory")}.warn`).count(), 1, "from 80 % on");
  stub.metrics.redis = { usedBytes: 1_932_735_283, maxBytes: null };
  await says("Memory", /^1\.80 GiB, no limit$/);
  assert.equal(await page.locator(".redis meter").count(), 1, "of the stream only");
  stub.metrics.redis = null;
  await says("Memory", /^not known$/);
  await close();
});
