// Bundles the tests of the pure parts and runs them with Node's own test runner.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const src = new URL("../src/", import.meta.url).pathname;
const out = mkdtempSync(join(tmpdir(), "penstock-page-"));
const tests = readdirSync(src).filter((name) => name.endsWith(".test.ts"));
await build({
  entryPoints: tests.map((name) => join(src, name)),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
});
const run = spawnSync(process.execPath, ["--test", ...tests.map((name) => join(out, name.replace(/ts$/, "mjs")))], { stdio: "inherit" });
rmSync(out, { recursive: true });
process.exit(run.status ?? 1);
