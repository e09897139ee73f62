#!/usr/bin/env bash
# Makes sure that what Penstock is built and tested with is there: a Rust toolchain, a C compiler for its dependencies,
# redis-server and PostgreSQL. Installs missing Debian packages where it may, else says what to install.
set -euo pipefail

fail() {
  printf 'penstock: %s\n' "$*" >&2
  exit 1
}

if ! command -v cargo >/dev/null; then
  [ -x "$HOME/.cargo/bin/cargo" ] || fail "cargo is missing: install Rust from https://rustup.rs, then run this again"
  fail "cargo is not on the PATH: run '. \"\$HOME/.cargo/env\"', then this again"
fi
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
have=$(cargo --version | awk '{print $2}')
[ "$(printf '%s\n%s\n' "$needed" "$have" | sort -V | head -n 1)" = "$needed" ] ||
  fail "cargo $have is too old: Penstock needs Rust $needed; run 'rustup update stable'"

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || fail "install these with your package manager, then run this again: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
    fail "run 'sudo apt-get install --no-install-recommends ${missing[*]}', then this again"
  as_root=(sudo)
fi
printf 'penstock: installing %s\n' "${missing[*]}" >&2
# The packages would start servers of their own; ours use neither their ports nor their data.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  made_policy=1
fi
cleanup() { [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"; }
trap cleanup EXIT
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
