"""Programs measured side by side: interleaved runs, medians and 99th percentiles, and what each costs against the first."""
import json
import os
import statistics
import subprocess
import time


def once(argv, env, check=True):
    """(seconds of the clock, KiB at the peak) of one run, which must end well where that is checked."""
    begin = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, env, file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)])
    _, status, usage = os.wait4(pid, 0)
    took = time.perf_counter() - begin
    assert status == 0 or not check, f"{argv}: status {status}"
    return took, usage.ru_maxrss


def side_by_side(cases, runs, env):
    """cases: {name: argv}. {name: {"p50_ms", "p99_ms"}}; each run of one is beside a run of the others, so that a noisy machine is
    noisy for all."""
    took = {name: [] for name in cases}
    for _ in range(runs):
        for name, argv in cases.items():
            took[name].append(once(argv, env)[0] * 1000)
    return {name: {"p50_ms": statistics.median(t), "p99_ms": percentile(t, 99)} for name, t in took.items()}


def peak_kib(launcher, argv, env):
    """The resident memory at its peak. A child counts its parent's pages until it executes, so a small launcher measures."""
    done = subprocess.run([launcher, *argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return int(done.stderr.splitlines()[-1])


def table(title, results, against):
    """Prints a short table with ratios; answers the rows, for the machine-readable output."""
    base = results[against]["p50_ms"]
    print(f"\n{title}\n  {'':34} {'p50 ms':>8} {'p99 ms':>8} {'ratio':>6}")
    for name, r in results.items():
        r["ratio"] = r["p50_ms"] / base
        print(f"  {name:34} {r['p50_ms']:8.2f} {r['p99_ms']:8.2f} {r['ratio']:6.2f}")
    return results


def write(path, rows):
    if path:
        with open(path, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) * p // 100, len(values) - 1)]


def goal(what, value, most=None, least=None):
    """Prints a figure beside its goal; answers the figure."""
    met = (most is None or value <= most) and (least is None or value >= least)
    bound = f"at most {most}" if most is not None else f"at least {least}"
    print(f"  {what:62} {value:8.2f}  ({bound}{'' if met else ': missed'})", flush=True)
    return value
