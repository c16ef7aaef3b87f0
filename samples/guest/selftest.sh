#!/bin/bash
# Boots the sample guests for real, in QEMU under TCG, and holds them to what README.md promises.
#
# Owns: one temporary directory and the one QEMU that runs at a time; leaves neither behind.
# Waits for lines, events and exits, each with one generous limit; time is compared inside the guest only.
# usage: selftest.sh [-v]     -v: shows what the guests say
# Last line: "N passed, N failed"; exits with 1 if any failed.
set -u

here=$(dirname -- "$(readlink -f -- "$0")")
mkbundle=$here/../mkbundle
limit_s=60
verbose=${1:-}
passed=0
failed=0
vm_pid=
tmp=$(mktemp -d)

cleanup() {
    [ -z "$vm_pid" ] || kill "$vm_pid" 2>/dev/null
    wait
    rm -rf -- "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

mkfifo "$tmp/in" "$tmp/out" "$tmp/qmp.in" "$tmp/qmp.out"
exec {in}<>"$tmp/in" {out}<>"$tmp/out" {qmp_in}<>"$tmp/qmp.in" {qmp_out}<>"$tmp/qmp.out"

# check NAME COMMAND...: one test.
check() {
    local name="$machine: $1"
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
    fi
}

# The machine without what a test may add. -nodefaults: the guest has what is named here.
machine_options() {
    case $machine in
    microvm) echo -M microvm,acpi=off,rtc=off,x-option-roms=off,auto-kernel-cmdline=off ;;
    q35) echo -M q35 ;;
    esac
    echo -accel tcg,thread=multi -nodefaults -no-user-config -display none
}

# vm_start OPTION...: QEMU with the serial port on our pipes. What the one before has left in them is thrown away.
vm_start() {
    local fd rest
    vm_stop
    for fd in "$in" "$out" "$qmp_in" "$qmp_out"; do
        while read -r -t 0 -u "$fd" && read -r -t 1 -N 1 -u "$fd" rest; do :; done
    done
    : >"$tmp/log"
    rm -f "$tmp/pid"
    # shellcheck disable=SC2046 # options, one a word
    timeout "$limit_s" qemu-system-x86_64 $(machine_options) -serial stdio -pidfile "$tmp/pid" \
        -chardev pipe,id=qmp,path="$tmp/qmp" -mon chardev=qmp,mode=control \
        "$@" <"$tmp/in" >"$tmp/out" 2>"$tmp/err" &
    vm_pid=$!
}

guest_start() {
    vm_start -m 16 -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=4 -device pvpanic -kernel "$guest" "$@"
}

# vm_exits STATUS: the machine ends by itself, with this status.
vm_exits() {
    local status
    wait "$vm_pid"
    status=$?
    vm_pid=
    [ "$status" -eq "$1" ] || {
        echo "     exit status $status, not $1: $(cat "$tmp/err")"
        return 1
    }
}

vm_stop() {
    [ -n "$vm_pid" ] || return 0
    kill "$vm_pid" 2>/dev/null
    wait "$vm_pid"
    vm_pid=
}

# CPU time of QEMU so far, in clock ticks of the host.
vm_cpu() {
    awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$(cat "$tmp/pid")/stat"
}

say() {
    printf '%s\n' "$@" >&"$in"
}

# Sets line to the next line of the guest.
hear() {
    IFS= read -r -t "$limit_s" -u "$out" line || {
        line=
        echo "     nothing heard in $limit_s s"
        return 1
    }
    printf '%s\n' "$line" >>"$tmp/log"
    [ -z "$verbose" ] || printf '     | %s\n' "$line"
}

# hears LINE...: the next lines are exactly these.
hears() {
    local want
    for want; do
        hear || return 1
        [ "$line" = "$want" ] || {
            printf '     heard "%s", not "%s"\n' "$line" "$want"
            return 1
        }
    done
}

# hears_at_last LINE: a line to come is this one.
hears_at_last() {
    while hear; do
        [ "$line" = "$1" ] && return 0
    done
    return 1
}

# asks COMMAND LINE...: the answer to the command is these lines.
asks() {
    say "$1"
    shift
    hears "$@"
}

qmp() {
    printf '{"execute":"%s"}\n' "$@" >&"$qmp_in"
}

# qmp_hears TEXT: a message to come has the text.
qmp_hears() {
    local message
    while IFS= read -r -t "$limit_s" -u "$qmp_out" message; do
        case $message in *"$1"*) return 0 ;; esac
    done
    return 1
}

# Before this QEMU sends no events.
qmp_begin() {
    qmp qmp_capabilities
    qmp_hears '"return"'
}

event_and_exit() {
    qmp_hears "$1" && vm_exits "$2"
}

exits_with() {
    guest_start -append "exit $1"
    vm_exits "$2"
}

counts_then_exits() {
    local number=0
    guest_start -append 'count 10; sleep 100; exit 5'
    hears 'phid-guest: ready' || return 1
    vm_exits 11 || return 1
    while read -r -t 0 -u "$out" && hear; do
        number=$((number + 1))
        [ "$line" = "count $number" ] || return 1
    done
    [ "$number" -ge 5 ] && [ "$number" -le 11 ]
}

# While counting the guest answers, in whole lines; `count 0` ends it.
counts_beside() {
    say 'count 20'
    hears 'count 1' 'count 2' 'count 3' || return 1
    say ping
    hears_at_last pong && hears_at_last 'count 20' || return 1
    say 'count 0; echo stopped; sleep 200; echo end'
    hears_at_last stopped && hears end
}

starts_again_counting() {
    asks 'count 50' 'count 1' || return 1
    say 'count 50; sleep 10; echo now'
    hears_at_last now && hears 'count 1' || return 1
    say 'count 0; echo stopped'
    hears_at_last stopped
}

# lasts COMMAND MS: by the guest's own clock the command takes at least MS and the next one waits for it.
lasts() {
    local before
    say "uptime; $1; uptime"
    hear && before=$line && hear || return 1
    # One tick of the guest's clock is 10 ms.
    [ $((line - before)) -ge $(($2 - 10)) ]
}

# The CPU time that the host spends on a command of the guest.
cost() {
    local before
    before=$(vm_cpu)
    asks "$1; echo done" 'done' || return 1
    spent=$(($(vm_cpu) - before))
}

idles_cheaply() {
    local idle
    cost 'sleep 3000' && idle=$spent && cost 'spin 3000' || return 1
    echo "     3 s of sleep cost $idle ticks, 3 s of spin $spent"
    [ "$spent" -ge $((4 * (idle + 1))) ]
}

# More input than the guest's ring and the UART hold, while it is busy: all of it is answered, in order.
loses_no_input() {
    local number
    say 'spin 300'
    for number in {1..200}; do
        say "echo line $number of many"
    done
    for number in {1..200}; do
        hears "line $number of many" || return 1
    done
}

# In bytes: a reply must not have CR, and echo of what is typed comes as typed.
log_has_no_cr() {
    ! grep -q $'\r' "$tmp/log"
}

hangs() {
    local before
    say hang
    say ping
    before=$(vm_cpu)
    # Half a second of CPU time: awaited, not timed.
    until [ $(($(vm_cpu) - before)) -ge 50 ]; do
        sleep 0.1
    done
    ! read -r -t 0 -u "$out" || return 1
    qmp quit
    event_and_exit '"reason": "host-qmp-quit"' 0
}

test_guest() {
    guest_start -append 'echo one ;  ping;;echo  two words  ;'
    check 'ready is the first line, once, then the command line' \
        hears 'phid-guest: ready' one pong 'two words'
    check 'ping, LF' asks ping pong
    printf 'ping\r' >&"$in"
    check 'ping, CR' hears pong
    printf 'ping\r\nping\r\n' >&"$in"
    check 'ping, CR LF' hears pong pong
    check 'echo' asks 'echo  a "b" \c | d' 'a "b" \c | d'
    check 'echo of nothing' asks 'echo' ''
    check 'unknown command' asks '  frob nicate; ping' 'unknown command: frob' pong
    check 'wrong arguments' asks 'exit 128;exit;exit x;sleep;count -1;spin 1s;ping pong' \
        'usage: exit 0..127' 'usage: exit 0..127' 'usage: exit 0..127' 'usage: sleep MS' 'usage: count MS' \
        'usage: spin MS' 'usage: ping'
    check 'a line of 1024 characters' asks "echo $(printf '%01019d' 7)" "$(printf '%01019d' 7)"
    check 'a line too long' asks "echo $(printf '%01020d' 7)" 'line too long'
    check 'and the next line' asks ping pong
    check 'count goes on beside commands, count 0 stops it' counts_beside
    check 'count again begins at 1' starts_again_counting
    check 'sleep' lasts 'sleep 300' 300
    check 'spin' lasts 'spin 300' 300
    check 'sleeps by halting, spins by burning' idles_cheaply
    check 'input is not lost while busy' loses_no_input
    check 'lines end with LF only' log_has_no_cr
    say tty
    check 'tty echoes' asks ping ping pong
    printf 'pinx\177g\r' >&"$in"
    check 'tty and the delete key' hears $'pinx\b \bg' pong
    vm_stop

    guest_start
    qmp_begin
    hears 'phid-guest: ready'
    check 'hang burns, answers nothing, can be quit' hangs

    check 'count 10; sleep 100; exit 5' counts_then_exits
    check 'exit 0' exits_with 0 1
    check 'exit 1' exits_with 1 3
    check 'exit 5' exits_with 5 11
    check 'exit 127' exits_with 127 255

    guest_start
    say 'echo early' ping
    check 'input from before the start is not lost' hears 'phid-guest: ready' early pong
    vm_stop

    guest_start
    qmp_begin
    check 'no command line' hears 'phid-guest: ready'
    say crash
    check 'crash is a reset' event_and_exit '"reason": "guest-reset"' 0
    guest_start
    qmp_begin
    say reset
    check 'reset is a reset' event_and_exit '"reason": "guest-reset"' 0
    vm_start -m 16 -kernel "$guest" -append 'echo again'
    hears 'phid-guest: ready' again
    say reset
    check 'reset without -no-reboot starts again' hears 'phid-guest: ready' again
    check 'exit without the device says so' asks 'exit 3' 'exit: no isa-debug-exit device at 0xf4'
    check 'panic without the device says so' asks panic 'panic: no pvpanic device at 0x505'
    vm_stop

    guest_start
    qmp_begin
    hears 'phid-guest: ready'
    say panic
    check 'panic' event_and_exit '"event": "GUEST_PANICKED"' 0
    guest_start -action panic=exit-failure -append panic
    check 'panic, panic=exit-failure' vm_exits 1

    guest_start -m 2 -append 'exit 6'
    check 'a machine of 2 MiB' vm_exits 13
    guest_start -smp 2 -append 'sleep 20; exit 6'
    check 'a machine of two CPUs' vm_exits 13
}

# linux_start BUNDLE
linux_start() {
    local boot=$1/rootfs/boot
    vm_start -no-reboot -m 256 -kernel "$boot/vmlinuz" -initrd "$boot/initrd.img" \
        -append "$(sed -n 's/.*"cmdline":"\([^"]*\)".*/\1/p' "$boot/config.json")"
}

test_linux() {
    check 'mkbundle linux' "$mkbundle" linux "$tmp/linux"
    linux_start "$tmp/linux"
    qmp_begin
    check 'linux: ready' hears_at_last 'phid-linux: ready'
    # shellcheck disable=SC2016 # for the guest's shell
    check 'linux: runs a line' asks 'echo $((6 * 7)); uname -s' 42 Linux
    qmp system_powerdown
    check 'linux: the power button' event_and_exit '"reason": "guest-shutdown"' 0

    check 'mkbundle linux, command line' "$mkbundle" linux "$tmp/linux2" phid.run=poweroff
    linux_start "$tmp/linux2"
    qmp_begin
    check 'linux: phid.run=poweroff' event_and_exit '"reason": "guest-shutdown"' 0
}

machine=any
guest=$tmp/guest.elf
check 'builds without a warning' env EXTRA_CFLAGS=-Werror "$here/build.sh" "$guest"
[ -f "$guest" ] || exit 1
check 'mkbundle guest' env GUEST_ELF="$guest" "$mkbundle" guest "$tmp/bundle" 'echo "a\b"; exit 5'
check 'mkbundle escapes the command line' grep -qF '"cmdline":"echo \"a\\b\"; exit 5"' "$tmp/bundle/rootfs/boot/config.json"
check 'mkbundle copies the guest' cmp "$guest" "$tmp/bundle/rootfs/boot/guest.elf"
# shellcheck disable=SC2016 # for the inner shell
check 'mkbundle never overwrites' sh -c '! GUEST_ELF=$1 $2 guest "$3" 2>/dev/null' - "$guest" "$mkbundle" "$tmp/bundle"
for machine in microvm q35; do
    test_guest
done
machine=q35
test_linux

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
