"""What a bundle says its cell gets (annotations, linux.resources, mounts), and what clients ask of it later: update, events."""
import json
import subprocess

import pytest
from test_runphi import SIM, qemu, runphi  # noqa: F401 (fixtures)

POD = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "plc"}
OPEN = {"format": "phid-boot/1", "backend": "sim"}  # an image that says nothing of CPUs and memory


def made(runphi, client, boot, config):
    runphi.good("create", "-b", runphi.bundle("b", boot, config), "one")
    container, = client.get("/v1/containers").json["items"]
    return container


@pytest.mark.parametrize("annotations, cpus, memory", [
    ({}, 1, 64 << 20),
    ({"org.runphi.cpus.count": "2", "org.runphi.memory": "32M"}, 2, 32 << 20),
    (dict(POD, **{"org.runphi.container.plc.cpus.count": "3", "org.runphi.cpus.count": "2", "org.runphi.container.web.memory": "1M"}), 3, 64 << 20),
], ids=["none", "plain", "in a pod"])
def test_annotations_say_what_the_cell_gets(runphi, client, annotations, cpus, memory):
    container = made(runphi, client, OPEN, {"annotations": annotations})
    assert len(container["cell"]["cpus"]) == cpus and [m["size"] for m in container["cell"]["memory"]] == [memory]
    assert container["annotations"] == annotations


@pytest.mark.parametrize("annotation, value", [("org.runphi.cpus", "2"), ("org.runphi.cpus.count", "none"), ("org.runphi.memory", "3"),
                                               ("org.runphi.health", "{}"), ("org.runphi.container.plc.cpus.count", "1")])
def test_a_wrong_annotation_is_refused_by_name_and_leaves_nothing(runphi, client, annotation, value):
    status, _, err = runphi("create", "-b", runphi.bundle("b", OPEN, {"annotations": {annotation: value}}), "one")
    assert status == 1 and annotation in err
    assert runphi.markers() == [] and client.get("/v1/containers").json["items"] == []


def test_annotations_alone_can_say_what_boots(runphi, client):
    bundle = runphi.bundle("b", OPEN, {"annotations": {"org.runphi.runtime": "runphi", "org.runphi.boot.kernel": "/boot/k",
                                                       "org.runphi.backend": "sim"}})
    (runphi.dir / "b/rootfs/boot/config.json").unlink()
    (runphi.dir / "b/rootfs/boot/k").write_text("a kernel")
    runphi.good("create", "-b", bundle, "one")
    assert client.get("/v1/containers").json["items"][0]["payload"][0]["path"] == "/boot/k"


@pytest.mark.parametrize("resources, annotations, cpus, memory", [
    ({"cpu": {"cpus": "1,3"}, "memory": {"limit": 33554432}}, {}, [1, 3], 32 << 20),
    ({"cpu": {"quota": 150000, "period": 100000}}, {}, 2, 64 << 20),
    ({"cpu": {"cpus": "1,3", "quota": 300000, "shares": 512}}, POD, 1, 64 << 20),
], ids=["a set", "a quota", "in a pod"])
def test_limits_of_the_bundle_say_what_nobody_else_said(runphi, client, resources, annotations, cpus, memory):
    cell = made(runphi, client, OPEN, {"linux": {"resources": resources}, "annotations": annotations})["cell"]
    assert (cell["cpus"] == cpus if isinstance(cpus, list) else len(cell["cpus"]) == cpus)
    assert cell["memory"][0]["size"] == memory


def test_huge_pages_are_refused_by_name(runphi):
    limits = [{"pageSize": "2MB", "limit": 2097152}]
    status, _, err = runphi("create", "-b", runphi.bundle("b", OPEN, {"linux": {"resources": {"hugepageLimits": limits}}}), "one")
    assert status == 1 and "/linux/resources/hugepageLimits/0" in err


def test_a_mount_that_no_cell_can_have_is_refused_and_the_usual_ones_are_not(runphi):
    usual = [{"destination": d} for d in ("/proc", "/dev", "/dev/pts", "/sys/fs/cgroup", "/etc/hosts", "/run/secrets/x")]
    usual.append({"destination": "/run", "type": "tmpfs", "source": "tmpfs"})
    status, _, err = runphi("create", "-b", runphi.bundle("b", OPEN, {"mounts": [*usual, {"destination": "/data", "source": "/srv"}]}), "one")
    assert status == 1 and f"/mounts/{len(usual)}" in err and "/data" in err and runphi.markers() == []
    runphi.good("create", "-b", runphi.bundle("c", OPEN, {"mounts": usual}), "one")


# ---- update ----

HAS = {"cpu": {"cpus": "1,3", "shares": 512}, "memory": {"limit": 33554432}, "pids": {"limit": 100}}


def update(runphi, resources, *flags):
    done = subprocess.run([*runphi.argv("update"), "--resources", "-", *flags, "one"], input=json.dumps(resources), text=True,
                          capture_output=True, env=runphi.env, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("resources", [{}, HAS, {"cpu": {"cpus": "1,3"}}, {"cpu": {"quota": 200000, "period": 100000}},
                                       {"memory": {"limit": 33554432, "swap": 33554432}}, {"memory": {"limit": 0, "swap": -1}, "blockIO": {"weight": 0}},
                                       {"devices": [{"allow": False, "access": "rwm"}]}],
                         ids=["nothing", "as in the bundle", "its CPUs", "as many CPUs", "its memory", "zeros", "devices"])
def test_an_update_that_changes_nothing_is_done(runphi, client, resources):
    made(runphi, client, OPEN, {"linux": {"resources": HAS}})
    assert update(runphi, resources) == (0, "")


@pytest.mark.parametrize("resources, where", [({"cpu": {"cpus": "1-3"}}, "/cpu/cpus"), ({"cpu": {"shares": 2}}, "/cpu/shares"),
                                              ({"cpu": {"quota": 300000}}, "/cpu/quota"), ({"memory": {"limit": 67108864}}, "/memory/limit"),
                                              ({"memory": {"swap": 67108864}}, "/memory/swap"), ({"pids": {"limit": 5}}, "/pids/limit"),
                                              ({"hugepageLimits": [{"limit": 1}]}, "/hugepageLimits"), ({"cpu": {"cpus": "x"}}, "/cpu/cpus"), ([], "/resources")])
def test_an_update_that_would_change_something_is_refused_by_name(runphi, client, resources, where):
    before = made(runphi, client, OPEN, {"linux": {"resources": HAS}})
    status, err = update(runphi, resources)
    assert status == 1 and where in err
    after, = client.get("/v1/containers").json["items"]
    assert (after["cell"], after["generation"]) == (before["cell"], before["generation"])


def test_the_kubelet_s_shares_and_cpusets_change_nothing(runphi, client):
    made(runphi, client, OPEN, {"annotations": POD})
    assert update(runphi, {"cpu": {"cpus": "0-2", "shares": 2, "quota": 900000, "period": 100000}, "devices": [{"allow": False}]}) == (0, "")
    status, err = update(runphi, {"memory": {"limit": 4096}})
    assert status == 1 and "/memory/limit" in err and "67108864 bytes" in err


def test_update_by_flags_and_from_a_file(runphi, client):
    made(runphi, client, OPEN, {"linux": {"resources": HAS}})
    runphi.good("update", "--memory", "32M", "--cpuset-cpus=1,3", "--cpu-share", "512", "one")
    for flag, value, where in (("--memory", "64m", "/memory/limit"), ("--pids-limit", "7", "/pids/limit"), ("--memory", "lots", "/memory/limit"),
                               ("--l3-cache-schema", "x", "/intelRdt/l3CacheSchema")):
        status, _, err = runphi("update", flag, value, "one")
        assert status == 1 and where in err, flag
    wanted = runphi.dir / "wanted"
    wanted.write_text(json.dumps({"cpu": {"cpus": "1"}}))
    status, _, err = runphi("update", f"--resources={wanted}", "one")
    assert status == 1 and "it has 1,3" in err
    assert runphi("update", "-r", "/nowhere", "one")[0] == 1


def test_an_update_of_a_stopped_cell_is_refused(runphi):
    runphi.good("create", "-b", runphi.bundle("b", SIM), "one")
    runphi.good("kill", "one", "KILL")
    status, _, err = runphi("update", "--memory", "1M", "one")
    assert status == 1 and "container not running" in err


# ---- events, statistics ----

@pytest.fixture
def guest(qemu):  # noqa: F811
    """A real one that runs."""
    name = f"guest{len(list(qemu.dir.iterdir()))}"
    qemu.good("create", "-b", qemu.bundle(name, {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": "count 10"},
                                                 "memory": [{"size": "16M"}]}), "one")
    qemu.good("start", "one")
    yield
    qemu.good("delete", "--force", "one")


def test_events_are_the_real_numbers_of_the_cell(qemu, guest):  # noqa: F811
    first, second = (json.loads(qemu.good("events", "--stats", "one")) for _ in range(2))
    assert first["type"] == "stats" and first["id"] == "one"
    assert 0 < first["data"]["cpu"]["usage"]["total"] <= second["data"]["cpu"]["usage"]["total"]
    usage = first["data"]["memory"]["usage"]
    container, = qemu.phid.client().get("/v1/containers").json["items"]
    assert usage["limit"] == 16 << 20
    with open(f"/proc/{container['cell']['pid']}/status") as f:
        resident = next(int(line.split()[1]) << 10 for line in f if line.startswith("VmRSS"))
    assert abs(usage["usage"] - resident) < resident / 2 and first["data"]["pids"]["current"] > 1


def test_events_come_at_each_interval_until_the_end(qemu, guest):  # noqa: F811
    events = subprocess.Popen([*qemu.argv("events"), "--interval", "20ms", "one"], stdout=subprocess.PIPE, text=True, env=qemu.env)
    lines = [json.loads(events.stdout.readline()) for _ in range(3)]
    assert all(line["type"] == "stats" for line in lines)
    qemu.good("kill", "one", "KILL")
    events.stdout.read()
    assert events.wait(20) == 0
    status, _, err = qemu("events", "--stats", "one")
    assert status == 1 and "container not running" in err


@pytest.mark.parametrize("interval", ["5", "0s", "-1s", "x", "25h", ""])
def test_a_wrong_interval_is_refused(runphi, interval):
    runphi.good("create", "-b", runphi.bundle("b", SIM), "one")
    status, _, err = runphi("events", f"--interval={interval}", "one")
    assert status == 1 and "/interval" in err


def test_the_stand_in_measures_nothing_and_says_so(runphi, client):
    container = made(runphi, client, SIM, {})
    answer = client.get(f"/v1/containers/{container['id']}/stats")
    assert answer.status == 501 and answer.json["code"] == "unsupported"
    status, _, err = runphi("events", "--stats", "one")
    assert status == 1 and "measures nothing" in err
