"""The Jailhouse backend against the stand-in of driver, hypervisor and sysfs (tests/phidtest/jailhouse.py)."""
import json
import subprocess
import tempfile

import pytest
from conftest import Background, check_loop, eventually
from phidtest.daemon import Phid, build_dir
from phidtest.jailhouse import CREATE, DESTROY, LOAD, START, Jailhouse, root_cell
from test_runphi import Runphi

POOLS = [{"name": "ddr", "kind": "carveout", "base": "0x70000000", "size": "16M"}, {"name": "high", "kind": "carveout", "base": "0x800000000", "size": "1M"}]
INMATE = b"an inmate " * 100
DEVICES = {"interrupts": {"controller": "gicv3", "base": "0x8000000"},
           "devices": [{"name": "uart0", "kind": "uart", "type": "pl011", "mmio": [{"base": "0x9000000", "size": 4096}], "irqs": [{"spi": 1}],
                        "host": {"handover": "absent"}},
                       {"name": "uart1", "kind": "uart", "type": "xuartps", "mmio": [{"base": "0xff010000", "size": 4096}], "irqs": [{"spi": 22}, {"spi": 130}],
                        "host": {"handover": "none"}}]}


@pytest.fixture
def hypervisor():
    jh = Jailhouse(tempfile.mkdtemp(prefix="phid-jh-", dir="/tmp"))
    yield jh
    jh.close()


@pytest.fixture
def host(hypervisor):
    platform = {"format": "phid-platform/1", "cpus": {"ids": "0-7", "host": "0"}, "memory": POOLS, **DEVICES,
                "backends": {"jailhouse": hypervisor.platform()}}
    with Phid(backends=("jailhouse",), platform=platform) as phid:
        (phid.dir / "inmate").write_bytes(INMATE)
        yield phid


def spec(phid, **more):
    return {"boot": {"inmate": str(phid.dir / "inmate")}, "cpus": {"count": 1}, "memory": [{"size": 65536}], **more}


def only(hypervisor):
    cell, = hypervisor.cells.values()
    return cell


def test_a_cell_through_its_life(host, hypervisor):
    client = host.client()
    made = client.put("a", spec(host, cpus={"set": "2-3"})).expect(201).json
    cell = only(hypervisor)
    assert made["state"] == "created" and made["backend"] == "jailhouse" and made["cell"]["cpu_exclusive"] == "hard"
    assert cell.name == made["cell"]["name"] and cell.cpus == {2, 3} and hypervisor.root == {0, 1, 4, 5, 6, 7}
    base = int(made["cell"]["memory"][0]["base"], 16)
    ram, comm = cell.memory
    assert ram == (base, 0, 65536, 0x47) and comm[1:] == (0x80000000, 0x1000, 0x23)
    assert cell.images == [(0, bytes(65536)), (0, INMATE)], "cleared, then loaded"
    assert cell.starts == 0
    assert client.start("a").expect(200).json["state"] == "running" and cell.state == "running"
    client.kill("a", "TERM").expect(501, "unsupported")
    client.pause("a").expect(501, "unsupported")
    assert client.container("a").json["state"] == "running"
    client.kill("a", "KILL").expect(200)
    assert hypervisor.cells == {} and hypervisor.root == set(range(8))
    assert client.container("a").json["exit"]["code"] == 137
    client.delete("a").expect(204)


def test_devices_with_their_interrupts_and_the_console(host, hypervisor):
    client = host.client()
    made = client.put("a", spec(host, devices=[{"name": "uart1"}])).expect(201).json["cell"]
    assert (made["devices"], made["irqs"]) == (["uart1"], [54, 162])
    config = only(hypervisor).config
    shown = json.loads(subprocess.run([str(build_dir() / "client/phictl"), "cell", "show", "--json", "/dev/stdin"], input=config,
                                      capture_output=True, check=True, timeout=30).stdout)
    assert shown["memory"][2] == {"phys": "0xff010000", "virt": "0xff010000", "size": "0x1000", "flags": ["read", "write", "io"]}
    assert [(c["address"], c["pin_base"], c["pins"]) for c in shown["irqchips"]] == [("0x8000000", 32, "54"), ("0x8000000", 160, "162")]
    assert shown["console"]["address"] == "0xff010000" and shown["console"]["type"] == 4
    other = client.put("b", spec(host, devices=[{"kind": "uart"}])).expect(201).json["cell"]
    assert other["devices"] == ["uart0"]
    refused = client.put("c", spec(host, devices=[{"kind": "uart"}])).expect(409, "no-resources").json
    assert {(b["unit"], b["owner"]) for b in refused["blockers"]} == {("device uart0", "b"), ("device uart1", "a")}
    vector = client.get("/v1/allocations").json
    assert {d["name"]: d["owners"] for d in vector["devices"]} == {"uart0": ["b"], "uart1": ["a"]}
    assert {i["irq"]: i["owner"] for i in vector["irqs"]} == {33: "b", 54: "a", 162: "a"}
    client.close()
    host.kill9()
    host.start()
    client.kill("a", "KILL").expect(200)
    client.put("c", spec(host, devices=[{"name": "uart1"}])).expect(201)
    assert {d["name"]: d["owners"] for d in client.get("/v1/allocations").json["devices"]} == {"uart0": ["b"], "uart1": ["c"]}


def test_an_address_arguments_and_memory_above_4_gib(host, hypervisor):
    client = host.client()
    made = client.put("a", spec(host, boot={"inmate": {"path": str(host.dir / "inmate"), "at": "0x70000000"}, "cmdline": "a=1 b"},
                                memory=[{"size": 131072}, {"size": 4096, "pool": "high"}])).expect(201).json
    cell = only(hypervisor)
    bases = [int(m["base"], 16) for m in made["cell"]["memory"]]
    assert [m[:3] for m in cell.memory[:2]] == [(bases[0], 0x70000000, 131072), (bases[1], bases[1], 4096)] and bases[1] >= 1 << 35
    assert cell.images[-2:] == [(0x70000000, INMATE), (0x70001000, b"a=1 b\0")]


@pytest.mark.parametrize("state, failed, code, reason", [("shut down", (), 0, "guest-shutdown"), ("failed", (1,), 1, "failed")])
def test_an_end_is_seen_and_its_reason_told(host, hypervisor, state, failed, code, reason):
    client = host.client()
    client.put("a", spec(host)).expect(201)
    client.start("a").expect(200)
    hypervisor.ends(only(hypervisor).name, state, failed)
    ended = client.wait("a").expect(200).json["exit"]
    assert (ended["code"], ended["reason"]) == (code, reason)
    assert not failed or "CPUs 1" in ended["detail"]
    assert hypervisor.cells == {} and hypervisor.calls[-1] == DESTROY


@pytest.mark.parametrize("change, status, where", [
    ({"boot": {"kernel": {"path": "INMATE", "at": "0x1000"}}}, 501, "/spec/boot"), ({"boot": {}}, 422, "/spec/boot/inmate"), ({"boot": {"kernel": "INMATE"}}, 422, "/spec/boot/kernel"), ({"memory": [{"size": 4096, "colors": "0x1"}]}, 501, "/spec/memory/0/colors"),
    ({"memory": [{"size": 64 << 20}]}, 409, "/spec/memory/0"), ({"cpus": {"set": "0"}}, 422, "/spec/cpus/set")])
def test_what_cannot_be_is_refused_before_anything_is_made(host, hypervisor, change, status, where):
    wanted = json.loads(json.dumps({**spec(host), **change}).replace("INMATE", str(host.dir / "inmate")))
    answer = host.client().put("a", wanted)
    assert (answer.status, answer.pointers) == (status, [where])
    assert hypervisor.calls == [] and hypervisor.cells == {}


def test_a_cell_that_the_driver_only_says_it_made_is_an_error(host, hypervisor):
    hypervisor.arch = 1
    answer = host.client().put("a", spec(host))
    assert answer.status == 502 and "another architecture" in answer.json["detail"]
    assert host.client().get("/v1/containers").json["items"] == []


def test_a_forced_delete_does_not_overtake_the_create(host, hypervisor):
    """Else it would find no cell, and free what the cell has a second later."""
    hypervisor.delay[CREATE] = 2
    creating = Background(host.client().put, "a", spec(host))
    eventually(lambda: CREATE in hypervisor.received, "the create at the hypervisor")
    client = host.client()
    client.delete("a", force=True).expect(204)
    assert hypervisor.calls == [CREATE, LOAD, DESTROY] or hypervisor.calls == [CREATE, DESTROY], hypervisor.calls
    assert hypervisor.cells == {} and not host.leftovers(client)["records"]
    assert creating.result().status == 409


def test_a_slow_hypervisor_delays_no_read(host, hypervisor):
    hypervisor.delay[CREATE] = 1
    client = host.client()
    put = Background(host.client().put, "a", spec(host))
    eventually(lambda: client.container("a").status == 200)
    for _ in range(50):
        assert client.container("a").json["state"] == "creating"
        if put.done():
            break
    assert put.result().status == 201
    check_loop(client)


def test_a_restart_of_phid_disturbs_no_cell(host, hypervisor):
    client = host.client()
    for name in ("runs", "waits", "ends", "goes"):
        client.put(name, spec(host)).expect(201)
    for name in ("runs", "ends", "goes"):
        client.start(name).expect(200)
    cells = {c["id"]: c["cell"]["name"] for c in client.containers()}
    calls = len(hypervisor.calls)
    client.close()
    host.kill9()
    hypervisor.ends(cells["ends"], "failed", [2])
    hypervisor._destroy(next(i for i, c in hypervisor.cells.items() if c.name == cells["goes"]).to_bytes(4, "little"))
    host.start()
    assert client.wait("ends").expect(200).json["exit"]["reason"] == "failed"
    assert client.wait("goes").expect(200).json["exit"]["reason"] == "lost"
    assert {n: client.container(n).json["state"] for n in ("runs", "waits")} == {"runs": "running", "waits": "created"}
    assert not {CREATE, LOAD, START} & set(hypervisor.calls[calls:])
    hypervisor.ends(cells["runs"])
    assert client.wait("runs").expect(200).json["exit"]["reason"] == "guest-shutdown", "it is looked at again"
    client.start("waits").expect(200)


def test_cells_of_others_are_seen_and_their_cpus_not_granted(hypervisor):
    header = bytearray(132)
    header[:8] = b"JHCLL\2\x0e\0"
    header[8:15] = b"foreign"
    header[0x30:0x38] = (8).to_bytes(4, "little") + bytes(4)
    assert hypervisor._create(bytes(header) + (0b11000).to_bytes(8, "little")) == 0
    platform = {"format": "phid-platform/1", "cpus": {"ids": "0-7", "host": "0"}, "memory": POOLS, "backends": {"jailhouse": hypervisor.platform()}}
    with Phid(backends=("jailhouse",), platform=platform) as phid:
        (phid.dir / "inmate").write_bytes(INMATE)
        client = phid.client()
        eventually(lambda: [c["state"] for c in client.get("/v1/allocations").json["cpus"]].count("observed") == 2)
        client.put("a", spec(phid, cpus={"set": "3"})).expect(409, "no-resources")
        client.put("a", spec(phid, cpus={"count": 5})).expect(201)
        client.delete("a", force=True).expect(204)
        assert [c.name for c in hypervisor.cells.values()] == ["foreign"]


def test_not_enabled_is_said_with_what_to_do(hypervisor):
    hypervisor.enable(False)
    platform = {"format": "phid-platform/1", "memory": POOLS, "backends": {"jailhouse": hypervisor.platform()}}
    with Phid(backends=("jailhouse",), platform=platform) as phid:
        (phid.dir / "inmate").write_bytes(INMATE)
        answer = phid.client().put("a", spec(phid))
        assert answer.status == 501 and "not enabled" in answer.json["detail"]


def test_32_creates_at_once_get_each_unit_once(host, hypervisor):
    puts = [Background(host.client().put, f"c{n}", spec(host)) for n in range(32)]
    answers = [p.result() for p in puts]
    assert sorted(a.status for a in answers) == [201] * 7 + [409] * 25
    assert all(a.json["blockers"] for a in answers if a.status == 409)
    cells = list(hypervisor.cells.values())
    assert sum(len(c.cpus) for c in cells) == len(set().union(*(c.cpus for c in cells))) == 7
    ranges = sorted(c.memory[0][0] for c in cells)
    assert all(b - a >= 65536 for a, b in zip(ranges, ranges[1:]))


def test_runphi_and_the_keeper(host, hypervisor, runphi_dir):
    r = Runphi(host, runphi_dir)
    bundle = r.bundle("b", {"inmate": "boot/guest.elf", "net": "none", "vcpus": 2, "memory": 1, "starting_vaddress": "0x70000000"})
    (r.dir / "b/rootfs/boot/guest.elf").write_bytes(INMATE)
    out = r.dir / "out"
    with open(out, "w") as f:
        run = subprocess.Popen(r.argv("run", "-b", bundle, "rt"), env=r.env, stdin=subprocess.DEVNULL, stdout=f)
    eventually(lambda: hypervisor.cells and only(hypervisor).state == "running")
    assert only(hypervisor).images[-1][0] == 0x70000000 and len(only(hypervisor).cpus) == 2
    eventually(lambda: r.state("rt")["status"] == "running")  # phid looks at it after the hypervisor has
    assert r.state("rt")["pid"] > 0
    hypervisor.ends(only(hypervisor).name)
    assert run.wait(30) == 0
    assert "no console" in out.read_text() and hypervisor.cells == {}


# ---- phictl host: on and off, by the operator ----

def phictl_host(phid, *args):
    done = subprocess.run([str(build_dir() / "client/phictl"), "--host", f"unix:{phid.socket}", "--platform", str(phid.dir / "platform.json"), "host", *args],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def with_root(phid, hypervisor, **more):
    """The platform file with a root cell."""
    (phid.dir / "root.cell").write_bytes(root_cell(range(8)))
    platform = json.loads((phid.dir / "platform.json").read_text())
    platform["backends"]["jailhouse"] = hypervisor.platform(root_cell=str(phid.dir / "root.cell"), **more)
    (phid.dir / "platform.json").write_text(json.dumps(platform))


def test_disable_ends_cells_only_by_force_and_their_containers_hear_of_it(host, hypervisor):
    client = host.client()
    client.put("a", spec(host)).expect(201)
    client.start("a").expect(200)
    status, out = phictl_host(host, "disable")
    assert status == 6 and only(hypervisor).name in out and hypervisor.enabled
    assert phictl_host(host, "disable", "--force") == (0, "")
    assert not hypervisor.enabled and hypervisor.cells == {}
    assert client.container("a").json["exit"]["reason"] == "killed"
    assert phictl_host(host, "disable") == (0, ""), "off already"


def test_enable_by_the_operator_and_at_boot_where_the_platform_says_so(host, hypervisor):
    phictl_host(host, "disable")
    status, out = phictl_host(host, "enable")
    assert status == 2 and "names no root cell" in out
    with_root(host, hypervisor)
    assert phictl_host(host, "enable", "--at-boot") == (0, "") and not hypervisor.enabled
    assert phictl_host(host, "enable") == (0, "") and hypervisor.enabled
    assert phictl_host(host, "enable") == (0, "Jailhouse is enabled already\n")
    phictl_host(host, "disable")
    with_root(host, hypervisor, host_enable=True)
    assert phictl_host(host, "enable", "--at-boot") == (0, "") and hypervisor.enabled
    phictl_host(host, "disable")
    (host.dir / "root.cell").write_bytes(b"JHSYS\2\x0e\0")
    status, out = phictl_host(host, "enable")
    assert status == 2 and "too short" in out and not hypervisor.enabled


def test_disable_needs_no_phid(host, hypervisor):
    host.client().put("a", spec(host)).expect(201)
    host.kill9()
    assert phictl_host(host, "disable", "--force") == (0, "") and hypervisor.cells == {}
    host.start()
    assert host.client().wait("a").expect(200).json["exit"]["reason"] == "lost"


def test_the_doctor_says_what_is_wrong_and_what_to_do(host, hypervisor):
    def doctor():
        done = subprocess.run([str(build_dir() / "client/phictl"), "--host", f"unix:{host.socket}", "doctor"], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout

    checks = {c["name"]: c for c in host.client().get("/v1/host").expect(200).json["checks"]}
    assert checks["jailhouse-gicv2"]["ok"], "it is a GICv3"
    status, out = doctor()
    assert "ok   backend jailhouse" in out and (status == 1) == ("\nNO" in out) == any(not c["ok"] for c in checks.values())
    for c in checks.values():
        assert c["ok"] or c["remedy"] in out
    platform = json.loads((host.dir / "platform.json").read_text())
    host.stop()
    hypervisor.enable(False)
    host.platform = {**platform, "interrupts": {"controller": "gicv2", "base": "0x8000000"}}
    host.start()
    status, out = doctor()
    assert status == 1 and "NO   backend jailhouse" in out and "not enabled" in out and "NO_TTWU_QUEUE" in out
