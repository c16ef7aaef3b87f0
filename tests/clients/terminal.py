#!/usr/bin/python3
"""A client at a terminal: runs COMMAND on a pty of its own, types numbered lines at a guest that echoes (command "tty") and
compares every byte that comes back.

    terminal.py READ STOP COMMAND...

The file READ grows by a byte with each line that came back whole. Once the file STOP is there the guest is told to exit with
6. Exit status: COMMAND's; 99 where a byte is missing, wrong or too much; 98 where nothing came for two minutes."""
import os
import pty
import select
import sys
import termios
import tty

AHEAD = 20  # lines that may be under way: enough to be in every buffer of the way when something happens
READY = b"phid-guest: ready\n"


def line(n):
    """What is typed, and what then comes back: its echo and the answer."""
    text = b"%d %s" % (n, b"abcdefghijklmnopqrstuvwxyz" * (n % 3))
    typed = b"echo " + text + b"x\n"
    return typed, typed + text + b"x\n"


def plain_terminal():
    """Passes every byte on as it is, also where the client turns output processing on again (containerd's does)."""
    tty.setraw(0)
    mode = termios.tcgetattr(0)
    mode[1] = 0
    termios.tcsetattr(0, termios.TCSANOW, mode)


def fail(status, what):
    print(what, flush=True)
    sys.exit(status)


def main():
    read, stop, *command = sys.argv[1:]
    pid, terminal = pty.fork()
    if pid == 0:
        plain_terminal()
        os.execvp(command[0], command)
    os.set_blocking(terminal, False)
    progress = open(read, "ab", buffering=0)
    to_write, expected, marks = b"", READY, []  # marks: where in the stream each line ends
    typed = came = total = 0  # lines, lines, bytes
    told, promised = False, len(READY)
    while True:
        if total >= len(READY) and not told:
            if os.path.exists(stop):
                to_write, expected, told = to_write + b"exit 6\n", expected + b"exit 6\n", True
            while not told and typed - came < AHEAD:
                keys, answer = line(typed)
                to_write, expected, promised, typed = to_write + keys, expected + answer, promised + len(answer), typed + 1
                marks.append(promised)
        readable, writable, _ = select.select([terminal], [terminal] if to_write else [], [], 120)
        if not readable and not writable:
            fail(98, f"nothing came for two minutes, after {came} lines; awaited {expected[:80]}")
        if writable:
            to_write = to_write[os.write(terminal, to_write):]
        if readable:
            try:
                got = os.read(terminal, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not expected.startswith(got):
                fail(99, f"after {came} lines came {got[:200]}, not {expected[:200]}")
            expected, total = expected[len(got):], total + len(got)
            while marks and marks[0] <= total:
                marks.pop(0)
                came += 1
                progress.write(b".")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if expected:
        fail(99, f"it ended with status {status}, and there never came {expected[:200]}")
    print(f"{came} lines of {typed}: not one byte lost", flush=True)
    sys.exit(status)


main()
