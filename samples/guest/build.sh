#!/bin/sh
# Builds the guest: one command, the host's gcc, no 32-bit libraries.
# usage: build.sh [OUT]     OUT: guest.elf beside this script; CC and EXTRA_CFLAGS are honoured
set -eu
here=$(dirname -- "$(readlink -f -- "$0")")
out=${1:-$here/guest.elf}

# shellcheck disable=SC2086 # CC and EXTRA_CFLAGS are lists of words
exec ${CC:-gcc} -m32 -march=i686 -mgeneral-regs-only -std=gnu17 -Os -Wall -Wextra -Wshadow -Wconversion \
    -ffreestanding -fno-pie -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none \
    -nostdlib -static -Wl,-n,-T,"$here/guest.ld",--build-id=none ${EXTRA_CFLAGS:-} -o "$out" \
    "$here/start.S" "$here/guest.c" "$here/command.c" "$here/console.c" "$here/clock.c" "$here/irq.c"
