#!/usr/bin/python3
"""The kernel refuses phid something, at each call of each kind, in each verb (strace's fault injection, on sim and on qemu): phid answers
with an error or does what was asked, loses nothing, touches no other cell, and does not exit.

    faults.py [--rounds N] [--backend sim|qemu] [SYSCALL:ERRNO ...]     at most so many rounds for each (12); default: both, all

A round: strace is attached, the N-th such call of each thread fails once, and a container goes through its whole life; then strace is
gone, what is left is deleted, and the records must be what they were. The rounds of a kind end with the first that met no call.
Needs (Debian): strace, and a build with sanitizers or without (PHID_BUILD)."""
import argparse
import http.client
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from phidtest.daemon import Phid, build_dir
from phidtest.strace import Strace, threads

# Not here, since no kernel does it: a failed unlock, a timer, event or signal descriptor that cannot be read, a failed EPOLL_CTL_DEL.
FAULTS = [
    "fdatasync:EIO", "fdatasync:ENOSPC", "pwrite64:EIO", "pwrite64:ENOSPC", "pread64:EIO", "openat:EMFILE", "openat:ENOSPC", "mkdir:ENOSPC",
    "unlink:EIO", "accept4:EMFILE", "socket:EMFILE", "connect:EAGAIN", "recvmsg:EINTR",
    "sendmsg:ENOBUFS", "sendto:EPIPE", "recvfrom:ECONNRESET", "epoll_wait:EINTR",
    "openat:ENOMEM", "mkdir:EIO", "fallocate:ENOSPC", "fchown:EIO", "memfd_create:EMFILE", "memfd_create:ENOMEM", "bind:ENOMEM", "clone3:EAGAIN",
    "pwrite64:EINTR", "sendmsg:ENOMEM", "sched_setaffinity:EINVAL",
]
UNSETTLED = "SELECT id, state, op FROM containers WHERE op IS NOT NULL OR state = 'creating'"
GUEST = str(build_dir() / "samples" / "guest" / "guest.elf")
BACKENDS = {  # how phid is begun, and a spec
    "sim": ({}, {"boot": {"cmdline": "sim=count:10"}}),
    "qemu": ({"backends": ("qemu",), "platform": {"format": "phid-platform/1", "cpus": {"ids": "0-1", "host": ""},
                                                  "memory": [{"name": "host", "kind": "host", "size": "1G"}]}},
             {"boot": {"kernel": GUEST, "cmdline": "count 10"}, "memory": [{"size": 16 << 20}]}),
}
passed = failed = 0


def eventually(test, seconds=20):
    until = time.monotonic() + seconds
    while not test():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def call(client, wrong, what, method, *args, **kwargs):
    """An answer's status, 0 where there was none: the fault may have hit the connection itself."""
    try:
        answer = method(*args, **kwargs)
    except (OSError, http.client.HTTPException):
        client.close()
        return 0
    if answer.status >= 400 and answer.code in (None, "internal") and not answer.json.get("detail"):
        wrong.append(f"{what}: {answer} says nothing")
    return answer.status


def life(client, spec, wrong):
    """Every verb once. What fails is allowed to, with 5xx; what follows from that may be a 4xx."""
    steps = (
        ("create", lambda: client.put("a", spec)), ("start", lambda: client.start("a")), ("pause", lambda: client.pause("a")),
        ("resume", lambda: client.resume("a")), ("read", lambda: client.container("a")), ("kill", lambda: client.kill("a", "KILL")),
        ("delete", lambda: client.delete("a")),
    )
    broken = False
    for what, step in steps:
        status = call(client, wrong, what, step)
        if 400 <= status < 500 and not broken:
            wrong.append(f"{what}: {status}, though nothing had failed before")
        broken = broken or not 200 <= status < 300


def leftovers(phid, client):
    """All but directories: where one could not be removed, the next start does it."""
    left = phid.leftovers(client)
    del left["directories"]
    left["processes"] = len(phid.processes())
    return left


def one_round(phid, client, spec, syscall, errno, nth):
    """What is wrong, and whether the fault was met at all."""
    wrong = []
    before = leftovers(phid, client)
    other = client.container("other").expect(200).json
    tids = threads(phid.process.pid)
    with Strace(tids, f"{phid.dir}/strace", syscall, f"error={errno}:when={nth}", follow=True) as tracer:
        life(client, spec, wrong)
    client.close()
    if not phid.alive():
        return [f"phid ended: {phid.log()[-1500:]}"], True

    if not eventually(lambda: not phid.rows(UNSETTLED)):
        wrong.append(f"unsettled: {phid.rows(UNSETTLED)}")

    def cleaned():  # an end may still be on its way
        return call(client, wrong, "clean up", client.delete, "a", force=True) in (204, 404) and leftovers(phid, client) == before

    if not eventually(cleaned):
        left = leftovers(phid, client)
        wrong.append("left behind: " + str({k: (before[k], left[k]) for k in left if left[k] != before[k]}))
    if client.container("other").expect(200).json != other:
        wrong.append("the other container is not what it was")
    return wrong, tracer.injected() > 0


def kind(backend, name, rounds):
    global passed, failed
    syscall, errno = name.split(":")
    met, problems = 0, []
    begin, spec = BACKENDS[backend]
    with Phid(env={"LSAN_OPTIONS": "detect_leaks=0"}, **begin) as phid:  # it cannot work under a tracer
        client = phid.client()
        client.put("other", spec).expect(201)
        client.start("other").expect(200)
        for nth in range(1, rounds + 1):
            wrong, was_met = one_round(phid, client, spec, syscall, errno, nth)
            problems += [f"call {nth}: {w}" for w in wrong]
            if not was_met or not phid.alive():
                break
            met += 1
        if not phid.alive():
            phid.process = None
        elif not problems:
            phid.restart()
            client.close()
            client.delete("other", force=True).expect(204)
            if not eventually(lambda: not phid.leftovers(client)["directories"]):
                problems.append(f"directories are left after a restart: {phid.leftovers(client)['directories']}")
    if problems:
        failed += 1
        print(f"FAIL {backend} {name}:", *problems, sep="\n     ", flush=True)
    else:
        passed += 1
        print(f"ok   {backend} {name}: {met} calls failed" if met else f"ok   {backend} {name}: phid makes no such call", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--backend", action="append", choices=list(BACKENDS))
    parser.add_argument("faults", nargs="*")
    options = parser.parse_args()
    for backend in options.backend or BACKENDS:
        for name in options.faults or FAULTS:
            kind(backend, name, options.rounds)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
