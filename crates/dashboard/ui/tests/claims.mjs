// Claims about the page, each against a fresh dashboard that does what it is told.
import { after, before, beforeEach, test } from "node:test";
import { launch } from "./browser.mjs";
import { Stub } from "./stub.mjs";

export let browser;
export let stub;
before(async () => { browser = await launch(); });
after(() => browser?.close());
beforeEach(async () => { stub = await new Stub().start(); });

/** Runs a claim against a fresh dashboard. */
export function claim(name, run) {
  test(name, { timeout: 180_000 }, async () => {
    try {
      await run();
    } finally {
      await stub.stop();
    }
  });
}
