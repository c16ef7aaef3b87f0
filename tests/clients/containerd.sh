#!/bin/bash
# Real containerd (a private one, tests/clients/containerd-rig) runs cells and ordinary containers through runphi.
#   PHID_BUILD=DIR tests/clients/containerd.sh
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last.
. "$(dirname "$0")/common.sh"
client_down() { "$here/containerd-rig" down; }
load_image() { # NAME ROOTFS
  oci_archive "$1" "$2"
  for ns in default other; do ctr -n $ns images import "$dir/i-$1.tar" >/dev/null; done
}
export RIG=$dir/rig RUNPHI=$dir/runphi-wrapper
start_phid
"$here/containerd-rig" up >/dev/null || { cat "$RIG/log"; exit 1; }
"$here/containerd-rig" image >/dev/null 2>&1
eval "$("$here/containerd-rig" env)"
guest_image exit0 'echo it was zero; exit 0'
guest_image exit5 'echo it was five; exit 5'
guest_image later 'sleep 3000; exit 5'
guest_image count 'count 50'
guest_image tty 'tty'
run() { timeout --foreground 300 ctr run --runc-binary "$dir/runphi-wrapper" "$@"; }
status() { ctr task ls | awk -v id="$1" '$1 == id {print $3}'; }
pid() { ctr task ls | awk -v id="$1" '$1 == id {print $2}'; }

check "the guest's own line on stdout" "it was zero" "$(run --rm localhost/exit0:latest zero </dev/null 2>&1 | grep -o 'it was zero')"
run --rm localhost/exit0:latest zero >/dev/null 2>&1 </dev/null; check "exit code 0" 0 $?
run --rm localhost/exit5:latest five >/dev/null 2>&1 </dev/null; check "exit code 5" 5 $?
check "nothing is left of them" "none none 0" "$(record zero '["state"]') $(record five '["state"]') $(left)"

run --rm localhost/count:latest killed >"$dir/killed" 2>&1 </dev/null & waiting=$!
await "grep -q 'count 3' $dir/killed"
ctr task kill -s SIGKILL killed; wait $waiting; check "exit code 137 of a killed one" 137 $?

run --rm localhost/later:latest across >"$dir/across" 2>&1 </dev/null & waiting=$!
await "[ \$(record across '[\"state\"]') = running ]"
kill -9 "$phid"; start_phid
wait $waiting; check "phid killed and started between start and exit: exit code 5" 5 $?

run -d localhost/later:latest alone >"$dir/alone" 2>&1 </dev/null
await "[ \$(record alone '[\"state\"]') = running ]"
kill -9 "$phid"
await "ctr task ls | grep -q 'alone.*STOPPED'"
check "phid is away when the guest ends: containerd sees the end" STOPPED "$(status alone)"
check "an ordinary container while phid is down" hi "$(run --rm localhost/busybox:latest plain echo hi </dev/null 2>&1)"
start_phid
await "[ \$(record alone '[\"state\"]') = stopped ]"
check "phid reads the exit file when it is back" "5 guest-exit" \
  "$(record alone '["exit"]["code"]') $(record alone '["exit"]["reason"]')"
ctr task rm alone >/dev/null 2>&1; ctr container rm alone
check "delete and delete --force of the shim: nothing is left" "none 0" "$(record alone '["state"]') $(left)"

for ns in default other; do
  timeout 60 ctr -n $ns run -d --runc-binary "$dir/runphi-wrapper" localhost/count:latest same >/dev/null 2>&1 </dev/null
done
check "the same id in two namespaces: two cells" 2 "$("$build/client/phictl" --host "unix:$dir/s" ps | grep -c '^same~.*running')"
check "an ordinary container beside them" hi "$(run --rm localhost/busybox:latest plain echo hi </dev/null 2>&1)"
for ns in default other; do
  ctr -n $ns task kill -s SIGKILL same; await "ctr -n $ns task ls | grep -q 'same.*STOPPED'"
  ctr -n $ns task rm same >/dev/null 2>&1; ctr -n $ns container rm same
done
check "both are gone" "none 0" "$(record same '["state"]') $(left)"
run --rm localhost/busybox:latest plain sh -c 'exit 3' >/dev/null 2>&1 </dev/null; check "an ordinary container's exit code" 3 $?

# A terminal. What ctr is run with: "script" gives it a pty.
on_a_pty() { script -qec "ctr run --runc-binary '$dir/runphi-wrapper' $*" /dev/null </dev/null; }
out=$(on_a_pty --rm -t localhost/exit5:latest seen); check "cell: run -t, exit code 5" 5 $?
check "cell: its line on the terminal" "it was five" "$(grep -o 'it was five' <<<"$out")"
out=$(on_a_pty --rm -t localhost/busybox:latest seen sh -c '"test -t 0 && echo it was a terminal && exit 7"')
check "ordinary: run -t, exit code 7" 7 $?
check "ordinary: its line on the terminal" "it was a terminal" "$(grep -o 'it was a terminal' <<<"$out")"

# phid killed and started again in the middle of a conversation.
: >"$dir/read"
lines() { stat -c %s "$dir/read"; }
fifty_more() { local n; n=$(lines); await "[ \"\$(lines)\" -ge $((n + 50)) ]" && echo yes; }
"$here/terminal.py" "$dir/read" "$dir/stop" timeout --foreground 300 ctr run --runc-binary "$dir/runphi-wrapper" --rm -t \
  localhost/tty:latest talk >"$dir/talk" 2>&1 & waiting=$!
check "lines go to an echoing guest and come back" yes "$(fifty_more)"
kill -9 "$phid"
check "they do while phid is away" yes "$(fifty_more)"
check "containerd noticed nothing" RUNNING "$(status talk)"
start_phid
check "they do when phid is back" yes "$(fifty_more)"
check "phid is back, and knows it" running "$(record talk '["state"]')"
touch "$dir/stop"
wait $waiting; check "the exit code arrives at the terminal" 6 $?
check "not one byte was lost" "not one byte lost" "$(grep -o 'not one byte lost' "$dir/talk" || cat "$dir/talk")"
check "nothing is left of it" "none 0" "$(record talk '["state"]') $(left)"

# The life of a cell and of an ordinary container, both there at the same time; the id is the kind.
last() { grep -oE '^count [0-9]+$' "$dir/$1.log" | tail -1 | cut -d' ' -f2 | grep . || echo 0; }
counts_on() { local n; n=$(last "$1"); await "[ \"\$(last $1)\" -gt $((n + 2)) ]" && echo yes; }
# Nanoseconds of v1 or microseconds of v2, as the client's metrics have them.
cpu_used() { cat "/sys/fs/cgroup/cpuacct/${dir##*/}/$1/cpuacct.usage" 2>/dev/null ||
  awk '$1 == "usage_usec" {print $2}' "/sys/fs/cgroup/${dir##*/}/$1/cpu.stat"; }
task_pids() { ctr task ps "$1" | awk 'NR > 1 {print $1}' | sort -n | xargs; }
begin() { # KIND IMAGE WORDS...
  run -d --cgroup "/${dir##*/}/$1" --log-uri "file://$dir/$1.log" "localhost/$2:latest" "$1" "${@:3}" </dev/null
  check "$1: run -d" "0 RUNNING" "$? $(status "$1")"
  check "$1: its output" yes "$(counts_on "$1")"
}
look_at() { # KIND: what only reads
  local before used after tasks
  before=$(cpu_used "$1")
  used=$(ctr task metrics "$1" | awk '$1 == "cpuacct.usage" || $1 == "cpu.usage_usec" {print $2}')
  after=$(cpu_used "$1")
  check "$1: metrics are those of its own cgroup" yes \
    "$([ "$before" -gt 0 ] && [ "$before" -le "$used" ] && [ "$used" -le "$after" ] && echo yes || echo "$before $used $after")"
  tasks=$(ctr task metrics "$1" | awk '$1 == "pids.current" {print $2}')
  check "$1: and not the machine's" yes "$([ "$tasks" -ge 1 ] && [ "$tasks" -le 20 ] && echo yes || echo "$tasks tasks")"
}
pause_and_resume() { # KIND OTHER
  local n
  ctr task pause "$1"; check "$1: pause" "0 PAUSED RUNNING" "$? $(status "$1") $(status "$2")"
  counts_on "$2" >/dev/null # what the paused one said before is in its log by now
  n=$(last "$1")
  check "$1: it stands still while the other goes on" "yes $n" "$(counts_on "$2") $(last "$1")"
  ctr task resume "$1"; check "$1: resume" "0 RUNNING" "$? $(status "$1")"
  check "$1: it goes on where it was" "yes 1" "$(counts_on "$1") $(grep -cx "count $((n + 1))" "$dir/$1.log")"
}
end() { # KIND
  local process
  process=$(pid "$1")
  ctr task rm "$1" >/dev/null 2>&1; check "$1: a running one is not deleted" "1 RUNNING" "$? $(status "$1")"
  ctr task kill -s SIGKILL "$1"; check "$1: kill" 0 $?
  await "[ \"\$(status $1)\" = STOPPED ]"
  check "$1: its process is gone" "STOPPED 1" "$(status "$1") $(kill -0 "$process" 2>/dev/null; echo $?)"
  check "$1: task rm says how it ended" "exit code 137" "$(ctr task rm "$1" 2>&1 | grep -oE 'exit code [0-9]+')"
  ctr container rm "$1"; check "$1: container rm" 0 $?
  check "$1: its cgroup is gone" 0 "$(find /sys/fs/cgroup -type d -path "*/${dir##*/}/$1" 2>/dev/null | wc -l)"
}
begin cell count
begin ordinary busybox sh -c 'i=0; while :; do i=$((i + 1)); echo count $i; sleep .05; done'
look_at cell; look_at ordinary
check "cell: its pid is the keeper's" "$(record cell '["keeper"]["pid"]')" "$(pid cell)"
check "cell: task ps names keeper and cell" "$(pid cell) $(record cell '["cell"]["pid"]')" "$(task_pids cell)"
check "cell: they are in the cgroup that was asked for" "$(task_pids cell)" \
  "$(cat "/sys/fs/cgroup/pids/${dir##*/}/cell/cgroup.procs" "/sys/fs/cgroup/${dir##*/}/cell/cgroup.procs" 2>/dev/null | sort -n | xargs)"
check "ordinary: task ps names it" "$(pid ordinary)" "$(task_pids ordinary | cut -d' ' -f1)"
check "ordinary: phid knows nothing of it" none "$(record ordinary '["state"]')"
out=$(ctr task exec --exec-id e cell true 2>&1); check "cell: exec is refused" 1 $?
check "cell: exec says why" "exec: not supported for cells" "$(grep -o 'exec: not supported for cells' <<<"$out")"
out=$(ctr task kill -s SIGHUP cell 2>&1); check "cell: a signal that it cannot take is refused" 1 $?
check "cell: and says which it can" "a cell knows SIGTERM" "$(grep -o 'a cell knows SIGTERM' <<<"$out")"
check "ordinary: exec" inside "$(ctr task exec --exec-id e ordinary echo inside 2>&1)"
ctr task exec --exec-id f ordinary sh -c 'exit 9' >/dev/null 2>&1; check "ordinary: exec, exit code 9" 9 $?
pause_and_resume cell ordinary
pause_and_resume ordinary cell
end cell
check "ordinary: it goes on without the cell" yes "$(counts_on ordinary)"
end ordinary
check "nothing is left" "0 0 0 0" "$(all_left)"

summary
