#!/usr/bin/python3
"""A life through runphi (create, start, state, kill, delete) beside crun's and runc's of /bin/true. The cell is the simulator's, or a
bare-metal guest in QEMU.

    bench/lifecycle.py [--runs N] [--json FILE]        PHID_BUILD: a build without sanitizers

Ratios are of medians, of lives that take turns. Never fails but where a call fails."""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SOURCE / "tests"), str(SOURCE / "bench")]
from bundles import cell_bundle, guest_bundle, ordinary_bundle  # noqa: E402
from measure import goal, once, percentile, table, write  # noqa: E402
from phidtest.daemon import PLATFORM, TMP, Phid, build_dir  # noqa: E402


def life(runtime, root, bundle, env):
    """Milliseconds. A kill finds /bin/true ended, mostly; what it answers is not looked at."""
    argv = [runtime, "--root", root]
    return 1000 * sum(once(argv + words, env, words[0] != "kill")[0] for words in
                      (["create", "--bundle", str(bundle), "one"], ["start", "one"], ["state", "one"], ["kill", "one", "KILL"],
                       ["delete", "--force", "one"]))


def leave_hybrid_cgroups():
    """crun 1.8 refuses a host of cgroup v1 whose v2 tree has controllers: everything runs where that tree is not mounted."""
    hybrid = "/sys/fs/cgroup/unified"
    if os.path.ismount(hybrid):
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", "sh", "-c", f'umount {hybrid} && exec "$@"', "sh",
                              sys.executable, *sys.argv])


def main():
    leave_hybrid_cgroups()
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json")
    args = parser.parse_args()
    runphi = str(build_dir() / "client/runphi")
    with Phid(backends=("sim", "qemu"), platform=PLATFORM) as phid, tempfile.TemporaryDirectory(prefix="phid-bench-", dir=TMP) as d:
        dir = pathlib.Path(d)
        env = {"PATH": os.environ["PATH"], "PHID_SOCKET": str(phid.socket), "RUNPHI_STATE_DIR": f"{dir}/markers"}
        true = ordinary_bundle(dir, "true")
        peers = {name: (shutil.which(name), true) for name in ("crun", "runc")}
        ours = {"runphi, simulator": (runphi, cell_bundle(dir)), "runphi, QEMU": (runphi, guest_bundle(dir))}
        cases = {name: case for name, case in (peers | ours).items() if case[0] is not None}
        took = {name: [] for name in cases}
        for _ in range(args.runs):
            for name, (runtime, bundle) in cases.items():
                took[name].append(life(runtime, f"{dir}/root", bundle, env))
        rows = {name: {"p50_ms": percentile(t, 50), "p99_ms": percentile(t, 99)} for name, t in took.items()}
        table("create, start, state, kill, delete", rows, next(iter(cases)))
        for peer, most in (("crun", 1), ("runc", 0.5)):
            if peer in rows:
                rows[f"simulator_to_{peer}"] = goal(f"simulator to {peer}", rows["runphi, simulator"]["p50_ms"] / rows[peer]["p50_ms"], most=most)
    write(args.json, rows)


if __name__ == "__main__":
    main()
