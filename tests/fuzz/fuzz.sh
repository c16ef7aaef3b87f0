#!/bin/bash
# fuzz.sh [SECONDS [TARGET...]]: each reader of foreign input, and the daemon behind its sockets, under libFuzzer with ASan and UBSan, so
# long (10 s). Ends in "N passed, N failed". What was learned stays in $FUZZ_CORPUS (build-fuzz/corpus) for the next run; an input that breaks
# something in build-fuzz/TARGET-*. Needs (Debian): clang, and what phid needs to build.
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
shift
mkdir -p build-fuzz
corpus=${FUZZ_CORPUS:-$PWD/build-fuzz/corpus}
compile() { # OUTPUT ARGUMENT...: of hidden symbols none is missing; what configure finds out is not needed by these sources
  local out=$1
  shift
  clang -std=gnu17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -D_GNU_SOURCE -Iapi -Ibackends \
    -Wno-unknown-warning-option "$@" -l:libfdt.so.1 -lm -o "build-fuzz/$out" || exit 1
}
# shellcheck disable=SC2046
compile fuzz tests/fuzz/fuzz.c api/{bootconfig,cpuset,error,field,id,json,oci,oci_spec,platform,platform_check,spec}.c \
  backends/jailhouse/{cell,cell_json,cell_tables,check,devicetree,elf,linux}.c $(pkg-config --cflags --libs libcjson) &
/usr/bin/python3 -c 'import json,yaml; json.dump(yaml.safe_load(open("api/openapi.yaml")), open("build-fuzz/openapi.json", "w"))' || exit 1
shopt -s extglob
# shellcheck disable=SC2046
compile fuzz-daemon -Idaemon -DPACKAGE_VERSION='"fuzz"' -DPKGLIBEXECDIR='"/none"' -DSCHEMA_DIR='"schema"' \
  -DOPENAPI_JSON='"build-fuzz/openapi.json"' -Wl,--wrap=keeper_start tests/fuzz/fuzz_daemon.c daemon/!(phid).c api/*.c backends/qemu/*.c \
  backends/jailhouse/*.c $(pkg-config --cflags --libs libmicrohttpd sqlite3 libsystemd nettle libcjson) -lpthread
wait $! || exit 1

# The words of our documents, as they stand in the sources.
grep -ohE '"[A-Za-z][A-Za-z0-9_./-]{1,30}"' api/*.c backends/jailhouse/cell*.c | sort -u | sed 's/^"\(.*\)"$/"\\"\1\\""/' >build-fuzz/words

passed=0 failed=0
daemons=$(env -u FUZZ_TARGET build-fuzz/fuzz-daemon)
export FUZZ_DIR
for target in ${*:-$(env -u FUZZ_TARGET build-fuzz/fuzz) $daemons}; do
  grep -qx "$target" <<<"$daemons" && program=(fuzz-daemon -detect_leaks=0) || program=(fuzz) # what a daemon keeps is no leak
  case $target in
  platform) seeds=(share/platforms) ;;
  cell) seeds=(tests/fuzz/seeds/cell tests/data/runphi) ;;
  *) seeds=(tests/fuzz/seeds/"$target") ;;
  esac
  mkdir -p "$corpus/$target"
  FUZZ_DIR=$(mktemp -d /dev/shm/phid-fuzz.XXXXXX)
  if FUZZ_TARGET=$target build-fuzz/"${program[@]}" -max_total_time="$seconds" -dict=build-fuzz/words -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
    -artifact_prefix=build-fuzz/"$target"- "$corpus/$target" "${seeds[@]}" >build-fuzz/"$target".log 2>&1; then
    passed=$((passed + 1))
    echo "ok   $target: $(grep -o 'Done [0-9]* runs.*' build-fuzz/"$target".log)"
  else
    failed=$((failed + 1))
    echo "FAIL $target:"
    grep -vE '^#|NEW_FUNC' build-fuzz/"$target".log | tail -40
  fi
  rm -rf "$FUZZ_DIR"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
