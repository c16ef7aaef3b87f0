#!/bin/bash
# Real dockerd and docker, private ones on a private containerd, run cells and ordinary containers through runphi.
#   PHID_BUILD=DIR tests/clients/docker.sh
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last. A dockerd that does not start is a failure.
. "$(dirname "$0")/common.sh"
export RIG=$dir/rig RUNPHI=$dir/runphi-wrapper
cat >"$dir/cli.sh" <<EOC
cli() { DOCKER_CONFIG=$dir/d timeout --foreground 120 /usr/bin/docker -H unix://$dir/docker.sock "\$@"; }
run() { cli run --runtime runphi --net none "\$@"; }
EOC
. "$dir/cli.sh"
. "$here/docker_cli.sh"
dockerd=
key=/etc/docker/key.json # the one place that dockerd has no option for
[ -e $key ] && key=
client_down() {
  [ -z "$dockerd" ] || cli ps -aq | xargs -r timeout 60 /usr/bin/docker -H "unix://$dir/docker.sock" rm -f
  [ -z "$dockerd" ] || { kill "$dockerd"; await "! kill -0 $dockerd 2>/dev/null"; }
  "$here/containerd-rig" down
  ! mountpoint -q "$dir/d/root" || umount "$dir/d/root" # a dockerd that did not start leaves it
  [ -z "$key" ] || rm -f "$key"
  rmdir /run/docker/plugins /run/docker
}
start_dockerd() {
  echo '{}' >"$dir/daemon.json"
  /usr/sbin/dockerd --config-file "$dir/daemon.json" --data-root "$dir/d/root" --exec-root "$dir/d/exec" --pidfile "$dir/d/pid" \
    -H "unix://$dir/docker.sock" --containerd "$RIG/state/containerd.sock" --storage-driver=vfs --bridge=none --iptables=false \
    --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false --exec-opt native.cgroupdriver=cgroupfs \
    --cgroup-parent "/${dir##*/}" --add-runtime "runphi=$dir/runphi-wrapper" >"$dir/dockerd.log" 2>&1 </dev/null &
  dockerd=$!
  disown
  await "cli version >/dev/null 2>&1 || ! kill -0 $dockerd" && cli version >"$dir/version" 2>&1
}
while_running() { # KIND PID
  [ "$1" = cell ] || { of_an_ordinary_one; return; }
  of_a_cell "$2"
  check "cell: top names nothing else" 2 "$(cli top living | tail -n +2 | wc -l)"
}

start_phid
"$here/containerd-rig" up >"$dir/up" 2>&1 || { cat "$dir/up"; exit 1; }
start_dockerd || { tail -20 "$dir/dockerd.log"; check "dockerd starts" yes no; echo "0 passed, 1 failed"; exit 1; }
everything
summary
