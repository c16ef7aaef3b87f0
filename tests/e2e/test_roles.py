"""Who may do what: the peer's identity at connect. Needs root, for requests as somebody else."""
import ctypes
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import traceback

import pytest
from conftest import finish
from phidtest.client import Client
from phidtest.daemon import Phid, build_dir
from phidtest.openapi import document
from test_runphi import Runphi

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")

NOBODY = 65534
VIEW_GROUP, ADMIN_GROUP = 54321, 54322
PR_SET_DUMPABLE = 4
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def as_user(uid, gid, groups, call):
    """call() in a forked child of that identity; what it answers comes back as JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            # As after an exec: a phid without privileges may look at its root then.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            text = json.dumps(call())
            status = 0
        except BaseException:
            text = json.dumps(traceback.format_exc())
        with os.fdopen(write, "w") as f:
            f.write(text)
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as f:
        text = f.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, json.loads(text)
    return json.loads(text)


def ask_everything(socket, id):
    """(operation, status, code) of every operation."""
    found = []
    with Client(socket) as c:
        for op in document().operations:
            body = b'{"spec":{}}' if op.method == "PUT" else None
            query = {"getEvents": "?limit=1", "waitContainer": "?timeout=0&for=created", "putContainer": "?dry_run=true"}.get(op.id, "")
            answer = c.raw(op.method, op.template.replace("{id}", id) + query, body)
            found.append([op.id, op.method, answer.status, answer.code])
    return found


def test_another_user_may_do_nothing(phid, client):
    before = client.put("a", {}).expect(201).json
    for _, method, status, code in as_user(NOBODY, NOBODY, [], lambda: ask_everything(str(phid.socket), "a")):
        assert (status, code) == (403, "forbidden"), method
    assert client.container("a").json == before


def test_another_user_does_not_learn_which_containers_there_are(phid, client):
    client.put("there-1", {}).expect(201)

    def ask():
        with Client(str(phid.socket)) as c:
            return [[c.raw(m, "/v1/containers/" + i).body.decode().replace(i, "ID") for i in ("there-1", "absent-1")]
                    for m in ("GET", "DELETE")]

    for there, absent in as_user(NOBODY, NOBODY, [], ask):
        assert there == absent


def test_a_member_of_any_other_group_may_do_nothing(phid):
    for _, _, status, _ in as_user(NOBODY, NOBODY, [1, 2, 3, 100, 0], lambda: ask_everything(str(phid.socket), "a")):
        assert status == 403


def test_root_may_do_everything(phid, client):
    client.put("a", {}).expect(201)
    for id, _, status, _ in ask_everything(str(phid.socket), "a"):
        assert status != 403, id


def test_who_connected_counts_and_not_who_asks_later(phid):
    """A connection of root's keeps root's rights when its process becomes another: identity is read at connect."""
    def ask():
        c = Client(str(phid.socket))
        c.get("/v1")
        os.setuid(NOBODY)
        first = c.get("/v1/health").status
        c.close()
        return [first, Client(str(phid.socket)).get("/v1/health").status]

    assert as_user(0, 0, [], ask) == [200, 403]


def test_a_crowd_of_another_user_keeps_root_not_out(phid, client):
    import socket

    crowd_ready, release = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        crowd = []
        for _ in range(400):
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(phid.socket))
            crowd.append(s)
        os.write(crowd_ready[1], b"x")
        os.read(release[0], 1)
        os._exit(0)
    os.read(crowd_ready[0], 1)
    with Client(str(phid.socket)) as fresh:
        fresh.get("/v1/health").expect(200)
    os.write(release[1], b"x")
    os.waitpid(pid, 0)
    for fd in crowd_ready + release:
        os.close(fd)


def test_idempotency_keys_are_each_users_own(phid, client):
    """The same key of another user is another key; here it is refused for its user before it is looked at."""
    client.put("a", {}, key="shared").expect(201)

    def ask():
        with Client(str(phid.socket)) as c:
            return c.put("a", {}, key="shared").status

    assert as_user(NOBODY, NOBODY, [], ask) == 403


# ---- the groups phid and phid-view, in a mount namespace with an /etc/group of its own ----

def can_have_groups():
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        ok = libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
        os._exit(0 if ok else 1)
    return os.waitpid(pid, 0)[1] == 0


class GroupedPhid(Phid):
    """A phid that sees the groups phid and phid-view; nothing outside of its mount namespace changes."""

    def argv(self):
        group = self.dir / "group"
        group.write_text(pathlib.Path("/etc/group").read_text() + f"phid:x:{ADMIN_GROUP}:\nphid-view:x:{VIEW_GROUP}:\n")
        script = 'mount --make-rprivate / && mount --bind "$0" /etc/group && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, str(group), *super().argv()]


def skip_without_groups():
    if shutil.which("unshare") is None or not can_have_groups():
        pytest.skip("no mount namespace can be made here, so that no group can be added without touching /etc")
    if "phid" in {line.split(":")[0] for line in open("/etc/group")}:
        pytest.skip("this host has a group phid already")


def skip_unless_nobody_reaches(program):
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    probe = subprocess.run(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "test", "-x", str(build_dir() / program)])
    if probe.returncode != 0:
        pytest.skip("user nobody cannot reach the build directory")


@pytest.fixture(scope="module")
def grouped():
    skip_without_groups()
    with GroupedPhid() as p:
        p.client().put("a", {}).expect(201)
        yield p
        finish(p)


@pytest.mark.parametrize("gid, groups", [(VIEW_GROUP, []), (NOBODY, [VIEW_GROUP]), (NOBODY, [1, VIEW_GROUP, 2])])
def test_phid_view_may_look_and_not_touch(grouped, gid, groups):
    before = grouped.client().container("a").json
    for id, method, status, code in as_user(NOBODY, gid, groups, lambda: ask_everything(str(grouped.socket), "a")):
        if method == "GET":
            assert status != 403, id
        else:
            assert (status, code) == (403, "forbidden"), id
    assert grouped.client().container("a").json == before


@pytest.mark.parametrize("gid, groups", [(ADMIN_GROUP, []), (NOBODY, [ADMIN_GROUP]), (VIEW_GROUP, [ADMIN_GROUP]),
                                         (NOBODY, [VIEW_GROUP, ADMIN_GROUP])])
def test_phid_may_do_everything(grouped, gid, groups):
    def ask():
        with Client(str(grouped.socket)) as c:
            made = c.put("mine", {}).expect(201).json
            c.start("mine").expect(200)
            c.kill("mine", "KILL").expect(200)
            c.delete("mine").expect(204)
            return made["owner"]

    assert as_user(NOBODY, gid, groups, ask) == {"uid": NOBODY, "gid": gid}


def test_a_keeper_of_another_user_can_write_its_cells_directory(grouped):
    """The directory belongs to the container's owner, so that no keeper needs phid's rights."""
    def ask():
        with Client(str(grouped.socket)) as c:
            return c.put("mine", {"boot": {"cmdline": "sim=count:5"}}).expect(201).json["incarnation"]

    as_user(NOBODY, ADMIN_GROUP, [], ask)
    row = grouped.rows("SELECT row FROM containers WHERE id = 'mine'")[0][0]
    assert (grouped.state / "cells" / str(row)).stat().st_uid == NOBODY
    grouped.client().delete("mine", force=True).expect(204)


def test_a_member_s_own_runphi_runs_a_guest_as_that_member():
    """The keeper is the caller's here, and no root: it cannot become the caller, and need not."""
    skip_without_groups()
    skip_unless_nobody_reaches("client/runphi")
    with GroupedPhid(backends=("qemu",), platform={"format": "phid-platform/1", "cpus": {"host": ""}}) as p:
        runphi = Runphi(p, tempfile.mkdtemp(prefix="phid-rp-", dir="/tmp"))
        bundle = runphi.bundle("b", {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": "sleep 20; exit 5"},
                                     "memory": [{"size": "16M"}]})
        os.chown(runphi.dir, NOBODY, NOBODY)

        def life():
            runphi.good("create", "-b", bundle, "own")
            with Client(str(p.socket)) as c:
                record = c.containers()[0]
            status = [pathlib.Path(f"/proc/{record[who]['pid']}/status").read_text() for who in ("keeper", "cell")]
            runphi.good("delete", "-f", "own")
            return [re.findall(r"^Uid:\t(\d+)", s, re.M) for s in status], runphi("run", "-b", bundle, "own")[0], len(runphi.markers())

        try:
            assert as_user(NOBODY, NOBODY, [ADMIN_GROUP], life) == [[[str(NOBODY)]] * 2, 5, 0]
            assert p.client().containers() == []
        finally:
            shutil.rmtree(runphi.dir)


# ---- an unprivileged phid ----

def test_an_unprivileged_phid_has_its_own_user_for_administrator():
    """Without root: own socket and directories, the sim backend, its own uid is the administrator."""
    class Unprivileged(Phid):
        def argv(self):
            os.chown(self.dir, NOBODY, NOBODY)
            return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *super().argv()]

    skip_unless_nobody_reaches("daemon/phid")
    with Unprivileged() as p:
        def ask():
            with Client(str(p.socket)) as c:
                c.put("a", {}).expect(201)
                c.start("a").expect(200)
                c.kill("a", "KILL").expect(200)
                c.delete("a").expect(204)
                return ask_everything(str(p.socket), "a")

        assert all(status != 403 for _, _, status, _ in as_user(NOBODY, NOBODY, [], ask))
        assert all(status == 403 for _, _, status, _ in as_user(NOBODY - 1, NOBODY - 1, [], lambda: ask_everything(str(p.socket), "a")))
