"""strace as a means of tests: system calls of a process are counted, refused, or answered by SIGKILL."""
import collections
import os
import re
import signal
import subprocess
import time

ATTACH_S = 20


def threads(pid):
    """In the order in which they were made."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/task")))


def argv(log, syscalls, what=None):
    """what: as in -e inject=SYSCALLS:what, None to look only. Without -f: what else it starts is left alone."""
    inject = ["-e", f"inject={syscalls}:{what}"] if what else []
    return ["strace", "-q", "-o", log, "-e", f"trace={syscalls}", "-e", "signal=none", *inject]


class Strace:
    """Attached to threads of a running process while the block runs; to those, not to what they begin (without `follow`)."""

    def __init__(self, tids, log, syscalls, what=None, follow=False):
        self.tids, self.log = tids, log
        self.argv = argv(log, syscalls, what) + (["-f"] if follow else []) + [f"-p{t}" for t in tids]

    def __enter__(self):
        open(self.log, "w").close()
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + ATTACH_S
        while not all(self._attached(t) for t in self.tids):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("strace does not attach")
            time.sleep(0.002)
        return self

    def _attached(self, tid):
        with open(f"/proc/{tid}/status") as f:
            return f"TracerPid:\t{self.process.pid}\n" in f.read()

    def __exit__(self, *_):
        if self.process.poll() is None:  # it ends with what it traces
            self.process.send_signal(signal.SIGINT)
        self.process.wait(ATTACH_S)

    def injected(self):
        with open(self.log, errors="replace") as f:
            return f.read().count("(INJECTED)")


def count(log):
    """{(tid, system call): how often} of a log; tid is 0 where strace had only one to look at."""
    with open(log, errors="replace") as f:
        found = re.findall(r"^(?:(\d+) +)?(\w+)\(", f.read(), re.M)
    return collections.Counter((int(tid or 0), name) for tid, name in found)


def unreturned(log):
    """Did the last call not return, since what made it was killed?"""
    with open(log, errors="replace") as f:
        return f.read().rstrip().endswith("= ?")
