#!/usr/bin/python3
"""From runphi create and start to the first byte of the guest's console, beside QEMU started by hand with the same arguments.

    bench/guest.py [--runs N] [--json FILE]        PHID_BUILD: a build without sanitizers"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SOURCE / "tests"), str(SOURCE / "bench")]
from bundles import guest_bundle  # noqa: E402
from measure import goal, percentile, table, write  # noqa: E402
from phidtest.daemon import TMP, Phid, build_dir  # noqa: E402

DROPPED = {"-S": 0, "-name": 1, "-chardev": 1, "-serial": 1, "-mon": 1, "-kernel": 1}


def by_hand(argv, kernel):
    """phid's command line, with the kernel's file by its name and the console on stdout; without monitors and -S."""
    words, out = iter(argv), []
    for word in words:
        if word in DROPPED:
            for _ in range(DROPPED[word]):
                next(words)
        else:
            out.append(word)
    return out + ["-kernel", kernel, "-serial", "stdio"]


def first_byte(process, begin):
    byte = os.read(process.stdout.fileno(), 1)
    took = (time.perf_counter() - begin) * 1000
    assert byte, "it said nothing"
    return took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json")
    args = parser.parse_args()
    runphi, elf = str(build_dir() / "client/runphi"), str(build_dir() / "samples/guest/guest.elf")
    with Phid(backends=("qemu",)) as phid, tempfile.TemporaryDirectory(prefix="phid-bench-", dir=TMP) as d:
        bundle = str(guest_bundle(pathlib.Path(d)))
        env = {"PATH": os.environ["PATH"], "PHID_SOCKET": str(phid.socket), "RUNPHI_STATE_DIR": f"{d}/markers"}
        call = [runphi, "--root", f"{d}/root"]
        took = {"QEMU by hand": [], "runphi create, start": []}
        for _ in range(args.runs):
            r, w = os.pipe()
            begin = time.perf_counter()
            subprocess.run(call + ["create", "--bundle", bundle, "one"], env=env, check=True, stdin=subprocess.DEVNULL, stdout=w)
            subprocess.run(call + ["start", "one"], env=env, check=True, stdin=subprocess.DEVNULL)
            assert os.read(r, 1), "it said nothing"
            took["runphi create, start"].append((time.perf_counter() - begin) * 1000)
            argv = qemu_of(phid)
            os.close(w)
            os.close(r)
            subprocess.run(call + ["delete", "--force", "one"], env=env, check=True, stdin=subprocess.DEVNULL)
            begin = time.perf_counter()
            process = subprocess.Popen(by_hand(argv, elf), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            took["QEMU by hand"].append(first_byte(process, begin))
            process.kill()
            process.communicate()
    rows = {name: {"p50_ms": percentile(t, 50), "p99_ms": percentile(t, 99)} for name, t in took.items()}
    table("to the guest's first byte", rows, "QEMU by hand")
    goal("runphi to QEMU by hand", rows["runphi create, start"]["ratio"], most=1.25)
    write(args.json, rows)


def qemu_of(phid):
    pid = phid.client().get("/v1/containers").expect(200).json["items"][0]["cell"]["pid"]
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


if __name__ == "__main__":
    main()
