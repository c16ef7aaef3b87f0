#!/usr/bin/python3
"""A create of a Jailhouse cell beside runPHI's compile step: from the API call to the driver's ioctl (of the stand-in), and the plan
on a full host.

    bench/jailhouse.py [--runs N] [--json FILE]     PHID_BUILD: a build with --enable-test-hooks, without sanitizers"""
import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SOURCE / "tests"), str(SOURCE / "bench")]
from measure import once, table, write  # noqa: E402
from phidtest.daemon import TMP, Phid, build_dir  # noqa: E402
from phidtest.jailhouse import CREATE, Jailhouse  # noqa: E402

GCC = ["/usr/bin/gcc", "-Werror", "-Wall", "-Wextra", "-c", str(SOURCE / "bench/cell.c")]
OBJCOPY = ["/usr/bin/objcopy", "-O", "binary", "--remove-section=.note.gnu.property"]


def compile_step(dir, env):
    object, cell = str(dir / "cell.o"), str(dir / "cell.cell")
    begin = time.perf_counter()
    once(GCC + ["-o", object], env)
    once(OBJCOPY + [object, cell], env)
    return (time.perf_counter() - begin) * 1000


class Timed(Jailhouse):
    """Notes when a create comes, not what the stand-in does before it looks at it."""

    def _create(self, config):
        self.arrived = self.came
        return super()._create(config)


def put(api, id, spec):
    """One request that is ready; when it was sent."""
    body = json.dumps({"spec": spec})
    request = f"PUT /v1/containers/{id} HTTP/1.1\r\nHost: phid\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    begin = time.perf_counter()
    api.sendall(request)
    answer = api.recv(65536)
    assert answer.startswith(b"HTTP/1.1 201"), answer
    return begin


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--json")
    args = parser.parse_args()
    env = {"PATH": "/usr/bin:/bin"}
    times = {"gcc -c and objcopy": [], "from the API call to the ioctl": []}
    hypervisor = Timed(tempfile.mkdtemp(prefix="phid-jh-", dir=TMP))
    platform = {"format": "phid-platform/1", "cpus": {"ids": "0-7", "host": "0"},
                "memory": [{"name": "ddr", "kind": "carveout", "base": "0x70000000", "size": "16M"}], "backends": {"jailhouse": hypervisor.platform()}}
    with tempfile.TemporaryDirectory(prefix="phid-bench-", dir=TMP) as d, Phid(backends=("jailhouse",), platform=platform) as phid:
        (phid.dir / "inmate").write_bytes(b"x" * 4096)
        client, api = phid.client(), socket.socket(socket.AF_UNIX)
        api.connect(str(phid.dir / "s"))
        for n in range(args.runs):
            times["gcc -c and objcopy"].append(compile_step(pathlib.Path(d), env))
            begin = put(api, f"c{n}", {"boot": {"inmate": str(phid.dir / "inmate")}, "memory": [{"size": 65536}]})
            times["from the API call to the ioctl"].append((hypervisor.arrived - begin) * 1000)
            client.delete(f"c{n}", force=True).expect(204)
        subprocess.run([str(build_dir() / "client/phictl"), "cell", "show", f"{d}/cell.cell"], check=True, stdout=subprocess.DEVNULL)  # it is one
        assert hypervisor.calls.count(CREATE) == args.runs
    hypervisor.close()
    results = {name: {"p50_ms": statistics.median(t), "p99_ms": sorted(t)[int(len(t) * 0.99)]} for name, t in times.items()}
    rows = {"create": table("a Jailhouse cell's configuration, made", results, "gcc -c and objcopy")}
    rows["plan"] = json.loads(subprocess.run([str(build_dir() / "bench/plan")], check=True, capture_output=True).stdout)
    print(f"\nplan on a host of 256 CPUs with 64 cells: p50 {rows['plan']['plan_us']['p50']} us, p99 {rows['plan']['plan_us']['p99']} us")
    print(f"check of 64 cells with each other: p50 {rows['plan']['check_64_cells_us']['p50']} us")
    write(args.json, rows)


if __name__ == "__main__":
    main()
