#!/bin/bash
# phid under ThreadSanitizer, which also reports to e2e tests: threads.sh [all] builds in build-tsan beside the sources and runs the tests of
# what has threads (the store's commits, the workers) under many clients; "all": every unit and e2e test (some 20 minutes).
# "N passed, N failed" last.
set -uo pipefail
src=$(cd "$(dirname "$0")/../.." && pwd)
build=${THREADS_BUILD:-$src/build-tsan}
mkdir -p "$build" && cd "$build" || exit 1
[ -f Makefile ] || "$src/configure" -q --enable-sanitizers=thread --enable-test-hooks CFLAGS='-O1 -g' || exit 1
make -s -j"$(nproc)" >make.log 2>&1 || { tail -50 make.log; exit 1; }
export PHID_BUILD=$build PYTHONDONTWRITEBYTECODE=1
# There are no suppressions.
export TSAN_OPTIONS=exitcode=66
unit=(TESTS="tests/unit/test_jobs tests/unit/test_store_files tests/unit/test_store_rows tests/unit/test_store_schema")
e2e=(test_concurrency.py test_repeat.py)
[ "${1:-}" != all ] || unit=() e2e=(.)
passed=0 failed=0
if make -s -j"$(nproc)" "${unit[@]}" check >unit.log 2>&1; then
  passed=1 && echo "ok   unit tests"
else
  failed=1 && echo "FAIL unit tests" && grep -h -A30 'WARNING: ThreadSanitizer' tests/unit/*.log
fi
cd "$src/tests/e2e" && /usr/bin/python3 -m pytest -q -p no:cacheprovider "${e2e[@]}" >"$build/e2e.log" 2>&1
[ $? -eq 0 ] || { failed=$((failed + 1)) && cat "$build/e2e.log"; }
passed=$((passed + $(grep -oE '[0-9]+ passed' "$build/e2e.log" | tail -1 | cut -d' ' -f1)))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
