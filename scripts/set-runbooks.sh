#!/usr/bin/env bash
# Copies the alerts and the dashboards to a folder, with links to runbooks of your own: `scripts/set-runbooks.sh URL FOLDER`.
# URL is where the pages of docs/runbooks are published, each as URL/<alert>.md. The chart has the value runbooks.url for the same.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -ne 2 ] || [[ ! $1 =~ ^https?://[A-Za-z0-9] ]] || [[ $1 =~ [[:space:]\"\'\<\>\\] ]]; then
  printf 'usage: scripts/set-runbooks.sh https://wiki.example.com/penstock FOLDER\n' >&2
  exit 64
fi
url=${1%/}
mkdir -p "$2"
for file in deploy/alerts/*.rules.yaml deploy/grafana/*.json; do
  text=$(<"$file")
  printf '%s\n' "${text//https:\/\/github.com\/penstock\/penstock\/blob\/main\/docs\/runbooks/"$url"}" >"$2/$(basename "$file")"
done
printf 'wrote %s\n' "$2"
