#!/bin/bash
# protocol.pml under SPIN (Debian: spin): no CPU with two owners, no deadlock, every intent settled, and mutants that must be found. Then
# history.py and longrun.py: model.sh [OPERATIONS [LIVES]] (3000 and 100; 1000000 and 100000 in the long form, which takes an hour and
# wants a build without sanitizers). PHID_BUILD: a build with --enable-test-hooks.
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
verify "a phid that forgets a forced delete over its restart is found" 1 "-DFORGETS" "-DNOCLAIM" ""
for run in "history.py ${1:-3000}" "longrun.py ${2:-100}"; do
  # shellcheck disable=SC2086
  /usr/bin/python3 "$here"/$run >run.log 2>&1
  [ "$?" -eq 0 ] || failed=$((failed + 1))
  cat run.log
  passed=$((passed + $(grep -c '^ok  ' run.log)))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
