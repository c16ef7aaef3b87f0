"""The state or runtime directory is full, or became read-only: guests are not touched, stopping them works, and what could not be written follows."""
import os
import subprocess

import pytest

from conftest import eventually
from phidtest.daemon import Phid, await_gone, build_dir, kill_and_await, process_alive

GUEST = str(build_dir() / "samples/guest/guest.elf")
PLATFORM = {"format": "phid-platform/1", "cpus": {"ids": "0-3", "host": "0"},
            "memory": [{"name": "host", "kind": "host", "size": "1G"}, {"name": "carve", "kind": "carveout", "base": "0x100000000", "size": "1G"}]}
QEMU = {"backend": "qemu", "boot": {"kernel": GUEST, "cmdline": "sleep 100000"}, "cpus": {"set": "1"}, "memory": [{"size": 16 << 20}]}
SIM = {"backend": "sim", "cpus": {"set": "2"}, "memory": [{"size": 1 << 20, "pool": "carve"}]}


@pytest.fixture(params=["state", "runtime"])
def small(request):
    """A phid one of whose directories is a file system of its own, and that directory."""
    with Phid(backends=("qemu", "sim"), platform=PLATFORM) as phid:
        phid.stop()
        where = getattr(phid, request.param)
        where.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M,mode=755", "tmpfs", where], check=True)
        try:
            phid.start()
            yield phid, where
            phid.delete_all(phid.client())
            phid.stop()
            phid.close()
        finally:
            subprocess.run(["umount", "-l", where], check=True)


def fill(where):
    with open(where / "full", "wb", buffering=0) as f:
        size = 1 << 20
        while size > 0:
            try:
                f.write(b"x" * size)
            except OSError:
                size //= 2


def test_a_full_directory_touches_no_guest_and_keeps_none_from_being_stopped(small):
    phid, where = small
    client = phid.client()
    for id, spec in (("guest", QEMU), ("cell", SIM)):
        client.put(id, spec).expect(201)
        client.start(id).expect(200)
    pid = client.container("guest").json["cell"]["pid"]
    fill(where)
    refused = client.put("more", {**SIM, "cpus": {"set": "3"}})
    assert refused.status in (201, 500, 502, 507), refused  # not each directory is needed
    assert where != phid.state or refused.status in (500, 507)
    assert process_alive(pid)
    assert client.container("guest").json["state"] == client.container("cell").json["state"] == "running"
    # Stopped at once, whatever can be written of it.
    for id in ("guest", "cell"):
        assert client.kill(id, "KILL").status in (200, 500, 507)
    await_gone(pid)
    eventually(lambda: not [c for c in phid.sim.cells() if c == "phid-2"])
    assert phid.process.poll() is None
    os.unlink(where / "full")
    for id in ("guest", "cell"):
        eventually(lambda: client.container(id).json["state"] == "stopped")
        client.delete(id).expect(204)
    client.put("again", {**QEMU, "cpus": {"set": "1"}}).expect(201)


class Broken:
    """The state directory on a file system of its own, which the kernel makes read-only at an error (ext4(5), errors=remount-ro)."""

    def __init__(self, phid):
        self.phid, self.image, self.device = phid, phid.dir / "state.img", None
        with open(self.image, "wb") as f:
            f.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)

    def mount(self):
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", self.image, self.phid.state], check=True)
        self.device = subprocess.run(["findmnt", "-no", "SOURCE", self.phid.state], check=True, capture_output=True, text=True).stdout.strip()

    def breaks(self):
        name = self.device.removeprefix("/dev/")
        with open(f"/sys/fs/ext4/{name}/trigger_fs_error", "w") as f:
            f.write("1")
        with pytest.raises(OSError):
            (self.phid.state / "x").write_text("x")

    def repair(self):
        subprocess.run(["umount", self.phid.state], check=True)
        assert subprocess.run(["e2fsck", "-fy", self.image], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode in (0, 1)
        self.mount()


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/loop-control") or not os.access("/sys", os.W_OK),
                    reason="a file system that breaks needs root, loop devices and sysfs")
def test_a_state_directory_that_became_read_only_touches_no_guest_and_keeps_none_from_being_stopped():
    with Phid(backends=("qemu", "sim"), platform=PLATFORM) as phid:
        phid.stop()
        disk = Broken(phid)
        phid.state.mkdir(exist_ok=True)
        disk.mount()
        try:
            phid.start()
            client = phid.client()
            for id, spec in (("guest", QEMU), ("cell", SIM)):
                client.put(id, spec).expect(201)
                client.start(id).expect(200)
            pid = client.container("guest").json["cell"]["pid"]
            disk.breaks()
            client.put("more", {**SIM, "cpus": {"set": "3"}}).expect(507, "storage")
            assert len(client.get("/v1/containers").expect(200).json["items"]) == 2
            client.kill("cell", "KILL").expect(507, "storage")  # done, and not on record
            eventually(lambda: "phid-2" not in phid.sim.cells())
            assert phid.process.poll() is None and process_alive(pid)
            phid.kill9()
            with pytest.raises(AssertionError, match="Read-only file system"):
                phid.start()
            assert process_alive(pid)
            for process in phid.processes():  # the host is rebooted, and finds its disk repaired
                kill_and_await(process)
            disk.repair()
            phid.start()
            client = phid.client()
            for id, spec in (("guest", QEMU), ("cell", SIM)):
                eventually(lambda: client.container(id).json["state"] == "stopped")
                client.delete(id).expect(204)
                client.put(id, spec).expect(201)
            phid.delete_all(client)
            phid.stop()
            phid.close()
        finally:
            subprocess.run(["umount", "-l", phid.state], check=True)
