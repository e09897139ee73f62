#!/usr/bin/env bash
# Installs the real personal data server and the real directory of did:plc from npm, to test with, and prints the folder that has
# them and the driver of the tests: pds.sh. It lies in target/pds; nothing is compiled, and nothing of the machine is changed. Where
# Node.js is too old for them it comes from npm too. Where they cannot be had it says so and exits with 3: tests that want them are
# skipped.
set -euo pipefail

skip() {
  printf 'penstock: skipping the tests with the real PDS: %s\n' "$*" >&2
  exit 3
}

here=$(cd "$(dirname "$0")/.." && pwd)
source=$here/crates/penstock/tests/pipeline/pds
target=${CARGO_TARGET_DIR:-$here/target}
[ "${target#/}" != "$target" ] || target=$here/$target
folder=$target/pds

command -v node >/dev/null && command -v npm >/dev/null || skip 'Node.js and npm are missing'
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ] || skip "Node.js 18 is required, this is $(node --version)"

# One at a time, where several tests ask for it.
mkdir -p "$folder/sqlite"
exec 9>"$folder.lock"
flock 9
copy() {
  for file in "$@"; do
    cmp -s "$source/$file" "$folder/$file" && continue
    # In one step: a driver that starts meanwhile reads the one or the other.
    cp "$source/$file" "$folder/$file.$$"
    mv "$folder/$file.$$" "$folder/$file"
  done
}
copy package.json package-lock.json sqlite/package.json sqlite/index.cjs
mapfile -t modules < <(cd "$source" && printf "%s\n" *.mjs)
copy "${modules[@]}"

if ! cmp -s "$folder/package-lock.json" "$folder/installed.json"; then
  printf 'penstock: installing the real PDS into %s\n' "$folder" >&2
  # Not `npm ci`: it insists on optional packages of every platform in the lock file, which not every registry has. No scripts: what
  # they would compile or download is not used.
  (cd "$folder" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || skip 'npm install failed'
  cp "$folder/package-lock.json" "$folder/installed.json"
fi

# What the server asks for, and from when on Node's own SQLite says whether a statement returns rows.
new_enough='const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 19) ? 0 : 1)'
for node in "$(command -v node)" "$folder"/node_modules/node-linux-*/bin/node; do
  if [ -x "$node" ] && "$node" -e "$new_enough" 2>/dev/null; then
    ln -sfn "$node" "$folder/node.$$"
    mv -T "$folder/node.$$" "$folder/node"
    printf '%s\n' "$folder"
    exit
  fi
done
skip "Node.js 22.19 is required, this is $(node --version), and npm has none for this machine"
