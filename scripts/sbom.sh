#!/usr/bin/env bash
# Writes what the image is made of, as CycloneDX 1.5: the crates of the binary (penstock.cdx.json) and the packages of the dashboard's page
# (page.cdx.json), into target/sbom, and checks that they are those of Cargo.lock and package-lock.json, each with version and licence.
# The first run installs a pinned cargo-cyclonedx into target/tools; later ones need no network.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.5.9
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/tools sbom=$target/sbom
fail() { printf 'sbom: %s\n' "$*" >&2; exit 1; }
command -v npm >/dev/null || fail 'npm is missing: it reads the packages of the page (Node.js 22 or newer)'

if ! "$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null | grep -qF "$version"; then
  printf 'sbom: installing cargo-cyclonedx %s into %s\n' "$version" "$tools"
  cargo install --quiet cargo-cyclonedx --version "$version" --locked --root "$tools" || fail 'cargo-cyclonedx cannot be installed'
fi
mkdir -p "$sbom"
made=$(mktemp -d)
# It writes beside each Cargo.toml: what was there before is none of ours.
trap 'rm -rf "$made"; find crates fuzz -name "penstock*.cdx.json" -delete' EXIT

# What differs between the two processors of the image is in neither file: no crate is of one of them alone.
"$tools/bin/cargo-cyclonedx" cyclonedx --quiet --manifest-path crates/penstock/Cargo.toml --format json \
  --spec-version 1.5 --target x86_64-unknown-linux-gnu --override-filename penstock-sbom.cdx
mv crates/penstock/penstock-sbom.cdx.json "$made/penstock.cdx.json"
(cd crates/dashboard/ui && npm sbom --package-lock-only --omit dev --sbom-format cyclonedx --sbom-type application) >"$made/page.cdx.json"

node - "$made" <<'CHECK' || fail 'the lists are not what is built'
const { execFileSync } = require('node:child_process');
const { readFileSync, writeFileSync } = require('node:fs');
const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(`${folder}/${name}.cdx.json`, 'utf8'));
const listed = (sbom) => new Map(sbom.components.map((component) => [`${component.name} ${component.version}`, component]));
const problems = [];

const words = ['tree', '--locked', '--package', 'penstock', '--edges', 'normal,build', '--target', 'x86_64-unknown-linux-gnu', '--prefix', 'none', '--format', '{p}'];
const tree = execFileSync('cargo', words, { encoding: 'utf8', maxBuffer: 1 << 26 }).split('\n').filter(Boolean);
const built = new Set(tree.map((line) => line.replace(/^(\S+) v(\S+).*$/, '$1 $2')).filter((name) => !name.startsWith('penstock ')));
// cargo's metadata has optional crates too that nothing turns on, such as the drivers of other databases: not in the image, not in the list.
const binary = read('penstock');
binary.components = binary.components.filter((component) => built.has(`${component.name} ${component.version}`));
const kept = new Set([binary.metadata.component['bom-ref'], ...binary.components.map((component) => component['bom-ref'])]);
binary.dependencies = binary.dependencies.filter((of) => kept.has(of.ref));
for (const of of binary.dependencies) of.dependsOn = of.dependsOn?.filter((ref) => kept.has(ref));
writeFileSync(`${folder}/penstock.cdx.json`, JSON.stringify(binary, null, 2));
const crates = listed(binary);
for (const name of built) if (!crates.has(name)) problems.push(`${name} is built in and not listed`);
for (const [name, component] of crates) {
  if (!component.licenses?.length) problems.push(`${name} has no licence`);
}
const page = listed(read('page'));
const { dependencies } = JSON.parse(readFileSync('crates/dashboard/ui/package.json', 'utf8'));
for (const [name, version] of Object.entries(dependencies)) {
  const component = [...page.values()].find((component) => [component.group, component.name].filter(Boolean).join('/') === name || component.name === name);
  if (component?.version !== version) problems.push(`${name} ${version} is in the page and not listed`);
  else if (!component.licenses?.length) problems.push(`${name} has no licence`);
}
if (page.size < 3 || crates.size < 100) problems.push(`only ${crates.size} crates and ${page.size} packages are listed`);
for (const problem of problems) console.error(`sbom: ${problem}`);
console.log(`sbom: ${crates.size} crates, ${page.size} packages of the page`);
process.exit(problems.length ? 1 : 0);
CHECK
mv "$made/penstock.cdx.json" "$made/page.cdx.json" "$sbom/"
printf 'sbom: written to %s\n' "$sbom"
