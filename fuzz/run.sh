#!/usr/bin/env bash
# Fuzzes the parsers: `fuzz/run.sh TIME [TARGET…]`, TIME in seconds for each target, all targets unless some are named.
#
# Needs stable Rust and a C++ compiler. No sanitizer: there is no unsafe code in the project, so that what can be found is
# a panic or a broken promise, and those are found several times faster without one. MAX_LEN=BYTES makes longer inputs.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_FUZZ_VERSION=0.13.2
CARGO=${CARGO:-cargo}
limit=${1:?usage: fuzz/run.sh TIME [TARGET…]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frame car proof repo entry settings document export)

command -v c++ >/dev/null || {
  echo "penstock: a C++ compiler is missing: install g++ or clang, then run this again" >&2
  exit 1
}
"$CARGO" fuzz --version >/dev/null 2>&1 || "$CARGO" install --locked cargo-fuzz --version "$CARGO_FUZZ_VERSION"
"$CARGO" run --quiet --manifest-path fuzz/Cargo.toml -p penstock-fuzz-seeds -- fuzz/corpus

for target in "${targets[@]}"; do
  words=$target
  case $target in
  frame) max_len=4096 ;;
  car) max_len=1024 words=frame ;;
  proof) max_len=2048 words=frame ;;
  repo) max_len=1024 words=frame ;;
  entry) max_len=1024 ;;
  settings) max_len=512 ;;
  document) max_len=2048 ;;
  export) max_len=2048 ;;
  *)
    echo "penstock: there is no target $target" >&2
    exit 64
    ;;
  esac
  printf 'fuzzing %s for %s s\n' "$target" "$limit"
  "$CARGO" fuzz run --fuzz-dir fuzz --sanitizer none "$target" "fuzz/corpus/$target" -- \
    -dict="fuzz/dictionaries/$words.dict" -max_len="${MAX_LEN:-$max_len}" -max_total_time="$limit" \
    -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -print_funcs=0 -verbosity=0
done
