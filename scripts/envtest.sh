#!/usr/bin/env bash
# Gets the programs of a Kubernetes API server for the tests into target/envtest: by setup-envtest where that is on the PATH, else
# built from their Go modules (Go 1.24 or newer, some minutes). With --find prints the folder where they already are, and fails where
# they are not: the one that KUBEBUILDER_ASSETS names, target/envtest, or what a `cluster` script beside the checkout brings.
set -euo pipefail
cd "$(dirname "$0")/.."

kubernetes=1.34.1
etcd=3.6.5
here=$PWD/target/envtest

complete() { [ -x "$1/etcd" ] && [ -x "$1/kube-apiserver" ] && [ -x "$1/kubectl" ]; }
fail() {
  printf 'penstock: %s\n' "$*" >&2
  exit 1
}

find_folder() {
  local folder
  for folder in "${KUBEBUILDER_ASSETS:-}" "$here"; do
    if [ -n "$folder" ] && complete "$folder"; then realpath "$folder"; return; fi
  done
  [ -x ../shared/bin/cluster ] && folder=$(../shared/bin/cluster assets) && complete "$folder" && realpath "$folder"
}

build() { # package, name, module folder, linker flags
  printf 'penstock: building %s\n' "$2" >&2
  (cd "$3" && CGO_ENABLED=0 GOFLAGS=-mod=mod go build -trimpath -ldflags "-s -w $4" -o "$here/$2" "$1")
}

from_modules() {
  local staging version=v0.${kubernetes#1.} flags
  work=$(mktemp -d) # not local: the trap outlives this function
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
  mkdir "$work/etcd" "$work/kubernetes"
  printf 'module envtest\n\ngo 1.24.0\n\nrequire go.etcd.io/etcd/server/v3 v%s\n' "$etcd" >"$work/etcd/go.mod"
  build go.etcd.io/etcd/server/v3 etcd "$work/etcd" ''
  # The module asks for each of its parts at v0.0.0, and says itself where they are, which only counts in its own checkout.
  printf 'module envtest\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n' "$kubernetes" >"$work/kubernetes/go.mod"
  staging=$(cd "$work/kubernetes" && go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
  sed -n 's|^[[:space:]]*\(k8s.io/[a-z-]*\) => ./staging/.*|\1|p' "$staging" |
    while read -r part; do printf 'replace %s => %s %s\n' "$part" "$part" "$version"; done >>"$work/kubernetes/go.mod"
  flags="-X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
  for program in kube-apiserver kube-controller-manager kubectl; do
    build "k8s.io/kubernetes/cmd/$program" "$program" "$work/kubernetes" "$flags"
  done
}

if [ "${1:-}" = --find ]; then
  find_folder
  exit
fi
if found=$(find_folder); then
  printf 'penstock: the programs are in %s\n' "$found" >&2
  exit 0
fi
mkdir -p "$here"
if command -v setup-envtest >/dev/null; then
  found=$(setup-envtest use "$kubernetes" --bin-dir "$here" --print path)
  ln -sf "$found"/* "$here/"
elif command -v go >/dev/null; then
  from_modules
else
  fail "install Go 1.24 or newer, or setup-envtest (https://book.kubebuilder.io/reference/envtest), then run this again"
fi
complete "$here" || fail "target/envtest lacks etcd, kube-apiserver or kubectl"
printf 'penstock: the programs are in target/envtest\n' >&2
