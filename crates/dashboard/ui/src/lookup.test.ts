import assert from "node:assert/strict";
import { test } from "node:test";
import { addressOf, askedIn, hashOf, pathOf, toneOf } from "./lookup";

test("whatever names an account or a record is asked for in one way", () => {
  for (const [text, path] of [
    ["did:plc:abc", "api/repos/did%3Aplc%3Aabc"],
    [" @alice.example.com ", "api/repos/alice.example.com"],
    ["at://did:plc:abc/app.bsky.feed.post/3k", "api/repos/did%3Aplc%3Aabc?path=app.bsky.feed.post%2F3k"],
    ["at://did:plc:abc/app.bsky.feed.post", "api/repos/did%3Aplc%3Aabc"],
    ["https://bsky.app/profile/alice.example.com/post/3k?x=1", "api/repos/alice.example.com?path=app.bsky.feed.post%2F3k"],
    ["https://bsky.app/profile/alice.example.com/", "api/repos/alice.example.com"],
    ["http://bsky.app/profile/alice.example.com", "api/repos/alice.example.com"],
    ["../metrics", "api/repos/.."],
    ["/", "api/repos/-"],
  ] as const) assert.equal(pathOf(text), path, text);
});

test("the page's address names what was asked for, and comes back as it was", () => {
  for (const text of ["did:plc:abc", "at://did:plc:abc/app.bsky.feed.post/3k", "alice.example.com", "a b%c#d"]) {
    assert.equal(askedIn(hashOf(text)), text);
  }
  assert.equal(hashOf("at://did:plc:abc/a.b.c/3k"), "#repo=at://did:plc:abc/a.b.c/3k");
  assert.equal(askedIn("#token=secret"), null);
  assert.equal(askedIn(""), null);
  assert.equal(askedIn("#repo=%"), "%");
  assert.equal(askedIn(`#repo=${encodeURIComponent("https://bsky.app/profile/a.test/post/3k")}`), "at://a.test/app.bsky.feed.post/3k");
  assert.equal(addressOf("https://bsky.app/search"), "https://bsky.app/search");
});

test("what is not known looks neither good nor bad", () => {
  assert.deepEqual([true, false, null].map(toneOf), ["good", "warn", "unknown"]);
});
