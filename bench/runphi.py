#!/usr/bin/python3
"""runphi beside the forwarded runtime: --version, state of a cell, calls that are forwarded; time and memory.

    bench/runphi.py [--runs N] [--json FILE]        PHID_BUILD: a build without sanitizers

Ratios are of medians, against the first row of each table; below 1 is faster. Never fails but where a call fails."""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SOURCE / "tests"), str(SOURCE / "bench")]
from bundles import cell_bundle, ordinary_bundle  # noqa: E402
from measure import peak_kib, side_by_side, table, write  # noqa: E402
from phidtest.daemon import TMP, Phid, build_dir  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json")
    args = parser.parse_args()
    runphi, runc, crun = str(build_dir() / "client/runphi"), shutil.which("runc"), shutil.which("crun")
    rows = {}
    with Phid() as phid, tempfile.TemporaryDirectory(prefix="phid-bench-", dir=TMP) as d:
        dir = pathlib.Path(d)
        env = {"PATH": os.environ["PATH"], "PHID_SOCKET": str(phid.socket), "RUNPHI_STATE_DIR": f"{dir}/markers", "RUNPHI_RUNTIME": runc}
        root = ["--root", f"{dir}/root"]
        rss = str(dir / "rss")
        subprocess.run(["gcc", "-static", "-Os", "-o", rss, SOURCE / "bench/rss.c"], check=True)

        def quiet(*argv):
            subprocess.run(argv, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        quiet(runphi, *root, "create", "--bundle", str(cell_bundle(dir)), "cell")
        quiet(runc, *root, "create", "--bundle", str(ordinary_bundle(dir, "sleep", "100000")), "ordinary")
        try:
            calls = {
                "--version": {"runc": [runc, "--version"], "crun": [crun, "--version"], "runphi": [runphi, "--version"]},
                "state": {"runc, ordinary": [runc, *root, "state", "ordinary"], "runphi, ordinary (forwarded)": [runphi, *root, "state", "ordinary"],
                          "runphi, cell": [runphi, *root, "state", "cell"]},
                "spec --help": {"runc": [runc, "spec", "--help"], "runphi (forwarded)": [runphi, "spec", "--help"]},
            }
            for title, cases in calls.items():
                cases = {name: argv for name, argv in cases.items() if argv[0] is not None}
                rows[title] = table(title, side_by_side(cases, args.runs, env), next(iter(cases)))
                for name, argv in cases.items():
                    rows[title][name]["peak_kib"] = peak_kib(rss, argv, env)
            print("\npeak memory, KiB")
            for title, cases in rows.items():
                for name, r in cases.items():
                    print(f"  {title + ': ' + name:50} {r['peak_kib']:8}")
            keeper = json.loads(subprocess.run([runphi, *root, "state", "cell"], env=env, check=True, capture_output=True).stdout)["pid"]
            status = pathlib.Path(f"/proc/{keeper}/status").read_text()
            rows["keeper_kib"] = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
            print(f"  {'the keeper':50} {rows['keeper_kib']:8}")
        finally:
            quiet(runc, *root, "delete", "--force", "ordinary")
            quiet(runphi, *root, "delete", "--force", "cell")
    write(args.json, rows)


if __name__ == "__main__":
    main()
