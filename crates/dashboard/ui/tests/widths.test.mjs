// The page at every width, from a phone to a wall.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, open, says } from "./browser.mjs";
import { Stub } from "./stub.mjs";

/** From a phone to a laptop, in steps, and where a layout begins or ends. */
const WIDTHS = [360, 390, 412, 440, 480, 520, 560, 600, 640, 680, 703, 704, 705, 720, 768, 800, 840, 880, 920, 960, 1000, 1023, 1024, 1025, 1060, 1100, 1151, 1152, 1153, 1160, 1200, 1240, 1280, 1320, 1343, 1344, 1345, 1360, 1400, 1440, 1600, 1792, 1920, 2303, 2304, 2560, 3840];

/** Of any length, and whole in their titles. */
const UNBOUNDED = ".inspect .why, .buffer td.content";

let browser;
let stub;
before(async () => {
  browser = await launch();
  stub = await new Stub().start();
  const at = new Date().toISOString();
  stub.messages = [{ id: 1, user_id: 104_233, channel_id: 77, content: "Hello there", created_at: at, inserted_at: at }];
});
after(async () => {
  await browser?.close();
  await stub?.stop();
});

/** Every text that is not wholly seen: cut by something around it, or running out of its own box. */
function cut(page, except = "none") {
  return page.evaluate((except) => {
    const found = new Set();
    const tell = (text, box, why) => found.add(`${why}: “${text.data.trim().slice(0, 60)}” in ${box.tagName.toLowerCase()}.${box.className} of ${text.parentElement.closest("section, header, main")?.className}`);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      const own = text.parentElement;
      if (!text.data.trim() || own.closest(`.unseen, .skip, .u-wrap, noscript, script, option, [hidden], dialog:not([open]), pre, ${except}`) || !own.checkVisibility()) continue;
      // Only for those who hear it.
      const head = own.closest("thead");
      if (head && getComputedStyle(head).position === "absolute") continue;
      const range = document.createRange();
      range.selectNodeContents(text);
      const { left, right, top, bottom, width } = range.getBoundingClientRect();
      if (width === 0) continue;
      for (let box = own; box && box !== document.body; box = box.parentElement) {
        const style = getComputedStyle(box);
        if (style.display === "inline" || style.display === "contents") continue;
        let edge = box.getBoundingClientRect();
        // Three dots stand within the padding.
        if (style.textOverflow === "ellipsis") edge = new DOMRect(edge.x + Number.parseFloat(style.paddingLeft), edge.y, edge.width - Number.parseFloat(style.paddingLeft) - Number.parseFloat(style.paddingRight), edge.height);
        // Out of its own box is over its neighbour.
        if (left < edge.left - 1 || right > edge.right + 1) { tell(text, box, style.overflowX === "visible" ? "runs out" : "cut"); break; }
        if (style.overflowY === "hidden" && (top < edge.top - 2 || bottom > edge.bottom + 2)) { tell(text, box, "cut below"); break; }
        if (style.position === "absolute") break;
      }
    }
    return [...found];
  }, except);
}

/** Texts of the board that lie on each other. */
function overlaps(page) {
  return page.evaluate(() => {
    const found = new Set();
    const boxes = [];
    const walker = document.createTreeWalker(document.querySelector("#page"), NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      const own = text.parentElement;
      // What scrolls, and what stays while the page scrolls, lies over others by design.
      if (!text.data.trim() || own.closest(".unseen, .skip, .u-wrap, .scroll, .top, option, [hidden], dialog") || !own.checkVisibility()) continue;
      const range = document.createRange();
      range.selectNodeContents(text);
      for (const rect of range.getClientRects()) boxes.push({ rect, text });
    }
    for (const [at, { rect: a, text }] of boxes.entries()) {
      for (const { rect: b, text: other } of boxes.slice(at + 1)) {
        const [wide, high] = [Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
        if (wide > 2 && high > 5 && text !== other) found.add(`“${text.data.slice(0, 40)}” and “${other.data.slice(0, 40)}”`);
      }
    }
    return [...found];
  });
}

for (const state of ["as it flows", "in trouble"]) {
  test(`nothing is cut and nothing overflows at any width, ${state}`, { timeout: 300_000 }, async () => {
    if (state === "in trouble") {
      stub.metrics.firehoseStatus.connected = false;
      stub.metrics.flow.database = "unreachable";
      stub.metrics.flow.waiting = 48_213_907;
    }
    const { page, close } = await open(browser, stub.url, { height: 900 });
    await says(page, ".headline", state === "in trouble" ? /^PostgreSQL not responding$/ : /^Current/);
    await page.locator(".events tbody tr").nth(20).waitFor();
    await says(page, ".plate dl", /relay1/);
    const wrong = [];
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 900 });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      if (wide > room) wrong.push(`${width}: ${wide} px wide in ${room} px`);
      // On a phone a DID has no room, and is whole in its title.
      const found = await cut(page, width < 768 ? `${UNBOUNDED}, .events td` : UNBOUNDED);
      wrong.push(...[...found, ...await overlaps(page)].map((text) => `${width}: ${text}`));
    }
    assert.ok(wrong.length === 0, wrong.join("\n"));
    await close();
  });
}

test("a window twice as wide shows more, not larger", { timeout: 120_000 }, async () => {
  const { page, shot, sound, accessible, close } = await open(browser, stub.url, { width: 1400, height: 900 });
  await page.locator(".events tbody tr").nth(50).waitFor();
  const look = () => page.evaluate(() => {
    const inSight = (nodes) => [...nodes].filter((node) => {
      const { top, bottom } = node.getBoundingClientRect();
      const list = node.closest(".scroll").getBoundingClientRect();
      return top >= list.top && bottom <= Math.min(list.bottom, innerHeight);
    }).length;
    const top = (selector) => Math.round(document.querySelector(selector).getBoundingClientRect().top);
    return {
      size: Number.parseFloat(getComputedStyle(document.documentElement).fontSize),
      rows: inSight(document.querySelectorAll(".events tbody tr")),
      tops: [".activity", ".tables", ".details", ".events", ".letters", ".buffer"].map(top),
    };
  });
  const laptop = await look();
  await page.setViewportSize({ width: 2560, height: 1440 });
  await page.waitForTimeout(500);
  const wide = await look();
  assert.ok(wide.size <= laptop.size * 1.12, `${wide.size} px after ${laptop.size} px`);
  assert.ok(wide.rows >= 18, `${wide.rows} rows of events in sight, after ${laptop.rows}`);
  const [activity, tables, details, events, letters, buffer] = wide.tops;
  assert.deepEqual([tables, details], [activity, activity]);
  assert.deepEqual([letters, buffer], [events, events]);
  await shot("wide");
  await accessible();
  await sound();
  await close();
});
