#!/bin/bash
# Pods through CRI, as the kubelet speaks it (a client of ours in node: cri/), of a private containerd with the handler runphi.
#   PHID_BUILD=DIR tests/clients/cri.sh          needs "npm ci" in tests/clients/cri, which ./test does
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=${PHID_BUILD:-$source}
dir=$(mktemp -d /tmp/phid-clients.XXXXXX)
passed=0 failed=0
check() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then passed=$((passed + 1)); echo "ok   $1"; else failed=$((failed + 1)); echo "FAIL $1: wanted '$2', got '$3'"; fi
}
await() { for _ in $(seq 600); do eval "$1" && return; sleep .1; done; echo "never came about: $1"; return 1; }

phid=
start_phid() {
  "$build/daemon/phid" --socket "$dir/s" --state-dir "$dir/state" --runtime-dir "$dir/run" --platform "$dir/platform.json" \
    >>"$dir/phid.log" 2>&1 &
  phid=$!
  disown
  for _ in $(seq 600); do curl -sf --unix-socket "$dir/s" http://phid/v1 >/dev/null && return; sleep .05; done
  cat "$dir/phid.log"; exit 1
}
end_phid() { # as an operator does; what the sanitizers said of its whole life is in its log
  kill "$phid"
  await "! kill -0 $phid 2>/dev/null"
  phid=
  check "no report of a sanitizer" 0 "$(grep -cE 'AddressSanitizer|runtime error|LeakSanitizer' "$dir/phid.log")"
}
finish() {
  client_down >"$dir/down.log" 2>&1
  [ -z "$phid" ] || kill "$phid" 2>/dev/null
  find /sys/fs/cgroup -depth -type d -path "*/${dir##*/}*" -exec rmdir {} + 2>/dev/null
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && rm -rf "$dir"
}
trap finish EXIT

echo '{"format":"phid-platform/1","cpus":{"host":""}}' >"$dir/platform.json"
# Clients give a runtime no environment to speak of: runphi's comes from its configuration file.
printf 'socket = %s\nstate-dir = %s\n' "$dir/s" "$dir/runphi" >"$dir/runphi.conf"
printf '#!/bin/sh\nRUNPHI_CONFIG=%s exec %s "$@"\n' "$dir/runphi.conf" "$build/client/runphi" >"$dir/runphi-wrapper"
chmod +x "$dir/runphi-wrapper"
export GUEST_ELF=$build/samples/guest/guest.elf
[ -f "$GUEST_ELF" ] || export GUEST_ELF=$source/samples/guest/guest.elf

guest_image() { # NAME CMDLINE: an image whose /boot says what to run
  "$source/samples/mkbundle" guest "$dir/b-$1" "$2" && load_image "$1" "$dir/b-$1/rootfs" '["guest"]'
}
client_down() { "$here/containerd-rig" down; rmdir /sys/fs/cgroup/{,*/}k8s.io; }
load_image() { # NAME ROOTFS COMMAND: into the namespace of CRI
  local layout=$dir/i-$1
  umoci init --layout "$layout" && umoci new --image "$layout:latest"
  umoci insert --image "$layout:latest" "$2/boot" /boot >/dev/null
  umoci config --image "$layout:latest" --config.cmd "$(/usr/bin/python3 -c 'import json, sys; print(json.loads(sys.argv[1])[0])' "$3")"
  /usr/bin/python3 - "$layout/index.json" "localhost/$1:latest" <<'P'
import json, sys
f, n = sys.argv[1:]
j = json.load(open(f))
for m in j["manifests"]: m.setdefault("annotations", {})["io.containerd.image.name"] = n
json.dump(j, open(f, "w"))
P
  tar -C "$layout" -cf "$layout.tar" .
  ctr -n k8s.io images import "$layout.tar" >/dev/null
}

if ! [ -d "$here/cri/node_modules/@grpc/grpc-js" ]; then
  check "the npm packages of tests/clients/cri are there (npm ci)" yes no
  echo "$passed passed, $failed failed"
  exit 1
fi
# Every call of the runtime is written down before it is made.
printf '#!/bin/sh\necho "$*" >>%s\nexec %s "$@"\n' "$dir/calls" "$dir/runphi-wrapper" >"$dir/runphi-calls"
chmod +x "$dir/runphi-calls"
start_phid
export RIG=$dir/rig RUNPHI=$dir/runphi-calls
"$here/containerd-rig" up >/dev/null || { cat "$RIG/log"; exit 1; }
"$here/containerd-rig" image >/dev/null 2>&1
eval "$("$here/containerd-rig" env)"
guest_image counts 'echo a cell of a pod; count 50'
guest_image exit5 'echo last words; exit 5'

CRI_SOCKET=$CONTAINERD_ADDRESS PHID_SOCKET=$dir/s RUNPHI_STATE=$dir/runphi CALLS=$dir/calls LOGS=$dir/logs \
  BUNDLES=$RIG/state/io.containerd.runtime.v2.task/k8s.io timeout 500 node "$here/cri/test.js" >"$dir/cri" 2>&1
status=$?
grep -vE '^[0-9]+ passed' "$dir/cri"
passed=$((passed + $(grep -c '^ok ' "$dir/cri"))) failed=$((failed + $(grep -c '^FAIL ' "$dir/cri")))
check "the client came to its end" "yes" "$(grep -qE '^[0-9]+ passed, [0-9]+ failed$' "$dir/cri" && echo yes || echo "status $status")"
end_phid
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
