// Live events and dead letters of the page, against a dashboard that does what it is told.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { open, says } from "./browser.mjs";
import { browser, claim, stub } from "./claims.mjs";

const rows = (page) => page.locator(".events tbody tr");
const collections = (page) => page.$$eval(".events td.collection", (cells) => cells.map((cell) => cell.textContent));

/** Many letters, some of which only PostgreSQL has. */
function manyLetters(count) {
  return Array.from({ length: count }, (_, at) => ({
    id: `${Date.now() - 1_000 * at}-${at}`, type: at % 40 === 3 ? "raw" : "commit", seq: String(at), origId: "", deliveries: "2", consumer: "w-0", source: at % 10 === 9 ? "postgres" : "redis",
    error: at % 3 === 0 ? `op ${at}: uri is longer than 512 bytes` : at % 3 === 1 ? `record ${at} is a list` : "a very long reason that says in many words what was wrong with this entry so that it does not fit",
    data: at % 40 === 3 ? "AAEC" : JSON.stringify({ repo: `did:plc:repo${at}`, ops: [{ action: "create", path: `app.bsky.feed.post/k${at}`, record: {} }] }),
  }));
}

claim("matches of a rare kind stay while others rush by, and those that came before are shown", async () => {
  stub.send({ lexicon: "app.bsky.graph.block", did: "did:plc:early" });
  for (let at = 0; at < 600; at += 1) stub.send({ lexicon: "app.bsky.feed.like" });
  const { page, sound, close } = await open(browser, stub.url);
  await rows(page).nth(40).waitFor();
  assert.ok(!(await collections(page)).includes("app.bsky.graph.block"), "it is too far back to be among the newest");
  await page.getByLabel("Collection contains").fill("graph.block");
  await says(page, ".events td.did", /^did:plc:early$/);
  stub.send({ lexicon: "app.bsky.graph.block", did: "did:plc:now" });
  await says(page, ".events tbody", /did:plc:now.*did:plc:early/);
  for (let at = 0; at < 3_000; at += 1) stub.send({ lexicon: "app.bsky.feed.like" });
  stub.send({ lexicon: "app.bsky.graph.block", did: "did:plc:late" });
  await says(page, ".events tbody", /did:plc:late.*did:plc:now.*did:plc:early/);
  assert.deepEqual([...new Set(await collections(page))], ["app.bsky.graph.block"]);
  await says(page, ".events .bar .note", /^3 match/);
  await sound();
  await close();
});

claim("the address holds the filter: it can be sent to somebody, and the browser goes back", async () => {
  const { page, close } = await open(browser, `${stub.url}`);
  await rows(page).nth(20).waitFor();
  await page.getByLabel("Collection contains").fill("feed.post");
  await page.waitForURL((url) => url.search === "?collection=feed.post");
  await page.getByLabel("Action").selectOption("delete");
  await page.getByRole("checkbox", { name: "Accounts" }).uncheck();
  await page.waitForURL((url) => url.search === "?collection=feed.post&without=account&action=delete" || url.searchParams.get("without") === "account");
  await page.goBack();
  await page.waitForURL((url) => url.search === "?collection=feed.post");
  assert.equal(await page.getByLabel("Action").inputValue(), "");
  assert.ok(await page.getByRole("checkbox", { name: "Accounts" }).isChecked());
  await page.goBack();
  await page.waitForURL((url) => url.search === "");
  assert.equal(await page.getByLabel("Collection contains").inputValue(), "");
  await rows(page).nth(40).waitFor();
  await page.goto(`${stub.url}?did=plc:shared&action=create&other=1`);
  assert.equal(await page.getByLabel("DID contains").inputValue(), "plc:shared");
  stub.send({ did: "did:plc:shared", action: "create" });
  await says(page, ".events tbody", /did:plc:shared/);
  await page.locator(".events").getByRole("button", { name: "Clear" }).click();
  await page.waitForURL((url) => url.search === "?other=1");
  await close();
});

for (const [name, options] of Object.entries({ "phone-light": { width: 390, height: 844, theme: "light" }, "desk-dark": { width: 1400, height: 900, theme: "dark" } })) {
  claim(`an event opens, whole, and nothing is asked elsewhere: ${name}`, async () => {
    stub.rate = 0;
    const { page, sound, accessible, shot, close } = await open(browser, stub.url, options);
    stub.send({ lexicon: "app.bsky.feed.post", did: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", action: "create", rkey: "3m5xq2k7bzk2a", rev: "3m5xq2k7c2s2a", seq: 28_123_456_789 });
    const row = rows(page).first();
    await row.waitFor();
    await page.locator(".events .scroll").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await says(page, "dialog[open] .rows", /URIat:\/\/did:plc:ewvi7nxzyoun6zhxrhs64oiz\/app\.bsky\.feed\.post\/3m5xq2k7bzk2a.*Revision3m5xq2k7c2s2a.*Sequence28123456789/);
    await says(page, "dialog[open] pre", /"text": "Hello <b>there<\/b>"/);
    await says(page, "dialog[open] .note", /As stored in PostgreSQL, posts/);
    const link = page.locator("dialog[open] a");
    assert.deepEqual([await link.getAttribute("href"), await link.getAttribute("rel")], ["https://pdsls.dev/at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3m5xq2k7bzk2a", "noopener noreferrer"]);
    await page.evaluate(() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; });
    await page.getByRole("button", { name: "Copy the URI" }).click();
    assert.equal(await page.evaluate(() => window.copied), "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3m5xq2k7bzk2a");
    await page.getByRole("button", { name: "Copy as JSON" }).click();
    assert.equal(JSON.parse(await page.evaluate(() => window.copied)).record.text, "Hello <b>there</b>");
    await accessible();
    await shot(`event-${name}`);
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("dialog[open]").count(), 0);
    // One that is not stored, by the pointer.
    stub.send({ lexicon: "app.bsky.feed.like", action: "delete", did: "did:plc:deleter" });
    await says(page, ".events td.did", /did:plc:deleter/);
    await row.locator("td.did").click();
    await says(page, "dialog[open] .note", /it was deleted/);
    await page.getByRole("button", { name: "Close" }).click();
    await sound();
    await close();
  });

  claim(`thousands of dead letters are paged, filtered and downloaded: ${name}`, async () => {
    stub.letters = manyLetters(3_000);
    const { page, sound, accessible, shot, close } = await open(browser, stub.url, options);
    const group = page.locator(".letters .group").first();
    await group.waitFor();
    await says(page, ".letters .bar .note", /^3,000 · 300 only in PostgreSQL/);
    await group.getByRole("button", { expanded: false }).first().click();
    const letters = group.locator(".letter");
    await letters.nth(49).waitFor();
    assert.equal(await letters.count(), 50);
    await group.getByRole("button", { name: "Show 50 more of 1,000" }).click();
    await letters.nth(99).waitFor();
    await group.locator(".only").first().waitFor();
    await accessible();
    await page.locator(".letters").scrollIntoViewIfNeeded();
    await shot(`letters-${name}`);
    await sound();
    await page.getByLabel("Dead letters contain").fill("k77");
    await says(page, ".letters .bar .note", /^11 match/);
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download" }).click()]);
    const lines = readFileSync(await download.path(), "utf8").trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual([lines.length, lines.every(({ uri }) => uri.includes("/k77"))], [11, true]);
    await page.getByRole("button", { name: "Purge" }).click();
    await says(page, "dialog[open] h2", /^Purge the 11 dead letters that match\?$/);
    await page.getByRole("dialog").getByRole("button", { name: "Purge" }).click();
    await says(page, ".said", /^Deleted 11 dead letters\./);
    assert.deepEqual([stub.letters.length, stub.calls.at(-1)], [2_989, "DELETE /api/dead-letters?text=k77"]);
    await page.locator(".letters").getByRole("button", { name: "Clear" }).click();
    await says(page, ".letters .bar .note", /^2,989/);
    await close();
  });
}

claim("a letter that only PostgreSQL has is marked, read and replayed; a group is replayed after a question", async () => {
  stub.letters = manyLetters(12);
  const { page, close } = await open(browser, stub.url);
  const kept = stub.letters.find(({ source }) => source === "postgres");
  const group = page.locator(".letters .group", { hasText: "uri is longer" });
  await group.getByRole("button", { expanded: false }).click();
  const letter = group.locator(".letter", { has: page.locator(".only") });
  await letter.getByRole("button", { expanded: false }).click();
  await says(page, ".letters pre", /"did:plc:repo9"/);
  await letter.getByRole("button", { name: /^Replay/ }).click();
  await says(page, ".said", /Replayed one entry/);
  assert.equal(stub.calls.at(-1), `POST /api/dead-letters/postgres/${kept.id}/replay`);
  await page.locator(".letters .group", { hasText: "is a list" }).getByRole("button", { name: /^Replay/ }).click();
  await says(page, "dialog[open] .question", /record … is a list/);
  await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
  await says(page, ".said", /Replayed 4 dead letters/);
  assert.equal(stub.calls.at(-1), "POST /api/dead-letters/replay?reason=record … is a list");
  stub.lettersPostgres = "unavailable";
  await page.getByLabel("Type of dead letters").selectOption("raw");
  await says(page, ".letters .bar .note", /PostgreSQL not read/);
  await close();
});
