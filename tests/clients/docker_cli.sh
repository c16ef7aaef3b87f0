# What podman and docker promise alike: the life of a container by the verbs of docker's command line, once of a cell and
# once of an ordinary container. Sourced after common.sh.
# A script says in "$dir/cli.sh" what "cli VERB..." and "run WORDS..." are, and in while_running what only its client does.
# shellcheck shell=bash disable=SC2154,SC2034
load_image() { tar -C "$2" -c . | cli import -c "CMD $3" - "localhost/$1" >/dev/null 2>&1 || { echo "no image $1"; exit 1; }; }

ask() { cli inspect -f "{{.State.$2}}" "$1" 2>/dev/null; } # NAME MEMBER
says() { # NAME LINE: how often the container said that
  cli logs "$1" 2>&1 | tr -d '\r' | grep -cx "$2"
}
last() { cli logs "$1" 2>&1 | tr -d '\r' | grep -oE '^count [0-9]+$' | tail -1 | cut -d' ' -f2 | grep . || echo 0; }
counts_on() { local n; n=$(last "$1"); await "[ \"\$(last $1)\" -gt $((n + 2)) ]" && echo yes; }
full_id() { cli inspect -f '{{.Id}}' "$1"; }
nothing_left() { # KIND
  await '[ "$(all_left)" = "0 0 0 0" ]'
  check "$1: nothing is left" "0 0 0 0, 0" "$(all_left), $(cli ps -aq | wc -l)"
}

ends() { # KIND; zero, five, tty and count are arrays: image and words
  local kind=$1 out waiting
  out=$(run --rm "${zero[@]}" 2>&1 </dev/null); check "$kind: run, exit code 0" 0 $?
  check "$kind: its line on stdout" "it was zero" "$(grep -o 'it was zero' <<<"$out")"
  run --rm "${five[@]}" >/dev/null 2>&1 </dev/null; check "$kind: run, exit code 5" 5 $?
  out=$(script -qec ". '$dir/cli.sh'; run --rm -t $(printf '%q ' "${tty[@]}")" /dev/null </dev/null)
  check "$kind: run -t, exit code 7" 7 $?
  check "$kind: its line on the terminal" "it was a terminal" "$(grep -o 'it was a terminal' <<<"$out")"

  run --rm --name victim "${count[@]}" >"$dir/victim-$kind" 2>&1 </dev/null & waiting=$!
  await "grep -q 'count 3' '$dir/victim-$kind'"
  cli kill -s KILL victim >/dev/null
  wait $waiting; check "$kind: exit code 137 of a killed one" 137 $?
  nothing_left "$kind"

  run -d --name own "${five[@]}" >/dev/null
  check "$kind: wait for one that ends by itself" 5 "$(cli wait own)"
  check "$kind: inspect says how it ended" "exited 5 0" "$(ask own Status) $(ask own ExitCode) $(ask own Pid)"
  check "$kind: logs of one that ended" "1" "$(says own 'it was five')"
  cli rm own >/dev/null; check "$kind: rm of one that ended" 0 $?
  nothing_left "$kind"
}

life() { # KIND
  local kind=$1 pid n out pids
  run -d --name living "${count[@]}" >/dev/null; check "$kind: run -d" 0 $?
  [ "$(ask living Status)" = running ] || return
  check "$kind: logs of a running one" yes "$(counts_on living)"
  check "$kind: inspect of a running one" "running true 0" "$(ask living Status) $(ask living Running) $(ask living ExitCode)"
  check "$kind: ps" "living Up" "$(cli ps --format '{{.Names}} {{.Status}}' | cut -d' ' -f1,2)"
  pid=$(ask living Pid)
  check "$kind: the pid of inspect is of a living process" 0 "$(kill -0 "$pid"; echo $?)"
  pids=$(cli stats --no-stream --format '{{.PIDs}}' living)
  check "$kind: stats of its own cgroup, not of the machine" yes "$([ "$pids" -ge 1 ] && [ "$pids" -le 20 ] && echo yes || echo "$pids tasks")"
  while_running "$kind" "$pid"

  cli pause living >/dev/null; check "$kind: pause" "0 paused" "$? $(ask living Status)"
  run --rm localhost/busybox true </dev/null # what it said before is in its log by now
  n=$(last living)
  out=$(run --rm localhost/busybox echo meanwhile 2>&1 </dev/null)
  check "$kind: nothing goes on in a paused one while others run" "meanwhile $n" "$out $(last living)"
  cli unpause living >/dev/null; check "$kind: unpause" "0 running" "$? $(ask living Status)"
  check "$kind: it goes on where it was" "yes 1" "$(counts_on living) $(says living "count $((n + 1))")"

  cli stop -t 1 living >/dev/null 2>&1; check "$kind: stop" 0 $?
  check "$kind: inspect of a stopped one" "exited false 137 0" "$(ask living Status) $(ask living Running) $(ask living ExitCode) $(ask living Pid)"
  check "$kind: its process is gone" 1 "$(kill -0 "$pid" 2>/dev/null; echo $?)"
  cli start living >/dev/null; check "$kind: start of a stopped one" 0 $?
  check "$kind: it counts from one again" "yes 2" "$(await '[ "$(says living "count 1")" = 2 ]' && echo yes) $(says living 'count 1')"
  cli kill living >/dev/null; await '[ "$(ask living Status)" = exited ]'
  cli rm living >/dev/null; check "$kind: rm" 0 $?
  nothing_left "$kind"
}

of_a_cell() { # what only a cell has: its record in phid
  local pid=$1 id
  id=$(full_id living)
  check "cell: the pid of inspect is the keeper's" "$(record "$id" '["keeper"]["pid"]')" "$pid"
  check "cell: phid's record" running "$(record "$id" '["state"]')"
  check "cell: top names keeper and cell" 2 "$(cli top living | awk 'NR > 1 {print $2}' | grep -cx -e "$pid" -e "$(record "$id" '["cell"]["pid"]')")"
  out=$(cli exec living true 2>&1); check "cell: exec is refused" yes "$([ $? -ne 0 ] && echo yes)"
  check "cell: exec says why" "exec: not supported for cells" "$(grep -o 'exec: not supported for cells' <<<"$out" | head -1)"
  check "cell: and it runs on" yes "$(counts_on living)"
}
of_an_ordinary_one() {
  check "ordinary: phid knows nothing of it" "0 0" "$(all_left | cut -d' ' -f1,2)"
  check "ordinary: top" 1 "$(cli top living | grep -c 'sh -c i=0')"
  check "ordinary: exec" inside "$(cli exec living echo inside 2>&1)"
  cli exec living sh -c 'exit 9' >/dev/null 2>&1; check "ordinary: exec, exit code 9" 9 $?
}

everything() {
  busybox_image
  guest_image exit0 'echo it was zero; exit 0'
  guest_image exit5 'echo it was five; exit 5'
  guest_image exit7 'echo it was a terminal; exit 7'
  guest_image count 'count 50'
  zero=(localhost/exit0) five=(localhost/exit5) tty=(localhost/exit7) count=(localhost/count)
  ends cell
  life cell
  zero=(localhost/busybox sh -c 'echo it was zero') five=(localhost/busybox sh -c 'echo it was five; exit 5')
  tty=(localhost/busybox sh -c 'test -t 0 && test -t 1 && echo it was a terminal && exit 7')
  count=(localhost/busybox sh -c 'i=0; while :; do i=$((i + 1)); echo count $i; sleep .05; done')
  ends ordinary
  life ordinary
}
