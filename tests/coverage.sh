#!/bin/bash
# Which lines and branches the tests run: coverage.sh [PART...] (unit sim e2e) builds with --enable-coverage in build-cov beside the sources,
# runs the parts and holds what gcovr counted against the goals: 90 % of all lines, 95 % of the branches of the allocator and of the
# store (coverage.py says what is left out, and why). Some 15 minutes. Needs (Debian): gcovr. "N passed, N failed" last.
set -uo pipefail
src=$(cd "$(dirname "$0")/.." && pwd)
build=${COVERAGE_BUILD:-$src/build-cov}
mkdir -p "$build" && cd "$build" || exit 1
[ -f Makefile ] || "$src/configure" -q --enable-coverage --enable-test-hooks CFLAGS='-O0 -g' || exit 1
make -s -j"$(nproc)" >make.log 2>&1 || { tail -50 make.log; exit 1; }
find . -name '*.gcda' -delete
passed=0 failed=0
ok() { # STATUS NAME
  if [ "$1" -eq 0 ]; then passed=$((passed + 1)) && echo "ok   $2"; else failed=$((failed + 1)) && echo "FAIL $2"; fi
}
# A guest's user may not write the counters: that is no word for its console.
export PHID_BUILD=$build PYTHONDONTWRITEBYTECODE=1 GCOV_ERROR_FILE=/dev/null
for part in ${*:-unit sim e2e}; do
  case $part in
  unit) make -s -j"$(nproc)" check >unit.log 2>&1 ;;
  sim) /usr/bin/python3 "$src/backends/sim/standin_selftest.py" "$build/backends/sim/phid-sim" >sim.log 2>&1 ;;
  e2e) /usr/bin/python3 -m pytest -q -p no:cacheprovider "$src/tests/e2e" >e2e.log 2>&1 ;;
  *) echo "no such part: $part" >&2 && exit 2 ;;
  esac
  ok $? "$part"
done
gcovr -r "$src" --object-directory . --exclude-unreachable-branches --json coverage.json >gcovr.log 2>&1 || cat gcovr.log
goal() { # as coverage.py
  /usr/bin/python3 "$src/tests/coverage.py" "$@" <coverage.json
  [ $? -eq 0 ] && passed=$((passed + 1)) || failed=$((failed + 1))
}
goal lines 90 api/ backends/ client/ daemon/
goal branches 95 daemon/alloc
goal branches 95 daemon/store
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
