// Runs the page's tests in Chromium; where something is missing it says so in a line and goes without.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";

const ui = new URL("..", import.meta.url).pathname;
const lack = (what) => {
  console.log(`penstock: the page's tests in a browser are skipped: ${what}`);
  process.exit(process.env.PENSTOCK_PAGE_TESTS === "required" ? 1 : 0);
};
if (Number(process.versions.node.split(".")[0]) < 20) lack(`Playwright needs Node.js 20, this is ${process.versions.node}`);
if (!existsSync(`${ui}node_modules/playwright-core`)) lack("playwright-core is not installed (make ui)");
if (!existsSync(`${ui}dist/index.html`)) lack("the page is not built (npm run build)");
const { CHROMIUM } = await import("../tests/browser.mjs");
if (!CHROMIUM) lack("there is no Chromium (apt-get install chromium, or CHROMIUM names one)");
const tests = readdirSync(`${ui}tests`).filter((name) => name.endsWith(".test.mjs")).map((name) => `tests/${name}`);
const run = spawnSync(process.execPath, ["--test", ...tests], { cwd: ui, stdio: "inherit", env: { ...process.env, NODE_OPTIONS: "" } });
process.exit(run.status ?? 1);
