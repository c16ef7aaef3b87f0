#!/bin/bash
# Real containerd (a private one, tests/clients/containerd-rig) runs cells and ordinary containers through runphi.
#   PHID_BUILD=DIR tests/clients/containerd.sh
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=${PHID_BUILD:-$source}
dir=$(mktemp -d /tmp/phid-ctr.XXXXXX)
passed=0 failed=0
check() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then passed=$((passed + 1)); echo "ok   $1"; else failed=$((failed + 1)); echo "FAIL $1: wanted '$2', got '$3'"; fi
}
phid=
start_phid() {
  "$build/daemon/phid" --socket "$dir/s" --state-dir "$dir/state" --runtime-dir "$dir/run" --platform "$dir/platform.json" \
    >>"$dir/phid.log" 2>&1 &
  phid=$!
  disown
  for _ in $(seq 200); do curl -sf --unix-socket "$dir/s" http://phid/v1 >/dev/null && return; sleep .05; done
  cat "$dir/phid.log"; exit 1
}
await() { for _ in $(seq 300); do eval "$1" && return; sleep .1; done; echo "never came about: $1"; return 1; }
finish() {
  RIG=$dir/rig "$here/containerd-rig" down >/dev/null 2>&1
  [ -z "$phid" ] || kill "$phid" 2>/dev/null
  [ "$failed" -eq 0 ] && rm -rf "$dir"
}
trap finish EXIT

echo '{"format":"phid-platform/1","cpus":{"host":""}}' >"$dir/platform.json"
# containerd gives a runtime no environment to speak of: runphi's comes from its configuration file.
printf 'socket = %s\nstate-dir = %s\n' "$dir/s" "$dir/runphi" >"$dir/runphi.conf"
printf '#!/bin/sh\nRUNPHI_CONFIG=%s exec %s "$@"\n' "$dir/runphi.conf" "$build/client/runphi" >"$dir/runphi-wrapper"
chmod +x "$dir/runphi-wrapper"
export GUEST_ELF=$build/samples/guest/guest.elf
[ -f "$GUEST_ELF" ] || export GUEST_ELF=$source/samples/guest/guest.elf
start_phid
export RIG=$dir/rig RUNPHI=$dir/runphi-wrapper
"$here/containerd-rig" up >/dev/null || { cat "$RIG/log"; exit 1; }
"$here/containerd-rig" image >/dev/null 2>&1
eval "$("$here/containerd-rig" env)"

guest_image() { # NAME CMDLINE: an OCI image whose /boot says what to run
  "$source/samples/mkbundle" guest "$dir/b-$1" "$2"
  umoci init --layout "$dir/i-$1" && umoci new --image "$dir/i-$1:latest"
  umoci insert --image "$dir/i-$1:latest" "$dir/b-$1/rootfs/boot" /boot >/dev/null
  umoci config --image "$dir/i-$1:latest" --config.cmd guest
  /usr/bin/python3 - "$dir/i-$1/index.json" "localhost/$1:latest" <<'P'
import json, sys
f, n = sys.argv[1:]
j = json.load(open(f))
for m in j["manifests"]: m.setdefault("annotations", {})["io.containerd.image.name"] = n
json.dump(j, open(f, "w"))
P
  tar -C "$dir/i-$1" -cf "$dir/i-$1.tar" .
  for ns in default other; do ctr -n $ns images import "$dir/i-$1.tar" >/dev/null; done
}
guest_image exit0 'echo it was zero; exit 0'
guest_image exit5 'exit 5'
guest_image later 'sleep 3000; exit 5'
guest_image count 'count 50'
run() { timeout 60 ctr run --runc-binary "$dir/runphi-wrapper" "$@"; }
record() { curl -s --unix-socket "$dir/s" "http://phid/v1/containers?limit=1000" | /usr/bin/python3 -c "
import json, sys
print(next((str(eval('c$2')) for c in json.load(sys.stdin)['items'] if c['name'] == '$1'), 'none'))"; }
left() { find "$dir/runphi" -type f 2>/dev/null | wc -l; }

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
check "phid is away when the guest ends: containerd sees the end" STOPPED "$(ctr task ls | awk '$1 == "alone" {print $3}')"
check "an ordinary container while phid is down" hi "$(run --rm localhost/busybox:latest plain echo hi </dev/null 2>&1)"
start_phid
await "[ \$(record alone '[\"state\"]') = stopped ]"
check "phid reads the exit file when it is back" "5 guest-exit" "$(record alone '["exit"]["code"]') $(record alone '["exit"]["reason"]')"
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
run --rm --label x=y localhost/busybox:latest plain sh -c 'exit 3' >/dev/null 2>&1 </dev/null; check "an ordinary container's exit code" 3 $?

kill "$phid"
await "! kill -0 $phid 2>/dev/null"
phid=
check "no report of a sanitizer" 0 "$(grep -cE 'AddressSanitizer|runtime error|LeakSanitizer' "$dir/phid.log")"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
