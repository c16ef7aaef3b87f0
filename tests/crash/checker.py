"""Looks whether the records are what is there, without asking phid: the database, /proc, QEMU's own control channel,
thread affinities, the stand-in's own tongue. Answers a list of sentences, empty if all is well."""
import json
import os
import socket
import sqlite3

RUNNING = {"created": "prelaunch", "running": "running", "paused": "paused"}


def processes(rig):
    """{pid: (name, ppid, argv)} of the keepers of this phid and of their children."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                stat = f.read()
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        state, ppid = stat[stat.rindex(")") + 2:].split()[:2]
        if state != "Z":
            found[int(pid)] = (int(ppid), argv)
    keepers = {p: a for p, (_, a) in found.items() if f"{rig.dir}/keeper.sock" in a}
    cells = {p: (pp, a) for p, (pp, a) in found.items() if pp in keepers}
    return keepers, cells


def qmp(path, *commands):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    here = os.open(os.path.dirname(path), os.O_PATH)
    s.connect(f"/proc/self/fd/{here}/{os.path.basename(path)}")
    os.close(here)
    f = s.makefile("rw")
    f.readline()
    answers = []
    for c in ("qmp_capabilities",) + commands:
        f.write(json.dumps({"execute": c}) + "\n")
        f.flush()
        while True:
            line = json.loads(f.readline())
            if "return" in line:
                answers.append(line["return"])
                break
    s.close()
    return answers[1:]


def check_database(db, wrong):
    if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
        wrong.append("integrity_check")
    if db.execute("PRAGMA foreign_key_check").fetchall():
        wrong.append("foreign_key_check")
    ranges = db.execute("SELECT base, size, colors, row FROM memory_grants WHERE base IS NOT NULL ORDER BY base").fetchall()
    for i, (base, size, colors, row) in enumerate(ranges):
        for b2, _, c2, r2 in ranges[i + 1:]:
            if b2 < base + size and colors & c2:
                wrong.append(f"memory of rows {row} and {r2} overlaps")


def check_qemu(rig, rows, grants, wrong):
    keepers, cells = processes(rig)
    by_incarnation = {a[a.index("--incarnation") + 1]: p for p, a in keepers.items()}
    for row, ident, incarnation, state in rows:
        keeper = by_incarnation.pop(incarnation, None)
        mine = {p: a for p, (pp, a) in cells.items() if pp == keeper}
        if state == "stopped":
            if mine:
                wrong.append(f"{ident} is stopped and has a process {list(mine)}")
            continue
        if keeper is None or len(mine) != 1:
            wrong.append(f"{ident} is {state} and has keeper {keeper} and processes {list(mine)}")
            continue
        status, cpus = qmp(f"{rig.dir}/state/cells/{row}/qmp", "query-status", "query-cpus-fast")
        if status["status"] != RUNNING.get(state):
            wrong.append(f"{ident} is {state}, QEMU says {status['status']}")
        have = sorted(next(iter(os.sched_getaffinity(c["thread-id"]))) for c in cpus)
        for c in cpus:
            if len(os.sched_getaffinity(c["thread-id"])) != 1:
                wrong.append(f"{ident}: a vCPU thread is not pinned")
        if have != sorted(grants.get(row, [])):
            wrong.append(f"{ident}: threads on CPUs {have}, granted {grants.get(row)}")
    # A keeper may still be writing out its console; one with a living cell that no record explains may not be.
    for incarnation, pid in by_incarnation.items():
        if any(pp == pid for pp, _ in cells.values()):
            wrong.append(f"keeper {pid} of {incarnation} has a cell that no record explains")


def check_sim(rig, rows, wrong):
    shown = {}
    names = rig.sim("list").split("cells=")[1].split(" ")[0]
    for name in filter(None, names.split(",")):
        shown[name] = dict(w.split("=", 1) for w in rig.sim(f"observe {name}").split() if "=" in w)
    for row, ident, incarnation, state in rows:
        cell = shown.pop(f"phid-{row}", None)
        if state == "stopped" and cell:
            wrong.append(f"{ident} is stopped and has a cell ({cell})")
        if state != "stopped" and (cell is None or cell["state"] != state or cell["tag"] != incarnation):
            wrong.append(f"{ident} is {state}, the stand-in shows {cell}")
    if shown:
        wrong.append(f"cells that no record explains: {shown}")
    if "cpu_overlaps=0" not in rig.sim("stat"):
        wrong.append("the stand-in saw two cells on one CPU: " + rig.sim("stat"))


def check_jailhouse(rig, rows, grants, wrong):
    with rig.hypervisor.lock:
        shown = {c.name: (c.state, set(c.cpus), c.memory[0][:3:2], c.starts) for c in rig.hypervisor.cells.values()}
    for row, ident, _, state in rows:
        cell = shown.get(f"phid-{row}")
        if state == "stopped" and cell:
            wrong.append(f"{ident} is stopped and has a cell ({cell})")
        if state != "stopped" and (cell is None or cell[0] != {"created": "shut down", "running": "running"}[state]):
            wrong.append(f"{ident} is {state}, the hypervisor shows {cell}")
        elif state != "stopped" and cell[1] != set(grants.get(row, [])):
            wrong.append(f"{ident} has the CPUs {cell[1]}, granted {grants.get(row)}")
    if set(shown) - {f"phid-{row}" for row, *_ in rows}:
        wrong.append(f"cells that no record explains: {shown}")
    ranges = sorted(c[2] for c in shown.values())
    if any(a[0] + a[1] > b[0] for a, b in zip(ranges, ranges[1:])):
        wrong.append(f"two cells share memory: {ranges}")


def check(rig):
    wrong = []
    db = sqlite3.connect(f"file:{rig.dir}/state/phid.db?mode=ro", uri=True)
    check_database(db, wrong)
    rows = db.execute("SELECT row, id, incarnation, state FROM containers").fetchall()
    grants = {}
    for cpu, row in db.execute("SELECT cpu, row FROM cpu_grants"):
        grants.setdefault(row, []).append(cpu)
    for row, ident, _, state in rows:
        if (state == "stopped") == (row in grants):
            wrong.append(f"{ident} is {state} and holds CPUs {grants.get(row)}")
        if state == "creating":
            wrong.append(f"{ident} is left behind as creating")
    for op, ident in db.execute("SELECT op, id FROM containers WHERE op IS NOT NULL"):
        wrong.append(f"{ident} is left with the intent {op}")
    db.close()
    dirs = set(os.listdir(f"{rig.dir}/state/cells"))
    if dirs - {str(r[0]) for r in rows}:
        wrong.append(f"directories that no record explains: {dirs - {str(r[0]) for r in rows}}")
    if rig.backend == "qemu":
        check_qemu(rig, rows, grants, wrong)
    elif rig.backend == "jailhouse":
        check_jailhouse(rig, rows, grants, wrong)
    else:
        check_sim(rig, rows, wrong)
    return wrong


def check_empty(rig):
    """After everything was deleted: no process, no record, no directory, no marker."""
    wrong = check(rig)
    db = sqlite3.connect(f"file:{rig.dir}/state/phid.db?mode=ro", uri=True)
    for table in ("containers", "cpu_grants", "memory_grants", "device_grants"):
        n = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if n:
            wrong.append(f"{n} rows left in {table}")
    db.close()
    keepers, cells = processes(rig)
    if keepers or cells:
        wrong.append(f"left running: {keepers} {cells}")
    for root, _, files in os.walk(f"{rig.dir}/runphi"):
        if files:
            wrong.append(f"markers left: {files}")
    return wrong
