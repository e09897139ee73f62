#!/usr/bin/env bash
# Runs the tests of ingest, worker, dashboard and message buffer, and those of the whole pipeline with faults, on each server
# that scripts/servers.sh unpacks and on the installed ones, and prints a table in Markdown: matrix.sh [NAME...].
# What was said is in target/matrix, the table in target/matrix/table.md. Exits with 1 where a test failed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
logs=$target/matrix
mkdir -p "$logs"
rm -f "$logs"/*
here=$PWD

# Which of the pipeline's tests mean a Redis, and which a PostgreSQL.
of_redis='redis_kinds:: crashes:: faults:: messages:: two_ingests:: backpressure::'
of_postgres='whole:: faults:: messages::'

[ $# -gt 0 ] || set -- installed $(scripts/servers.sh --list)

# The tests' programs by crate, built once.
declare -A programs
while IFS=$'\t' read -r name program; do programs[$name]=$program; done < <(
  cargo test --no-run --message-format=json -p penstock-ingest -p penstock-worker -p penstock-dashboard -p penstock \
    | node -e '
        for (const line of require("fs").readFileSync(0, "utf8").split("\n")) {
          if (!line.startsWith("{")) continue;
          const { reason, executable, target, profile } = JSON.parse(line);
          if (reason === "compiler-artifact" && executable && profile.test) console.log(`${target.name}\t${executable}`);
        }'
)

failures=0
# cell SERVER COLUMN CRATE PROGRAM [FILTER...]: runs tests and prints their cell of the table.
cell() {
  local server=$1 column=$2 crate=$3 program=$4 log=$logs/$1-$2.log
  shift 4
  if (cd "$here/crates/$crate" && CARGO_MANIFEST_DIR=$PWD "$program" --test-threads 2 "$@") >"$log" 2>&1; then
    printf ' %s |' "$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1 passed/p' "$log")"
  else
    printf ' failed: %s |' "$(sed -n 's/^test \(.*\) \.\.\. FAILED/\1/p' "$log" | paste -sd ' ' -)"
    return 1
  fi
}

version() {
  local program
  for program in redis-server postgres pgbouncer; do
    [ ! -x "$1/$program" ] || "$1/$program" --version
  done | sed -nE 's/^(Redis|Valkey) server v=([0-9.]+).*/\1 \2/p; s/.*\((PostgreSQL)\) ([0-9.]+).*/\1 \2/p; s/^(PgBouncer) ([0-9.]+).*/\1 \2/p'
}

table=$logs/table.md
printf '| server | ingest | worker | dashboard | pipeline |\n|---|---|---|---|---|\n' | tee "$table"
for server in "$@"; do
  path=$PATH
  if [ "$server" != installed ]; then
    folder=$(scripts/servers.sh "$server") || { printf '| %s | skipped | | | |\n' "$server" | tee -a "$table" && continue; }
    path=$folder:$PATH
  fi
  case "$server" in
    installed) name='as installed' parts='ingest worker dashboard' filters=$of_redis\ $of_postgres ;;
    redis-* | valkey-*) name=$(version "$folder") parts='ingest worker dashboard' filters=$of_redis ;;
    postgresql-*) name=$(version "$folder") parts='ingest worker dashboard' filters=$of_postgres ;;
    # Their tests take it from where it was unpacked.
    pgbouncer*) name=$(version "$folder") parts='' filters=pooler ;;
  esac
  {
    printf '| %s |' "${name:-$server}"
    for part in ingest worker dashboard; do
      if [[ " $parts " == *" $part "* ]]; then PATH=$path cell "$server" "$part" "$part" "${programs[penstock_$part]}" || failures=1; else printf ' |'; fi
    done
    PATH=$path cell "$server" pipeline penstock "${programs[pipeline]}" $filters || failures=1
    printf '\n'
  } > >(tee -a "$table")
  wait
done
exit "$failures"
