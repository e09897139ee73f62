#!/usr/bin/env bash
# Checks the alerts: their PromQL and their tests by promtool, each told and not told by a test, each with its runbook, and the rules
# that the operator makes. Where promtool is missing it says what to install, and leaves that part out.
set -euo pipefail
cd "$(dirname "$0")/.."
rules=deploy/alerts/penstock.rules.yaml
failures=0

fail() { printf 'rules: FAILED: %s\n' "$*" >&2; failures=$((failures + 1)); }

# === what needs no promtool ===

mapfile -t alerts < <(sed -n 's/^ *- alert: //p' "$rules")
for alert in "${alerts[@]}"; do
  [ -e "docs/runbooks/$alert.md" ] || fail "there is no docs/runbooks/$alert.md"
  grep -q "/docs/runbooks/$alert.md\$" "$rules" || fail "$alert does not name its runbook"
  # What is said of an alert: that there is none at some time, and which there are at another.
  said=$(grep -hA 3 "alertname=\"$alert\"" deploy/alerts/tests/*.yaml || true)
  grep -q 'exp_samples: \[\]' <<<"$said" || fail "no test says when $alert is not told"
  grep -qE "labels: '?(\{|ALERTS)" <<<"$(grep -hA 4 "alertname=\"$alert\".*firing" deploy/alerts/tests/*.yaml || true)" ||
    fail "no test says when $alert is told"
done
for page in docs/runbooks/Penstock*.md; do
  page=$(basename "$page" .md)
  [[ " ${alerts[*]} " == *" $page "* ]] || fail "docs/runbooks/$page.md is of no alert"
done

# === what promtool says ===

scripts/ensure-tools.sh prometheus
if command -v promtool >/dev/null; then
  said=$(promtool check rules "$rules" 2>&1) || fail "$said"
  said=$(promtool test rules deploy/alerts/tests/*.test.yaml 2>&1) || fail "$said"
  made=$(mktemp)
  trap 'rm -f "$made"' EXIT
  awk '/^---/ { rule = spec = 0 } /^kind: PrometheusRule/ { rule = 1 } spec { print substr($0, 3) } rule && /^spec:/ { spec = 1 }' \
    crates/operator/src/build/testdata/full.children.yaml >"$made"
  said=$(promtool check rules "$made" 2>&1) || fail "the operator's: $said"
  done='PromQL, tests and runbooks'
else
  printf 'rules: skipped PromQL and its tests: promtool is missing (apt-get install prometheus)\n'
  done='runbooks alone'
fi
[ "$failures" -eq 0 ] || { printf 'rules: %d failed\n' "$failures" >&2; exit 1; }
printf 'rules: %d alerts: %s passed in %d s\n' "${#alerts[@]}" "$done" "$SECONDS"
