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
chart-readme.md:charts/penstock/README.md
FILES
# The chart carries the CustomResourceDefinition as it is in crds/.
chart_crd=charts/penstock/files/firehosepipelines.yaml
if [ "${1:-}" = --check ]; then
  diff -u "$chart_crd" crds/firehosepipelines.yaml || drift=1
else
  cp crds/firehosepipelines.yaml "$chart_crd"
fi
[ "$drift" -eq 0 ] || { printf 'generated files are stale: run make generate\n' >&2; exit 1; }
