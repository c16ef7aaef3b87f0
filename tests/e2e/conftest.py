"""A private phid with the stand-in hypervisor for each file; every test leaves it as it was."""
import pathlib
import shutil
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from phidtest.daemon import Phid, is_instrumented  # noqa: E402


def eventually(look, what="it", seconds=20):
    """Until look() is true, where nothing can be awaited: what the daemon does after its answer."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"{what} does not come about"
        time.sleep(0.01)


class Background:
    """A call in a thread of its own; result() has what it answered or raised."""

    def __init__(self, call, *args, **kwargs):
        self.error = self.value = None
        self.thread = threading.Thread(target=self._run, args=(call, args, kwargs), daemon=True)
        self.thread.start()

    def _run(self, call, args, kwargs):
        try:
            self.value = call(*args, **kwargs)
        except BaseException as e:
            self.error = e

    def done(self):
        return not self.thread.is_alive()

    def result(self, seconds=60):
        self.thread.join(seconds)
        assert self.done(), "the call does not return"
        if self.error is not None:
            raise self.error
        return self.value


def background(phid, method, *args, **kwargs):
    """A client's method in the background, on a connection of its own."""
    return Background(getattr(phid.client(), method), *args, **kwargs)


def assert_nothing_left(phid, client):
    """Everything is free, no cell, no directory, no grant."""
    def clean():
        left = phid.leftovers(client)
        owned = [c for c in left["allocations"]["cpus"] if c["state"] not in ("free", "host")]
        return not (owned or left["allocations"]["memory"] or left["records"] or left["cpu_grants"] or
                    left["memory_grants"] or left["cells"] or left["directories"])

    try:
        eventually(clean, "a clean daemon")
    except AssertionError:
        raise AssertionError(f"left behind: {phid.leftovers(client)}\n{phid.log()[-3000:]}") from None


def finish(phid):
    """After a test: the daemon lives, its faults are cleared, its containers go, nothing stays."""
    assert phid.alive(), f"phid died\n{phid.sanitizer_reports()}\n{phid.log()[-4000:]}"
    client = phid.client()
    if "sim" in phid.backends:
        phid.sim.clear()
    phid.delete_all(client)
    assert_nothing_left(phid, client)
    assert not phid.sanitizer_reports(), phid.sanitizer_reports()
    for c in phid.clients:
        c.close()
    phid.clients.clear()


@pytest.fixture(scope="module")
def daemon():
    with Phid() as p:
        yield p


@pytest.fixture
def phid(daemon):
    if not daemon.alive():  # an earlier test ended it; that one has failed
        daemon.process = None
        daemon.start()
    yield daemon
    finish(daemon)


@pytest.fixture
def client(phid):
    return phid.client()


@pytest.fixture
def runphi_dir():
    """For a Runphi of the test's own."""
    path = tempfile.mkdtemp(prefix="phid-rp-", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def own_phid():
    """Makes a phid of the test's own: own_phid(args=[...])."""
    made = []

    def make(**kwargs):
        made.append(Phid(**kwargs))
        return made[-1].start()

    yield make
    for p in made:
        try:
            if p.process is not None:
                finish(p)
                p.stop()
        finally:
            p.close()


def check_loop(client):
    """None of the loop's callbacks took 100 ms; told only where a sanitizer slows it down."""
    loop = client.get("/v1/health").expect(200).json["loop"]
    print(f"loop: longest {loop['longest_us']} us in {loop['longest_callback']}")
    if not is_instrumented():
        assert loop["longest_us"] < 100000, loop
