#!/usr/bin/env bash
# Checks the dashboards by rules (scripts/lint-dashboards.mjs), and dashboards and alerts against a pipeline that runs:
# scripts/test-observability.mjs says how. PENSTOCK_BIN names the binary; else it is the one that cargo test has built. Says what is missing, and leaves it then.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  printf 'observability: skipped: %s\n' "$*"
  exit 0
}

# What needs no pipeline: the rules of Grafana's dashboard-linter, and the linter itself where it is installed.
if command -v node >/dev/null; then node scripts/lint-dashboards.mjs; else printf 'dashboards: skipped: node is missing (apt-get install nodejs)\n'; fi
if command -v dashboard-linter >/dev/null; then
  for dashboard in deploy/grafana/*.json; do dashboard-linter lint --strict "$dashboard"; done
fi

export PENSTOCK_BIN=${PENSTOCK_BIN:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug/penstock}
[ -x "$PENSTOCK_BIN" ] || skip "there is no $PENSTOCK_BIN: build it with cargo build -p penstock"
scripts/ensure-tools.sh prometheus
command -v prometheus >/dev/null || skip 'prometheus is missing (apt-get install prometheus)'
command -v node >/dev/null || skip 'node is missing (apt-get install nodejs)'
exec node scripts/test-observability.mjs
