#!/usr/bin/env bash
# Builds the dashboard's page into crates/dashboard/ui/dist, from where cargo embeds it. Without Node.js, or without the
# npm registry on the first build, it says so and leaves it: the binary then carries a page that says how to build it.
set -euo pipefail
cd "$(dirname "$0")/../crates/dashboard/ui"

leave() {
  printf 'penstock: continuing without the page: %s\n' "$*" >&2
  exit 0
}

command -v node >/dev/null && command -v npm >/dev/null || leave "Node.js and npm are missing"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ] || leave "Node.js 18 is required, this is $(node --version)"

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  # Not `npm ci`: it insists on optional packages of every platform in the lock file, which not every registry has.
  npm install --no-save --no-audit --no-fund --loglevel=error >&2 || leave "npm install failed"
fi
made=dist/index.html.gz
if [ -e "$made" ] && [ -z "$(find src public index.html vite.config.js scripts/pack.mjs package-lock.json -newer "$made" -print -quit)" ]; then
  exit 0
fi
npm run --silent build >&2
