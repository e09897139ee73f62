#!/usr/bin/env bash
# Makes sure that what Penstock is built and tested with is there: a Rust toolchain, a C compiler for its dependencies,
# redis-server and PostgreSQL; for the page Node.js. Installs missing Debian packages where it may, else says what to install.
# With the argument `chromium` it also wants the browser that the page is tested in and the proxies that it is tested behind, with
# `prometheus` what checks alerts and dashboards.
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
# Done without: the binary then has no page, and the tests that use the others are skipped.
wanted=()
command -v node >/dev/null && command -v npm >/dev/null || wanted+=(nodejs npm)
if [ "${1:-}" = chromium ]; then
  [ -n "${CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null || wanted+=(chromium)
  for proxy in nginx haproxy caddy; do
    command -v "$proxy" >/dev/null || [ -x "/usr/sbin/$proxy" ] || wanted+=("$proxy")
  done
  command -v openssl >/dev/null || wanted+=(openssl)
fi
if [ "${1:-}" = prometheus ]; then
  command -v prometheus >/dev/null && command -v promtool >/dev/null || wanted+=(prometheus)
fi
compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null ||
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || wanted+=(libfaketime)
[ ${#missing[@]} -gt 0 ] || [ ${#wanted[@]} -gt 0 ] || exit 0

# What is only wanted stops nobody.
give_up() {
  [ ${#missing[@]} -gt 0 ] || exit 0
  fail "$@"
}

command -v apt-get >/dev/null || give_up "install these with your package manager, then run this again: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
    give_up "run 'sudo apt-get install --no-install-recommends ${missing[*]}', then this again"
  as_root=(sudo)
fi
all=("${missing[@]}" "${wanted[@]}")
printf 'penstock: installing %s\n' "${all[*]}" >&2
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
get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::http::Timeout=10 "$@" >/dev/null; }
get update || give_up "could not ask for ${missing[*]}: apt-get update failed"
if [ ${#missing[@]} -gt 0 ]; then get install -y --no-install-recommends "${missing[@]}"; fi
# One by one: not every distribution has each of them, and apt-get installs all or none.
for package in "${wanted[@]}"; do
  get install -y --no-install-recommends "$package" 2>/dev/null ||
    printf 'penstock: continuing without %s: tests that need it are skipped\n' "$package" >&2
done
