// Makes the pictures of the README: docs/images/dashboard-{light,dark}.png. `make screenshots` runs it with a demo of its own, which
// runs for WARM_UP seconds first (180), so that the curves have something to show; DASHBOARD=http://… is one that runs already.
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { launch, open } from "../tests/browser.mjs";

const IMAGES = resolve(process.env.IMAGES ?? "../../../docs/images");
const WARM_UP = Number(process.env.WARM_UP ?? 180);
const [WIDTH, HEIGHT] = [1280, 960];
/** What a picture in the repository may take. */
const LIMIT = 250_000;

/** Starts `penstock run` in a folder of its own; returns the page's address and how to end it. */
async function demo() {
  const binary = process.env.PENSTOCK_BIN;
  if (!binary) throw new Error("PENSTOCK_BIN names no binary, and DASHBOARD no page");
  const folder = mkdtempSync(join(tmpdir(), "penstock-screenshots-"));
  // PostgreSQL does not run as root, and must come in.
  chmodSync(folder, 0o755);
  const child = spawn(binary, ["run", "--data", join(folder, "data"), "--rate", "420", "--total", "0"], { stdio: ["ignore", "pipe", "pipe"] });
  const gone = new Promise((done) => child.once("exit", done));
  const end = async () => {
    child.kill("SIGTERM");
    await gone;
    rmSync(folder, { recursive: true, force: true });
  };
  let said = "";
  for (const output of [child.stdout, child.stderr]) output.on("data", (piece) => (said += piece));
  for (;;) {
    const url = said.match(/^dashboard +(http\S+)/m)?.[1];
    if (url) return { url, end };
    if (child.exitCode !== null) {
      rmSync(folder, { recursive: true, force: true });
      throw new Error(`penstock run ended: ${said}`);
    }
    await sleep(100);
  }
}

const { url, end } = process.env.DASHBOARD ? { url: process.env.DASHBOARD, end: async () => {} } : await demo();
try {
  if (!process.env.DASHBOARD) await sleep(WARM_UP * 1000);
  mkdirSync(IMAGES, { recursive: true });
  const browser = await launch();
  for (const theme of ["light", "dark"]) {
    const { page, sound, close } = await open(browser, url, { theme, width: WIDTH, height: HEIGHT, still: true });
    // The live events and the first minute's curve.
    await page.waitForSelector("canvas");
    await sleep(5_000);
    await sound();
    const path = join(IMAGES, `dashboard-${theme}.png`);
    await page.screenshot({ path, style: "html { scrollbar-width: none; scrollbar-gutter: auto }" });
    await close();
    const { size } = statSync(path);
    if (size > LIMIT) throw new Error(`${path} takes ${size} bytes, more than ${LIMIT}`);
    console.log(`${path}: ${Math.round(size / 1000)} kB`);
  }
  await browser.close();
} finally {
  await end();
}
