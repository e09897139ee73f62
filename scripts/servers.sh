#!/usr/bin/env bash
# Unpacks servers of Debian's other suites beside the installed ones, to test with, and prints the folder that has their
# programs: servers.sh NAME. Nothing of the machine is changed: packages and their libraries go to target/servers/NAME and
# run with their own loader from there. With `--list` it prints the names. Where Debian cannot be reached, or the
# machine is no Debian on x86-64 or arm64, it says so and exits with 3: tests that want that server are skipped.
set -euo pipefail

names='redis-6 redis-8 valkey-8 valkey-9 postgresql-17 postgresql-18 pgbouncer pgbouncer-1.18'

skip() {
  printf 'penstock: skipped: %s\n' "$*" >&2
  exit 3
}

case "${1:-}" in
  --list) printf '%s\n' $names && exit ;;
  redis-6) suite=bullseye package=redis-server program=usr/bin/redis-server ;;
  redis-8) suite=trixie package=redis-server program=usr/bin/redis-server ;;
  valkey-8) suite=trixie package=valkey-server program=usr/bin/valkey-server ;;
  valkey-9) suite=sid package=valkey-server program=usr/bin/valkey-server ;;
  postgresql-17) suite=trixie package=postgresql-17 program=usr/lib/postgresql/17/bin/postgres ;;
  postgresql-18) suite=sid package=postgresql-18 program=usr/lib/postgresql/18/bin/postgres ;;
  pgbouncer) suite=sid package=pgbouncer program=usr/sbin/pgbouncer ;;
  pgbouncer-1.18) suite=bookworm package=pgbouncer program=usr/sbin/pgbouncer ;;
  *) printf 'usage: servers.sh NAME, one of: %s\n' "$names" >&2 && exit 64 ;;
esac

here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
folder=$target/servers/$1
bin=$(dirname "$folder/$program")
if [ -e "$folder/complete" ]; then
  printf '%s\n' "$bin"
  exit
fi

# One at a time, where several tests ask for the same one.
mkdir -p "$target/servers"
exec 9>"$folder.lock"
flock 9
if [ -e "$folder/complete" ]; then
  printf '%s\n' "$bin"
  exit
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "$1 needs apt-get and dpkg-deb"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || skip "$1 needs the package debian-archive-keyring"
case "$(dpkg --print-architecture)" in
  amd64) loader=lib64/ld-linux-x86-64.so.2 triplet=x86_64-linux-gnu ;;
  arm64) loader=lib/ld-linux-aarch64.so.1 triplet=aarch64-linux-gnu ;;
  *) skip "$1 is unpacked on x86-64 and arm64 only" ;;
esac

# An apt of its own, which believes that nothing is installed: so it finds every library down to libc.
work=$folder.apt.$$
trap 'rm -rf "$work"' EXIT
rm -rf "$folder"
mkdir -p "$folder" "$work"/{state/lists/partial,cache/archives/partial,preferences.d}
: >"$work/status"
printf 'deb [signed-by=%s] http://deb.debian.org/debian %s main\n' "$keyring" "$suite" >"$work/sources.list"
cat >"$work/apt.conf" <<END
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "$work/preferences.d";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::http::Timeout "15";
END
export APT_CONFIG=$work/apt.conf
apt-get -qq update >/dev/null 2>&1 || skip "$1: Debian's suite $suite cannot be read"
wanted=$(apt-get install -qq -y --print-uris "$package" patchelf 2>/dev/null | awk '{ print $2 }' | sed 's/_.*//') ||
  skip "$1: Debian's suite $suite has no $package"
[ -n "$wanted" ] || skip "$1: Debian's suite $suite has no $package"
# The servers and the libraries; what only their installation needs stays away, and so does PostgreSQL's JIT.
mapfile -t wanted < <(grep -E '^(lib|lua-|redis|valkey|postgresql|pgbouncer|patchelf)' <<<"$wanted" | grep -Ev '^(libllvm|libperl|libjson-perl|.*-perl$)' | sort -u)
(cd "$work" && apt-get -qq download "${wanted[@]}" >/dev/null 2>&1) || skip "$1: packages of $suite cannot be fetched"
for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$folder"; done
# Since trixie /lib is a link to usr/lib, which base-files would make.
for link in lib lib64; do [ -e "$folder/$link" ] || ln -s "usr/$link" "$folder/$link"; done
# Before trixie the loader is a link to a place on the machine.
linked=$(readlink "$folder/$loader" || true)
case "$linked" in /*) ln -sf "$folder$linked" "$folder/$loader" ;; esac

libraries=$folder/usr/lib/$triplet:$folder/lib/$triplet
run() { "$folder/$loader" --library-path "$libraries" "$@"; }
cp "$folder/usr/bin/patchelf" "$work/patchelf"
patchelf() { run "$work/patchelf" "$@"; }
while IFS= read -r -d '' file; do
  # Programs have a loader, libraries have none.
  if [ "$(head -c 4 "$file" | tail -c 3)" = ELF ] && patchelf --print-interpreter "$file" >/dev/null 2>&1; then
    patchelf --set-interpreter "$folder/$loader" --force-rpath --set-rpath "$libraries" "$file"
  fi
done < <(find "$folder/usr/bin" "$folder/usr/sbin" "$folder"/usr/lib/postgresql/*/bin -type f -perm -u+x -print0 2>/dev/null)
# Tests look for a redis-server in PATH.
if [ -e "$bin/valkey-server" ]; then ln -sf valkey-server "$bin/redis-server"; fi
"$folder/$program" --version >/dev/null 2>&1 || skip "$1 was unpacked and does not run"
: >"$folder/complete"
printf '%s\n' "$bin"
