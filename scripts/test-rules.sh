#!/usr/bin/env bash
# Checks the alerts: their PromQL and their tests by promtool, each told and not told by a test, each with its runbook, the rules
# that the operator makes, and copies with runbooks of one's own. Where promtool is missing it says what to install, and leaves that part out.
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
  grep -q 'exp_samples: \[\]' <<<"$said" || fail "no test says when $alert does not fire"
  grep -qE "labels: '?(\{|ALERTS)" <<<"$(grep -hA 4 "alertname=\"$alert\".*firing" deploy/alerts/tests/*.yaml || true)" ||
    fail "no test says when $alert fires"
done
for page in docs/runbooks/Penstock*.md; do
  page=$(basename "$page" .md)
  [[ " ${alerts[*]} " == *" $page "* ]] || fail "docs/runbooks/$page.md belongs to no alert"
done

# With runbooks of one's own nothing links elsewhere, and every link is still there.
copies=$(mktemp -d)
made=
trap 'rm -rf "$copies" "$made"' EXIT
scripts/set-runbooks.sh https://wiki.example.com/penstock/ "$copies" >/dev/null
! grep -rl '/docs/runbooks' "$copies" >&2 || fail 'scripts/set-runbooks.sh leaves links to other runbooks'
links() { cat "${@:2}" | grep -o "$1/[A-Za-z\$]*" | sort; }
[ "$(links docs/runbooks "$rules" deploy/grafana/*.json | sed 's/.*\///')" = "$(links wiki.example.com/penstock "$copies"/* | sed 's/.*\///')" ] ||
  fail 'scripts/set-runbooks.sh loses links'
! scripts/set-runbooks.sh wiki "$copies" 2>/dev/null || fail 'scripts/set-runbooks.sh takes what is no URL'
# === what to type: in Kubernetes, with Compose, for plain processes ===

# Alerts about the operator are for Kubernetes alone, and say so.
no_operator='Docker Compose and plain processes have no operator, so this alert only concerns Kubernetes.'
expression() { awk -v alert="$1" '/^ *- alert: /{ found = ($3 == alert) } found' "$rules"; }
for page in docs/runbooks/Penstock*.md; do
  if grep -qF "$no_operator" "$page"; then
    expression "$(basename "$page" .md)" | grep -q 'penstock_operator_' || fail "$page: this alert concerns more than Kubernetes"
    continue
  fi
  for way in kubectl 'docker compose' 'systemctl|journalctl|ps -o'; do
    grep -qE "$way" "$page" || fail "$page does not say what to type with $way"
  done
done
for page in docs/runbooks/*.md; do
  said=$(awk '/^```/{ inside = !inside; next } inside' "$page" | bash -n 2>&1) || fail "$page: $said"
done
# The services and units that they name exist.
mapfile -t services < <(awk '/^services:/{ inside = 1; next } /^[a-z]/{ inside = 0 } inside && /^  [a-z]+:$/{ sub(":", ""); print $1 }' deploy/compose.yaml)
named=$(grep -ohE 'docker compose (logs|ps|stop|start|restart|exec|up)[^|`;)]*' docs/runbooks/*.md |
  sed -E 's/^docker compose [a-z]+//; s/ penstock .*| (redis-cli|psql) .*//; s/ --?[a-z-]+([ =]("[^"]*"|[0-9][0-9a-z]*|[a-z]+=[0-9]+))?//g' | tr ' ' '\n' | grep -xE '[a-z]+' | sort -u || true)
[ -n "$named" ] || fail 'the runbooks name no service of deploy/compose.yaml'
for service in $named; do
  [[ " ${services[*]} " == *" $service "* ]] || fail "the runbooks name $service, which is no service of deploy/compose.yaml"
done
units=$(grep -ohE 'penstock-(ingest|worker|heal|dashboard|migrate|run)@?' docs/runbooks/*.md docs/operations.md | sort -u)
for unit in penstock-ingest penstock-worker@ penstock-heal penstock-dashboard; do
  grep -qx "$unit" <<<"$units" || fail "the runbooks never name $unit"
done
for unit in $units; do
  [ -e "deploy/systemd/$unit.service" ] || fail "the runbooks name $unit, which is no unit in deploy/systemd"
done
if command -v systemd-analyze >/dev/null; then
  checked=$(mktemp -d)
  for unit in deploy/systemd/*.service; do
    # What it starts need not be here; a template is checked by one of its instances.
    sed "s#^ExecStart=[^ ]*#ExecStart=$(command -v true)#" "$unit" >"$checked/$(basename "$unit" | sed 's/@/@1/')"
  done
  said=$(systemd-analyze verify "$checked"/*.service 2>&1) && [ -z "$said" ] || fail "systemd: $said"
  rm -r "$checked"
fi

# === what promtool says ===

scripts/ensure-tools.sh prometheus
if command -v promtool >/dev/null; then
  said=$(promtool check rules "$rules" 2>&1) || fail "$said"
  said=$(promtool test rules deploy/alerts/tests/*.test.yaml 2>&1) || fail "$said"
  made=$(mktemp)
  awk '/^---/ { rule = spec = 0 } /^kind: PrometheusRule/ { rule = 1 } spec { print substr($0, 3) } rule && /^spec:/ { spec = 1 }' \
    crates/operator/src/children/testdata/full.children.yaml >"$made"
  said=$(promtool check rules "$made" 2>&1) || fail "the operator's: $said"
  done='PromQL, tests and runbooks'
else
  printf 'rules: skipped PromQL and its tests: promtool is missing (apt-get install prometheus)\n'
  done='runbooks alone'
fi
[ "$failures" -eq 0 ] || { printf 'rules: %d failed\n' "$failures" >&2; exit 1; }
printf 'rules: %d alerts: %s passed in %d s\n' "${#alerts[@]}" "$done" "$SECONDS"
