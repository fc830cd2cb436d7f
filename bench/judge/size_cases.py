"""Cases with many keys: memory, and the restart."""

import time

from measure import Process

from .case import Row, case
from .load import fill
from .node_cases import first_answer

LAST = b"GET /v2/keys/fill/d0/k0 HTTP/1.1\r\nHost: a\r\n\r\n"


def filled(bench, count):
    """Memory per key in bytes, and seconds from a restart to the first answer."""
    server = bench.server()
    try:
        server.start()
        time.sleep(0.5)
        before = Process(server.pid).memory()
        fill(server, count)
        time.sleep(1)
        each = (Process(server.pid).memory() - before) * (1 << 20) / count
        server.stop()
        return each, first_answer(server, LAST) / 1000
    finally:
        server.remove()


@case("memory", "memory per key of 64 bytes, 100,000 keys", rounds_max=2)
def memory(bench):
    each, restart = filled(bench, bench.shorter(100_000, 10_000))
    return {"memory per key, 100,000 keys": Row(each, "B"),
            "restart with 100,000 keys to the first answer": Row(restart, "s")}


@case("million", "the same with 1,000,000 keys", rounds_max=1, in_short=False)
def million(bench):
    each, restart = filled(bench, 1_000_000)
    return {"memory per key, 1,000,000 keys": Row(each, "B"),
            "restart with 1,000,000 keys to the first answer": Row(restart, "s")}
