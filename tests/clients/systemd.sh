#!/bin/bash
# A real systemd (tests/clients/systemd-rig: nspawn) runs phid by its own units, sandboxed as they say: socket activation,
# notify, watchdog, journal, a restart and a kill -9 that no guest notices.
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last. A build of its own: the sandbox forbids what ASan needs.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
dir=$(mktemp -d /tmp/phid-sd.XXXXXX)
passed=0 failed=0
check() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then passed=$((passed + 1)); echo "ok   $1"; else failed=$((failed + 1)); echo "FAIL $1: wanted '$2', got '$3'"; fi
}
export ROOTFS=${PHID_SYSTEMD_ROOTFS:-/var/tmp/phid-systemd-rootfs} RIG=$dir/rig NAME=phid$$
rig() { "$here/systemd-rig" "$@"; }
in_() { rig exec "$@"; }
finish() {
  [ "$failed" -eq 0 ] || in_ journalctl --no-pager -u phid | tail -30
  rig down >/dev/null 2>&1
  [ "$failed" -eq 0 ] && rm -rf "$dir"
}
trap finish EXIT
await() { for _ in $(seq 150); do eval "$1" && return; sleep .1; done; echo "never came about: $1"; return 1; }

if ! [ -x "$ROOTFS/lib/systemd/systemd" ]; then
  rm -rf "$ROOTFS"
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps bookworm "$ROOTFS" >"$dir/debootstrap.log" 2>&1 ||
    { tail "$dir/debootstrap.log"; exit 1; }
fi
mkdir "$dir/build" && cd "$dir/build"
"$source/configure" -q --prefix=/usr/local || exit 1
make -s -j"$(nproc)" >make.log 2>&1 && make -s install DESTDIR="$dir/stage" >>make.log 2>&1 || { tail -20 make.log; exit 1; }
GUEST_ELF=$dir/build/samples/guest/guest.elf "$source/samples/mkbundle" guest "$dir/bundle" 'count 50'
rm -rf "$ROOTFS/var/lib/phid" "$ROOTFS/etc/systemd/system/"{phid*,*/phid*}
rig up --bind-ro="$dir/stage/usr/local:/usr/local" --bind-ro="$dir/bundle:/srv/bundle" >/dev/null || { echo "systemd does not boot"; exit 1; }

api() { in_ curl -s --max-time 30 --unix-socket /run/phid/phid.sock "$@"; }
field() { /usr/bin/python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
main_pid() { in_ systemctl show -P MainPID phid.service; }
in_ systemd-sysusers && in_ systemd-tmpfiles --create 2>/dev/null
check "groups by sysusers" "phid phid-view" "$(in_ getent group phid phid-view | cut -d: -f1 | xargs)"
in_ systemctl enable -q --now phid.socket
check "not running before anybody asks" inactive "$(in_ systemctl is-active phid.service)"
check "the first request starts it" phid "$(api http://phid/v1 | field '["name"]')"
check "it said that it is ready" active "$(in_ systemctl is-active phid.service)"

# API containers below the sandbox: the keeper is a service of its own.
api -X PUT http://phid/v1/containers/guest -d '{"bundle":"/srv/bundle"}' >"$dir/put"
check "create from a bundle, in the sandbox" created "$(field '["state"]' <"$dir/put")"
[ "$failed" -eq 0 ] || { cat "$dir/put"; echo "$passed passed, $failed failed"; exit 1; }
row=$(field '["cell"]["name"]' <"$dir/put")
check "start" running "$(api -X POST http://phid/v1/containers/guest/start | field '["state"]')"
check "the keeper has a unit of its own" active "$(in_ systemctl is-active "phid-keeper-${row#phid-}.service")"
last() { api http://phid/v1/containers/guest/console?tail=200 | grep -oE '^count [0-9]+$' | tail -1 | cut -d' ' -f2 | grep . || echo 0; }
await '[ "$(last)" -gt 3 ]'
pid=$(api http://phid/v1/containers/guest | field '["cell"]["pid"]')

before=$(last); in_ systemctl restart phid.service
check "systemctl restart: the same guest" "$pid running" "$(api http://phid/v1/containers/guest | field '["cell"]["pid"]') $(api http://phid/v1/containers/guest | field '["state"]')"
check "it counted on" yes "$(await "[ \"\$(last)\" -gt $((before + 3)) ]" && echo yes)"

in_ kill -9 "$(main_pid)"
check "kill -9: the next request is answered all the same" running "$(api http://phid/v1/containers/guest | field '["state"]')"
check "systemd started it again" 1 "$(in_ systemctl show -P NRestarts phid.service)"

in_ mkdir -p /run/systemd/system/phid.service.d
in_ sh -c 'printf "[Service]\nWatchdogSec=1\n" >/run/systemd/system/phid.service.d/test.conf; systemctl daemon-reload; systemctl restart phid.service'
api http://phid/v1 >/dev/null
in_ kill -STOP "$(main_pid)"
check "a phid that hangs is replaced by the watchdog" yes "$(await '[ "$(in_ systemctl show -P NRestarts phid.service)" -ge 1 ]' && echo yes)"
check "and answers again" running "$(api http://phid/v1/containers/guest | field '["state"]')"
lines=$(api 'http://phid/v1/containers/guest/console' | grep -oE '^count [0-9]+$' | cut -d' ' -f2)
check "not one line of the guest is missing" "$(seq "$(head -1 <<<"$lines")" "$(tail -1 <<<"$lines")" | md5sum)" "$(md5sum <<<"$lines")"

api -X POST http://phid/v1/containers/guest/kill -d '{"signal":"SIGKILL"}' >/dev/null
check "kill" "stopped 137" "$(api http://phid/v1/containers/guest | field '["state"]') $(api http://phid/v1/containers/guest | field '["exit"]["code"]')"
check "its unit ends with it" yes "$(await "! in_ systemctl is-active -q phid-keeper-${row#phid-}.service" && echo yes)"
check "delete" 204 "$(api -o /dev/null -w '%{http_code}' -X DELETE http://phid/v1/containers/guest)"
check "the journal knows the container" yes "$(await "in_ journalctl --no-pager -o json PHI_CONTAINER=guest | grep guest >/dev/null" && echo yes)"
# runphi with --systemd-cgroup's form of linux.cgroupsPath: a scope that goes with the cell.
mkdir -p "$dir/bundle2" && cp -a "$dir/bundle/rootfs" "$dir/bundle2/"
echo '{"ociVersion":"1.0.2","root":{"path":"rootfs"},"linux":{"cgroupsPath":"machine.slice:phid:scoped"}}' >"$dir/bundle2/config.json"
tar -C "$dir" -cf - bundle2 | in_ tar -C /root -xf -
in_ runphi --systemd-cgroup create --bundle /root/bundle2 --pid-file /root/pid scoped </dev/null >/dev/null 2>"$dir/scoped" || cat "$dir/scoped"
check "runphi puts the keeper into a scope of systemd" "/machine.slice/phid-scoped.scope" "$(in_ systemctl show -P ControlGroup phid-scoped.scope)"
check "the scope has keeper and QEMU" yes "$(in_ sh -c 'grep -q phid-scoped.scope /proc/$(cat /root/pid)/cgroup && grep -q phid-scoped.scope /proc/$(pgrep -P $(cat /root/pid))/cgroup && echo yes')"
in_ runphi delete --force scoped
check "the scope goes with them" yes "$(await '! in_ systemctl is-active -q phid-scoped.scope' && echo yes)"

exposure=$(in_ systemd-analyze security --no-pager phid.service | grep -oE 'Overall exposure level for phid.service: [0-9.]+' | grep -oE '[0-9.]+$')
echo "systemd-analyze security: $exposure"
check "its exposure is below 4.0" yes "$(awk -v e="$exposure" 'BEGIN {if (e != "" && e < 4) print "yes"}')"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
