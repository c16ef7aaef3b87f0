#!/bin/bash
# Real podman and conmon, with a storage of their own, run cells and ordinary containers through runphi.
#   PHID_BUILD=DIR tests/clients/podman.sh
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last.
. "$(dirname "$0")/common.sh"
# podman asks for 1048576 files and processes, which is refused where nobody may raise a limit.
cat >"$dir/containers.conf" <<EOC
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime_supports_json = ["runphi-wrapper"]
EOC
cat >"$dir/cli.sh" <<EOC
cli() {
  CONTAINERS_CONF=$dir/containers.conf timeout --foreground 120 /usr/bin/podman --root $dir/p/root --runroot $dir/p/run \
    --tmpdir $dir/p/tmp --network-config-dir $dir/p/net --storage-driver vfs --runtime $dir/runphi-wrapper "\$@"
}
run() { cli run --net none --cgroup-parent /${dir##*/} "\$@"; }
EOC
. "$dir/cli.sh"
. "$here/docker_cli.sh"
cache=/var/lib/containers/cache/blob-info-cache-v1.boltdb # the one place that podman has no option for
[ -e $cache ] && cache=
client_down() {
  cli rm -fa -t 0
  [ -z "$cache" ] || { rm -f "$cache"; rmdir -p --ignore-fail-on-non-empty "${cache%/*}"; }
}
while_running() { # KIND PID
  if [ "$1" = cell ]; then of_a_cell "$2"; else of_an_ordinary_one; fi
}
start_phid
cli info >"$dir/info" 2>&1 || { cat "$dir/info"; exit 1; }
everything
summary
