"""How the cost grows: each group changes one thing and measures the rest as before.

| group | from | to |
|---|---|---|
| `keys` | 1,000 | 1,000,000 |
| `value` | 64 B | 64 KiB |
| `connections` | 1 | 4,096 |
| `watchers` | 1 | 10,000 |
| `members` | 1 | 7 |
| `width` of a directory | 10 | 100,000 |
| `depth` of a key | 1 | 64 |
"""

import statistics
import sys

import measure

from .case import Bench
from .load import fill, rate
from .turns import OWN, REFERENCE
from .watch_cases import wake

CONNECTIONS = 64
# Filling the reference with a million keys takes minutes.
REFERENCE_KEYS_MAX = 100_000
ALL = {}


def group(name, x_name, points, short, what):
    """Adds a group. `what`: {chart: unit of y}. The function yields (point, {chart: y}) for a Bench and its points."""
    def add(function):
        ALL[name] = (x_name, points, short, what, function)
        return function
    return add


@group("keys", "keys in the store", (1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000),
       {"GET": "per second, 64 connections", "PUT": "per second, 64 connections",
        "listing of 100 keys": "per second, 8 connections", "memory": "MiB"})
def keys(bench, points):
    before = 0
    with bench.server() as server:
        fill(server, 100, directory="hundred")
        for point in points:
            if bench.name == REFERENCE and point > REFERENCE_KEYS_MAX:
                return
            fill(server, point - before, directory="from%d" % before)
            before = point
            yield point, {
                "GET": rate(server, CONNECTIONS, bench.seconds, "/v2/keys/bench/read").value,
                "PUT": rate(server, CONNECTIONS, bench.seconds, kind="put").value,
                "listing of 100 keys": rate(server, 8, bench.seconds, "/v2/keys/hundred?recursive=true").value,
                "memory": measure.Process(server.pid).memory(),
            }


@group("value", "bytes of a value", (64, 512, 4_096, 16_384, 65_536), (64, 4_096),
       {"GET": "per second, 64 connections", "PUT": "per second, 64 connections"})
def value(bench, points):
    for point in points:
        with bench.server() as server:
            fill(server, 1, value_bytes=point, directory="one")
            yield point, {
                "GET": rate(server, CONNECTIONS, bench.seconds, "/v2/keys/one/d0/k0").value,
                "PUT": rate(server, CONNECTIONS, bench.seconds, kind="put", value_bytes=point, keys=100).value,
            }


@group("connections", "connections", (1, 4, 16, 64, 256, 1_024, 4_096), (1, 64),
       {"GET": "per second", "PUT": "per second"})
def connections(bench, points):
    with bench.server() as server:
        for point in points:
            yield point, {"GET": rate(server, point, bench.seconds, "/v2/keys/bench/read").value,
                          "PUT": rate(server, point, bench.seconds, kind="put").value}


@group("watchers", "watches of one key", (1, 10, 100, 1_000, 10_000), (1, 100),
       {"until the last has the event": "ms"})
def watchers(bench, points):
    with bench.server() as server:
        measure.write(server, "bench/watched", "x")
        for point in points:
            yield point, {"until the last has the event": wake(server, point)}


@group("members", "members", (1, 3, 5, 7), (1, 3),
       {"PUT through the leader": "per second, 64 connections", "quorum GET through the leader": "per second, 64 connections"})
def members(bench, points):
    for point in points:
        with bench.cluster(point) as cluster:
            leader = cluster.leader()
            measure.write(leader, "bench/read", "v" * 64)
            yield point, {
                "PUT through the leader": rate(leader, CONNECTIONS, bench.seconds, kind="put").value,
                "quorum GET through the leader":
                    rate(leader, CONNECTIONS, bench.seconds, "/v2/keys/bench/read?quorum=true").value,
            }


@group("width", "keys in one directory", (10, 100, 1_000, 10_000, 100_000), (10, 1_000),
       {"PUT into it": "per second, 64 connections", "GET of one of them": "per second, 64 connections",
        "keys listed": "per second, 1 connection"})
def width(bench, points):
    with bench.server() as server:
        for point in points:
            directory = "width%d" % point
            fill(server, point, directory=directory, width=point)
            yield point, {
                "PUT into it": rate(server, CONNECTIONS, bench.seconds, kind="into",
                                    directory=directory + "/d0", keys=point).value,
                "GET of one of them": rate(server, CONNECTIONS, bench.seconds, "/v2/keys/%s/d0/k1" % directory).value,
                "keys listed": point * rate(server, 1, bench.seconds, "/v2/keys/%s/d0" % directory).value,
            }


@group("depth", "directories above a key", (1, 4, 16, 64), (1, 16),
       {"PUT": "per second, 64 connections", "GET": "per second, 64 connections"})
def depth(bench, points):
    with bench.server() as server:
        for point in points:
            directory = "/".join(["d%d" % point] * point)
            measure.write(server, directory + "/key", "v" * 64)
            yield point, {
                "PUT": rate(server, CONNECTIONS, bench.seconds, kind="into", directory=directory, keys=10).value,
                "GET": rate(server, CONNECTIONS, bench.seconds, "/v2/keys/%s/key" % directory).value,
            }


def in_turns(function, benches, points):
    """Yields (server, point, {chart: y}), point by point with each of the servers: the machine may be busy for a whole
    group. The server that is not measured is idle meanwhile."""
    running = [(bench.name, function(bench, points)) for bench in benches]
    try:
        while running:
            for name, measured in list(running):
                step = next(measured, None)
                if step is None:
                    running.remove((name, measured))
                else:
                    yield name, *step
    finally:
        for _, measured in running:
            measured.close()        # ends its servers


def run(names, options):
    """{group: {chart: {server: [(x, y)]}}}: medians of the rounds."""
    unknown = sorted(set(names) - set(ALL))
    if unknown:
        raise SystemExit("no group %s; there are: %s" % (" ".join(unknown), " ".join(ALL)))
    measured = {}
    for name in names or ALL:
        _, points, short, _, function = ALL[name]
        points = short if options.short else points
        collected = {}
        for number in range(options.rounds):
            benches = [Bench(line, server, options.folder, options.seconds, options.short)
                       for server, line in ((REFERENCE, options.reference), (OWN, options.server))]
            for server, point, values in in_turns(function, benches, points):
                for chart, y in values.items():
                    collected.setdefault(chart, {}).setdefault(server, {}).setdefault(point, []).append(y)
                print("round %d  %-11s %-9s %9d  %s" % (number + 1, name, server, point, "  ".join(
                    "%s %.4g" % item for item in values.items())), file=sys.stderr, flush=True)
        measured[name] = {chart: {server: [(x, statistics.median(ys)) for x, ys in of_points.items()]
                                  for server, of_points in of_servers.items()}
                          for chart, of_servers in collected.items()}
    return measured
