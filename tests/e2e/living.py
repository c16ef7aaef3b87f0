"""What the tests of living containers share. Backend: the stand-in."""

COUNTS = {"boot": {"cmdline": "sim=count:10"}}
IGNORES = {"boot": {"cmdline": "quiet sim=powerdown:ignore"}}


def owners(client):
    return {c["id"]: c["owner"] for c in client.get("/v1/allocations").json["cpus"] if c["owner"] not in (None, "host")}


def types(client, after, id):
    return [e["type"].partition(".")[2] for e in client.all_events(after) if e["container"] == id]


def last_event(client):
    return client.get("/v1/health").json["last_event"]


def numbers(text):
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("count ")]
