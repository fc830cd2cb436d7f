"""What a case is, and the table of all cases.

A case measures one server (or one cluster) from its start to its end and returns rows. The judge runs it with the
reference and with edgetcd in turns.
"""

import contextlib
import dataclasses
import pathlib
from typing import Callable, Optional

import measure
import servers


@dataclasses.dataclass
class Row:
    """One measured number. `cpu` (µs), `bytes` and `p99` (ms) are per request, of all server processes together.
    `requests`: how many responses it is about."""

    value: float
    unit: str = "/s"
    cpu: Optional[float] = None
    bytes: Optional[float] = None
    p99: Optional[float] = None
    only_own: bool = False      # the reference cannot be asked for it
    requests: Optional[int] = None


@dataclasses.dataclass
class Bench:
    """The server under test, and how long to measure it."""

    line: str
    name: str
    folder: str
    seconds: int
    short: bool

    @contextlib.contextmanager
    def prepared(self):
        """A server that is not started yet, with a data directory of its own. It is removed at the end."""
        server = servers.Server(self.line, self.name, self.folder, flags=())
        try:
            yield server
        finally:
            server.remove()

    @contextlib.contextmanager
    def server(self, wrapper=()):
        """The same, started, with the key bench/read. `wrapper`: words before its command line."""
        with self.prepared() as server:
            server.wrapper = list(wrapper)
            server.start()
            measure.write(server, "bench/read", "v" * 64)
            yield server

    @contextlib.contextmanager
    def cluster(self, count=3, wrapper=(), flags=()):
        """A started cluster. `wrapper`: words before the command line of its first member."""
        cluster = servers.Cluster(self.line, self.name, count, self.folder, flags)
        cluster.servers[0].wrapper = list(wrapper)
        try:
            yield cluster.start()
        finally:
            cluster.remove()

    def shorter(self, usual, short):
        """A size that depends on whether this is a short run."""
        return short if self.short else usual


@dataclasses.dataclass
class Case:
    """A measurement. `rounds_max` limits the repetitions of one that takes long."""

    name: str
    what: str
    run: Callable[[Bench], dict]
    rounds_max: Optional[int] = None
    in_short: bool = True


ALL: list[Case] = []
HERE = pathlib.Path(__file__).resolve().parent


def case(name, what, rounds_max=None, in_short=True):
    """Adds the decorated function to the table."""
    def add(function):
        ALL.append(Case(name, what, function, rounds_max, in_short))
        return function
    return add


def selected(names, short):
    """The cases with these names; all of them if there are none."""
    unknown = sorted(set(names) - {one.name for one in ALL})
    if unknown:
        raise SystemExit("no case %s; there are: %s" % (
            " ".join(unknown), " ".join(one.name for one in ALL)))
    return [one for one in ALL if (one.name in names if names else one.in_short or not short)]
