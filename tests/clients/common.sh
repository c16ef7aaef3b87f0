# What the tests with real clients share: a private phid below $dir, what runphi is told of it, images, counting.
# Sourced. A script says in client_down how its client ends, and in load_image how an image comes to it.
# shellcheck shell=bash disable=SC2034
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
down() { # the client first: phid has to be there for what a failed test left
  [ -z "${is_down:-}" ] || return
  is_down=yes
  client_down >"$dir/down.log" 2>&1
  [ -z "$phid" ] || { kill "$phid"; await "! kill -0 $phid 2>/dev/null"; }
  find /sys/fs/cgroup -depth -type d -path "*/${dir##*/}*" -exec rmdir {} + 2>/dev/null
}
finish() {
  down
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && rm -rf "$dir"
}
summary() { # the last words of a script; phid's log has by now what a sanitizer said of its whole life
  down
  check "no report of a sanitizer" 0 "$(grep -cE 'AddressSanitizer|runtime error|LeakSanitizer' "$dir/phid.log")"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
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
oci_archive() { # NAME ROOTFS: writes $dir/i-NAME.tar, the image localhost/NAME of the rootfs' /boot, as ctr imports it
  local layout=$dir/i-$1
  umoci init --layout "$layout" && umoci new --image "$layout:latest"
  umoci insert --image "$layout:latest" "$2/boot" /boot >/dev/null
  umoci config --image "$layout:latest" --config.cmd guest
  /usr/bin/python3 - "$layout/index.json" "localhost/$1:latest" <<'P'
import json, sys
f, n = sys.argv[1:]
j = json.load(open(f))
for m in j["manifests"]: m.setdefault("annotations", {})["io.containerd.image.name"] = n
json.dump(j, open(f, "w"))
P
  tar -C "$layout" -cf "$layout.tar" .
}
busybox_image() { "$here/containerd-rig" rootfs "$dir/busybox" && load_image busybox "$dir/busybox" '["/bin/sh"]'; }

records() { curl -s --unix-socket "$dir/s" "http://phid/v1/containers?limit=1000"; }
record() { # NAME PATH: of the container with that OCI id, as record same '["exit"]["code"]'
  records | /usr/bin/python3 -c "
import json, sys
print(next((str(eval('c$2')) for c in json.load(sys.stdin)['items'] if c['name'] == '$1'), 'none'))"
}
left() { find "$dir/runphi" -type f 2>/dev/null | wc -l; }
cgroups() { find /sys/fs/cgroup -type d -path "*/${dir##*/}/*" ! -name conmon 2>/dev/null; }
all_left() { # records of phid, files of runphi, keepers, cgroups of containers
  echo "$(records | grep -o '"incarnation"' | wc -l) $(left) $(pgrep -fc "phid-keeper --socket $dir/") $(cgroups | wc -l)"
}
