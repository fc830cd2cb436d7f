"""Cases with many keys: memory, the restart, and PUTs beside snapshots."""

import measure
from measure import Process

from .case import Row, case
from .load import fill, rate
from .node_cases import first_answer

FIRST = b"GET /v2/keys/fill/d0/k0 HTTP/1.1\r\nHost: a\r\n\r\n"
NEVER, OFTEN = 100_000_000, 20_000      # --snapshot-count


def many(bench, count, shown):
    """Rows about a server with `count` keys, which is called `shown` in their names."""
    with bench.server() as server:
        before = measure.idle_memory(Process(server.pid))
        fill(server, count)
        each = (measure.idle_memory(Process(server.pid)) - before) * (1 << 20) / count
        restart, alone = restarted(bench, server, NEVER)
        _, beside = restarted(bench, server, OFTEN)
        return {
            "memory per key, %s keys" % shown: Row(each, "B"),
            "restart with %s keys to the first answer" % shown: Row(restart, "s"),
            "PUT beside snapshots of %s keys, 64 connections" % shown: beside,
            "its p99, part of the p99 without snapshots, %s keys" % shown: Row(100 * beside.p99 / alone.p99, "%"),
        }


def restarted(bench, server, snapshot_count):
    """Seconds from a restart to the first answer, and the rate of PUTs after it."""
    server.stop()
    server.flags = ["--snapshot-count=%d" % snapshot_count]
    took = first_answer(server, FIRST) / 1000
    server.wait_ready()
    return took, rate(server, 64, bench.shorter(2, 1) * bench.seconds, kind="put")


@case("memory", "memory per key of 64 bytes, restart, PUT beside snapshots: 100,000 keys", rounds_max=2)
def memory(bench):
    return many(bench, bench.shorter(100_000, 10_000), "100,000")


@case("million", "the same with 1,000,000 keys", rounds_max=1, in_short=False)
def million(bench):
    return many(bench, 1_000_000, "1,000,000")
