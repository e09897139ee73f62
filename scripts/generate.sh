#!/usr/bin/env bash
# Writes the generated files, or with --check fails where one is not what its source says.
set -euo pipefail
cd "$(dirname "$0")/.."

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

{
  printf '# Settings\n\n'
  printf 'Generated from the code by `make generate`; `penstock settings` lists them too.\n\n'
  printf 'A `--set path=value` flag overrides the environment, which overrides the `--config` file. In the environment,\n'
  printf '`PENSTOCK_…` variables override the older names. An empty variable counts as unset. Lists are comma-separated.\n'
  printf 'A value that is not allowed makes the process exit with code 64 before it binds or connects anything.\n\n'
  cargo run --quiet -p penstock -- settings --format md
} >"$made/settings.md"

cargo run --quiet -p penstock -- crd >"$made/crds.yaml"
# One document a kind, as it is printed.
sed '/^---$/,$d' "$made/crds.yaml" >"$made/firehosepipelines.yaml"
sed '1,/^---$/d' "$made/crds.yaml" >"$made/firehosebackfills.yaml"
cargo run --quiet -p penstock -- openapi >"$made/openapi.json"

# The chart's README is written by hand up to its values.
{
  sed '/^## Values$/q' charts/penstock/README.md
  printf '\nGenerated from `values.yaml` by `make generate`; `values.schema.json` rejects invalid values.\n\n'
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
firehosebackfills.yaml:crds/firehosebackfills.yaml
openapi.json:docs/openapi.json
chart-readme.md:charts/penstock/README.md
FILES
# The dashboards; and what the chart carries as it is elsewhere: the CustomResourceDefinitions, the alerts, the dashboards.
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
  printf 'skipping the dashboards: Node.js is missing\n' >&2
fi
for kind in firehosepipelines firehosebackfills; do same "crds/$kind.yaml" "charts/penstock/files/$kind.yaml"; done
same deploy/alerts/penstock.rules.yaml charts/penstock/files/penstock.rules.yaml
for dashboard in deploy/grafana/*.json; do same "$dashboard" "charts/penstock/dashboards/$(basename "$dashboard")"; done
[ "$drift" -eq 0 ] || { printf 'generated files are out of date: run make generate\n' >&2; exit 1; }
