"""What the tests of wrong requests share: nothing may change by them."""
import json

import pytest
from conftest import eventually
from phidtest.openapi import document

A = "/v1/containers/a"
SPEC = document().tree["components"]["schemas"]
OPERATIONS = document().operations


def last_event(client):
    return client.get("/v1/health").json["last_event"]


makes_containers = pytest.mark.makes_containers  # good ones, for the wrong requests to miss


@pytest.fixture(autouse=True)
def unchanged(request, phid, client):
    """Records, vector, cells, directories and events are the same behind every test here."""
    before, event = phid.leftovers(client), last_event(client)
    yield
    assert phid.alive(), phid.log()[-3000:]
    c = phid.client()
    if request.node.get_closest_marker("makes_containers"):
        phid.sim.clear()
        phid.delete_all(c)
    else:
        assert last_event(c) == event
    eventually(lambda: phid.leftovers(c) == before, "the state before")


def put(client, body, id="a", query="", headers=None):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return client.raw("PUT", f"/v1/containers/{id}{query}", body, {"Content-Type": "application/json", **(headers or {})})
