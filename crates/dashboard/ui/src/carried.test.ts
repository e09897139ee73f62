// What the page says of the filter.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Filter } from "./api";
import { carried } from "./carried";

const RULES: Filter = {
  epoch: "0123456789abcdef", collections: ["app.bsky.*", "!app.bsky.feed.like"], repos: null, excludeRepos: 0, since: "2026-07-04T14:00:00Z", leftOut: {},
};
const COUNTS = { "!app.bsky.feed.like": 1_200, unlisted: 34 };

const CASES: [string, Partial<Filter>, string, RegExp][] = [
  ["nothing left out", {}, "2 rules: 0 left out", /^filter\.collections: app\.bsky\.\*, !app\.bsky\.feed\.like; nothing left out since 2026-07-04T14:00:00Z$/],
  ["by rule", { leftOut: COUNTS }, "2 rules: 1,234 left out", /left out since 2026-07-04T14:00:00Z: !app\.bsky\.feed\.like 1,200, unlisted 34$/],
  ["repos", { collections: [], repos: 1_500 }, "1,500 repos: 0 left out", /^filter\.repos: 1,500;/],
  ["no repo", { collections: [], repos: 0 }, "0 repos: 0 left out", /^filter\.repos: 0;/],
  ["all lists", { repos: 3, excludeRepos: 1, leftOut: { excludeRepos: 2 } }, "2 rules, 3 repos, without 1 repo: 2 left out", /filter\.excludeRepos: 1; left out since .*: excludeRepos 2$/],
  ["an ingest that does not count", { since: null }, "2 rules: 0 left out", /feed\.like$/],
  ["everything", { epoch: "", collections: [] }, "Everything is carried", /No filter/],
];

for (const [name, over, line, title] of CASES) {
  test(`filter: ${name}`, () => {
    const said = carried({ ...RULES, ...over });
    assert.deepEqual([said?.line, said?.warn], [line, false]);
    assert.match(said?.title ?? "", title);
  });
}

test("an ingest that says nothing of its filter has no line", () => {
  for (const unknown of [null, undefined]) assert.equal(carried(unknown), null);
});
