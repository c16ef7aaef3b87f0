#!/bin/bash
# protocol.pml under SPIN (Debian: spin): no CPU with two owners, no deadlock, every intent settled, and a mutant that must be found. Then
# history.py: model.sh [OPERATIONS] (3000; 1000000 in the long form). PHID_BUILD: a build with --enable-test-hooks.
# Prints "ok" and "FAIL" lines with the number of states, and "N passed, N failed" last.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/phid-model.XXXXXX)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
passed=0 failed=0
verify() { # NAME ERRORS "GENERATE OPTIONS" "COMPILE OPTIONS" "RUN OPTIONS"
  local errors states
  # shellcheck disable=SC2086
  rm -f pan* && spin -a $3 "$here/protocol.pml" >spin.log 2>&1 && gcc -w -O2 $4 -o pan pan.c && ./pan -m1000000 $5 >pan.log 2>&1
  errors=$(grep -oE 'errors: [0-9]+' pan.log | cut -d' ' -f2) states=$(grep -oE '[0-9]+ states, stored' pan.log | cut -d' ' -f1)
  if [ "${errors:-none}" = "$2" ] && ! grep -q 'max search depth too small' pan.log; then
    passed=$((passed + 1)) && echo "ok   $1: $states states, $errors errors"
  else
    failed=$((failed + 1)) && echo "FAIL $1: $2 errors were expected" && cat spin.log pan.log
  fi
}
verify "never a CPU with two owners" 0 "" "" "-a -N safe"
verify "no deadlock, no failed assertion" 0 "" -DNOCLAIM ""
verify "every intent is settled" 0 "" -DNFAIR=3 "-a -f -N settled"
verify "a phid that releases before it observes is found" 1 -DMUTANT "" "-a -N safe"
/usr/bin/python3 "$here/history.py" "${1:-3000}" >history.log 2>&1
[ "$?" -eq 0 ] || failed=$((failed + 1))
cat history.log
passed=$((passed + $(grep -c '^ok  ' history.log)))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
