"""The database is damaged, foreign or newer: phid starts, no guest is touched, and what guests have is not granted again."""
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess

import pytest

from conftest import eventually
from phidtest.daemon import Phid, build_dir, kill_and_await, process_alive

SOURCE = pathlib.Path(__file__).resolve().parents[2]
GUEST = str(build_dir() / "samples/guest/guest.elf")
PLATFORM = {"format": "phid-platform/1", "cpus": {"ids": "0-2", "host": "0"},
            "memory": [{"name": "host", "kind": "host", "size": "1G"}, {"name": "carve", "kind": "carveout", "base": "0x100000000", "size": "1G"}]}
SPECS = {"qemu": {"backend": "qemu", "boot": {"kernel": GUEST, "cmdline": "sleep 100000"}, "memory": [{"size": 16 << 20}]},
         "sim": {"backend": "sim", "memory": [{"size": 1 << 20}]}}


def truncated(db):
    os.truncate(db, 5000)


def empty_of_sense(db):
    db.write_bytes(os.urandom(40000))


def pages_of_noise(db):
    data = bytearray(db.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    db.write_bytes(data)


def of_another_program(db):
    db.unlink()
    with sqlite3.connect(db) as c:
        c.execute("CREATE TABLE notes (text)")


def newer(db):
    with sqlite3.connect(db) as c:
        c.execute("PRAGMA user_version = 99")


def a_directory(db):
    db.unlink()
    db.mkdir()
    (db / "file").write_text("kept")


DAMAGES = [truncated, empty_of_sense, pages_of_noise, of_another_program, newer, a_directory]


@pytest.fixture
def phid():
    with Phid(backends=("qemu", "sim"), platform=PLATFORM) as p:
        yield p


def lose(phid, how):
    phid.stop()
    db = phid.state / "phid.db"
    with sqlite3.connect(db) as c:
        c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    how(db)
    phid.start()
    return phid.client()


@pytest.mark.parametrize("how", DAMAGES, ids=lambda f: f.__name__)
def test_a_guest_outlives_the_loss_of_its_record(phid, how):
    client = phid.client()
    client.put("one", SPECS["qemu"]).expect(201)
    client.start("one").expect(200)
    pid = client.container("one").json["cell"]["pid"]
    client = lose(phid, how)
    health = client.get("/v1/health").expect(200).json
    assert (health["status"], health["unexplained"]) == ("degraded", ["phid-1"])
    assert "set aside" in health["note"] and health["note"] in phid.log()
    kind = "newer" if how is newer else "damaged"
    assert [f for f in phid.state.iterdir() if f.name.startswith(f"phid.db.{kind}-")]
    # Held, by whom it can be seen; not granted again.
    assert [c for c in client.get("/v1/allocations").json["cpus"] if c["id"] == 1] == [{"id": 1, "owner": "qemu:phid-1", "state": "observed"}]
    refused = client.put("two", {**SPECS["qemu"], "cpus": {"set": "1"}}).expect(409, "no-resources")
    assert refused.json["blockers"] == [{"unit": "cpu 1", "owner": "qemu:phid-1"}]
    client.put("cell", SPECS["sim"]).expect(201)  # what is free is granted
    client.delete("cell", force=True).expect(204)
    done = subprocess.run([str(build_dir() / "client/phictl"), "--host", f"unix:{phid.socket}", "doctor"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "unexplained: phid-1" in done.stdout and health["note"] in done.stdout
    # A second start knows it still, and that the database is a good one.
    phid.stop()
    phid.start()
    client = phid.client()
    health = client.get("/v1/health").expect(200).json
    assert (health["status"], health["unexplained"]) == ("ok", ["phid-1"])
    assert process_alive(pid)
    # The operator ends it: what it had is free, and the next one has another name.
    kill_and_await(pid)
    eventually(lambda: not client.get("/v1/health").json["unexplained"], "the end of what is unexplained")
    client.put("two", SPECS["qemu"]).expect(201)
    assert client.container("two").json["cell"]["name"] != "phid-1"
    types = [e["type"] for e in client.get("/v1/events").json["items"]]
    assert "cell.unexplained" in types and "cell.unexplained-gone" in types


def test_a_guest_that_ended_while_phid_was_away_is_held_no_more(phid):
    client = phid.client()
    client.put("one", SPECS["qemu"]).expect(201)
    client.start("one").expect(200)
    pid = client.container("one").json["cell"]["pid"]
    assert lose(phid, truncated).get("/v1/health").json["unexplained"] == ["phid-1"]
    phid.stop()
    kill_and_await(pid)
    eventually(lambda: "phid-keeper" not in names_of(phid), "the keeper's end")
    phid.start()
    client = phid.client()
    eventually(lambda: not client.get("/v1/health").json["unexplained"], "the end of what is unexplained")
    client.put("two", SPECS["qemu"]).expect(201)


def names_of(phid):
    """Of the processes that belong to this phid."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if phid.mark.encode() in open(f"/proc/{pid}/environ", "rb").read().split(b"\0") or \
                    str(phid.dir).encode() in open(f"/proc/{pid}/cmdline", "rb").read():
                yield open(f"/proc/{pid}/comm").read().strip()
        except OSError:
            pass


def test_a_cell_of_a_hypervisor_outlives_the_loss_of_its_record(phid):
    client = phid.client()
    client.put("one", SPECS["sim"]).expect(201)
    client.start("one").expect(200)
    client = lose(phid, pages_of_noise)
    assert client.get("/v1/health").json["unexplained"] == ["phid-1"]
    assert phid.sim.cells() == ["phid-1"]
    # What memory it has nobody knows: none with an address is granted.
    assert [(m["pool"], m["owner"]) for m in client.get("/v1/allocations").json["memory"]] == [("carve", "sim:phid-1")]
    refused = client.put("two", {"backend": "sim", "memory": [{"size": 1 << 20, "pool": "carve"}]}).expect(409, "no-resources")
    assert {b["owner"] for b in refused.json["blockers"]} == {"sim:phid-1"}
    phid.sim.ctl("destroy phid-1")
    phid.stop()
    phid.start()
    client = phid.client()
    assert client.get("/v1/health").json["unexplained"] == []
    client.put("two", SPECS["sim"]).expect(201)
    assert client.container("two").json["cell"]["name"] != "phid-1"


def test_what_was_set_aside_can_be_looked_at(phid):
    client = phid.client()
    client.put("one", SPECS["sim"]).expect(201)
    lose(phid, newer)
    kept = next(f for f in phid.state.iterdir() if f.name.startswith("phid.db.newer-") and not f.name.endswith(("-wal", "-shm")))
    copy = phid.dir / "copy"
    shutil.copy(kept, copy)
    with sqlite3.connect(copy) as c:
        assert c.execute("SELECT id FROM containers").fetchall() == [("one",)]


class Traced(Phid):
    """phid under strace, which writes down what it makes and what it syncs."""

    def argv(self):
        return ["strace", "-D", "-f", "-y", "-qq", "-s", "40", "-o", str(self.dir / "trace"), "-e", "signal=none",
                "-e", "trace=openat,fsync,fdatasync,sendmsg,rename,renameat,renameat2", *super().argv()]

    def trace(self):
        """[what happened]: a file of the state directory "made", the directory, the log or another file "synced", an answer sent."""
        found = []
        for line in (self.dir / "trace").read_text().splitlines():
            name = re.search(rf'"{self.state}/([^"]*)"', line)
            synced = re.search(rf"sync\(\d+<{self.state}/?([^>]*)>", line)
            if synced and not line.endswith("= -1"):
                found.append(("synced", synced[1]))
            elif name and "O_CREAT" in line and ("made", name[1]) not in found:
                found.append(("made", name[1]))
            elif "HTTP/1.1 201" in line:
                found.append(("answered", ""))
        return found


def test_a_file_has_its_name_on_the_disk_before_anybody_relies_on_it():
    """A loss of power takes entries of a directory that was not synced since."""
    with Traced(platform=PLATFORM, env={"ASAN_OPTIONS": "detect_leaks=0"}) as phid:  # which is at odds with a tracer
        phid.client().put("a", SPECS["sim"]).expect(201)
        eventually(lambda: ("answered", "") in phid.trace(), "the answer in the trace")
        trace = phid.trace()
        for name in ("phid.db", "phid.db-wal"):
            made = trace.index(("made", name))
            assert trace.index(("synced", ""), made) < trace.index(("answered", "")), trace

        phid.stop()
        db = phid.state / "phid.db"
        with sqlite3.connect(db) as c:
            application, = c.execute("PRAGMA application_id").fetchone()
        for file in phid.state.glob("phid.db*"):
            file.unlink()
        c = sqlite3.connect(phid.dir / "old")
        c.execute("PRAGMA journal_mode = WAL")
        c.executescript(next((SOURCE / "schema").glob("001*")).read_text())
        c.execute(f"PRAGMA application_id = {application}")
        c.execute("PRAGMA user_version = 1")
        shutil.copy(phid.dir / "old", db)  # as a phid leaves it that is killed: the log is there already, and nobody syncs its name
        shutil.copy(phid.dir / "old-wal", f"{db}-wal")
        c.close()
        phid.start()
        trace = phid.trace()
        copied = trace.index(("made", "phid.db.schema-1"))
        migrated = trace.index(("synced", "phid.db-wal"), copied)
        assert ("synced", "phid.db.schema-1") in trace[copied:migrated] and ("synced", "") in trace[copied:migrated], trace
