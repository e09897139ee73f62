#!/usr/bin/env bash
# Writes the generated files, or with --check fails where one is not what its source says.
set -euo pipefail
cd "$(dirname "$0")/.."

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

{
  printf '# Settings\n\n'
  printf 'Made by `make generate` from the code; `penstock settings` prints the same table.\n\n'
  printf 'A flag `--set path=value` goes before the environment, the environment before the file of `--config`. In the\n'
  printf 'environment `PENSTOCK_…` goes before the older name. An empty variable counts as not set. Lists are separated by\n'
  printf 'commas. A value that is not allowed ends the process with exit code 64 before anything is bound or connected.\n\n'
  cargo run --quiet -p penstock -- settings
} >"$made/settings.md"

cargo run --quiet -p penstock -- crd >"$made/firehosepipelines.yaml"
cargo run --quiet -p penstock -- openapi >"$made/openapi.json"

# The chart's README is written by hand up to its values.
{
  sed '/^## Values$/q' charts/penstock/README.md
  printf '\nMade by `make generate` from `values.yaml`; `values.schema.json` refuses what does not fit.\n\n'
  awk -f scripts/chart-readme.awk charts/penstock/values.yaml
} >"$made/chart-readme.md"

drift=0
while IFS=: read -r from to; do
  if [ "${1:-}" = --check ]; then
    diff -u "$to" "$made/$from" || drift=1
  else
    cp "$made/$from" "$to"
  fi
done <<'FILES'
settings.md:docs/settings.md
firehosepipelines.yaml:crds/firehosepipelines.yaml
openapi.json:docs/openapi.json
chart-readme.md:charts/penstock/README.md
FILES
# The dashboards; and what the chart carries as it is elsewhere: the CustomResourceDefinition, the alerts, the dashboards.
mode=${1:-}
same() { # source, copy
  if [ "$mode" = --check ]; then
    diff -u "$2" "$1" || drift=1
  else
    cp "$1" "$2"
  fi
}
if command -v node >/dev/null; then
  mkdir "$made/grafana"
  node deploy/grafana/dashboards.mjs "$made/grafana"
  for dashboard in "$made"/grafana/*.json; do same "$dashboard" "deploy/grafana/$(basename "$dashboard")"; done
else
  printf 'going on without the dashboards: Node.js is missing\n' >&2
fi
same crds/firehosepipelines.yaml charts/penstock/files/firehosepipelines.yaml
same deploy/alerts/penstock.rules.yaml charts/penstock/files/penstock.rules.yaml
for dashboard in deploy/grafana/*.json; do same "$dashboard" "charts/penstock/dashboards/$(basename "$dashboard")"; done
[ "$drift" -eq 0 ] || { printf 'generated files are stale: run make generate\n' >&2; exit 1; }
