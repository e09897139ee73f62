#!/usr/bin/env bash
# Runs the AppView's schema tool, drizzle-kit as npm has it, on databases that Penstock shares with an AppView, in both orders of
# first start. Says in one line why it does nothing where Node.js, npm or its registry is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  printf 'penstock: skipping the tests with the schema tool: %s\n' "$*" >&2
  exit 0
}

command -v node >/dev/null && command -v npm >/dev/null || skip 'Node.js and npm are missing'
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ] || skip "Node.js 18 is required, this is $(node --version)"

source=$PWD/crates/penstock/tests/pipeline/schema_tool/appview
target=${CARGO_TARGET_DIR:-target}/schema-tool
[ "${target#/}" != "$target" ] || target=$PWD/$target
for edition in deployed newest; do
  folder=$target/$edition
  mkdir -p "$folder"
  cp "$source"/*.ts "$source/$edition"/*.json "$folder"
  if ! cmp -s "$folder/package-lock.json" "$folder/installed.json"; then
    (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error >&2) || skip "npm ci failed in $source/$edition"
    cp "$folder/package-lock.json" "$folder/installed.json"
  fi
done
PENSTOCK_SCHEMA_TOOL=$target exec "${CARGO:-cargo}" test --package penstock --test pipeline -- --ignored schema_tool::
