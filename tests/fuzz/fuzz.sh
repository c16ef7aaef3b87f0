#!/bin/bash
# fuzz.sh [SECONDS [TARGET...]]: each reader of foreign input under libFuzzer with ASan and UBSan, so long (10 s). Ends in
# "N passed, N failed". What was learned stays in $FUZZ_CORPUS (build-fuzz/corpus) for the next run; an input that breaks
# something in build-fuzz/TARGET-*. Needs (Debian): clang, and what phid needs to build.
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
shift
mkdir -p build-fuzz
corpus=${FUZZ_CORPUS:-$PWD/build-fuzz/corpus}
# Of hidden symbols none is missing; the configured header is not needed by these sources.
clang -std=gnu17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -D_GNU_SOURCE -Iapi -Ibackends \
  -Wno-unknown-warning-option tests/fuzz/fuzz.c api/{bootconfig,cpuset,error,field,id,json,oci,oci_spec,platform,platform_check,spec}.c \
  backends/jailhouse/{cell,cell_json,cell_tables,check,devicetree,elf,linux}.c $(pkg-config --cflags --libs libcjson) -l:libfdt.so.1 -lm -o build-fuzz/fuzz || exit 1

# The words of our documents, as they stand in the sources.
grep -ohE '"[A-Za-z][A-Za-z0-9_./-]{1,30}"' api/*.c backends/jailhouse/cell*.c | sort -u | sed 's/^"\(.*\)"$/"\\"\1\\""/' >build-fuzz/words

passed=0 failed=0
for target in ${*:-$(env -u FUZZ_TARGET build-fuzz/fuzz)}; do
  case $target in
  platform) seeds=(share/platforms) ;;
  cell) seeds=(tests/fuzz/seeds/cell tests/data/runphi) ;;
  *) seeds=(tests/fuzz/seeds/"$target") ;;
  esac
  mkdir -p "$corpus/$target"
  if FUZZ_TARGET=$target build-fuzz/fuzz -max_total_time="$seconds" -dict=build-fuzz/words -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix=build-fuzz/"$target"- "$corpus/$target" "${seeds[@]}" >build-fuzz/"$target".log 2>&1; then
    passed=$((passed + 1))
    echo "ok   $target: $(grep -o 'Done [0-9]* runs.*' build-fuzz/"$target".log)"
  else
    failed=$((failed + 1))
    echo "FAIL $target:"
    grep -vE '^#|NEW_FUNC' build-fuzz/"$target".log | tail -40
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
