#!/usr/bin/python3
"""standin_selftest.py [PHID-SIM]: drives a real phid-sim (a stand-in, not a hypervisor) over its socket.

Without an argument it builds one with sanitizers from the sources beside it. Each test has a phid-sim of its own, which
must end with 0 and say nothing more than its first line; what a sanitizer finds fails the test it happened in.
"""
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

import standin_rig
import standin_test_cells  # noqa: F401 (its tests)
import standin_test_faults  # noqa: F401
from standin_rig import Sim, TESTS

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = ["standin.c", "standin_loop.c", "standin_cells.c", "standin_proto.c"]


def build(directory):
    binary = f"{directory}/phid-sim"
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-O1",
                    "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", binary,
                    *[str(HERE / source) for source in SOURCES]], check=True)
    return binary


def adopt_daemons():
    """Daemons become children of this process, which can then see them end."""
    pr_set_child_subreaper = 36
    assert ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0


def main():
    adopt_daemons()
    passed = failed = 0
    only = sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="phid-sim-") as directory:
        standin_rig.PHID_SIM = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else build(directory)
        for function in TESTS:
            if only and function.__name__ not in only:
                continue
            with tempfile.TemporaryDirectory(dir=directory) as own:
                sim = Sim(own)
                good = True
                begin = time.monotonic()
                try:
                    function(sim)
                except BaseException as e:
                    good = False
                    traceback.print_exc()
                    if isinstance(e, KeyboardInterrupt):
                        sim.process.kill()
                        raise
                try:
                    sim.end()
                except BaseException:
                    good = False
                    traceback.print_exc()
            passed, failed = passed + good, failed + (not good)
            print(f"{'ok' if good else 'FAILED'} {function.__name__} ({time.monotonic() - begin:.2f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
