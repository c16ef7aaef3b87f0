#!/usr/bin/python3
"""phid is killed at each of its step boundaries, for each verb, on sim, on qemu and on jailhouse (against the stand-in), and under
random load; after each kill it is started again and the checker (checker.py) compares the records with what is there.

    crash.py [sim] [qemu] [jailhouse] [random] [mutant]     default: all

Needs a build with --enable-test-hooks (PHID_BUILD names it). Prints the hits of each point; none may be 0."""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import checker
from checker import check, check_empty
from phidtest.jailhouse import Jailhouse
from rig import BUILD, POINTS, SOURCE, Rig, reap

GUEST = next((p for p in (f"{BUILD}/samples/guest/guest.elf", f"{SOURCE}/samples/guest/guest.elf") if os.path.exists(p)), "")
PLATFORM = {
    "sim": {"format": "phid-platform/1", "cpus": {"ids": "0-7", "host": ""},
            "memory": [{"name": "ram", "kind": "carveout", "base": "0x40000000", "size": "1G"}]},
    "qemu": {"format": "phid-platform/1", "cpus": {"host": ""}},
}
passed = failed = 0


def make_rig(backend):
    if backend != "jailhouse":
        rig = Rig(backend, PLATFORM[backend])
    else:
        hypervisor = Jailhouse(tempfile.mkdtemp(prefix="phid-jh-", dir="/tmp"))
        rig = Rig(backend, {**PLATFORM["sim"], "backends": {"jailhouse": hypervisor.platform()}})
        rig.hypervisor = hypervisor
    rig.mutate_get = lambda path: rig.mutate("GET", path)
    return rig


def report(name, wrong):
    global passed, failed
    if wrong:
        failed += 1
        print(f"FAIL {name}: " + "; ".join(wrong), flush=True)
    else:
        passed += 1
        print(f"ok   {name}", flush=True)


def bundle(rig, name, program, sim_program):
    """A bundle whose guest runs `program`; for the stand-in the words of its own."""
    path = f"{rig.dir}/{name}"
    subprocess.run([f"{SOURCE}/samples/mkbundle", "guest", path, program], check=True,
                   env=dict(os.environ, GUEST_ELF=GUEST))
    if rig.backend == "sim":
        with open(f"{path}/rootfs/boot/config.json", "w") as f:
            f.write('{"format":"phid-boot/1","backend":"sim","boot":{"kernel":"/boot/guest.elf","cmdline":"sim=%s"},'
                    '"memory":[{"size":"16M"}]}' % sim_program)
    return path


def await_(what, test, seconds=20):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come about")
        reap()
        time.sleep(0.02)


def record(rig, ident):
    status, page = rig.mutate_get("/v1/containers?limit=1000")
    return next((c for c in page["items"] if c["name"] == ident), None)


def counted(path):
    with open(path, errors="replace") as f:
        return [int(w[6:]) for w in f.read().splitlines() if w.startswith("count ") and w[6:].isdigit()]


def scenario(rig):
    """Everything that an engineer does, once: each command must succeed although phid dies in one of them."""
    wrong = []
    counting = bundle(rig, "counting", "count 20", "count:20")
    ending = bundle(rig, "ending", "sleep 50; exit 5", "exit:5:50")
    broken = bundle(rig, "broken", "", "")
    with open(f"{broken}/rootfs/boot/guest.elf", "wb") as f:
        f.write(b"no guest at all" * 100)
    if rig.backend == "sim":
        rig.sim("fault create kind=error errno=EIO count=0")

    with open(f"{rig.dir}/out", "wb") as out:
        rig.runphi("create", "--bundle", counting, "--pid-file", f"{rig.dir}/pid", "one", stdout=out)
    rig.runphi("start", "one")
    await_("counting", lambda: len(counted(f"{rig.dir}/out")) > 5)
    ident = record(rig, "one")["id"]
    for verb, state in (("pause", "paused"), ("resume", "running")):
        status, answer = rig.mutate("POST", f"/v1/containers/{ident}/{verb}")
        if status != 200 or answer["state"] != state:
            wrong.append(f"{verb}: {status} {answer}")
        wrong += settled(rig)
    before = len(counted(f"{rig.dir}/out"))
    await_("counting on", lambda: len(counted(f"{rig.dir}/out")) > before + 5)
    rig.runphi("kill", "one", "KILL")
    if '"stopped"' not in rig.runphi("state", "one").stdout.decode():
        wrong.append("not stopped after kill")
    wrong += settled(rig)
    with open(f"{rig.dir}/pid") as f:
        pid = int(f.read())
    await_("the keeper's end", lambda: not os.path.exists(f"/proc/{pid}"))
    lines = counted(f"{rig.dir}/out")
    if lines != list(range(1, len(lines) + 1)):
        wrong.append("a line of the counting guest is missing")
    rig.runphi("delete", "one")

    rig.runphi("create", "--bundle", ending, "two", stdout=subprocess.DEVNULL)
    rig.runphi("start", "two")
    await_("the guest's end", lambda: record(rig, "two")["state"] == "stopped")
    if record(rig, "two")["exit"]["code"] != 5:
        wrong.append(f"exit {record(rig, 'two')['exit']}")
    rig.runphi("delete", "two")

    if rig.backend == "sim":
        rig.sim("fault create kind=error errno=EIO count=1")
    p = rig.runphi("create", "--bundle", broken, "three", stdout=subprocess.DEVNULL, check=False)
    # Killed while it undid the create, phid is asked again and finds the fault used up: then there is a container.
    if p.returncode == 0 and rig.kills == 0:
        wrong.append("a broken guest was created")
    if rig.backend == "sim":
        rig.sim("fault clear")
    rig.runphi("delete", "--force", "three", check=False)
    wrong += settled(rig)

    rig.runphi("create", "--bundle", counting, "four", stdout=subprocess.DEVNULL)
    rig.runphi("start", "four")
    rig.runphi("delete", "--force", "four")
    return wrong


def jailhouse_scenario(rig):
    """The same for a cell that nothing can be asked of: made, started, ended by itself, killed, refused by the driver, deleted by force."""
    wrong = []
    path = bundle(rig, "inmate", "", "")
    with open(f"{path}/rootfs/boot/config.json", "w") as f:
        f.write('{"format":"phid-boot/1","boot":{"inmate":"/boot/inmate.bin"},"memory":[{"size":"1M"}]}')
    with open(f"{path}/rootfs/boot/inmate.bin", "wb") as f:
        f.write(bytes(4096))

    def cell(ident):
        row = record(rig, ident)["cell"]
        return row["name"] if row else None

    def create(ident, check=True):
        return rig.runphi("create", "--bundle", path, ident, stdout=subprocess.DEVNULL, check=check)

    create("one")
    rig.runphi("start", "one")
    wrong += settled(rig)
    rig.hypervisor.ends(cell("one"), "failed", [1])
    await_("the cell's end", lambda: record(rig, "one")["state"] == "stopped")
    if record(rig, "one")["exit"]["code"] != 1:
        wrong.append(f"exit {record(rig, 'one')['exit']}")
    rig.runphi("delete", "one")

    create("two")
    rig.runphi("start", "two")
    rig.runphi("kill", "two", "KILL")
    wrong += settled(rig)
    rig.runphi("delete", "two")

    rig.hypervisor.faults = 1
    if create("three", check=False).returncode == 0 and rig.kills == 0:
        wrong.append("a create that the driver refused was done")
    rig.hypervisor.faults = 0
    rig.runphi("delete", "--force", "three", check=False)
    wrong += settled(rig)

    create("four")
    rig.runphi("start", "four")
    rig.runphi("delete", "--force", "four")
    return wrong


def settled(rig):
    """What the checker says once phid has nothing under way any more (a moment at most)."""
    for _ in range(100):
        reap()
        wrong = check(rig)
        if not wrong:
            break
        time.sleep(0.05)
    return wrong


def emptied(rig):
    for _ in range(200):
        reap()
        wrong = check_empty(rig)
        if not wrong:
            break
        time.sleep(0.05)
    return wrong


def at_points(backend):
    total = dict.fromkeys(POINTS, 0)
    points = [p for p in POINTS if backend != "jailhouse" or not p.startswith(("pause.", "resume."))]  # its cells cannot be paused
    for point in [None] + points:
        rig = make_rig(backend)
        try:
            rig.start(kill_at=f"{point}:1" if point else None)
            rig.supervise()
            wrong = (jailhouse_scenario if backend == "jailhouse" else scenario)(rig) + emptied(rig) + rig.errors
            if point and rig.kills != 1:
                wrong.append(f"phid was killed {rig.kills} times, not once")
            for p, n in rig.hits().items():
                total[p] = total.get(p, 0) + n
            rig.stop()
        except Exception as e:
            wrong = [repr(e)]
            rig.stopping = True
            rig.process.kill()
            clean(rig)
        report(f"{backend}: killed at {point}", wrong)
        if not wrong:
            shutil.rmtree(rig.dir)
    print(f"{backend}: hits " + " ".join(f"{p}={n}" for p, n in total.items()))
    report(f"{backend}: every point was reached", [p for p in points if total[p] == 0])


def clean(rig):
    """Ends what a failed run left; by their pids, ours only."""
    keepers, cells = checker.processes(rig)
    for pid in list(cells) + list(keepers):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    if rig.backend == "sim":
        rig.sim("quit")
    if rig.backend == "jailhouse":
        rig.hypervisor.close()
    reap()


def random_load(seconds=20):
    """Clients that create, start, kill and delete on sim, while phid is killed at random moments."""
    rig = make_rig("sim")
    rig.start()
    rig.supervise()
    end = time.monotonic() + seconds
    made = [0]
    wrong = []

    def client(n):
        rng = random.Random(n)
        try:
            while time.monotonic() < end:
                path = f"/v1/containers/c{n}"
                status, answer = rig.mutate("PUT", path, {"spec": {"cpus": {"count": rng.randint(1, 3)},
                                                                    "memory": [{"size": 16 << 20}]}})
                if status not in (200, 201, 409):
                    wrong.append(f"PUT {status} {answer}")
                if status == 409:
                    continue
                made[0] += 1
                for verb in rng.sample(["start", "pause", "resume", "kill", "start"], 3):
                    body = {"signal": "SIGKILL"} if verb == "kill" else None
                    status, answer = rig.mutate("POST", f"{path}/{verb}", body)
                    if status not in (200, 409):
                        wrong.append(f"{verb} {status} {answer}")
                status, answer = rig.mutate("DELETE", path + "?force=true")
                if status not in (204, 404):
                    wrong.append(f"DELETE {status} {answer}")
        except Exception as e:
            wrong.append(repr(e))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    rng = random.Random(1)
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.1, 0.6))
        if rig.process.poll() is None:
            os.kill(rig.process.pid, signal.SIGKILL)
    for t in threads:
        t.join()
    rig.wait_ready()
    for n in range(4):
        rig.mutate("DELETE", f"/v1/containers/c{n}?force=true")
    wrong += emptied(rig) + rig.errors
    print(f"random load: {made[0]} containers, phid killed {rig.kills} times")
    if rig.kills < 10 or made[0] < 10:
        wrong.append("that was hardly a load")
    try:
        rig.stop()
    except Exception as e:
        wrong.append(repr(e))
        clean(rig)
    report("random load", wrong)
    if not wrong:
        shutil.rmtree(rig.dir)


def mutant():
    """A phid that releases before it observes must turn the checker red; else the checker is worth nothing."""
    for backend in ("sim", "qemu"):
        rig = make_rig(backend)
        rig.start(fault="release-before-observe")
        path = bundle(rig, "counting", "count 20", "count:20")
        rig.runphi("create", "--bundle", path, "one", stdout=subprocess.DEVNULL)
        rig.runphi("start", "one")
        rig.runphi("kill", "one", "KILL")
        found = check(rig)
        print(f"{backend}: the checker says of the mutant: {found}")
        report(f"{backend}: the checker finds a release before observe", [] if found else ["it found nothing"])
        rig.stopping = True
        rig.process.kill()
        rig.process.wait()
        clean(rig)
        shutil.rmtree(rig.dir)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["sim", "qemu", "jailhouse", "random", "mutant"]
    for part in wanted:
        {"random": random_load, "mutant": mutant}.get(part, lambda name=part: at_points(name))()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)
