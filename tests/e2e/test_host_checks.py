"""The readiness checks of GET /v1/host and phictl doctor, on a machine whose /proc and /sys are written here, with the stand-in for
Jailhouse. What each fact means is in tests/unit/test_checks.c; here, that the facts are read, anew at each request."""
import subprocess
import tempfile

import pytest
from phidtest.daemon import Phid, build_dir
from phidtest.devicetree import Machine
from phidtest.jailhouse import Jailhouse, root_cell

ROOT = dict(cpus=range(4), hypervisor=(0x7fc00000, 0x400000))
MAP = "40000000-6fffffff : System RAM\n70000000-7fffffff : reserved\n"
PLATFORM = {"format": "phid-platform/1", "cpus": {"ids": "0-3", "host": "0"},
            "memory": [{"name": "cells", "kind": "carveout", "base": "0x70000000", "size": "16M"}],
            "interrupts": {"controller": "gicv2", "base": "0x8000000"}}
FEATURES = "/sys/kernel/debug/sched/features"


@pytest.fixture
def hypervisor():
    jh = Jailhouse(tempfile.mkdtemp(prefix="phid-jh-", dir="/tmp"), cpus=range(4))
    yield jh
    jh.close()


@pytest.fixture
def machine(tmp_path):
    m = Machine(tmp_path / "m", isolated="1-3", iomem=MAP, files={FEATURES: "GENTLE_FAIR_SLEEPERS NO_TTWU_QUEUE RT_PUSH_IPI\n",
                                                                  "/sys/devices/system/cpu/nohz_full": "1-3\n"})
    m.file("/sys/fs/cgroup/cpu/cpu.shares", "1024\n")
    (tmp_path / "root.cell").write_bytes(root_cell(**ROOT))
    m.root_cell = tmp_path / "root.cell"
    return m


@pytest.fixture
def host(hypervisor, machine):
    platform = {**PLATFORM, "backends": {"jailhouse": hypervisor.platform(root_cell=str(machine.root_cell))}}
    with Phid(backends=("jailhouse",), platform=platform, args=["--host-root", str(machine.root)]) as phid:
        yield phid


def checks(phid):
    return {c["name"]: c for c in phid.client().get("/v1/host").expect(200).json["checks"]}


def wrong(phid):
    return {n for n, c in checks(phid).items() if not (c["ok"] and c["known"])}


def doctor(phid):
    done = subprocess.run([str(build_dir() / "client/phictl"), "--host", f"unix:{phid.socket}", "doctor"], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_a_fit_host(host):
    assert wrong(host) == set()
    status, out = doctor(host)
    assert status == 0 and "NO" not in out and " ? " not in out and "jailhouse-root-cell" in out


@pytest.mark.parametrize("path, text, check", [
    ("/proc/iomem", "40000000-70000fff : System RAM\n", "pool-memory"),
    ("/sys/devices/system/cpu/isolated", "1\n", "isolated-cpus"),
    ("/sys/devices/system/cpu/nohz_full", "(null)\n", "nohz-full-cpus"),
    ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n", "cpu-governor"),
    ("/sys/fs/cgroup/cpu/cpu.rt_runtime_us", "0\n", "rt-group-sched"),
    (FEATURES, "GENTLE_FAIR_SLEEPERS TTWU_QUEUE RT_PUSH_IPI\n", "jailhouse-gicv2")])
def test_each_fact_is_read_at_each_request(host, machine, path, text, check):
    assert wrong(host) == set()
    machine.file(path, text)
    assert wrong(host) == {check} and not checks(host)[check]["ok"]
    status, out = doctor(host)
    assert status == 1 and checks(host)[check]["remedy"] in out
    assert ("NO!" in out) == (checks(host)[check]["severity"] == "grave")


@pytest.mark.parametrize("path, text, check", [("/proc/iomem", "00000000-00000000 : System RAM\n", "pool-memory"), (FEATURES, "", "jailhouse-gicv2")])
def test_what_cannot_be_known_is_said_so(host, machine, path, text, check):
    machine.file(path, text)
    assert wrong(host) == {check} and checks(host)[check]["ok"]
    status, out = doctor(host)
    assert status == 0 and "?    " + check in out and checks(host)[check]["remedy"] in out


def test_preempt_rt_and_the_kernels_configuration(host, machine):
    machine.file(FEATURES, "TTWU_QUEUE\n")
    machine.file("/sys/kernel/realtime", "1\n")
    assert wrong(host) == set()
    release = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    (machine.root / "sys/fs/cgroup/cpu/cpu.shares").unlink()
    assert wrong(host) == {"rt-group-sched"}
    machine.file(f"/boot/config-{release}", "# CONFIG_RT_GROUP_SCHED is not set\n")
    assert wrong(host) == set()
    machine.file(f"/boot/config-{release}", "CONFIG_X=y\nCONFIG_RT_GROUP_SCHED=y\n")
    assert wrong(host) == {"rt-group-sched"} and not checks(host)["rt-group-sched"]["ok"]


def test_jailhouse_off_and_the_cpus_that_it_wants(host, hypervisor, machine):
    hypervisor.enable(False)
    found = checks(host)
    assert not found["jailhouse-enabled"]["ok"] and "phictl host enable" in found["jailhouse-enabled"]["remedy"]
    assert found["jailhouse-cpus"]["ok"] and not found["jailhouse-flavour"]["known"]
    machine.file("/sys/devices/system/cpu/online", "0-1\n")
    found = checks(host)["jailhouse-cpus"]
    assert not found["ok"] and found["remedy"].endswith(": 1 for 2-3")


def test_the_root_cell_that_runs_is_another(host, hypervisor, machine):
    machine.root_cell.write_bytes(root_cell(**ROOT, name=b"another"))
    assert not checks(host)["jailhouse-root-cell"]["ok"]
    machine.root_cell.write_bytes(root_cell(**{**ROOT, "hypervisor": (0x70800000, 0x400000)}))
    assert "hypervisor itself" in checks(host)["pool-memory"]["detail"]
    machine.root_cell.write_bytes(root_cell(**ROOT, arch=1))
    assert "is for arm, the platform says arm64" in checks(host)["jailhouse-root-cell"]["detail"]
    machine.root_cell.write_bytes(b"JHSYS")
    assert "too short" in checks(host)["jailhouse-root-cell"]["detail"]
    machine.root_cell.unlink()
    assert not checks(host)["jailhouse-root-cell"]["ok"]
    (hypervisor.sysfs / "cells/0/rcpus_assigned").write_text("0\n")
    assert not checks(host)["jailhouse-flavour"]["ok"]


def test_the_driver_that_goes(hypervisor, machine):
    platform = {**PLATFORM, "backends": {"jailhouse": {**hypervisor.platform(), "device": "/nowhere/jailhouse", "sysfs": "/nowhere/sysfs"}}}
    with Phid(backends=("jailhouse",), platform=platform, args=["--host-root", str(machine.root)]) as phid:
        found = checks(phid)
        assert not found["jailhouse-driver"]["ok"] and "/nowhere/jailhouse is not there" in found["jailhouse-driver"]["detail"]
        assert not found["jailhouse-enabled"]["known"] and not found["jailhouse-root-cell"]["known"]


def test_without_jailhouse_nothing_is_said_of_it(machine):
    with Phid(platform=PLATFORM, args=["--host-root", str(machine.root)]) as phid:
        assert set(checks(phid)) == {"cpus-present", "pool-size", "isolated-cpus", "nohz-full-cpus", "cpu-governor", "rt-group-sched", "pool-memory"}


def test_a_cpu_that_is_offline_is_no_guests_of_qemu_and_comes_back(machine):
    platform = {**PLATFORM, "cpus": {"ids": "0-1", "host": "0"}, "memory": [{"name": "host", "kind": "host", "size": "1G"}, {"name": "ddr", "kind": "carveout", "base": "0x100000000", "size": "1G"}]}
    spec = {"backend": "qemu", "boot": {"kernel": str(build_dir() / "samples/guest/guest.elf"), "cmdline": "sleep 100000"}, "memory": [{"size": 16 << 20}]}
    with Phid(backends=("qemu", "sim"), platform=platform, args=["--host-root", str(machine.root)]) as phid:
        client = phid.client()
        machine.file("/sys/devices/system/cpu/online", "0\n")
        for cpus in ({"count": 1}, {"set": "1"}):
            refused = client.put("one", {**spec, "cpus": cpus}).expect(409, "no-resources")
            assert refused.json["blockers"] == [{"unit": "cpu 1", "owner": "host:offline"}]
        assert client.get("/v1/allocations").json["cpus"][1]["state"] == "free"
        machine.file("/sys/devices/system/cpu/online", "0-1\n")
        client.put("one", spec).expect(201)
        client.start("one").expect(200)
        machine.file("/sys/devices/system/cpu/online", "0\n")  # what runs, runs; it can be ended
        client.kill("one", "KILL").expect(200)
        client.delete("one").expect(204)
        # A cell of a hypervisor has CPUs that Linux has not.
        client.put("cell", {"backend": "sim", "cpus": {"set": "1"}, "memory": [{"size": 1 << 20}]}).expect(201)


def test_memory_that_the_host_has_no_more_is_granted_to_no_guest_of_qemu(machine):
    pools = [{"name": "first", "kind": "host", "size": "256M"}, {"name": "second", "kind": "host", "size": "64M"},
             {"name": "ddr", "kind": "carveout", "base": "0x100000000", "size": "1G"}]
    boot = {"kernel": str(build_dir() / "samples/guest/guest.elf"), "cmdline": "sleep 100000"}
    with Phid(backends=("qemu", "sim"), platform={**PLATFORM, "memory": pools}, args=["--host-root", str(machine.root)]) as phid:
        client = phid.client()

        def linux_has(mib):
            machine.file("/proc/meminfo", f"MemTotal:       {mib << 10} kB\n")

        def plan(mib, pool="first"):
            return client.put("two", {"backend": "qemu", "boot": boot, "memory": [{"size": mib << 20, "pool": pool}]}, dry_run=True)

        linux_has(320)
        client.put("one", {"backend": "qemu", "boot": boot, "memory": [{"size": 128 << 20}]}).expect(201)
        client.start("one").expect(200)
        plan(128).expect(200)

        linux_has(192)
        assert not checks(phid)["pool-size"]["ok"]
        refused = plan(80).expect(409, "no-resources").json
        assert refused["free"] == {"memory": 64 << 20} and [b["owner"] for b in refused["blockers"]] == ["one"]
        assert "Linux has 201326592 bytes" in refused["detail"] and refused["errors"][0]["pointer"] == "/spec/memory"
        plan(64).expect(200)
        plan(64, "second").expect(200)

        linux_has(16)  # less than runs: what runs, runs, and can be ended. A hypervisor's cell has memory that Linux has not
        plan(1).expect(409, "no-resources")
        assert client.container("one").json["state"] == "running"
        client.put("cell", {"backend": "sim", "memory": [{"size": 512 << 20, "pool": "ddr"}]}).expect(201)
        client.delete("one", force=True).expect(204)
        plan(17).expect(409, "no-resources")
        plan(16).expect(200)

        linux_has(320)
        plan(192).expect(200)
