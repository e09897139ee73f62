// Looking up an account or a record.
import assert from "node:assert/strict";
import { open, says } from "./browser.mjs";
import { browser, claim, stub } from "./claims.mjs";

const DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const FIELD = "DID, handle, AT-URI or bsky.app address";

claim("a record is looked up by keyboard alone, and the answer is spoken first", async () => {
  const { page, accessible, sound, shot, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  await page.keyboard.press("w");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("placeholder")), FIELD);
  await page.keyboard.type(`https://bsky.app/profile/${DID}/post/missing`);
  await page.keyboard.press("Enter");
  await says(page, ".repo .answered", /^Not stored, though its host has it/);
  await says(page, ".repo [role=status]", /^Not stored, though its host has it/);
  await says(page, ".repo .name", new RegExp(`^at://${DID}/app\\.bsky\\.feed\\.post/missing`));
  await says(page, ".repo .advice", /^penstock audit did:plc:\w+ --repair/);
  for (const told of [/Desynchronizedsince/, /Listed for repairchain, failed 3 times/, /Recordthere/, /is longer than 512 bytes/]) await says(page, ".repo .sides", told);
  assert.equal(new URL(page.url()).hash, `#repo=at://${DID}/app.bsky.feed.post/missing`);
  assert.equal(await page.locator(".repo .answered .glyph.warn").count(), 1);
  await accessible();
  await shot("repo-missing");
  await sound();
  await close();
});

claim("the address of the page names what is looked up, back and forth", async () => {
  const { page, sound, close } = await open(browser, `${stub.url}#repo=${DID}`);
  await says(page, ".repo .answered", /^Held, last commit/);
  assert.equal(await page.getByLabel(FIELD).inputValue(), DID);
  await says(page, ".repo .sides", /app\.bsky\.feed\.like10,000 or more in likes/);
  await says(page, ".repo .sides", /Not asked: the dashboard asks no hosts/);
  await page.getByLabel(FIELD).fill("@alice.example.com/app.bsky.feed.post/3k");
  await page.locator(".repo").getByRole("button", { name: "Look up" }).click();
  await says(page, ".repo .answered", /^Stored in posts/);
  assert.equal(await page.locator(".repo .answered .glyph.good").count(), 1);
  await page.goBack();
  await says(page, ".repo .answered", /^Held, last commit/);
  await page.locator(".repo").getByRole("button", { name: "Clear" }).click();
  await page.locator(".repo .answered").waitFor({ state: "detached" });
  assert.equal(new URL(page.url()).hash, "");
  await sound();
  await close();
});

claim("what names nothing is said to, in the dashboard's words", async () => {
  const { page, close } = await open(browser, stub.url);
  await page.waitForSelector(".events tbody tr");
  await page.getByLabel(FIELD).fill("alice");
  await page.keyboard.press("Enter");
  await says(page, ".repo .answered", /^give a DID such as did:plc/);
  await close();
});

for (const [name, options] of Object.entries({
  "a phone": { width: 390, height: 844, theme: "light" },
  "a phone, dark": { width: 390, height: 844, theme: "dark" },
  "a laptop, dark": { width: 1440, height: 900, theme: "dark" },
})) {
  claim(`the answer is whole and accessible on ${name}`, async () => {
    const { page, accessible, sound, shot, close } = await open(browser, stub.url, options);
    await page.waitForSelector(".events tbody tr");
    await page.getByLabel(FIELD).fill(`at://${DID}/app.bsky.feed.post/missing`);
    await page.keyboard.press("Enter");
    await says(page, ".repo .answered", /^Not stored/);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `the page scrolls sideways by ${wide} px`);
    const outside = await page.evaluate(() => {
      const panel = document.querySelector(".repo").getBoundingClientRect();
      return [...document.querySelectorAll(".repo *:not(.unseen)")].filter((part) => part.getBoundingClientRect().right > panel.right + 1).map((part) => part.className || part.tagName);
    });
    assert.deepEqual(outside, []);
    await page.locator(".repo").scrollIntoViewIfNeeded();
    await accessible();
    await shot(`repo-${name.replace(/\W+/g, "-")}`);
    await sound();
    await close();
  });
}
