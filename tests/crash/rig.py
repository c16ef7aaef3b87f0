"""A private phid for the crash tests, its supervisor, and what the tests need to know about kill points."""
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("PHID_BUILD", SOURCE)

INTENTS = ("create", "start", "pause", "resume")
POINTS = (
    [f"{v}.{s}" for v in INTENTS + ("kill", "end", "force-delete") for s in ("reserved", "acting", "acted", "observed", "committed")]
    + [f"undo.{s}" for s in ("acting", "acted", "observed", "committed")]
    + ["delete.committed"]
)

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: keepers reparent to us, so that we see them end


def reap():
    """Collects whatever ended below us, but what a Popen waits for itself."""
    try:
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
    except ChildProcessError:
        return


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("phid", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Rig:
    """phid on a backend, started again whenever it is killed."""

    def __init__(self, backend, platform):
        self.backend = backend
        self.dir = tempfile.mkdtemp(prefix="phid-", dir="/tmp")
        self.socket = f"{self.dir}/s"
        self.kill_log = f"{self.dir}/points"
        self.process = None
        self.env = {}  # more of phid's environment
        self.deaths = {-signal.SIGKILL}  # how phid may end, and is started again
        self.kills = 0
        self.stopping = False
        self.lock = threading.Lock()
        with open(f"{self.dir}/platform.json", "w") as f:
            json.dump(platform, f)

    def start(self, kill_at=None, fault=None):
        env = dict(os.environ, PHID_KILL_LOG=self.kill_log, **self.env)
        if kill_at:
            env["PHID_KILL_AT"] = kill_at
        if fault:
            env["PHID_FAULT"] = fault
        log = open(f"{self.dir}/log", "a")
        with self.lock:
            self.process = subprocess.Popen(
                [f"{BUILD}/daemon/phid", "--socket", self.socket, "--state-dir", f"{self.dir}/state",
                 "--runtime-dir", f"{self.dir}/run", "--platform", f"{self.dir}/platform.json",
                 "--backend", self.backend],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.wait_ready()

    def wait_ready(self):
        end = time.monotonic() + 30
        while True:
            try:
                return self.get("/v1")
            except OSError:
                if time.monotonic() > end:
                    raise RuntimeError("phid does not come up: " + self.log_tail())
                if self.process.poll() is not None:
                    return None  # killed at once: the supervisor's turn
                time.sleep(0.02)

    def supervise(self):
        """Starts phid again each time it dies by one of `deaths`; any other end is an error."""
        self.errors = []

        def loop():
            while not self.stopping:
                try:
                    code = self.process.wait(timeout=0.05)
                except subprocess.TimeoutExpired:
                    continue
                if self.stopping:
                    return
                if code not in self.deaths:
                    self.errors.append(f"phid ended with {code}: {self.log_tail()}")
                    return
                self.kills += 1
                try:
                    self.start()
                except Exception as e:  # told by the test
                    self.errors.append(str(e))
                    return
        self.thread = threading.Thread(target=loop, daemon=True)
        self.thread.start()

    def log_tail(self):
        with open(f"{self.dir}/log", errors="replace") as f:
            return f.read()[-2000:]

    def call(self, method, path, body=None, key=None):
        c = Unix(self.socket)
        headers = {"Idempotency-Key": key} if key else {}
        c.request(method, path, json.dumps(body) if body is not None else None, headers)
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, json.loads(data) if data and "json" in r.headers.get("Content-Type", "") else data

    def get(self, path):
        return self.call("GET", path)

    def mutate(self, method, path, body=None, key=None):
        """A mutation as a good client makes it: with a key, asked again until there is an answer."""
        key = key or str(uuid.uuid4())
        end = time.monotonic() + 30
        while True:
            try:
                status, answer = self.call(method, path, body, key)
                if status != 503:
                    return status, answer
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > end:
                raise RuntimeError(f"{method} {path}: no answer. {self.log_tail()}")
            time.sleep(0.02)

    def runphi(self, *args, stdout=None, check=True, prefix=(), env=None):
        """prefix: words of a program to run it under; env: more of its environment."""
        env = {**os.environ, "PHID_SOCKET": self.socket, "RUNPHI_STATE_DIR": f"{self.dir}/runphi", **(env or {})}
        with tempfile.TemporaryFile() as err:  # not a pipe: the keeper holds it for as long as it lives
            p = subprocess.run([*prefix, f"{BUILD}/client/runphi", "--root", f"{self.dir}/root", *args], env=env,
                               stdin=subprocess.DEVNULL, stdout=stdout or subprocess.PIPE, stderr=err, timeout=60)
            err.seek(0)
            if check and p.returncode != 0:
                raise RuntimeError(f"runphi {args}: {p.returncode} {err.read().decode()} {self.log_tail()}")
        return p

    def sim(self, request):
        p = subprocess.run([f"{BUILD}/backends/sim/phid-sim", "ctl", "--socket", f"{self.dir}/run/sim.sock", request],
                           capture_output=True, text=True)
        return p.stdout.strip()

    def hits(self):
        n = dict.fromkeys(POINTS, 0)
        if os.path.exists(self.kill_log):
            with open(self.kill_log) as f:
                for line in f:
                    n[line.strip()] = n.get(line.strip(), 0) + 1
        return n

    def stop(self):
        self.stopping = True
        if hasattr(self, "thread"):
            self.thread.join()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        if self.backend == "sim":
            self.sim("quit")
        if self.backend == "jailhouse":
            self.hypervisor.close()
        reap()
        log = self.log_tail()
        if code != 0 or "ERROR: AddressSanitizer" in log or "runtime error" in log or "LeakSanitizer" in log:
            raise RuntimeError(f"phid ended with {code}: {log}")
