#!/bin/busybox sh
# PID 1 of the machine that arm64.sh boots: what phid discovers there, then phid with the stand-in, and a container through its life by
# runphi and phictl. Says "ok" and "FAIL" lines and "N passed, N failed" on the console, then turns the machine off.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs run /run
exec </dev/console >/dev/console 2>&1
stty -onlcr
passed=0 failed=0
check() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then passed=$((passed + 1)); echo "ok   $1"; else failed=$((failed + 1)); echo "FAIL $1: wanted '$2', got '$3'"; fi
}
await() { for _ in $(seq 600); do eval "$1" && return; sleep .1; done; echo "never came about: $1"; return 1; }
start_phid() {
  phid >>/run/phid.log 2>&1 </dev/null &
  phid=$!
  await 'phictl ps >/dev/null 2>&1'
}
bundle() { # NAME BACKEND
  mkdir -p "/b/$1/rootfs/boot"
  echo "no kernel: the stand-in loads none" >"/b/$1/rootfs/boot/kernel"
  echo '{"format":"phid-boot/1","backend":"'"$2"'","boot":{"kernel":"/boot/kernel","cmdline":"sim=count:50"},
    "cpus":{"count":1},"memory":[{"size":"16M"}]}' >"/b/$1/rootfs/boot/config.json"
  echo '{"ociVersion":"1.0.2","root":{"path":"rootfs"},"linux":{"cgroupsPath":"/cells/'"$1"'"}}' >"/b/$1/config.json"
}
member() { tr -d ' \n' | grep -oE "\"$1\":[^,}]*" | head -n 1 | cut -d: -f2 | tr -d '"'; } # NAME: of the JSON on stdin
status() { runphi state "$1" 2>/dev/null | member status; }
row() { phictl ps | awk 'NR > 1 {print $2, $3, $5}'; }
counted() { phictl logs one | grep -c '^count '; }

mkdir -p /etc/phid
printf 'backend = qemu\nbackend = sim\n' >/etc/phid/phid.conf
echo '{"format":"phid-platform/1","cpus":{"host":"0"}}' >/etc/phid/platform.json
check "the machine" aarch64 "$(uname -m)"

# What QEMU's virt machine has (hw/arm/virt.c), as the kernel shows it.
phid --discover --root-cell /root.cell >/run/found.json
check "discover" 0 "$?"
found=$(tr -d ' \t\n' </run/found.json)
has() { case $found in *"$1"*) echo yes ;; esac }
check "it finds the board" yes "$(has '"board":"linux,dummy-virt"')"
check "the CPUs of the root cell" yes "$(has '"cpus":{"ids":"0-1","host":"0",')"
check "the interrupt controller" yes "$(has '"interrupts":{"controller":"gicv2","base":"0x8000000",')"
check "the UART" yes "$(has '{"name":"pl011@9000000","kind":"uart","type":"pl011",')"
check "its registers" yes "$(has '"mmio":[{"base":"0x9000000","size":"4K",')"
check "its interrupt" yes "$(has '"irqs":[{"spi":1,')"
check "that it is Linux's console" yes "$(has "Linux'sownconsole")"
check "memory that neither Linux nor the hypervisor has" yes "$(has '"kind":"carveout","base":"0x58000000","size":"124M",')"
check "Jailhouse's flavour" yes "$(has '"flavour":"upstream-14","architecture":"arm64","root_cell":"/root.cell",')"
check "phid takes what it found" "the configuration is good" "$(phid --check-config --platform /run/found.json)"
start_phid
check "phid is ready" 1 "$(grep -c 'ready on /run/phid/phid.sock' /run/phid.log)"

bundle other qemu
runphi create --bundle /b/other other </dev/null >/run/other.out 2>&1
check "a cell of qemu is refused" "1 1" "$? $(grep -c 'built for x86-64 hosts only' /run/other.out)"
check "and leaves nothing" "" "$(row)"

bundle one sim
runphi create --bundle /b/one --pid-file /run/one.pid one </dev/null >/run/one.out 2>/run/one.err
check "create" 0 "$?"
check "state" created "$(status one)"
keeper=$(cat /run/one.pid)
check "its pid is the keeper's" "$keeper phid-keeper" "$(runphi state one | member pid) $(cat "/proc/$keeper/comm")"
check "the keeper is in the bundle's cgroup" "0::/cells/one" "$(cat "/proc/$keeper/cgroup")"
check "phictl knows it, on the CPU that is not the host's" "created sim 1" "$(row)"
runphi start one
check "start" "0 running" "$? $(status one)"
await '[ "$(counted)" -ge 3 ]'
check "its console is read" yes "$(phictl logs one | grep -q '^count 1$' && echo yes)"
check "the caller of create has it as well" yes "$(await 'grep -q "^count 1$" /run/one.out' && echo yes)"

kill -9 "$phid"
wait "$phid"
start_phid
check "kill -9 of phid: the cell goes on" "running $keeper" "$(status one) $(runphi state one | member pid)"
before=$(counted)
check "and its console" yes "$(await "[ \$(counted) -gt $before ]" && echo yes)"
runphi pause one
check "pause" "0 paused" "$? $(status one)"
runphi resume one
check "resume" "0 running" "$? $(status one)"
runphi kill one KILL
check "kill" 0 "$?"
await '[ "$(status one)" = stopped ]'
check "it is stopped, by a signal" "stopped 137" "$(status one) $(phictl inspect one | member code)"
runphi delete one
check "delete" "0 " "$? $(row)"
check "keeper and cgroup are gone" gone "$(await "! [ -d /proc/$keeper ] && ! [ -d /sys/fs/cgroup/cells/one ]" && echo gone)"
check "phid knows it no more" yes "$(phictl inspect one 2>&1 | grep -q 'there is no container' && echo yes)"

kill "$phid"
wait "$phid"
check "phid ends when it is asked to" 0 "$?"
[ "$failed" -eq 0 ] || tail -n 20 /run/*.out /run/*.err /run/phid.log
echo "$passed passed, $failed failed"
poweroff -f
