#!/bin/bash
# phid for arm64: built by Debian's cross compiler, its unit tests run by qemu-user, the whole booted on Debian's arm64 kernel in
# QEMU, where inside.sh lets phid discover the machine and takes a container of the stand-in through its life. Needs what
# "setup-deps arm64" installs. PHID_BUILD is a build for this machine with --enable-test-hooks.
# Prints "ok" and "FAIL" lines, and "N passed, N failed" last. PHID_ARM64_CACHE: where Debian's kernel and busybox are unpacked.
# A build of its own, as users make it: qemu-user cannot run ASan.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
cache=${PHID_ARM64_CACHE:-/var/tmp/phid-arm64}
dir=$(mktemp -d /tmp/phid-arm64.XXXXXX)
passed=0 failed=0
check() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then passed=$((passed + 1)); echo "ok   $1"; else failed=$((failed + 1)); echo "FAIL $1: wanted '$2', got '$3'"; fi
}
summary() { echo "$passed passed, $failed failed"; [ "$failed" -eq 0 ]; }
finish() {
  [ -z "${phid:-}" ] || kill "$phid" 2>/dev/null
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && rm -rf "$dir"
}
trap finish EXIT
give_up() { echo "$1"; failed=$((failed + 1)); summary; exit 1; }

unpack() { # PACKAGE: a Debian package of arm64, unpacked once; prints where. Renamed when it is whole.
  local part
  [ -d "$cache/$1" ] || {
    mkdir -p "$cache" && part=$(mktemp -d "$cache/part.XXXXXX") &&
      (cd "$part" && apt-get -q -q -o APT::Sandbox::User=root download "$1:arm64" >&2 && dpkg-deb -x ./*.deb tree) &&
      { mv -T "$part/tree" "$cache/$1" 2>/dev/null || [ -d "$cache/$1" ]; }
    rm -rf "$part"
  }
  [ -d "$cache/$1" ] && echo "$cache/$1"
}

# The build.
mkdir "$dir/build" && cd "$dir/build" || exit 1
"$source/configure" -q --host=aarch64-linux-gnu --prefix=/usr --enable-werror >configure.log 2>&1 || { cat configure.log; give_up "configure fails"; }
make -s -j"$(nproc)" >make.log 2>&1 && make -s install DESTDIR="$dir/root" >>make.log 2>&1 || { tail -40 make.log; give_up "make fails"; }
programs=$(cd "$dir/root" && echo usr/sbin/phid usr/bin/{runphi,phictl} usr/libexec/phid/{phid-keeper,phid-sim})
for p in $programs; do
  check "${p##*/} is arm64's" AArch64 "$(LC_ALL=C readelf -h "$dir/root/$p" | sed -n 's/^ *Machine: *//p')"
done
check "the keeper is static" 0 "$(LC_ALL=C readelf -l "$dir/root/usr/libexec/phid/phid-keeper" | grep -c INTERP)"
check "the x86 guest is not built" no "$([ -e samples/guest/guest.elf ] && echo yes || echo no)"

# The unit tests.
make -s -j"$(nproc)" check LOG_COMPILER=qemu-aarch64-static >check.log 2>&1
check "make check" 0 "$?"
good=0
for t in "$source"/tests/unit/test_*.c; do
  log=tests/unit/$(basename "$t" .c)
  if grep -q '^:test-result: PASS' "$log.trs" && grep -qE '^\[  PASSED  \] [0-9]+' "$log.log"; then good=$((good + 1)); else cat "$log.log"; fi
done
check "programs of unit tests that pass" "$(find "$source/tests/unit" -name 'test_*.c' | wc -l)" "$good"

# What the host document says of QEMU.
qemu-aarch64-static daemon/phid --socket "$dir/s" --state-dir "$dir/state" --runtime-dir "$dir/run" >"$dir/phid.log" 2>&1 &
phid=$!
for _ in $(seq 600); do grep -q 'ready on' "$dir/phid.log" && break; sleep .1; done
check "the qemu backend says that it is not for this host" "qemu False the qemu backend is built for x86-64 hosts only" \
  "$(curl -s --max-time 60 --unix-socket "$dir/s" http://phid/v1/host | /usr/bin/python3 -c '
import json, sys
b = json.load(sys.stdin)["backends"][0]
print(b["name"], b["available"], b["reason"])')"
kill "$phid" && wait "$phid"
check "phid ends when it is asked to" 0 "$?"
phid=

# The machine.
package=$(apt-cache depends linux-image-cloud-arm64:arm64 | sed -n 's/^ *Depends: \(linux-image-[0-9][^:]*\).*/\1/p' | head -n 1)
kernel=$(unpack "${package:?apt knows no linux-image-cloud-arm64}") || give_up "no kernel"
busybox=$(unpack busybox-static) || give_up "no busybox"
cd "$dir/root" && rm -rf usr/share usr/lib && mkdir -p bin dev proc sys run tmp var
install "$busybox/bin/busybox" bin/busybox
install "$here/inside.sh" init
# What Linux leaves (mem= below) is for cells, but for the hypervisor's last 4 MiB.
PYTHONPATH="$here/.." PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c 'import sys; from phidtest.jailhouse import root_cell
sys.stdout.buffer.write(root_cell(range(2), hypervisor=(0x5fc00000, 4 << 20), gic=(2, 0x8000000)))' >root.cell
for p in $programs; do # the libraries, as the dynamic linker finds them
  qemu-aarch64-static /lib/ld-linux-aarch64.so.1 --list "$dir/root/$p" 2>/dev/null | grep -oE '/[^ ]+' | grep -F .so
done | sort -u | while read -r library; do install -D "$library" "$dir/root$library"; done
find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >"$dir/initramfs"
timeout 900 qemu-system-aarch64 -M virt -cpu cortex-a53 -smp 2 -m 512 -accel tcg,thread=multi -nodefaults -no-user-config -display none \
  -no-reboot -serial "file:$dir/console" -kernel "$kernel"/boot/vmlinuz-* -initrd "$dir/initramfs" \
  -append "console=ttyAMA0 panic=-1 loglevel=1 mem=384M" </dev/null
check "QEMU ends with the machine, within its time" 0 "$?"
grep -aE '^(ok  |FAIL) ' "$dir/console"
read -r p f <<<"$(sed -n 's/^\([0-9]\+\) passed, \([0-9]\+\) failed$/\1 \2/p' "$dir/console")"
passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
check "inside came to its end" "$(grep -ac '^ok  ' "$dir/console")" "${p:-it did not}"
[ "$failed" -eq 0 ] || tail -n 60 "$dir/console"

# Linux in a cell: by a phid of this machine, whose build has the stand-in.
mkdir -p "$dir/cell/bin" "$dir/cell/"{proc,sys,dev} && cd "$dir/cell" || exit 1
install "$busybox/bin/busybox" bin/busybox
install "$here/cell-init.sh" init
find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >"$dir/cell.cpio"
/usr/bin/python3 "$here/cell.py" "$(echo "$kernel"/boot/vmlinuz-*)" "$dir/cell.cpio" >"$dir/cell.log" 2>&1
check "Linux in a cell" 0 "$?"
cat "$dir/cell.log"
passed=$((passed + $(grep -ac '^ok  ' "$dir/cell.log"))) failed=$((failed + $(grep -ac '^FAIL' "$dir/cell.log")))
summary
