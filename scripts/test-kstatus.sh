#!/usr/bin/env bash
# Lets kstatus, by which Helm's --wait and Flux go, and Argo CD's health script judge a pipeline in each of its phases, and kstatus a backfill. kstatus is a Go
# module: without Go, or a proxy to get it from, that part is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=crates/operator/tests/kstatus
program=${CARGO_TARGET_DIR:-$PWD/target}/tmp/kstatus
mkdir -p "$(dirname "$program")"
PATH=$PATH:/usr/local/go/bin
if ! command -v go >/dev/null; then
  printf 'kstatus: skipped: there is no Go to build it with\n'
elif said=$(cd "$folder" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -o "$program" . 2>&1); then
  export PENSTOCK_KSTATUS=$program
else
  printf 'kstatus: skipped: it could not be built: %s\n' "$(tail -n 1 <<<"$said")"
fi
exec "${CARGO:-cargo}" test --package penstock-operator --test api -- phases::tools_that_wait --nocapture
