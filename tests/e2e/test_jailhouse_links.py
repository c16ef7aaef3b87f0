"""Links, consoles, devices that come from Linux and remote processors of Jailhouse cells, against the stand-ins (phidtest/jailhouse.py,
phidtest/linux_device.py)."""
import json
import os
import pty
import struct
import subprocess
import tempfile

import pytest
from conftest import Background, eventually
from phidtest.daemon import Phid, build_dir
from phidtest.jailhouse import CREATE, LOAD as LOADS, START, Jailhouse
from phidtest.linux_device import Device

INMATE, FIRMWARE = b"an inmate " * 100, b"\x7fELF of an R5 " * 50
R, W, X, DMA, LOAD, SHARED = 1, 2, 4, 8, 0x40, 0x80
GIC = {"controller": "gicv3", "base": "0x8000000", "virtual": [{"spi": s} for s in (100, 104, 108)]}
LINKS = {"memory": "links", "domain": 1, "host_slots": [{"slot": 3, "base": "0x7e000000", "output": "508K", "peers": 2, "protocol": "network"}]}
POOLS = [{"name": "ddr", "kind": "carveout", "base": "0x70000000", "size": "16M"}, {"name": "links", "kind": "carveout", "base": "0x7f000000", "size": "192K"}]


@pytest.fixture
def hypervisor(request):
    jh = Jailhouse(tempfile.mkdtemp(prefix="phid-jh-", dir="/tmp"), **getattr(request, "param", {}))
    yield jh
    jh.close()


@pytest.fixture
def device(tmp_path):
    d = Device(tmp_path / "sys")
    yield d
    d.close()


def boards(hypervisor, **more):
    return {"format": "phid-platform/1", "cpus": {"ids": "0-7", "host": "0"}, "memory": POOLS, "interrupts": GIC, "links": LINKS,
            "backends": {"jailhouse": hypervisor.platform()}, **more}


def start(platform, **more):
    phid = Phid(backends=("jailhouse",), platform=platform, **more)
    phid.start()
    (phid.dir / "inmate").write_bytes(INMATE)
    (phid.dir / "r5.elf").write_bytes(FIRMWARE)
    return phid


@pytest.fixture
def host(hypervisor):
    phid = start(boards(hypervisor))
    yield phid
    phid.close()


def spec(phid, **more):
    return {"boot": {"inmate": str(phid.dir / "inmate")}, "cpus": {"count": 1}, "memory": [{"size": 65536}], **more}


def shown(cell):
    done = subprocess.run([str(build_dir() / "client/phictl"), "cell", "show", "--json", "/dev/stdin"], input=cell.config, capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout)


def cell_of(hypervisor, container):
    return next(c for c in hypervisor.cells.values() if c.name == container["cell"]["name"])


# ---- links ----

def test_two_cells_with_a_link_one_destroyed_and_made_again(host, hypervisor):
    client, link = host.client(), {"links": [{"name": "bus", "size": 65536}]}
    a = client.put("a", spec(host, **link)).expect(201).json
    b = client.put("b", spec(host, **link)).expect(201).json
    (la,), (lb,) = a["cell"]["links"], b["cell"]["links"]
    assert (la["name"], la["id"], lb["id"]) == ("bus", 0, 1) and (la["slot"], la["base"], la["size"]) == (lb["slot"], lb["base"], lb["size"]) == (0, "0x7f000000", 65536)
    assert a["cell"]["irqs"] == [132, 133, 134, 135] and b["cell"]["irqs"] == [136, 137, 138, 139]
    for container, own in ((a, 0), (b, 1)):
        sections = [m for m in cell_of(hypervisor, container).memory if m[0] >> 20 == 0x7f0]
        assert [(m[0], m[2]) for m in sections] == [(0x7f000000, 0x1000), (0x7f001000, 0x7000), (0x7f008000, 0x4000), (0x7f00c000, 0x4000)]
        assert [m[3] for m in sections] == [R | SHARED, R | W | SHARED, *(R | SHARED | (W | LOAD if i == own else 0) for i in range(2))]
        assert all(m[0] == m[1] for m in sections)
        document = shown(cell_of(hypervisor, container))
        pci, = document["pci"]
        assert (pci["type"], pci["domain"], pci["bdf"], pci["shmem_id"], pci["shmem_peers"], pci["shmem_protocol"]) == (3, "0x1", "0x0", own, 2, "0x0")
        assert document["memory"][pci["shmem_start"]]["phys"] == "0x7f000000"
        assert document["vpci_irq_base"] == container["cell"]["irqs"][0] - 32
        assert document["irqchips"][0]["pins"] == f"{container['cell']['irqs'][0]}-{container['cell']['irqs'][3]}"
    # the link was cleared before its first end was made, each own part at each end's making
    first = hypervisor.created[0]
    assert first.name == a["cell"]["name"] and first.images == [(0x7f000000, bytes(65536))] and first.memory[0][3] == R | W | LOAD
    assert len(hypervisor.created) == 3, "the second end clears no more than its own"
    assert (0x7f00c000, bytes(0x4000)) in cell_of(hypervisor, b).images and not any(at == 0x7f000000 for at, _ in cell_of(hypervisor, b).images)
    assert client.get("/v1/links/bus").expect(200).json["ends"] == [{"id": 0, "owner": "a", "state": "granted"}, {"id": 1, "owner": "b", "state": "granted"}]
    client.start("a").expect(200)
    client.start("b").expect(200)
    client.delete("a", force=True).expect(204)
    link_now = client.get("/v1/allocations").expect(200).json["links"][0]
    assert link_now["ends"] == [{"id": 1, "owner": "b", "state": "granted"}] and link_now["base"] == "0x7f000000"
    assert cell_of(hypervisor, b).state == "running"
    again = client.put("a", spec(host, **link)).expect(201).json["cell"]["links"][0]
    assert (again["id"], again["base"], again["slot"]) == (0, la["base"], la["slot"]) and len(hypervisor.created) == 4, "nothing of the link was cleared beside a's own part"
    client.delete("b", force=True).expect(204)
    client.delete("a", force=True).expect(204)
    assert client.get("/v1/links").expect(200).json["items"] == []
    client.get("/v1/links/bus").expect(404, "not-found")
    assert all(i["owner"] is None for i in client.get("/v1/allocations").json["irqs"])


def images_at(hypervisor, base):
    """The names of the cells that a load wrote all of a link through, in their order."""
    return [c.name for c in hypervisor.created if any(at == base for at, _ in c.images)]


BUS = {"links": [{"name": "bus", "size": 65536}]}


def two_at_a_link(phid, hypervisor, seconds):
    """The PUT of "a", whose create the hypervisor is at for so long, and that of "b", which is on record and waits for it."""
    hypervisor.delay[CREATE] = seconds
    first = Background(lambda: phid.client().put("a", spec(phid, **BUS)))
    eventually(lambda: CREATE in hypervisor.received, "the first create")
    second = Background(lambda: phid.client().put("b", spec(phid, **BUS)))
    eventually(lambda: phid.client().container("b").status == 200, "the second's record")
    return first, second


def test_a_cell_waits_for_the_one_that_clears_its_link(host, hypervisor):
    first, second = two_at_a_link(host, hypervisor, 1.5)
    a, b = first.result().expect(201).json, second.result().expect(201).json
    clearing, of_a, of_b = hypervisor.created
    assert clearing.name == of_a.name == a["cell"]["name"] and of_b.name == b["cell"]["name"]
    assert images_at(hypervisor, 0x7f000000) == [clearing.name] and clearing.config != of_a.config


@pytest.mark.parametrize("how", ["fails", "is deleted"])
def test_a_link_is_cleared_by_the_next_where_the_first_did_not_come_to_it(host, hypervisor, how):
    client = host.client()
    hypervisor.faults = 1  # what clears the link is not made
    first, second = two_at_a_link(host, hypervisor, 1.5)
    third = Background(lambda: host.client().put("c", spec(host, links=[{"name": "other", "size": 65536}])))  # of another link: it waits for none
    if how == "is deleted":
        client.delete("a", force=True).expect(204)
    assert first.result().status in ((502,) if how == "fails" else (409, 502))
    b = second.result().expect(201).json
    third.result().expect(201)
    assert b["cell"]["links"][0]["base"] == "0x7f000000" and b["cell"]["links"][0]["id"] == 1
    assert images_at(hypervisor, 0x7f000000) == [b["cell"]["name"]], "the second cleared it, as nobody else was there"
    client.container("a").expect(404)


def test_who_waits_at_a_link_can_be_deleted_and_waits_no_longer_than_for_an_action(hypervisor):
    phid = start(boards(hypervisor), args=["--action-timeout-ms", "1500"])
    try:
        client = phid.client()
        first, waiting = two_at_a_link(phid, hypervisor, 4)
        client.delete("b", force=True).expect(204)
        assert waiting.result().status == 409
        late = client.put("b", spec(phid, **BUS)).expect(504, "deadline")
        assert "another cell at its link was not made in time" in late.json["detail"]
        first.result().expect(504)
        eventually(lambda: len(hypervisor.calls) == len(hypervisor.received), "the hypervisor's answer")
    finally:
        phid.close()


def test_links_outlive_phid_and_are_held_while_a_cell_may_be_there(host, hypervisor):
    client = host.client()
    client.put("a", spec(host, links=[{"name": "x", "size": 16384}, {"name": "y", "size": 16384, "protocol": "network", "peers": 3, "role": 2}])).expect(201)
    client.start("a").expect(200)
    before = client.get("/v1/links").json
    client.close()
    host.kill9()
    host.start()
    assert client.get("/v1/links").json == before and [(x["name"], x["slot"]) for x in before["items"]] == [("x", 0), ("y", 1)]
    client.put("b", spec(host, links=[{"name": "y", "size": 16384, "protocol": "network"}])).expect(201)
    assert client.get("/v1/links/y").json["ends"][0] == {"id": 0, "owner": "b", "state": "granted"}
    hypervisor.ends(cell_of(hypervisor, client.container("a").json).name)
    client.wait("a").expect(200)
    assert [x["name"] for x in client.get("/v1/links").json["items"]] == ["y"]


@pytest.mark.parametrize("link, status, word", [
    ({"name": "bus", "size": 32768}, 422, "65536 bytes"), ({"name": "bus", "size": 65536, "protocol": "network"}, 422, "protocol raw"),
    ({"name": "bus", "size": 65536, "peers": 3}, 422, "2 peers"), ({"name": "bus", "size": 65536, "role": 0}, 409, "taken"), ({"name": "bus", "host": True}, 422, "without the host"),
    ({"name": "new", "size": 1 << 20}, 409, "memory in one piece"), ({"name": "new", "size": 16384, "peers": 8}, 422, "do not fit"),
    ({"name": "new", "host": True, "protocol": "raw"}, 422, "no end of such a link"), ({"name": "new", "host": True, "protocol": "network", "role": 0}, 422, "the host's"),
    ({"name": "new"}, 422, "no link \"new\" yet"), ({"name": "new", "size": 16384, "role": 2}, 422, "role")])
def test_what_does_not_fit_a_link_is_refused_with_who_has_it(host, hypervisor, link, status, word):
    client = host.client()
    client.put("a", spec(host, links=[{"name": "bus", "size": 65536}])).expect(201)
    n = len(hypervisor.created)
    answer = client.put("b", spec(host, links=[link])).expect(status)
    assert word in answer.json["detail"] and len(hypervisor.created) == n
    if status == 409:
        assert {b["owner"] for b in answer.json["blockers"]} == {"a"} and "links" in answer.json["wanted"]


def test_the_interrupts_of_virtual_buses_are_units_too(host):
    client = host.client()
    for i in range(3):
        client.put(f"c{i}", spec(host, links=[{"name": f"l{i}", "size": 16384}])).expect(201)
    answer = client.put("c3", spec(host, links=[{"name": "l0", "size": 16384}])).expect(409, "no-resources").json
    assert answer["blockers"] == [{"unit": f"irqs {132 + 4 * i} to {135 + 4 * i}", "owner": f"c{i}"} for i in range(3)]
    client.delete("c1", force=True).expect(204)
    assert client.put("c3", spec(host, links=[{"name": "l0", "size": 16384}])).expect(201).json["cell"]["irqs"] == [136, 137, 138, 139]


def test_a_network_with_the_host_has_the_hosts_memory_and_is_not_cleared(host, hypervisor):
    client = host.client()
    made = client.put("a", spec(host, links=[{"name": "net", "host": True, "protocol": "network"}])).expect(201).json
    link, = made["cell"]["links"]
    assert (link["slot"], link["id"], link["base"], link["size"]) == (3, 1, "0x7e000000", 0xff000)
    cell = cell_of(hypervisor, made)
    assert [(m[0], m[2], m[3]) for m in cell.memory if m[0] >> 24 == 0x7e or m[2] == 0][:4] == [
        (0x7e000000, 0x1000, R | SHARED), (0, 0, 0), (0x7e001000, 0x7f000, R | SHARED), (0x7e080000, 0x7f000, R | SHARED | W | LOAD)]
    assert len(hypervisor.created) == 1 and [at for at, _ in cell.images] == [0, 0x7e080000, 0]
    refused = client.put("b", spec(host, links=[{"name": "other", "host": True, "protocol": "network"}])).expect(409, "no-resources").json
    assert refused["blockers"] == [{"unit": "link net", "owner": "a"}]


def test_many_ask_for_links_at_once_and_no_slot_or_end_is_given_twice(host, hypervisor):
    puts = [Background(host.client().put, f"c{n}", spec(host, links=[{"name": f"l{n % 2}", "size": 32768}])) for n in range(16)]
    answers = [p.result() for p in puts]
    assert sorted(a.status for a in answers) == [201] * 3 + [409] * 13, "there are three virtual buses"
    links = host.client().get("/v1/links").json["items"]
    assert sum(len(x["ends"]) for x in links) == 3 and all(len({e["id"] for e in x["ends"]}) == len(x["ends"]) for x in links)
    assert len({x["slot"] for x in links}) == len({x["base"] for x in links}) == len(links)


# ---- consoles ----

def with_device(hypervisor, **device):
    return boards(hypervisor, devices=[{"name": "uart0", "kind": "uart", "type": "pl011", "mmio": [{"base": "0x9000000", "size": 4096}], "irqs": [{"spi": 1}],
                                        "host": {"handover": "none"}, **device}])


def test_the_other_end_of_an_uarts_line_is_the_console_in_both_directions(hypervisor):
    board, line = pty.openpty()
    phid = start(with_device(hypervisor, host={"handover": "none", "tty": os.ttyname(line)}))
    try:
        client = phid.client()
        client.put("a", spec(phid, devices=[{"kind": "uart"}])).expect(201)
        client.start("a").expect(200)
        os.write(board, b"hello from the cell\r\n")
        eventually(lambda: client.get("/v1/containers/a/console").body == b"hello from the cell\r\n")
        client.close()
        phid.kill9()
        os.write(board, b"and without phid\r\n")
        phid.start()
        eventually(lambda: client.get("/v1/containers/a/console").body.endswith(b"and without phid\r\n"))
        attach = subprocess.Popen([str(build_dir() / "client/phictl"), "--host", f"unix:{phid.socket}", "attach", "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        attach.stdin.write(b"go\n")
        attach.stdin.flush()
        came = b""
        while len(came) < 3:
            came += os.read(board, 100)
        assert came == b"go\n"
        client.kill("a", "KILL").expect(200)
        attach.communicate(timeout=30)
    finally:
        phid.close()
        os.close(board)
        os.close(line)


def test_a_tty_that_is_not_there_is_an_error_before_a_cell_is_made(hypervisor):
    phid = start(with_device(hypervisor, host={"handover": "none", "tty": "/dev/nobody"}))
    try:
        answer = phid.client().put("a", spec(phid, devices=[{"kind": "uart"}])).expect(502, "backend")
        assert "/dev/nobody" in answer.json["detail"] and hypervisor.created == []
    finally:
        phid.close()


def test_the_hypervisors_console_is_one_cells(hypervisor):
    phid = start(boards(hypervisor, devices=[{"name": "hvc", "kind": "console", "type": "jailhouse", "host": {"handover": "absent"}}]))
    try:
        client = phid.client()
        hypervisor.prints(b"of another cell\n")
        made = client.put("a", spec(phid, devices=[{"kind": "console"}])).expect(201).json
        assert struct.unpack_from("<I", cell_of(hypervisor, made).config, 0x2c)[0] == 0xc0000001
        refused = client.put("b", spec(phid, devices=[{"kind": "console"}])).expect(409, "no-resources").json
        assert refused["blockers"] == [{"unit": "device hvc", "owner": "a"}]
        client.start("a").expect(200)
        hypervisor.prints(b"one\n")
        eventually(lambda: client.get("/v1/containers/a/console").body == b"one\n")
        client.close()
        phid.kill9()
        hypervisor.prints(b"two\n")
        phid.start()
        eventually(lambda: b"two\n" in client.get("/v1/containers/a/console").body)
        assert b"phid was started anew" in client.get("/v1/containers/a/console").body
        hypervisor.prints(b"last words\n")
        hypervisor.ends(cell_of(hypervisor, made).name)
        client.wait("a").expect(200)
        assert client.get("/v1/containers/a/console").body.endswith(b"last words\n")
    finally:
        phid.close()


# ---- devices of Linux ----

def can(device, **more):
    return {"name": "can0", "kind": "can", "mmio": [{"base": "0x4002000", "size": 4096}], "host": {"handover": "unbind", "sysfs": str(device.sysfs)}, **more}


def with_can(hypervisor, device, tmp_path, **more):
    (tmp_path / "mem").touch()
    os.truncate(tmp_path / "mem", 0x4003000)
    platform = boards(hypervisor, devices=[can(device, **more)])
    platform["backends"]["jailhouse"] = hypervisor.platform(mem=str(tmp_path / "mem"))
    return platform


def test_a_device_changes_hands_whole(hypervisor, device, tmp_path):
    device.has_reset()
    phid = start(with_can(hypervisor, device, tmp_path, dma=True, stream_ids=[{"id": 0x870}, {"id": 0x871}],
                          safe_state=[{"address": "0x4002008", "value": "0x11223344", "width": 32}, {"address": "0x4002010", "value": "0xff", "width": 8}]))
    try:
        client = phid.client()
        made = client.put("a", spec(phid, devices=[{"name": "can0"}])).expect(201).json
        assert not device.bound() and device.override() == "phid" and device.log == ["unbind"]
        cell = cell_of(hypervisor, made)
        assert cell.memory[0][3] == R | W | X | DMA | LOAD and shown(cell)["stream_ids"] == [{"id": "0x870"}, {"id": "0x871"}]
        client.start("a").expect(200)
        client.kill("a", "KILL").expect(200)
        assert device.bound() and device.log == ["unbind", "reset", "probe"] and hypervisor.cells == {}
        registers = (tmp_path / "mem").read_bytes()[0x4002000:]
        assert registers[8:12] == bytes.fromhex("44332211") and registers[16:18] == b"\xff\0" and registers[:8] == bytes(8)
        assert client.container("a").json["state"] == "stopped"
    finally:
        phid.close()


def test_a_device_that_linux_does_not_let_go_fails_the_create_and_stays_linuxs(hypervisor, device, tmp_path):
    device.stuck = True
    phid = start(with_can(hypervisor, device, tmp_path))
    try:
        answer = phid.client().put("a", spec(phid, devices=[{"name": "can0"}])).expect(502, "backend")
        assert "does not let it go" in answer.json["detail"] and hypervisor.created == [] and device.bound()
        assert phid.client().containers() == [] and device.override() == "", "and is as it was"
    finally:
        phid.close()


def test_a_create_that_fails_gives_the_device_back(hypervisor, device, tmp_path):
    hypervisor.faults = 1
    phid = start(with_can(hypervisor, device, tmp_path))
    try:
        phid.client().put("a", spec(phid, devices=[{"name": "can0"}])).expect(502, "backend")
        assert device.bound() and phid.client().containers() == []
    finally:
        phid.close()


def test_a_device_that_no_driver_takes_back_is_quarantined_with_its_container(hypervisor, device, tmp_path):
    phid = start(with_can(hypervisor, device, tmp_path), args=("--action-timeout-ms", "4000"))
    try:
        client = phid.client()
        client.put("a", spec(phid, devices=[{"name": "can0"}])).expect(201)
        client.start("a").expect(200)
        device.refuses = True
        answer = client.kill("a", "KILL").expect(504, "deadline")
        assert "can0" in answer.json["detail"] and hypervisor.cells == {}
        vector = client.get("/v1/allocations").json
        assert vector["devices"][0]["state"] == "quarantined" and vector["devices"][0]["owners"] == ["a"]
        client.put("b", spec(phid, devices=[{"name": "can0"}])).expect(409, "no-resources")
        device.refuses = False
        client.delete("a", force=True).expect(204)
        assert device.bound() and client.get("/v1/allocations").json["devices"][0]["state"] == "free"
    finally:
        phid.close()


@pytest.mark.parametrize("created", [False, True], ids=["before the create", "while the driver creates"])
def test_phid_killed_before_the_cell_is_loaded_undoes_it_and_gives_the_device_back(hypervisor, device, tmp_path, created):
    hypervisor.delay[CREATE] = 1
    phid = start(with_can(hypervisor, device, tmp_path))
    try:
        put = Background(phid.client().put, "a", spec(phid, devices=[{"name": "can0"}]))
        eventually(lambda: CREATE in hypervisor.received if created else not device.bound())
        phid.kill9()
        with pytest.raises(Exception):
            put.result()
        if created:
            eventually(lambda: hypervisor.cells)  # the driver finishes what it was told; the cell has no inmate
        phid.start()
        eventually(lambda: phid.client().containers() == [])
        assert device.bound() and hypervisor.cells == {} and not {START, LOADS} & set(hypervisor.calls)
    finally:
        phid.close()


def test_devices_of_a_group_go_together(hypervisor):
    group = [{"name": f"t{i}", "kind": "timer", "group": "clock", "mmio": [{"base": hex(0x5003000 + 64 * i), "size": 64}], "host": {"handover": "absent"}} for i in range(2)]
    phid = start(boards(hypervisor, devices=[*group, {"name": "t9", "kind": "timer", "mmio": [{"base": "0x6000000", "size": 4096}], "host": {"handover": "absent"}}]))
    try:
        client = phid.client()
        assert client.put("a", spec(phid, devices=[{"name": "t1"}])).expect(201).json["cell"]["devices"] == ["t0", "t1"]
        assert client.put("b", spec(phid, devices=[{"kind": "timer"}])).expect(201).json["cell"]["devices"] == ["t9"]
        refused = client.put("c", spec(phid, devices=[{"name": "t0"}])).expect(409, "no-resources").json
        assert {b["unit"] for b in refused["blockers"]} == {"device t0", "device t1"}
    finally:
        phid.close()


# ---- remote processors ----

OMNIVISOR = {"flavour": "omnivisor-14", "rcpus": (0, 1)}
R5 = [{"name": f"r5-{i}", "id": i, "memory": [{"base": hex(0xffe00000 + 0x90000 * i), "size": "64K", "bank": "a"}, {"base": hex(0xffe20000 + 0x90000 * i), "size": "64K", "bank": "b"}]}
      for i in range(2)]


@pytest.mark.parametrize("hypervisor", [OMNIVISOR], indirect=True)
def test_remote_processors_with_their_firmware(hypervisor):
    (hypervisor.dir / "firmware").mkdir()
    platform = boards(hypervisor, remote_processors=R5)
    platform["backends"]["jailhouse"] = hypervisor.platform(firmware=str(hypervisor.dir / "firmware"))
    phid = start(platform)
    try:
        client = phid.client()
        wish = {"boot": {"firmware": str(phid.dir / "r5.elf")}, "remote_processors": {"count": 1}, "memory": [{"size": 65536}]}
        made = client.put("a", wish).expect(201).json
        assert made["cell"]["cpus"] == [] and made["cell"]["remote_processors"] == ["r5-0"] and made["payload"][0]["role"] == "firmware"
        cell = cell_of(hypervisor, made)
        assert cell.rcpus == {0} and cell.cpus == set() and hypervisor.root_rcpus == {1} and cell.firmware == {0: FIRMWARE}
        assert [(m[0], m[2], m[3]) for m in cell.memory if m[0] >> 20 == 0xffe] == [(0xffe00000, 0x10000, 0x1047), (0xffe20000, 0x10000, 0x2047)]
        client.start("a").expect(200)
        both = client.put("b", spec(phid, boot={"inmate": str(phid.dir / "inmate"), "firmware": str(phid.dir / "r5.elf")}, remote_processors={"names": ["r5-1"]})).expect(201).json
        assert both["cell"]["remote_processors"] == ["r5-1"] and cell_of(hypervisor, both).images[-1] == (0, INMATE)
        refused = client.put("c", wish).expect(409, "no-resources").json
        assert refused["blockers"] == [{"unit": "remote processor r5-0", "owner": "a"}, {"unit": "remote processor r5-1", "owner": "b"}]
        assert [(r["name"], r["owners"]) for r in client.get("/v1/allocations").json["remote_processors"]] == [("r5-0", ["a"]), ("r5-1", ["b"])]
        client.kill("a", "KILL").expect(200)
        client.delete("b", force=True).expect(204)
        assert hypervisor.root_rcpus == {0, 1} and list((hypervisor.dir / "firmware").iterdir()) == []
    finally:
        phid.close()


def test_remote_processors_that_cannot_be_are_refused(host):
    client, elf = host.client(), str(host.dir / "r5.elf")
    client.put("a", spec(host, boot={"firmware": elf}, remote_processors={"count": 1})).expect(501, "unsupported")
    assert client.containers() == []
