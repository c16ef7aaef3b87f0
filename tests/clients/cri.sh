#!/bin/bash
# Pods through CRI, as the kubelet speaks it (a client of ours in node: cri/), of a private containerd with the handler runphi.
#   PHID_BUILD=DIR tests/clients/cri.sh          needs "npm ci" in tests/clients/cri, which ./test does
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last.
. "$(dirname "$0")/common.sh"
client_down() { "$here/containerd-rig" down; rmdir /sys/fs/cgroup/{,*/}k8s.io; }
load_image() { # NAME ROOTFS, into the namespace of CRI
  oci_archive "$1" "$2"
  ctr -n k8s.io images import "$dir/i-$1.tar" >/dev/null
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
