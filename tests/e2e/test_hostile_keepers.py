"""Whoever may connect to keeper.sock says what he likes: phid lives, other containers are served, nothing piles up."""
import contextlib
import json
import os
import pathlib
import random
import resource
import subprocess
import uuid

import pytest
from conftest import Background, eventually
from phidtest import keeper
from phidtest.daemon import Phid, build_dir
from phidtest.keeper import Keeper
from test_hostile import frugal, resident, without_soft_limit
from test_roles import NOBODY, as_user

UNFIT = [b"", b"\0", b"\0" * 7, b"\0" * 8, b"\xff" * 8, b"\xff" * 60000, keeper.packet(keeper.HELLO), keeper.packet(keeper.HELLO, b"x" * 60000),
         keeper.packet(keeper.ENDED), keeper.packet(keeper.SPAWNED), keeper.packet(keeper.SPAWNED, b"\xff" * 16), keeper.packet(keeper.UNDO),
         keeper.packet(keeper.TAKEN), keeper.packet(keeper.QMP_OUT, b"{" * 60000), keeper.packet(0), keeper.packet(65535),
         keeper.packet(keeper.SPAWN, b"\0" * 200), keeper.packet(keeper.HELLO, b"\xff" * 88), keeper.hello("no uuid at all"),
         keeper.packet(keeper.HELLO, b"", length=0), keeper.packet(keeper.HELLO, b"", length=1 << 31)]


@contextlib.contextmanager
def descriptors(n):
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(n)]
    yield fds
    for fd in fds:
        os.close(fd)


def open_files(phid):
    return len(os.listdir(f"/proc/{phid.process.pid}/fd"))


def send(k, *args):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was hung up on
        k.send(*args)


def served(client, id="served"):
    client.put(id, {}).expect(201)
    client.start(id).expect(200)
    client.delete(id, force=True).expect(204)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")
def test_a_user_who_may_nothing_is_hung_up_on(phid, client):
    def knock():
        with Keeper(phid) as k:
            send(k, keeper.hello(str(uuid.uuid4())))
            try:
                return k.receive()[0]
            except ConnectionResetError:
                return None

    assert as_user(NOBODY, NOBODY, [], knock) is None


def test_packets_of_every_kind_hurt_nobody(phid, client):
    client.put("other", {}).expect(201)
    client.start("other").expect(200)
    other = client.container("other").json
    rng = random.Random(4711)
    for turn in range(60):
        with Keeper(phid) as k:
            if turn % 2:  # greeted, and of nobody
                send(k, keeper.hello(str(uuid.uuid4()), cell=rng.randrange(4), by_caller=turn % 4 == 1))
            for data in rng.sample(UNFIT[1:], 5):
                send(k, data)
                send(k, keeper.packet(rng.randrange(80), bytes(rng.randrange(256) for _ in range(rng.randrange(200)))))
            if turn % 3 == 0:
                send(k, UNFIT[0])
    served(client)
    assert client.container("other").json == other


def test_descriptors_that_nobody_asked_for_are_not_kept(phid, client):
    served(client)
    before = open_files(phid)
    with descriptors(250) as fds:
        for _ in range(20):
            with Keeper(phid) as k:
                send(k, keeper.hello(str(uuid.uuid4())), fds)
                send(k, keeper.packet(keeper.UNDO), fds[:8])
            client.get("/v1/health").expect(200)
    eventually(lambda: open_files(phid) <= before, "as few open files as before")


def test_silent_connections_keep_no_keeper_out(phid, client):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 6000:
        pytest.skip("too few open files are allowed")
    crowd = []
    with without_soft_limit():
        try:
            for n in range(4300):
                crowd.append(Keeper(phid))
                if n % 2:
                    send(crowd[-1], keeper.hello(str(uuid.uuid4())))
                if n % 500 == 0:
                    client.get("/v1/health").expect(200)
            served(client)
        finally:
            for k in crowd:
                k.socket.close()


def test_a_flood_of_packets_keeps_nobody_waiting_and_costs_no_memory():
    incarnation = str(uuid.uuid4())
    with frugal() as phid, Keeper(phid) as k:
        client, before = phid.client(), resident(phid)
        k.send(keeper.hello(incarnation, pid=os.getpid()))
        client.put("flooded", {}, keeper="caller", incarnation=incarnation).expect(201)
        line = keeper.packet(keeper.QMP_OUT, b"[" * 65000)

        def flood():
            for _ in range(4000):
                k.send(line)

        flooding = Background(flood)
        turns = 0
        while not flooding.done() or turns < 20:
            client.get("/v1/health").expect(200)
            turns += 1
        flooding.result()
        assert turns >= 20 and resident(phid) - before < 64 << 10
        client.delete("flooded", force=True).expect(204)


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/usr/bin/qemu-system-x86_64"), reason="root and QEMU are needed")
def test_qemu_cannot_have_another_process_put_on_its_cpus():
    """The guest may have taken QEMU over, which names the threads that phid puts on CPUs."""
    incarnation = str(uuid.uuid4())
    guest = build_dir() / "samples" / "guest" / "guest.elf"
    innocent = subprocess.Popen(["sleep", "1000"])
    try:
        all_cpus = os.sched_getaffinity(innocent.pid)
        with Phid(backends=("qemu",), platform={"format": "phid-platform/1", "cpus": {"host": ""}}) as phid, Keeper(phid) as k:
            client = phid.client()
            k.send(keeper.hello(incarnation, pid=os.getpid()))
            creating = Background(client.put, "q", {"boot": {"kernel": str(guest)}, "cpus": {"count": 1}}, keeper="caller", incarnation=incarnation)
            assert k.receive()[0] == keeper.SPAWN
            k.send(keeper.spawned(os.getpid()))
            k.send(keeper.packet(keeper.QMP_OUT, b'{"QMP":{}}\n'))
            for answer in ({}, [{"thread-id": innocent.pid}]):
                kind, command = k.receive()
                assert kind == keeper.QMP_IN
                k.send(keeper.packet(keeper.QMP_OUT, json.dumps({"return": answer, "id": json.loads(command)["id"]}).encode() + b"\n"))
            refusal = creating.result().expect(502)
            assert str(innocent.pid) in refusal.json["detail"]
            assert len(all_cpus) > 1 and os.sched_getaffinity(innocent.pid) == all_cpus
    finally:
        innocent.kill()
        innocent.wait()
