"""An ordinary container through runphi is one of the forwarded runtime: whoever calls sees no difference, whether phid runs or not.

A life of containers is led once by the runtime itself and then through runphi, on pipes and in a terminal; each call must give the
same words, the same status and the same files. A stand-in runtime shows that the process itself is the same, too."""
import array
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import termios

import pytest
from conftest import eventually
from phidtest.daemon import Phid, build_dir
from test_runphi import SIM, runphi  # noqa: F401 (a fixture)

RUNC = shutil.which("runc", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
RUNPHI = str(build_dir() / "client/runphi")
PHIDS = ("no socket", "a dead phid", "phid runs")
A, B = f"fwd-{os.getpid()}-a", f"fwd-{os.getpid()}-b.c_d+e"

# What containers do. The one that waits does so on a FIFO, so that it takes no input from others and has no children.
PROGRAMS = {
    "waits": 'trap "exit 7" TERM; echo up; while :; do read x <>/never; done',
    "ends": "echo out; echo err >&2; cat; exit 5",
    "terminal": "test -t 0 && test -t 1; echo tty $?; exit 6",
}
RESOURCES = b'{"memory": {"limit": 67108864}, "pids": {"limit": 50}}\n'

# name: the words; {} are places. Each is a test. In this order, since they are one life.
LIFE = {
    "a command's help": "create --help",
    "checkpoint's help, by which podman probes": "checkpoint --help",
    "the help of a bare -h": "list -h",
    "a create without an id": "--root {root} create",
    "a kill without an id": "--root {root} kill",
    "an option that is none": "--root {root} state --conquer x",
    "a global option that is none": "--conquer --root {root} list",
    "crun's global option": "--cgroup-manager=cgroupfs --root {root} list",
    "crun's global option in two words": "--root {root} --cgroup-manager cgroupfs list",
    "spec": "spec --bundle {work}",
    "spec where there is one": "spec -b {work}",
    "list of none": "--root {root} list",
    "state of none": "--root={root} state {a}",
    "start of none": "--root={root} start {a}",
    "kill of none": "--root={root} kill {a} 9",
    "delete of none": "--root={root} delete {a}",
    "forced delete of none": "--root={root} delete --force {a}",
    "a create of no bundle": "--root {root} create --bundle {dir}/none {a}",
    "a create of a bundle without a configuration": "--root {root} create --bundle {root} {a}",
    "an error in the log as containerd wants it": "--root {root} --log {work}/log.json --log-format json create --bundle {dir}/none {a}",
    "an error in the log as conmon wants it": "--log-format=json --log {work}/log --root={root} state {a}",
    "create": "--root {root} --log {work}/log.json --log-format json create --bundle {waits} --pid-file {work}/pid {a}",
    "create of an id that is taken": "--root {root} create --bundle {waits} {a}",
    "state of a created one": "--root {root} state {a}",
    "exec before start": "--root {root} exec {a} true",
    "start": "--root {root} start {a}",
    "start again": "--root {root} start {a}",
    "state": "--root {root}/ state {a}",
    "debug": "--debug --root={root} state {a}",
    "list": "--root {root} list",
    "list in JSON": "--root {root} list --format json",
    "list of ids": "--root {root} list -q",
    "list in a form that is none": "--root {root} list --format xml",
    "ps": "--root {root} ps {a}",
    "ps in JSON": "--root {root} ps --format json {a}",
    "ps with options of ps": "--root {root} ps {a} -o pid,comm",
    "exec": "--root {root} exec {a} sh -c echo\\ out;echo\\ err>&2;exit\\ 3",
    "exec with options": "--root {root} exec --cwd /bin -e A=b --user 1:2 {a} sh -c id;pwd;echo\\ $A",
    "exec of a process file": "--root {root} exec --process {process} --detach --pid-file {work}/exec-pid {a}",
    "exec with a terminal": "--root {root} exec -t {a} sh -c test\\ -t\\ 1&&echo\\ yes;exit\\ 4",
    "exec of what is not there": "--root {root} exec {a} /conquer",
    "pause": "--root {root} pause {a}",
    "state of a paused one": "--root {root} state {a}",
    "resume": "--root {root} resume {a}",
    "update by options": "--root {root} update --memory 64M --pids-limit=60 {a}",
    "update by a document on stdin": "--root {root} update --resources - {a}",
    "update by a file": "--root {root} update --resources={resources} {a}",
    "events": "--root {root} events --stats {a}",
    "delete of a running one": "--root {root} delete {a}",
    "kill by no signal": "--root {root} kill {a} CONQUER",
    "kill by name": "--root {root} kill {a} SIGTERM",
    "state of a stopped one": "--root {root} state {a}",
    "kill of a stopped one": "--root {root} kill {a} 9",
    "kill of all of a stopped one": "--root {root} kill --all {a} 9",
    "delete": "--root {root} delete {a}",
    "delete again": "--root {root} delete {a}",
    "run": "--root={root} run -b {ends} {b}",
    "run with options behind the id, as Slurm calls it": "--root={root}/ run {b} -b {ends}/",
    "run with a pid-file": "--root {root} run --bundle {ends} --pid-file {work}/run-pid --no-pivot {b}",
    "run with a terminal": "--root {root} run --bundle {terminal} {b}",
    "run that returns at once": "--root {root} run --detach --bundle {waits} {a}",
    "forced delete of a running one": "--root {root} delete --force {a}",
    "create with a terminal": "--root {root} create --bundle {terminal} --console-socket {console} {b}",
    "start with a terminal": "--root {root} start {b}",
    "delete with a terminal": "--root {root} delete {b}",
    "create with a terminal and nobody to take it": "--root {root} create --bundle {terminal} {b}",
}
STDIN = {"run": b"in\n", "run with options behind the id, as Slurm calls it": b"", "run with a pid-file": b"two\nlines\n",
         "update by a document on stdin": RESOURCES}
SAYS_UP = ("start", "run that returns at once")
ENDS = ("kill by name", "forced delete of a running one", "start with a terminal")


@pytest.fixture(scope="module")
def place():
    """Bundles, and the places of the words above; one directory for all calls, since paths are in what they say."""
    d = pathlib.Path(tempfile.mkdtemp(prefix="phid-fwd-", dir="/tmp"))
    rootfs = d / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin")
    for name in ("sh", "cat", "id", "true"):
        (rootfs / "bin" / name).symlink_to("busybox")
    os.mkfifo(rootfs / "never", 0o600)
    places = {"dir": str(d), "root": f"{d}/root", "work": f"{d}/work", "a": A, "b": B, "console": f"{d}/console.sock",
              "process": f"{d}/process.json", "resources": f"{d}/resources.json"}
    for name, program in PROGRAMS.items():
        (d / name).mkdir()
        subprocess.run([RUNC, "spec", "--bundle", d / name], check=True)
        config = json.loads((d / name / "config.json").read_text())
        config["process"].update(terminal=name == "terminal", args=["sh", "-c", program])
        config["root"]["path"] = str(rootfs)
        (d / name / "config.json").write_text(json.dumps(config))
        places[name] = str(d / name)
    (d / "process.json").write_text(json.dumps(dict(config["process"], terminal=False, args=["sh", "-c", "exit 9"])))
    (d / "resources.json").write_bytes(RESOURCES)
    yield places
    shutil.rmtree(d)


@pytest.fixture(scope="module")
def sockets(place):
    """phid's socket in each of its states."""
    with Phid() as dead, Phid() as living:
        path = dead.socket
        dead.kill9()
        assert path.is_socket()
        yield dict(zip(PHIDS, (f"{place['dir']}/no/socket", str(path), str(living.socket))))


# ---- a life ----

class Streams:
    """What calls and their containers are given: a terminal, or pipes."""

    def __init__(self, terminal):
        self.terminal = terminal
        if terminal:
            master, self.slave = pty.openpty()
            self.ends = {"terminal": master}
        else:
            out, self.out = os.pipe()
            err, self.err = os.pipe()
            self.ends = {"out": out, "err": err}
        for fd in self.ends.values():
            os.set_blocking(fd, False)
        self.fresh()

    def fresh(self):
        self.said = {name: b"" for name in self.ends}

    def hear(self, seconds=0.0):
        for fd in select.select(list(self.ends.values()), [], [], seconds)[0]:
            name = next(n for n, f in self.ends.items() if f == fd)
            self.said[name] += os.read(fd, 65536)
        return b"".join(self.said.values())

    def settle(self):
        """What was said is here. A pipe holds it at once, a terminal a moment later: but before what is said next."""
        if not self.terminal:
            while select.select(list(self.ends.values()), [], [], 0)[0]:
                self.hear()
            return
        os.write(self.slave, b"<settled>")
        eventually(lambda: b"<settled>" in self.hear(0.1))
        self.said["terminal"] = self.said["terminal"].replace(b"<settled>", b"")

    def call(self, program, argv, env, stdin):
        """Runs it in a session of its own; answers its status as waitpid has it."""
        if self.terminal:
            read, out, err = self.slave, self.slave, self.slave
            if stdin is not None:
                os.write(self.ends["terminal"], stdin + b"\x04")
        else:
            (read, write), out, err = os.pipe(), self.out, self.err
            os.write(write, stdin or b"")
            os.close(write)
        p = subprocess.Popen(["runc", *argv], executable=program, env=env, stdin=read, stdout=out, stderr=err, start_new_session=True,
                             preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if self.terminal else None)
        eventually(lambda: (self.hear(0.05), p.poll())[1] is not None, f"the end of {argv}", seconds=120)
        if self.terminal:
            termios.tcflush(self.slave, termios.TCIFLUSH)
        else:
            os.close(read)
        self.settle()
        return p.returncode

    def close(self):
        for fd in [*self.ends.values(), *([self.slave] if self.terminal else [self.out, self.err])]:
            os.close(fd)


def plain(text, pids):
    """Without what is another each time: pids, times, numbers of pipes and terminals."""
    text = text.replace("\r\n", "\n")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text)
    for pid in pids:
        text = re.sub(rf" *\b{pid}\b", " PID", text)
    text = re.sub(r'"init_process_start":\d+', '"init_process_start":0', text)
    text = re.sub(r"pipe:\[\d+\]", "pipe", re.sub(r"/dev/pts/\d+", "pts", text))
    if '"type":"stats"' in text:  # all numbers, and those that are 0 are left out at times
        text = re.sub(r'"\w+":\d+|(?<=[\[,])\d+|,', "", text)
    if text.startswith("UID"):  # ps -ef: C, STIME, TTY, TIME
        text = re.sub(r"(?m)^(\S+ +\S+ +\S+) +\d+ +\S+ +\S+ +\S+ ", r"\1 ", text)
    return re.sub(r" +", " ", text)


def files(place, pids):
    """Every file of --root and of where pid-files and logs go: kind and mode, owner, content."""
    found = {}
    for path in sorted(p for top in ("root", "work") for p in pathlib.Path(place[top]).rglob("*")):
        st = path.lstat()
        text = plain(path.read_text(), pids) if stat.S_ISREG(st.st_mode) else ""
        found[str(path)] = (stat.filemode(st.st_mode), st.st_uid, st.st_gid, text)
    return found


def init_pid(place, id):
    try:
        return json.loads(pathlib.Path(place["root"], id, "state.json").read_text())["init_process_pid"]
    except FileNotFoundError:
        return None


def status_of(pid):
    """How it ended: containers reparent to us, as to a shim."""
    ended = eventually(lambda: (r := os.waitpid(pid, os.WNOHANG))[0] and r, f"the end of process {pid}", seconds=60)
    return os.waitstatus_to_exitcode(ended[1])


def lead(place, program, env, terminal):
    """The life; answers what each call gave: its status, words and files, and the container's status where it ends here."""
    streams, seen, pids, living = Streams(terminal), {}, [], None
    for top in ("root", "work"):
        shutil.rmtree(place[top], ignore_errors=True)
        os.mkdir(place[top])
    with socket.socket(socket.AF_UNIX) as console, contextlib.ExitStack() as after:
        for id in (A, B):  # where a life is cut short
            command = [RUNC, "--root", place["root"], "delete", "--force", id]
            after.callback(subprocess.run, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        after.callback(os.unlink, place["console"])
        console.bind(place["console"])
        console.listen()
        for name, words in LIFE.items():
            # A blank that belongs to a word has a backslash.
            argv = [w.replace("\0", " ").format(**place) for w in words.replace("\\ ", "\0").split(" ")]
            streams.fresh()
            status = streams.call(program, argv, env, STDIN.get(name))
            fresh = [p for p in (init_pid(place, A), init_pid(place, B)) if p and p not in pids]
            pids += fresh
            living = fresh[0] if fresh else living
            if name in SAYS_UP:
                eventually(lambda: b"up" in streams.hear(0.1), f"the container's word after {argv}")
            end = status_of(living) if name in ENDS else None
            if name == "exec of a process file":
                pids.append(int(pathlib.Path(place["work"], "exec-pid").read_text()))
                end = status_of(pids[-1])
            if name == "run with a pid-file":
                pids.append(int(pathlib.Path(place["work"], "run-pid").read_text()))
            if name == "create with a terminal":
                master = receive(console)
                after.callback(os.close, master)
            if name == "start with a terminal":
                end = (end, os.read(master, 4096))
            streams.settle()
            said = {n: plain(t.decode(), pids) for n, t in streams.said.items()}
            if terminal:  # runc carries stdout and stderr of a container each at its own pace
                said = {"terminal": sorted(said["terminal"].splitlines())}
            seen[name] = (status, said, files(place, pids), end)
    streams.close()
    return seen


def receive(console):
    """The master, from the runtime's one message."""
    with console.accept()[0] as connection:
        control = connection.recvmsg(4096, socket.CMSG_LEN(4))[1]
        return array.array("i", control[0][2])[0]


def environment(place, socket):
    """What all get, runc as well as runphi."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PHID_SOCKET": socket, "RUNPHI_RUNTIME": RUNC,
            "RUNPHI_STATE_DIR": f"{place['dir']}/markers", "RUNPHI_CONFIG": "/nowhere", "ASAN_OPTIONS": "detect_leaks=1:disable_coredump=0"}


@pytest.fixture(scope="module")
def lives(place, sockets):
    """Each life is led when it is first asked for."""
    known = {}

    def life(caller, terminal):
        key = (caller, terminal)
        if key not in known:
            program, socket = (RUNC, "/nowhere") if caller == "runc" else (RUNPHI, sockets[caller])
            known[key] = lead(place, program, environment(place, socket), terminal)
        return known[key]

    yield life


@pytest.mark.skipif(os.geteuid() != 0, reason="containers of runc need root")
@pytest.mark.parametrize("name", LIFE)
@pytest.mark.parametrize("terminal", (False, True), ids=("pipes", "terminal"))
@pytest.mark.parametrize("phid", PHIDS)
def test_a_call_gives_what_the_runtime_gives(lives, place, phid, terminal, name):
    ours, theirs = lives(phid, terminal)[name], lives("runc", terminal)[name]
    assert ours[0] == theirs[0] and ours[1] == theirs[1], "status and words"
    assert ours[2] == theirs[2], "files"
    assert ours[3] == theirs[3], "the container's end"
    assert not os.path.exists(f"{place['dir']}/markers"), "nothing is remembered of it"


@pytest.mark.skipif(os.geteuid() != 0, reason="containers of runc need root")
@pytest.mark.parametrize("terminal", (False, True), ids=("pipes", "terminal"))
def test_the_life_is_one_that_shows_something(lives, terminal):
    life = lives("runc", terminal)
    for name, status in (("create", 0), ("start", 0), ("exec", 3), ("pause", 0), ("events", 0), ("kill by name", 0), ("run", 5),
                         ("delete", 0), ("create with a terminal", 0), ("state of none", 1), ("list in JSON", 0),
                         ("update by a document on stdin", 0), ("update by a file", 0), ("exec of a process file", 0)):
        assert life[name][0] == status, (name, life[name])
    assert life["kill by name"][3] == 7 and life["exec of a process file"][3] == 9 and life["start with a terminal"][3] == (6, b"tty 0\r\n")
    assert any(path.endswith("state.json") for path in life["create"][2]) and any(path.endswith("/pid") for path in life["create"][2])
    assert '"status": "paused"' in str(life["state of a paused one"][1]) and not [p for p in life["delete"][2] if A in p]


# ---- what runphi answers by itself, beside the runtime's own answer ----

def both(place, socket, *args):
    env = environment(place, socket)
    return [subprocess.run(["runc", *args], executable=e, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            for e in (RUNC, RUNPHI)]


@pytest.mark.parametrize("phid", PHIDS)
def test_what_runphi_says_of_itself_has_the_same_status(place, sockets, phid):
    for args in (["--version"], ["-v"], ["--help"], ["-h"], ["help"]):
        theirs, ours = both(place, sockets[phid], *args)
        assert ours.returncode == theirs.returncode == 0 and ours.stdout.startswith("runphi") and not ours.stderr, args
    theirs, ours = both(place, sockets[phid], "--version")
    assert re.search(r"(?m)^spec: 1\.", theirs.stdout) and re.search(r"(?m)^spec: 1\.", ours.stdout), "what podman info reads"
    theirs, ours = both(place, sockets[phid], "conquer", "x")
    assert ours.returncode == theirs.returncode == 3 and ours.stdout == theirs.stdout == "" and "conquer" in ours.stderr


@pytest.mark.parametrize("phid", PHIDS)
def test_features_are_the_runtimes_with_annotations_more(place, sockets, phid):
    theirs, ours = both(place, sockets[phid], "features")
    assert ours.returncode == theirs.returncode == 0 and ours.stderr == theirs.stderr
    theirs, ours = json.loads(theirs.stdout), json.loads(ours.stdout)
    added = {k for k in ours["annotations"] if k not in theirs.get("annotations", {})}
    assert added and all(k.startswith("org.runphi.") for k in added)
    for k in added:
        del ours["annotations"][k]
    assert ours == {"annotations": {}, **theirs}


@pytest.mark.skipif(os.geteuid() != 0, reason="containers of runc need root")
def test_a_list_beside_a_cell_is_the_runtimes_and_the_cell(place, runphi):
    """Here runphi cannot become the runtime; what that says and how it ends counts all the same."""
    def lists(*args):
        argv = ["runc", "--root", runphi.root, "list", *args]
        return [subprocess.run(argv, executable=e, env=dict(runphi.env, RUNPHI_RUNTIME=RUNC), stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, timeout=60) for e in (RUNC, RUNPHI)]

    runphi.good("create", "-b", runphi.bundle("cell", SIM), "cell")
    subprocess.run([RUNC, "--root", runphi.root, "create", "--bundle", place["waits"], A], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        theirs, ours = lists()
        rows = ours.stdout.splitlines()
        assert rows[:-1] == theirs.stdout.splitlines() and A in rows[1] and rows[-1].split()[0] == "cell" and len(rows) == 3
        theirs, ours = lists("-q")
        assert theirs.stdout == f"{A}\n" and ours.stdout == f"{A}\ncell\n"
        theirs, ours = lists("--format", "json")
        assert json.loads(ours.stdout)[:-1] == json.loads(theirs.stdout) and json.loads(ours.stdout)[-1]["id"] == "cell"
        for wrong in (["--format", "xml"], ["--conquer"], ["more"]):
            theirs, ours = lists(*wrong)
            assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout) and theirs.returncode == 1, wrong
            assert plain(ours.stderr, []) == plain(theirs.stderr, []), wrong
    finally:
        subprocess.run([RUNC, "--root", runphi.root, "delete", "--force", A], check=True)
        runphi.good("delete", "--force", "cell")


# ---- the process itself: a stand-in runtime that stops, so that it can be looked at ----

STANDIN = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
int main(void)
{
	char name[16];
	int death = 0;
	prctl(PR_GET_PDEATHSIG, &death);
	snprintf(name, sizeof(name), "death %d", death);
	prctl(PR_SET_NAME, name);
	raise(SIGSTOP);
	return atoi(getenv("STATUS"));
}
"""
ROOT, BUNDLE = "/tmp/there-is-none/root", "/tmp/there-is-none/bundle"
SHIM = ["--root", ROOT, "--log", "/tmp/there-is-none/log.json", "--log-format", "json"]
WORDS = [
    [*SHIM, "create", "--bundle", BUNDLE, "--pid-file", "/x/init.pid", "id"],
    [*SHIM, "create", "--bundle", BUNDLE, "--pid-file", "/x/init.pid", "--console-socket", "/tmp/pty1/pty.sock", "id"],
    ["--log-format=json", "--log", "/x/oci-log", "create", "--bundle", BUNDLE, "--pid-file", "/x/p", "0123456789abcdef" * 4],
    ["--cgroup-manager", "cgroupfs", "--root", ROOT, "create", "--no-pivot", "--no-new-keyring", "--preserve-fds", "3", "id"],
    ["--cgroup-manager=systemd", "--systemd-cgroup", "--rootless=auto", "--criu", "/x", "--root", ROOT, "run", "id"],
    ["--something-new", "value", "--root", ROOT, "create", "--something", "-x", "id"],
    [f"--root={ROOT}/", "run", "n1.root.3.0.0", "-b", f"{BUNDLE}/"],
    ["-root", ROOT, "-log=/x", "run", "--detach", "--keep", "--config", "/x/config.json", "id"],
    [*SHIM, "start", "id"],
    [*SHIM, "kill", "id", "15"],
    [*SHIM, "kill", "--all", "id", "9"],
    [f"--root={ROOT}", "kill", "-a", "id", "SIGTERM"],
    [*SHIM, "delete", "id"],
    [*SHIM, "delete", "--force", "id"],
    ["--root", ROOT, "delete", "--regex", ".*"],
    ["state", "id"],
    [*SHIM, "pause", "id"],
    [*SHIM, "resume", "id"],
    [*SHIM, "update", "--resources", "-", "id"],
    ["update", "--resources=/var/tmp/podman1", "--memory", "1", "id"],
    [*SHIM, "ps", "--format", "json", "id"],
    ["ps", "id", "-ef", "--format", "x"],
    ["list"],
    ["--root", ROOT, "list", "-f", "json", "-q"],
    [*SHIM, "exec", "--process", "/tmp/runc-process1", "--detach", "--pid-file", "/x", "id"],
    ["exec", "--pid-file", "/x", "--process", "/x", "--detach", "--tty", "--console-socket", "/x", "id"],
    ["exec", "-e", "A=b", "-u", "0:0", "id", "sh", "-c", "echo; --help", "--", "-x"],
    ["events", "--stats", "id"],
    ["events", "--interval=5s", "id"],
    ["checkpoint", "--help"],
    [*SHIM, "checkpoint", "--image-path", "/x", "--work-path", "/x", "--leave-running", "id"],
    ["restore", "--image-path", "/x", "--bundle", BUNDLE, "id"],
    ["spec"],
    ["spec", "--rootless", "-b", BUNDLE],
    ["create"],
    ["create", "-h"],
    ["start", "--", "-id"],
    ["--", "state", "id"],
    ["state", ""],
    ["state", "-"],
    ["state", "../../etc"],
    ["state", "two words\nand lines", "\udcff\udc80", ""],
    ["state", "x" * 6000],
    ["--root", "/" + "r" * 6000, "state", "id"],
    ["--root", "", "--log", "", "state", "id"],
]
BEHIND = {"Name", "Umask", "Uid", "Gid", "Groups", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff",
          "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed", "CoreDumping"}


@pytest.fixture(scope="module")
def standin(place):
    path = place["dir"] + "/standin"
    subprocess.run(["cc", "-x", "c", "-o", path, "-"], input=STANDIN, text=True, check=True)
    return path


def begin(program, argv, env, cwd):
    """As an odd client would: descriptors without a gap and far above, signals ignored and blocked, a umask, a signal for its death."""
    listening, files = socket.socket(socket.AF_UNIX), (os.open("/dev/null", os.O_RDWR), os.open("/etc/passwd", os.O_RDONLY))
    listening.bind("")
    listening.listen()
    pipe = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in (*files, listening.fileno(), *pipe)]
            for fd, to in zip((high[0], high[3], high[4], high[2], high[1], high[4]), (0, 1, 2, 3, 9, 60)):
                os.dup2(fd, to)
            for fd in set(range(3, 1000)) - {3, 9, 60}:
                with contextlib.suppress(OSError):
                    os.close(fd)
            os.lseek(9, 5, os.SEEK_SET)
            os.chdir(cwd)
            os.umask(0o027)
            for s in range(1, 32):
                if s not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(s, signal.SIG_DFL)
            for s in (signal.SIGPIPE, signal.SIGHUP):
                signal.signal(s, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM, 40})
            os.kill(os.getpid(), signal.SIGUSR1)  # it stays pending
            ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
            os.execve(program, argv, env)
        finally:
            os._exit(126)
    for fd in (*files, *pipe):
        os.close(fd)
    listening.close()
    return pid


def look(pid):
    """Everything of the process that stopped, but its numbers."""
    proc = pathlib.Path(f"/proc/{pid}")
    number = re.compile(r"\[\d+\]")
    fds = {int(fd): (number.sub("", os.readlink(proc / "fd" / fd)), re.sub(r"(ino|mnt_id):\s*\d+", "", (proc / "fdinfo" / fd).read_text()))
           for fd in os.listdir(proc / "fd")}
    told = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    after_name = (proc / "stat").read_text().rpartition(")")[2].split()
    return {"argv": (proc / "cmdline").read_bytes().split(b"\0"), "environ": (proc / "environ").read_bytes().split(b"\0"),
            "cwd": os.readlink(proc / "cwd"), "exe": os.readlink(proc / "exe"), "fds": fds, "limits": (proc / "limits").read_text(),
            "cgroup": (proc / "cgroup").read_text(), "oom_score_adj": (proc / "oom_score_adj").read_text(),
            "parent, group, session, terminal": after_name[1:5], "nice": after_name[16],
            **{k: told[k].strip() for k in BEHIND}}


def record(program, args, env, cwd):
    """What the stand-in is, and how it ends."""
    pid = begin(program, ["some runtime", *args], env, cwd)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{args} is not forwarded: {os.waitstatus_to_exitcode(status)}"
    seen = look(pid)
    os.kill(pid, signal.SIGCONT)
    status = os.waitpid(pid, 0)[1]
    return seen, os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("phid", PHIDS)
@pytest.mark.parametrize("args", WORDS, ids=lambda a: " ".join(a).encode("unicode_escape", "replace").decode()[:70])
def test_the_runtime_is_the_same_process(place, sockets, standin, phid, args):
    env = dict(environment(place, sockets[phid]), RUNPHI_RUNTIME=standin, STATUS="77", EMPTY="", LINES="a\nb", _OCI_SYNCPIPE="3",
               LISTEN_FDS="1", XDG_RUNTIME_DIR="/x", ODD="\udcff")
    theirs, ours = record(standin, args, env, place["dir"]), record(RUNPHI, args, env, place["dir"])
    assert ours == theirs
    seen, status = ours
    assert status == 77 and seen["exe"] == standin and seen["Umask"] == "0027" and seen["Name"] == "death 9"
    assert sorted(seen["fds"]) == [0, 1, 2, 3, 9, 60] and seen["argv"][0] == b"some runtime"
    assert int(seen["SigPnd"], 16) | int(seen["ShdPnd"], 16), "a signal is pending"


def test_a_runtime_that_is_killed_is_seen_killed(place, sockets, standin):
    env = dict(environment(place, sockets["phid runs"]), RUNPHI_RUNTIME=standin, STATUS="0")
    pid = begin(RUNPHI, ["runc", "state", "id"], env, "/")
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


CONFIGS = {"plain": {}, "annotated": {"annotations": {"org.runphi.runtime": "runc"}}, "half": "{", "no object": "[]", "none": None,
           "sandbox": {"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("verb", ("create", "run"))
def test_a_bundle_that_is_not_ours_reaches_the_runtime_untouched(place, sockets, standin, tmp_path, verb, config):
    (tmp_path / "r/boot").mkdir(parents=True)
    if isinstance(config, dict):
        (tmp_path / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "root": {"path": "r"}, **config}))
    elif config is not None:
        (tmp_path / "config.json").write_text(config)
    if config and isinstance(config, dict):
        (tmp_path / "r/boot/config.json").write_text("{}")  # which would be ours, were it not for the annotation
    env = dict(environment(place, sockets["phid runs"]), RUNPHI_RUNTIME=standin, STATUS="5")
    args = ["--root", ROOT, verb, "--bundle", str(tmp_path), "--pid-file", str(tmp_path / "pid"), "id"]
    before = sorted(tmp_path.rglob("*"))
    assert record(RUNPHI, args, env, "/") == record(standin, args, env, "/")
    assert sorted(tmp_path.rglob("*")) == before
