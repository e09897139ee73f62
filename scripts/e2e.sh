#!/usr/bin/env bash
# Runs the chart, the operator and a pipeline with running pods; `scripts/e2e.sh backfill` runs a backfill alone, `scripts/e2e.sh chaos` does everything to them that a cluster does. On a
# cluster that is there: KUBECONFIG, the IMAGE that its nodes have (repository:tag), and HOST_ADDRESS, under which pods reach this
# machine. Else on one that a `cluster` script beside the checkout brings up here and takes down again, whose API server chaos kills.
# PENSTOCK_BIN names the binary. What kubectl showed is in target/tmp/e2e.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-e2e}" in
  e2e) claims=(e2e::on_a_cluster_nothing_is_lost_or_doubled e2e::backfill::a_backfill_survives_its_pods e2e::causes::each_cause_is_named_and_withdrawn) ;;
  backfill) claims=(e2e::backfill::a_backfill_survives_its_pods) ;;
  chaos) claims=(e2e::chaos::nothing_is_lost_or_doubled_whatever_the_cluster_does) ;;
  *) printf 'penstock: %s is neither e2e, backfill nor chaos\n' "$1" >&2; exit 64 ;;
esac

cluster=../shared/bin/cluster
binary=${PENSTOCK_BIN:-$PWD/target/release/penstock}
evidence=${CARGO_TARGET_DIR:-$PWD/target}/tmp/e2e
test=("${CARGO:-cargo}" test --package penstock --test pipeline)

fail() {
  printf 'penstock: %s\n' "$*" >&2
  exit 1
}

# A node of our own: its image holds the binary, its libraries and the certificates.
bring_up() {
  folder=$(mktemp -d /tmp/penstock-e2e.XXXXXX)
  PATH=$("$cluster" assets):$PATH
  "$cluster" node "$folder" >/dev/null
  export CONTROL_PLANE=$folder KUBECONFIG=$folder/admin.kubeconfig IMAGE=localhost/penstock:e2e HOST_ADDRESS=10.250.0.1
  strip --strip-debug -o "$folder/penstock" "$binary"
  "$cluster" image "$IMAGE" "$folder/image.tar" '["/usr/bin/penstock"]' "$folder/penstock=/usr/bin/penstock" \
    /etc/ssl/certs/ca-certificates.crt=/etc/ssl/certs/ca-certificates.crt
  "$cluster" load "$folder/image.tar" "$folder"
}

tell_failure() {
  local namespace pod
  for namespace in penstock firehose; do
    kubectl --namespace "$namespace" get all --output wide
    kubectl --namespace "$namespace" describe fhp,pods
    for pod in $(kubectl --namespace "$namespace" get pods --output name); do
      printf '\n== %s\n' "$pod"
      kubectl --namespace "$namespace" logs --tail 200 "$pod"
    done
  done >"$evidence/failure.txt" 2>&1
  printf 'penstock: pods and logs are in %s\n' "$evidence/failure.txt" >&2
}

folder=
leave() {
  local status=$?
  trap - EXIT
  if [ "$status" != 0 ] && [ -n "${KUBECONFIG:-}" ]; then tell_failure || true; fi
  [ -z "$folder" ] || "$cluster" down "$folder"
  exit "$status"
}
trap leave EXIT
trap 'exit 130' INT TERM

[ -x "$binary" ] || fail "there is no $binary: build it with cargo build --release -p penstock"
rm -rf "$evidence"
mkdir -p "$evidence"
if [ -n "${KUBECONFIG:-}" ]; then
  [ -n "${IMAGE:-}" ] && [ -n "${HOST_ADDRESS:-}" ] ||
    fail 'set IMAGE to an image on the nodes, and HOST_ADDRESS to the address at which pods reach this machine'
  command -v kubectl helm >/dev/null || fail 'kubectl and helm must be on the PATH'
elif [ -x "$cluster" ] && [ "$(id -u)" = 0 ]; then
  "${test[@]}" --no-run
  bring_up
else
  printf 'penstock: skipped: set KUBECONFIG to a cluster, IMAGE to an image on its nodes, and HOST_ADDRESS to the address of this machine\n'
  exit 0
fi
PENSTOCK_BIN=$binary "${test[@]}" -- --exact "${claims[@]}" --test-threads=1 --ignored --nocapture
