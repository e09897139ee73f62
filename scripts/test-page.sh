#!/usr/bin/env bash
# Checks the dashboard's page: its types, its pure parts, and itself in Chromium, against a dashboard of canned figures,
# against a pipeline that runs on the bundled recording (PENSTOCK_BIN, or the binary that cargo test has built), and behind
# nginx, HAProxy and Caddy where those are installed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root/crates/dashboard/ui"

if ! command -v npm >/dev/null || [ ! -d node_modules ]; then
  printf 'penstock: skipping the tests of the page: it could not be built here\n' >&2
  exit 0
fi
if [ -z "${PENSTOCK_BIN:-}" ]; then
  built=${CARGO_TARGET_DIR:-target}/debug/penstock
  [ "${built#/}" != "$built" ] || built=$root/$built
  [ ! -x "$built" ] || export PENSTOCK_BIN=$built
fi
npm run --silent check
npm run --silent test
npm run --silent test:page
