"""Cases with many watches."""

import statistics

import measure

from .case import Row, case
from .load import rate
from .watchers import Watchers


@case("watch", "watches of one key: until the last has the event")
def watch(bench):
    rows = {}
    with bench.server() as server:
        for count in bench.shorter((1000, 5000), (1000,)):
            rows["%s watches woken by one PUT" % format(count, ",")] = Row(wake(server, count, bench.shorter(3, 1)), "ms")
    return rows


def wake(server, count, repetitions=3):
    """The median of some wakes, in milliseconds."""
    times = []
    for _ in range(repetitions):
        with Watchers(server, ["bench/watched"] * count) as watchers:
            times.append(watchers.milliseconds_until_all_have(lambda: measure.write(server, "bench/watched", "x")))
    return statistics.median(times)


@case("idle", "PUT while 10,000 watches wait on other keys", rounds_max=3)
def idle(bench):
    with bench.server() as server:
        without = rate(server, 64, bench.seconds, kind="put")
        count = bench.shorter(10_000, 1_000)
        with Watchers(server, ["idle/k%d" % number for number in range(count)]):
            beside = rate(server, 64, bench.seconds, kind="put")
        again = rate(server, 64, bench.seconds, kind="put")
        share = 200 * beside.value / (without.value + again.value)
        return {"PUT beside 10,000 idle watches, 64 connections": beside,
                "PUT beside 10,000 idle watches, part of PUT without": Row(share, "%")}
