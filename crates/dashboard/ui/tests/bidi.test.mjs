// Text that runs from right to left turns nothing around it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";
import { Stub } from "./stub.mjs";

const HEBREW = "שלום עולם";
const ARABIC = "مرحبا";
const ARABIC_KEY = "مفتاح";
/** Turns everything after it, unless it ends with its text. */
const OVERRIDE = "\u202Eevil";

let browser;
let stub;
before(async () => {
  browser = await launch();
  stub = new Stub();
  const at = new Date().toISOString();
  stub.rate = 0;
  stub.event = () => ({ type: "#identity", lexicon: "com.atproto.identity", did: "did:plc:abcdefghijklmnopqrstuvwx", action: `→ ${HEBREW}`, timestamp: at.slice(11, 19) });
  stub.messages = [HEBREW, `${OVERRIDE} text`].map((content, id) => ({ id, user_id: 1, channel_id: 1, content, created_at: at, inserted_at: at }));
  stub.letters = [{ ...stub.letters[0], id: `${Date.now()}-0`, error: `${HEBREW} (42)`, data: JSON.stringify({ displayName: HEBREW, description: ARABIC, name: OVERRIDE, [ARABIC_KEY]: "עוד", last: "x" }) }];
  await stub.start();
  stub.rate = 10;
});
after(async () => {
  await browser?.close();
  await stub?.stop();
});

/** Where each part of a text is drawn, by its left edge, as far as it is found within a node. */
const lefts = (page, selector, parts) => page.$eval(selector, (node, parts) => parts.map((part) => {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const at = text.data.indexOf(part);
    if (at < 0) continue;
    const range = document.createRange();
    range.setStart(text, at);
    range.setEnd(text, at + part.length);
    return Math.round(range.getBoundingClientRect().left);
  }
  return null;
}), parts);

/** Asserts that the parts are drawn from left to right as they are listed. */
async function inOrder(page, selector, parts) {
  const found = await lefts(page, selector, parts);
  assert.ok(found.every((left, at) => left !== null && (at === 0 || left > found[at - 1])), `${selector}: ${JSON.stringify(parts)} at ${found}`);
}

test("what users of the network wrote turns no line", { timeout: 180_000 }, async () => {
  const { page, shot, sound, accessible, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  await page.waitForSelector(".buffer tbody tr:nth-child(2)");
  await inOrder(page, ".events tbody td.action", ["→", HEBREW]);
  await page.locator(".letters .group .inspect").first().click();
  await page.locator(".letters .letter .inspect").first().click();
  await page.waitForSelector(".letters pre");
  // Two strings that run to the left, with a colon between: each stays where it is.
  await inOrder(page, ".letters pre", ['"displayName"', HEBREW]);
  await inOrder(page, ".letters pre", ['"description"', ARABIC]);
  await inOrder(page, ".letters pre", ['"name"', OVERRIDE]);
  await inOrder(page, ".letters pre", [ARABIC_KEY, "עוד"]);
  await inOrder(page, ".letters pre", ['"last"', '"x"']);
  for (const selector of [".events tbody td.action", ".events tbody td.did", ".events tbody td.collection", ".buffer td.content", ".letters .inspect .why", ".letters dd"]) {
    const cells = await page.$$eval(selector, (nodes) => nodes.map((node) => node.querySelector("bdi") !== null));
    assert.ok(cells[0], `${selector} holds text of the network without <bdi>`);
  }
  // All that is in such letters is in one that ends with it.
  const bare = await page.evaluate(() => {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      if (/[\u0590-\u06FF\u202E]/.test(text.data) && !text.parentElement.closest("bdi")) found.push(text.parentElement.outerHTML);
    }
    return found;
  });
  assert.deepEqual(bare, []);
  await shot("bidi");
  await accessible();
  await sound();
  await close();
});
