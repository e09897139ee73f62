// After `vite build`: leaves in dist what belongs to this build, compresses it, and holds it to its size.
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/** All that the page loads, compressed, in bytes. */
const LIMIT = 80_000;

const dist = new URL("../dist/", import.meta.url).pathname;
const index = readFileSync(join(dist, "index.html"), "utf8");
const files = ["index.html"];
for (const name of readdirSync(join(dist, "assets"))) {
  // Files of earlier builds carry other hashes: nothing speaks of them any more.
  if (name.endsWith(".gz") || !index.includes(`assets/${name}`)) rmSync(join(dist, "assets", name));
  else files.push(`assets/${name}`);
}

let total = 0;
for (const name of files) {
  const packed = gzipSync(readFileSync(join(dist, name)), { level: 9 });
  writeFileSync(join(dist, `${name}.gz`), packed);
  total += packed.length;
  console.log(`${name.padEnd(32)} ${String(statSync(join(dist, name)).size).padStart(7)} B  ${String(packed.length).padStart(6)} B gzipped`);
}
console.log(`${total} B gzipped in all, of ${LIMIT} B`);
if (total > LIMIT) {
  console.error("the page is too large");
  process.exit(1);
}
for (const name of files) {
  const text = readFileSync(join(dist, name), "utf8").replaceAll("http://www.w3.org/", "");
  const outside = /["'(](?:https?:)?\/\/[a-z0-9-]+\.[^"')\s]*/i.exec(text);
  if (outside) {
    console.error(`${name} names an address elsewhere: ${outside[0]}`);
    process.exit(1);
  }
}
