"""Each MUST of the runtime-spec and of its command-line document that applies to a cell has a test that names it: L1 to L18 of the
lifecycle in test_runtime_lifecycle.py; H hooks, C configuration, V the vm section, F features, I command line here; or ELSEWHERE."""
import fcntl
import json
import os
import pathlib
import re
import subprocess

import pytest
import test_forward
import test_runphi
import test_runphi_limits
import test_runphi_oci
import test_runtime_lifecycle
from conftest import eventually
from test_runphi import GUEST, SIM, qemu, run, runphi  # noqa: F401 (fixtures)
from test_runphi_oci import HOOKS, hook, hooks_seen
from test_runtime_lifecycle import host, record, refuses

ITEMS = {f"{letter}{n}" for letter, last in {"L": 18, "H": 7, "C": 9, "V": 6, "F": 2, "I": 3}.items() for n in range(1, last + 1)}

# Shown by tests of another subject.
ELSEWHERE = {
    "L6 what cannot be applied is an error, and there is no container":
        test_runphi_limits.test_a_wrong_annotation_is_refused_by_name_and_leaves_nothing,
    "L16 a warning changes nothing of what follows": test_runphi_oci.test_a_failing_poststop_hook_is_a_warning_and_the_rest_go_on,
    "H1 the kinds of hooks have an order": test_runphi_oci.test_hooks_run_in_order_with_the_state_of_that_moment,
    "H2 hooks of a kind run as listed": test_runphi_oci.test_hooks_run_in_order_with_the_state_of_that_moment,
    "H3 a hook reads the state of its moment": test_runphi_oci.test_hooks_run_in_order_with_the_state_of_that_moment,
    "H4 a path is absolute, a timeout above 0": test_runphi_oci.test_a_wrong_hook_is_refused_by_its_place,
    "H6 a hook of create that fails undoes it": test_runphi_oci.test_a_failing_hook_undoes_the_create,
    "H6 a hook of start that fails stops the container": test_runphi_oci.test_a_failing_hook_of_start_takes_the_container_away,
    "H7 a hook of poststop that fails is a warning": test_runphi_oci.test_a_failing_poststop_hook_is_a_warning_and_the_rest_go_on,
    "C5 mounts that no cell can have are refused":
        test_runphi_limits.test_a_mount_that_no_cell_can_have_is_refused_and_the_usual_ones_are_not,
    "I1 an unknown command fails": test_forward.test_what_runphi_says_of_itself_has_the_same_status,
    "I2 descriptors that are to be kept are": test_runphi_oci.test_what_leaked_into_create_is_closed_but_for_what_is_to_be_kept,
    "I3 a terminal goes to a socket's path, in one message":
        test_runphi_oci.test_a_terminal_carries_the_console_both_ways_over_a_restart_of_phid,
    "I3 kill takes names and numbers": test_runphi_oci.test_stop_and_cont_pause_and_resume,
}


def test_every_item_has_a_test():
    names = [*globals(), *vars(test_runtime_lifecycle)]
    shown = {m[1] for m in (re.match(r"test_([A-Z]\d+)_", name) for name in names) if m}
    assert shown | {what.split()[0] for what in ELSEWHERE} == ITEMS


@pytest.fixture
def strict(runphi):  # noqa: F811
    """The forwarded runtime is a program that always succeeds: what fails was not forwarded."""
    runphi.env["RUNPHI_RUNTIME"] = "/bin/true"
    return runphi


def rewrite(bundle, **members):
    """Members of config.json anew; None takes one away."""
    path = pathlib.Path(bundle, "config.json")
    config = {**json.loads(path.read_text()), **members}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refused(runphi, client, boot, config):  # noqa: F811
    """A create that fails, and leaves all as it was; answers why."""
    bundle = runphi.bundle(f"b{len(list(runphi.dir.iterdir()))}", boot)
    rewrite(bundle, **config)
    before = host(runphi, client)
    err = refuses(runphi, "create", "-b", bundle, "refused")
    eventually(lambda: host(runphi, client) == before, "the host as before")
    return err


# ---- hooks ----

def test_H4_args_and_env_are_those_of_execv(runphi):  # noqa: F811
    """args have the name first, env is all of the environment."""
    out = runphi.dir / "out"
    look = f'printf "%s|" "$0" "$@" >{out}; env | grep -v -e ^_ -e ^PWD >>{out}'
    program = {"path": "/bin/sh", "args": ["any name", "-c", look, "a", "b c"], "env": ["X=y z"]}
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": {"prestart": [program]}}), "one")
    assert out.read_text() == "a|b c|X=y z\n"


def test_H5_hooks_run_in_the_runtimes_namespaces(runphi):  # noqa: F811
    """A cell has none: so do those that a container's namespaces are for."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    out = runphi.dir / "out"
    look = f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done >>{out}"
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": {kind: [hook(runphi, kind, look)] for kind in HOOKS}}), "one")
    runphi.good("start", "one")
    runphi.good("delete", "--force", "one")
    assert out.read_text().split() == [os.readlink(f"/proc/self/ns/{n}") for n in kinds] * len(HOOKS)


# ---- configuration ----

@pytest.mark.parametrize("version", [None, "", "2.0.0", "0.5.0", "1", "1.x", "1.0.2.3", 1])
def test_C1_the_version_is_one_that_is_supported(strict, client, version):
    """Whoever asks for a cell in a version that is none, or not ours, gets neither a cell nor an ordinary container."""
    assert "/ociVersion" in refused(strict, client, SIM, {"ociVersion": version})


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0", "1.3.0"])
def test_C1_a_version_of_ours_is_taken(strict, version):
    """Any 1.x by SemVer: what is new in it are properties that C2 passes over."""
    bundle = strict.bundle("b", SIM)
    rewrite(bundle, ociVersion=version)
    strict.good("create", "-b", bundle, "one")
    assert strict.state("one")["status"] == "created"


def test_C2_what_nobody_knows_is_passed_over(strict):
    """Unknown properties, at the top or below, are no error."""
    strange = {"org.example.x": {"y": [1, None]}}
    config = {**strange, "linux": strange, "process": {"cwd": "/", **strange}, "hooks": {**strange, "poststop": []}, "vendor": None}
    strict.good("create", "-b", strict.bundle("b", SIM, config), "one")
    vm = {"kernel": {"path": str(GUEST), **strange}, "hwConfig": strange, **strange}
    strict.good("create", "-b", strict.bundle("v", None, {"vm": vm}), "two")


@pytest.mark.parametrize("hw, where", [({"vcpus": 99}, "99 CPUs"), ({"vcpus": 0}, "/vm/hwConfig/vcpus"),
                                       ({"vcpus": "2"}, "/vm/hwConfig/vcpus"), ({"memory": 4097}, "/vm/hwConfig/memory"),
                                       ({"memory": 1 << 49}, "memory"), ([], "/vm/hwConfig")])
def test_C3_a_value_that_cannot_be_is_an_error(strict, client, hw, where):
    """More CPUs and memory than there are, no number, no multiple of a page."""
    assert where in refused(strict, client, None, {"vm": {"kernel": {"path": str(GUEST)}, "hwConfig": hw}})


def test_C4_the_root_is_a_directory_that_exists(strict, client):
    """A path to none, or to a file, is an error; what is there is not written to."""
    vm = {"kernel": {"path": str(GUEST)}}
    for path in ("none", "config.json", "/dev/null", ""):
        assert "/root" in refused(strict, client, None, {"vm": vm, "root": {"path": path}}), path
    bundle = strict.bundle("b", SIM)
    rewrite(bundle, root={"path": "rootfs", "readonly": True})

    def looks():
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_mode) for p in pathlib.Path(bundle).rglob("*")}

    before = looks()
    strict.good("create", "-b", bundle, "one")
    strict.good("start", "one")
    strict.good("delete", "-f", "one")
    assert looks() == before


def test_C6_a_size_without_a_terminal_is_ignored(strict, client):
    """consoleSize counts with a terminal only; cwd is absolute."""
    size = {"consoleSize": {"height": 1, "width": 1}, "terminal": False, "cwd": "/"}
    strict.good("create", "-b", strict.bundle("b", SIM, {"process": size}), "one")
    assert "/process/cwd" in refused(strict, client, SIM, {"process": {"cwd": "relative"}})


def test_C7_no_limit_is_said_twice_and_the_oom_score_stays(strict, client):
    """Two rlimits of a type are an error; without oomScoreAdj the keeper has its caller's."""
    limit = {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}
    assert "/process/rlimits/1" in refused(strict, client, SIM, {"process": {"cwd": "/", "rlimits": [limit, limit]}})
    bundle = strict.bundle("b", SIM, {"process": {"cwd": "/", "rlimits": [limit, dict(limit, type="RLIMIT_CORE")]}})
    subprocess.run(["/bin/sh", "-c", 'echo 77 >/proc/self/oom_score_adj; exec "$@"', "sh", *strict.argv("create", "-b", bundle, "one")],
                   env=strict.env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert pathlib.Path(f"/proc/{strict.state('one')['pid']}/oom_score_adj").read_text() == "77\n"


def test_C8_a_capability_that_cannot_be_had_is_no_failure(strict):
    """Not even one that nobody knows: a cell has none."""
    names = ["CAP_CONQUER", "CAP_SYS_ADMIN"]
    capabilities = {k: names for k in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    strict.good("create", "-b", strict.bundle("b", SIM, {"process": {"cwd": "/", "capabilities": capabilities}}), "one")
    strict.good("start", "one")


@pytest.mark.parametrize("annotations", [{"": "x"}, {"a": 1}, {"a": None}, {"a": {}}, [], "a"])
def test_C9_annotations_are_names_with_strings(strict, client, annotations):
    """No empty name, no other value."""
    assert "/annotations" in refused(strict, client, SIM, {"annotations": annotations})


def test_C9_annotations_that_nobody_knows_are_kept(strict):
    """They are no error, and state has them."""
    annotations = {"com.example.a": "", "org.opencontainers.image.x": "\u00e9 \"\\\n", "b" * 300: "c" * 3000}
    strict.good("create", "-b", strict.bundle("b", SIM, {"annotations": annotations}), "one")
    assert strict.state("one")["annotations"] == annotations


# ---- the vm section ----

KERNEL = {"path": str(GUEST)}


@pytest.mark.parametrize("vm, where", [({}, "/vm/kernel/path"), ({"kernel": {}}, "/vm/kernel/path"),
                                       ({"kernel": {"path": "relative"}}, "/vm/kernel/path"),
                                       ({"kernel": {"path": "/boot/guest.elf"}}, "/boot/guest.elf"),
                                       ({"kernel": dict(KERNEL, initrd="relative")}, "/vm/kernel/initrd"),
                                       ({"kernel": KERNEL, "hypervisor": {"path": "relative"}}, "/vm/hypervisor/path"), ([], "/vm")])
def test_V1_paths_are_of_the_host_and_absolute(strict, client, vm, where):
    """The kernel's must be there, and none is looked up in the image, where /boot/guest.elf is."""
    assert where in refused(strict, client, None, {"vm": vm})


@pytest.mark.parametrize("what", ("kernel", "hypervisor"))
@pytest.mark.parametrize("parameters", ("text", [1], {}, [["x"]]))
def test_V2_parameters_are_arrays_of_strings(strict, client, what, parameters):
    """Of the kernel as of the hypervisor."""
    vm = {"kernel": dict(KERNEL), "hypervisor": {"path": "/usr/bin/qemu-system-x86_64"}}
    vm[what]["parameters"] = parameters
    assert f"/vm/{what}/parameters" in refused(strict, client, None, {"vm": vm})


def test_V3_a_hypervisor_has_a_path(strict, client):
    """The object without one is an error; with one it is taken, parameters for its program are refused."""
    assert "/vm/hypervisor/path" in refused(strict, client, None, {"vm": {"kernel": KERNEL, "hypervisor": {}}})
    hypervisor = {"path": "/usr/bin/qemu-system-x86_64"}
    wrong = {"kernel": KERNEL, "hypervisor": dict(hypervisor, parameters=["-S"])}
    assert "/vm/hypervisor/parameters" in refused(strict, client, None, {"vm": wrong})
    strict.good("create", "-b", strict.bundle("b", None, {"vm": {"kernel": KERNEL, "hypervisor": hypervisor}}), "one")


@pytest.mark.parametrize("image", [{"path": "/x.raw"}, {"path": "/x", "format": "conquer"}, {}])
def test_V4_a_disk_image_is_refused_by_name(strict, client, image):
    """It would be the cell's root; no backend has disks, so that it is not left away in silence."""
    assert "/vm/image" in refused(strict, client, None, {"vm": {"kernel": KERNEL, "image": image}})


@pytest.mark.parametrize("member, value", [("deviceTree", "/x.dtb"), ("dtdevs", ["/a"]), ("iomems", [{"firstMFN": 1, "nrMFNs": 1}]),
                                           ("irqs", [1])])
def test_V5_what_of_the_hardware_cannot_be_given_is_refused(strict, client, member, value):
    """By its name; an empty list asks for nothing."""
    assert f"/vm/hwConfig/{member}" in refused(strict, client, None, {"vm": {"kernel": KERNEL, "hwConfig": {member: value}}})


def test_V5_hwconfig_says_cpus_and_memory(strict):
    """vcpus are CPUs of the cell, memory its bytes."""
    hw = {"vcpus": 3, "memory": 8 << 20, "irqs": [], "iomems": []}
    strict.good("create", "-b", strict.bundle("b", None, {"vm": {"kernel": KERNEL, "hwConfig": hw}}), "one")
    cell = record(strict, "one")["cell"]
    assert len(cell["cpus"]) == 3 and [m["size"] for m in cell["memory"]] == [8 << 20]


def test_V6_vm_may_stand_beside_linux(qemu):  # noqa: F811
    """Both may be set: the guest is that of vm."""
    linux = {"namespaces": [{"type": "pid"}, {"type": "mount"}], "maskedPaths": ["/proc/kcore"],
             "resources": {"devices": [{"allow": False}]}}
    config = {"vm": {"kernel": dict(KERNEL, parameters=["echo it is me;", "exit 5"])}, "linux": linux, "hostname": "x"}
    status, out, err = run(qemu, "v6", qemu.bundle("v6", None, config))
    assert status == 5 and "it is me" in out, err


# ---- features ----

@pytest.mark.parametrize("runtime", ("", "/bin/false"), ids=("with a runtime", "without"))
def test_F1_versions_of_features_are_taken(runphi, runtime):  # noqa: F811
    """The least is not above the most, and a bundle may have either."""
    runphi.env["RUNPHI_RUNTIME"] = runtime
    document = json.loads(runphi.good("features"))
    ends = [document["ociVersionMin"], document["ociVersionMax"]]
    assert [int(n) for n in re.findall(r"\d+", ends[0])] <= [int(n) for n in re.findall(r"\d+", ends[1])]
    for n, version in enumerate(ends):
        bundle = runphi.bundle(f"b{n}", SIM)
        rewrite(bundle, ociVersion=version)
        runphi.good("create", "-b", bundle, f"c{n}")


@pytest.mark.parametrize("runtime", ("", "/bin/false"), ids=("with a runtime", "without"))
def test_F2_hooks_of_features_run(runphi, runtime):  # noqa: F811
    """Each kind that is listed does; and what is listed stays the same."""
    runphi.env["RUNPHI_RUNTIME"] = runtime
    document = json.loads(runphi.good("features"))
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": {kind: [hook(runphi, kind)] for kind in document["hooks"]}}), "one")
    runphi.good("start", "one")
    runphi.good("delete", "--force", "one")
    assert {name for name, _ in hooks_seen(runphi)} == set(document["hooks"]) == set(HOOKS)
    assert json.loads(runphi.good("features")) == document


# ---- command line ----

def test_I1_options_stand_before_and_behind_the_command(strict):
    """Global ones before it; a word that begins with - is no command."""
    bundle = strict.bundle("b", SIM)
    strict.good("--debug", "--log", str(strict.dir / "log"), "create", "--bundle", bundle, "one")
    assert strict("--create", "--bundle", bundle, "two")[0] != 0 and strict("-create", "two")[0] != 0
    assert [m.name for m in strict.markers()] == ["one"]


def test_I2_only_the_cell_reads_what_create_was_given(strict):
    """stdin is the cell's, stdout and stderr too; start, state, kill and delete take nothing from theirs."""
    bundle = strict.bundle("b", SIM)
    (read, write), (_, out), (_, err) = os.pipe(), os.pipe(), os.pipe()
    subprocess.run(strict.argv("create", "-b", bundle, "one"), env=strict.env, stdin=read, stdout=out, stderr=err, check=True)
    keeper = pathlib.Path(f"/proc/{strict.state('one')['pid']}/fd")
    assert [os.readlink(keeper / n) for n in "012"] == [os.readlink(f"/proc/self/fd/{fd}") for fd in (read, out, err)]
    strict.good("delete", "--force", "one")
    strict.good("create", "-b", bundle, "two")
    os.write(write, b"not for you")
    for words in (["state"], ["start"], ["kill", "KILL"], ["delete"]):
        subprocess.run(strict.argv(words[0], "two", *words[1:]), env=strict.env, stdin=read, stdout=subprocess.DEVNULL, check=True)
    fcntl.fcntl(read, fcntl.F_SETFL, os.O_NONBLOCK)
    assert os.read(read, 100) == b"not for you"


def test_I3_options_have_each_form_and_place(strict):
    """--x y, --x=y, before the id and behind it; a forced delete again and again."""
    bundle = strict.bundle("b", SIM)
    forms = (["-b", bundle, "{}"], [f"--bundle={bundle}", "{}"], ["{}", "--bundle", bundle], ["--bundle", bundle, "--", "{}"])
    for n, args in enumerate(forms):
        id, pid_file = f"c{n}", strict.dir / f"pid{n}"
        strict.good("create", "--pid-file", str(pid_file), *(a.format(id) for a in args))
        assert pid_file.read_bytes() == str(strict.state(id)["pid"]).encode() and pid_file.stat().st_mode & 0o777 == 0o644
        for words in (["-f", id], [id, "--force"], ["--force=true", id]):
            strict.good("delete", *words)
