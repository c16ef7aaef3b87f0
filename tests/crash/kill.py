#!/usr/bin/python3
"""phid, runphi and the keeper are killed before each system call that others can notice, in each verb, on sim and on qemu, and phid is
refused each of its allocations of memory; then the same is asked for again, and the checker (checker.py) compares the records with what
is there.

    kill.py [--points N] [--seed N] [BACKEND.WHO[.VERB] ...]    as sim.phid.create, qemu.memory; default: all

Each verb is run once under strace to learn its calls; each call is a point: the N-th of its name in its thread. Then the verb is run
once a point, or for N points drawn by the seed, and strace kills before that call. The named boundaries of crash.py are places in the
source; these are what the kernel sees. A phid without memory may answer 5xx or abort (systemd starts it again).
Needs (Debian): strace, qemu-system-x86, runc; a build as for crash.py."""
import argparse
import glob
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import uuid

import crash
from crash import await_, bundle, clean, emptied, make_rig, record, report, settled
from phidtest import strace
from rig import BUILD, HERE

CALLS = ("accept4,bind,chmod,clone,clone3,connect,dup2,fallocate,fchmod,fchown,fcntl,fdatasync,fsync,ftruncate,linkat,memfd_create,"
         "mkdir,mkdirat,openat,pidfd_open,pidfd_send_signal,pwrite64,recvmsg,rename,renameat,rmdir,sched_setaffinity,sendmsg,sendto,socket,"
         "unlink,unlinkat,vfork,write,writev")
# What comes before each verb, and what is there behind it.
VERBS = {
    "create": ((), "created"),
    "start": (("create",), "running"),
    "pause": (("create", "start"), "paused"),
    "resume": (("create", "start", "pause"), "running"),
    "kill": (("create", "start"), "stopped"),
    "delete": (("create", "start", "kill"), None),
    "force-delete": (("create", "start"), None),
}
WORKERS = 2  # the first thread is the loop's, the second commits, the others are workers


def prepare(backend, who):
    """A rig whose container `other` runs and is never asked for anything."""
    rig = make_rig(backend)
    rig.log = f"{rig.dir}/strace"
    if who == "memory":
        bound_memory(rig)
    rig.start()
    rig.supervise()
    rig.spec = {"cpus": {"count": 1}, "memory": [{"size": 16 << 20}], "boot": {"cmdline": "sim=count:20"}}
    rig.bundle = bundle(rig, "b", "count 20", "count:20")
    if backend == "qemu":
        rig.spec["boot"] = {"kernel": crash.GUEST, "cmdline": "count 20"}
    rig.cgroup = f"/{os.path.basename(rig.dir)}"
    with open(f"{rig.bundle}/config.json") as f:
        config = json.load(f)
    config.setdefault("linux", {})["cgroupsPath"] = rig.cgroup
    with open(f"{rig.bundle}/config.json", "w") as f:
        json.dump(config, f)
    for verb in ("create", "start"):
        ask(rig, verb, "other")
    rig.other = record(rig, "other")
    return rig


def ask(rig, verb, ident="a", key=None):
    """A verb over the API as a good client asks for it, over a restart with the same key."""
    path = f"/v1/containers/{ident}"
    if verb == "create":
        return rig.mutate("PUT", path, {"spec": rig.spec}, key)
    if verb.endswith("delete"):
        return rig.mutate("DELETE", path + ("?force=true" if verb == "force-delete" else ""), None, key)
    return rig.mutate("POST", f"{path}/{verb}", {"signal": "SIGKILL"} if verb == "kill" else None, key)


def run(rig, verb, **how):
    """The same by runphi, which creates from a bundle."""
    words = {"create": ("create", "--bundle", rig.bundle, "a"), "kill": ("kill", "a", "KILL"),
             "force-delete": ("delete", "--force", "a")}.get(verb, (verb, "a"))
    return rig.runphi(*words, stdout=subprocess.DEVNULL, **how)


def state(rig):
    found = record(rig, "a")
    return found["state"] if found else None


def tidy(rig):
    """What is wrong now, and once `a` is deleted by force; `other` must be the one it was."""
    wrong = settled(rig)
    status, answer = ask(rig, "force-delete")
    if status not in (204, 404):
        wrong.append(f"force-delete: {status} {answer}")
    wrong += settled(rig)
    if record(rig, "other") != rig.other:
        wrong.append(f"the other container was {rig.other}, and is {record(rig, 'other')}")
    return wrong + rig.errors


def points_of(log, role):
    """(role, call, n) of all calls of a log; role(tid) names who made them, None for nobody of interest."""
    return [(role(tid), call, n) for (tid, call), times in sorted(strace.count(log).items()) if role(tid) is not None
            for n in range(1, times + 1)]


def kill_at(point):
    return f"signal=SIGKILL:when={point[2]}"


# ---- phid ----

def warm(rig):
    """There is a worker, and the allocator's and SQLite's first times are over: each round meets the calls of the first."""
    ask(rig, "create")
    ask(rig, "force-delete")


def phid_points(rig, verb):
    for before in VERBS[verb][0]:
        ask(rig, before)
    tids = strace.threads(rig.process.pid)
    with strace.Strace(tids, rig.log, CALLS):
        ask(rig, verb)
    return points_of(rig.log, lambda tid: min(tids.index(tid), WORKERS))


def phid_round(rig, verb, point):
    for before in VERBS[verb][0]:
        ask(rig, before)
    kills = rig.kills
    tids = strace.threads(rig.process.pid)
    tids = tids[WORKERS:] if point[0] == WORKERS else tids[point[0]:point[0] + 1]
    wrong = []
    with strace.Strace(tids, rig.log, point[1], kill_at(point)):
        status, answer = ask(rig, verb)
    if not 200 <= status < 300 or state(rig) != VERBS[verb][1]:
        wrong.append(f"{status} {answer}, and the container is {state(rig)}")
    wrong += tidy(rig)
    killed = rig.kills > kills
    if killed:
        warm(rig)
    return wrong, killed


# ---- runphi ----

def again_by_runphi(rig, verb):
    """What a client does whose runphi was killed: asks for the same once more, a create after a delete by force."""
    if verb == "create":
        run(rig, "force-delete", check=False)
    run(rig, verb, check=False)


def taken_away(rig):
    """After runphi's delete: nothing of `a` is left, whoever was killed."""
    run(rig, "force-delete", check=False)
    wrong = tidy(rig)
    try:
        await_("the end of all that is a's", lambda: not leftovers(rig))
    except RuntimeError:
        wrong.append(f"left: {leftovers(rig)}")
    return wrong


def leftovers(rig):
    keepers, cells = crash.checker.processes(rig)
    mine = {p for p, a in keepers.items() if rig.other["incarnation"] in a}
    files = [f"{d}/{f}" for d, _, names in os.walk(f"{rig.dir}/runphi") for f in names]
    cgroups = [d for d in glob.glob(f"/sys/fs/cgroup/**{rig.cgroup}") + glob.glob(f"/sys/fs/cgroup{rig.cgroup}") if os.path.isdir(d)]
    return list(set(keepers) - mine) + [p for p, (parent, _) in cells.items() if parent not in mine] + files + cgroups


def traced(rig, calls=CALLS, what=None):
    """As words for rig.runphi; LeakSanitizer does not work under a tracer."""
    return {"prefix": strace.argv(rig.log, calls, what), "env": {"LSAN_OPTIONS": "detect_leaks=0"}}


def runphi_points(rig, verb):
    for before in VERBS[verb][0]:
        run(rig, before)
    run(rig, verb, **traced(rig))
    return points_of(rig.log, lambda _: "runphi")


def runphi_round(rig, verb, point):
    for before in VERBS[verb][0]:
        run(rig, before)
    p = run(rig, verb, **traced(rig, point[1], kill_at(point)), check=False)
    killed = p.returncode == -signal.SIGKILL
    wrong = []
    if killed:
        wrong += settled(rig)
        again_by_runphi(rig, verb)
    if state(rig) != VERBS[verb][1]:
        wrong.append(f"asked for once more, the container is {state(rig)}")
    return wrong + taken_away(rig), killed


# ---- the keeper ----

WRITES = 8  # of a keeper: how much of the console there is else depends on the time that a life takes


def keeper_env(rig, calls=CALLS, what=None):
    """The environment of a runphi that starts its keeper under strace, which leaves it its pid (-D)."""
    with open(f"{rig.dir}/keeper", "w") as f:
        words = strace.argv(rig.log, calls, what) + ["-D", f"{BUILD}/client/phid-keeper"]
        f.write("#!/bin/sh\nexec " + " ".join(f"'{w}'" for w in words) + ' "$@"\n')
    os.chmod(f"{rig.dir}/keeper", 0o755)
    return {"PHID_KEEPER": f"{rig.dir}/keeper", "LSAN_OPTIONS": "detect_leaks=0"}


def keepers_life(rig, env, check, writes):
    for step in ("create", "start", "pause", "resume", "kill"):
        run(rig, step, env=env, check=check)
        if step == "start" and writes:
            await_("the console", lambda: strace.count(rig.log)[0, "write"] >= WRITES or state(rig) != "running")


def keeper_points(rig, verb):
    keepers_life(rig, keeper_env(rig), True, True)
    wrong = taken_away(rig)
    if wrong:
        raise RuntimeError(str(wrong))
    return [p for p in points_of(rig.log, lambda _: "keeper") if p[1] != "write" or p[2] <= WRITES]


def keeper_round(rig, verb, point):
    keepers_life(rig, keeper_env(rig, point[1], kill_at(point)), False, point[1] == "write")
    await_("an end of a container without keeper", lambda: state(rig) in (None, "stopped"))
    return taken_away(rig), strace.unreturned(rig.log)


# ---- memory ----

def bound_memory(rig):
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", f"{rig.dir}/memory.so", f"{HERE}/memory.c", "-ldl"], check=True)
    with open(f"{rig.dir}/fault", "w+b") as f:
        f.write(bytes(24))
        f.flush()
        rig.fault = mmap.mmap(f.fileno(), 24)
    rig.env = {"LD_PRELOAD": f"{rig.dir}/memory.so", "MEMORY_FAULT": f"{rig.dir}/fault",
               "ASAN_OPTIONS": "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")}
    rig.deaths.add(-signal.SIGABRT)


def allocations(rig, verb, fails, key=None):
    """The verb's answer, and how many allocations there were meanwhile; the one that is to fail does."""
    rig.fault[:] = struct.pack("3Q", 1, 0, fails)
    answer = ask(rig, verb, key=key)
    rig.fault[:8] = bytes(8)
    return answer, struct.unpack("3Q", rig.fault[:])[1]


def memory_points(rig, verb):
    for before in VERBS[verb][0]:
        ask(rig, before)
    return list(range(1, allocations(rig, verb, 0)[1] + 1))


def memory_round(rig, verb, point):
    for before in VERBS[verb][0]:
        ask(rig, before)
    kills, wrong, key = rig.kills, [], str(uuid.uuid4())
    (status, answer), n = allocations(rig, verb, point, key)
    if status >= 500:  # it may have been done all the same: the key tells
        wrong += settled(rig)
        status, answer = ask(rig, verb, key=key)
        if status >= 500:
            status, answer = ask(rig, verb)
    if not 200 <= status < 300 or state(rig) != VERBS[verb][1]:
        wrong.append(f"{status} {answer}, and the container is {state(rig)}")
    wrong += tidy(rig)
    if rig.kills > kills:
        warm(rig)
    return wrong, n >= point


# ---- all of it ----

WHO = {
    "phid": (list(VERBS), phid_points, phid_round),
    "runphi": (list(VERBS), runphi_points, runphi_round),
    "keeper": (["life"], keeper_points, keeper_round),
    "memory": (list(VERBS), memory_points, memory_round),
}


def part(rig, name, options):
    backend, who, verb = name.split(".")
    _, points_of_verb, one_round = WHO[who]
    rng = random.Random(f"{options.seed} {name}")
    problems, killed, missed = [], 0, []
    try:
        warm(rig)
        points = points_of_verb(rig, verb)
        problems += taken_away(rig)
        if who == "phid":  # how much is written depends on what the database has room for: the calls that come each time
            again = set(points_of_verb(rig, verb))
            points = [p for p in points if p in again]
            problems += taken_away(rig)
        chosen = points if not options.points else rng.sample(points, min(options.points, len(points)))
        for point in chosen:
            wrong, was_killed = one_round(rig, verb, point)
            killed += was_killed
            missed += [] if was_killed else [point]
            problems += [f"{point}: {w}" for w in wrong]
    except Exception as e:
        problems.append(f"{e!r}")
        raise
    finally:
        if not problems and killed * 4 < len(chosen) * 3:
            problems.append(f"points were not met: {missed}")
        report(f"{name}: {'failed' if who == 'memory' else 'killed before'} {killed} of {0 if problems and not killed else len(points)} calls", problems)


def names(wanted):
    every = [f"{b}.{who}.{verb}" for b in ("sim", "qemu") for who, (verbs, _, _) in WHO.items() for verb in verbs]
    return [n for n in every if not wanted or any(f"{n}.".startswith(f"{w}.") for w in wanted)]


def all_of(backend, who, wanted, options):
    rig = None
    for name in wanted:
        rig = rig or prepare(backend, who)
        try:
            part(rig, name, options)
        except Exception:  # told; the next begins anew
            rig.stopping = True
            rig.process.kill()
            clean(rig)
            rig = None
    if rig is None:
        return
    ask(rig, "force-delete", "other")
    wrong = emptied(rig) + rig.errors
    print(f"{backend}.{who}: phid was started again {rig.kills} times")
    rig.stop()
    report(f"{backend}.{who}: nothing is left", wrong)
    if not wrong:
        shutil.rmtree(rig.dir)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for backend in ("sim", "qemu"):
        for who in WHO:
            all_of(backend, who, [n for n in names(options.names) if n.startswith(f"{backend}.{who}.")], options)
    print(f"{crash.passed} passed, {crash.failed} failed")
    return crash.failed != 0


if __name__ == "__main__":
    sys.exit(main())
