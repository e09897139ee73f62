import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL, type Filter, type LiveEvent, fromAddress, inOrder, matches, query, toAddress, uriOf } from "./filter";
import { type Group, type Letter, doneWith, lettersQuery, nameOf, span } from "./letters";
import { Parser } from "./sse";

const event = (over: Partial<LiveEvent>): LiveEvent => ({ type: "#commit", lexicon: "app.bsky.feed.like", did: "did:plc:abc", action: "create", timestamp: "14:00:00", ...over });

test("the server is asked for what the page shows", () => {
  const asked = (part: Partial<Filter>) => decodeURIComponent(query({ ...ALL, ...part }).toString());
  assert.deepEqual(
    [{}, { collection: " Feed.Post " }, { collection: "app.bsky.feed.*" }, { collection: "feed*post" }, { did: "did:plc:a" }, { collection: " * " }, { action: "handle" }, { without: new Set(["#commit"]) }].map(asked),
    ["", "collection=*feed.post*", "collection=*app.bsky.feed.*", "collection=*feed*post*", "did=*did:plc:a*", "", "action=handle", "type=identity&type=account"],
  );
  assert.ok(asked({ did: "x".repeat(1_000) }).length < 260, "the server takes 256 bytes");
});

test("what stands between stars comes in its order", () => {
  const cases: [string, boolean][] = [["feed*like", true], ["app*feed*", true], ["like*feed", false], ["*", true], ["feed**like", true], ["feed?like", false]];
  for (const [collection, expected] of cases) assert.equal(matches({ ...ALL, collection }, event({})), expected, collection);
});

test("a filter goes through the address and back, and leaves the rest of it alone", () => {
  const filters: Filter[] = [ALL, { ...ALL, collection: "feed&post*" }, { without: new Set(["#commit", "#account"]), collection: "a", did: "did:plc:ä", action: "delete" }];
  for (const filter of filters) {
    const address = toAddress("?theme=dark&did=old", filter);
    assert.deepEqual(fromAddress(address), filter, address);
    assert.equal(new URLSearchParams(address).get("theme"), "dark");
  }
  assert.equal(toAddress("?did=old", ALL), "");
  assert.equal(toAddress("", { ...ALL, did: "did:plc:a" }), "?did=did:plc:a");
  assert.deepEqual(fromAddress("?action=nonsense&without=x,commit"), { ...ALL, without: new Set(["#commit"]) });
});

test("events of one server stand in its order, those of several as they came", () => {
  const ids = (...ids: (string | undefined)[]) => inOrder(ids.map((id) => event({ id }))).map(({ id }) => id);
  assert.deepEqual(ids("p-9", "p-10", "p-2"), ["p-2", "p-9", "p-10"]);
  assert.deepEqual(ids("p-9", "q-1", "q-3", "q-2"), ["p-9", "q-1", "q-3", "q-2"]);
  assert.deepEqual(ids(undefined, "p-9", "p-2"), [undefined, "p-9", "p-2"]);
  assert.deepEqual(ids(), []);
});

test("only a commit whose key is known has a URI", () => {
  assert.equal(uriOf(event({ rkey: "3k" })), "at://did:plc:abc/app.bsky.feed.like/3k");
  assert.equal(uriOf(event({})), "");
});

test("an id without data is told, and is no message", () => {
  const parser = new Parser();
  assert.deepEqual(parser.take("id: p-7\ndata: a\n\nid: p-9\n\nid: p-10\ndata: not whole\n"), [{ data: "a", id: "p-7" }]);
  assert.equal(parser.told, "p-9");
});

test("what was done with letters is said with what stays", () => {
  assert.equal(doneWith("Replayed", { replayed: 1 }), "Replayed 1 dead letter.");
  assert.equal(doneWith("Deleted", { deleted: 4 }), "Deleted 4 dead letters.");
  assert.equal(doneWith("Replayed", { replayed: 2, left: 1, refused: 3 }), "Replayed 2 dead letters; kept 3 older than worker.letterHold and 1 that is not an event.");
  assert.match(doneWith("Replayed", { replayed: 2, more: true }), /There are more/);
});

test("a group says since when its letters come", () => {
  const now = Date.parse("2026-07-04T14:00:00Z");
  const group = (first: number, last: number, count: number) => span({ first: now - first * 1000, last: now - last * 1000, count } as Group, now);
  assert.equal(group(30, 30, 1), "30 s ago");
  assert.match(group(3_600, 30, 2), /^last 30 s ago, first \d\d:00:00$/);
  assert.equal(group(200_000, 30, 2), "last 30 s ago, first 2 d 7 h ago");
});

test("a letter is called by its record and its repo, or by what there is", () => {
  const name = (over: Partial<Letter>) => nameOf({ uri: null, repo: null, seq: "", error: "too long", ...over } as Letter);
  assert.equal(name({ uri: "at://did:plc:a/app.bsky.feed.post/3k", repo: "did:plc:a" }), "app.bsky.feed.post/3k · did:plc:a");
  assert.deepEqual([name({ repo: "did:plc:a" }), name({ seq: "7" }), name({})], ["did:plc:a", "sequence 7", "too long"]);
});

test("letters are asked for by what is typed and chosen", () => {
  assert.equal(lettersQuery({ text: " a b ", type: "raw" }, { reason: "op …" }), "reason=op+%E2%80%A6&text=a+b&type=raw");
  assert.equal(lettersQuery({ text: "", type: "" }), "");
});
