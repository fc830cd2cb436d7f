"""Runs cases in turns: in each round, each case measures the reference and edgetcd one after the other.

The machine is never quiet for long. So a ratio is computed within a round, where both servers met the same conditions,
and the median of the ratios is reported, with the smallest and the largest.
"""

import sys
import time
import traceback

from . import slow_disk
from .case import Bench

REFERENCE, OWN = "reference", "edgetcd"


def run(cases, options):
    """Returns {row name: {server: [Row of each round]}} in the order of the cases, the seconds of each case, a
    message for each case that failed, and the cost of a raw sync in µs, measured before each case. A failed case keeps
    no other one from being measured, and has no rows."""
    rows, seconds, failures, syncs = {}, {}, [], []
    failed = set()
    for number in range(options.rounds):
        for case in cases:
            if case.rounds_max is not None and number >= case.rounds_max or case.name in failed:
                continue
            # The speed of the disk changes from minute to minute, so one sample says little.
            syncs.append(slow_disk.raw_sync(options.folder, count=50))
            begin = time.monotonic()
            # The second of a pair finds a warmer machine, so they change places.
            order = [(REFERENCE, options.reference), (OWN, options.server)]
            for name, line in order[::-1] if number % 2 else order:
                bench = Bench(line, name, options.folder, options.seconds, options.short)
                try:
                    measured = case.run(bench)
                except (SystemExit, Exception) as error:
                    # A SystemExit has a message for the user. Anything else is a fault of the judge, whose place counts.
                    what = str(error) if isinstance(error, SystemExit) else traceback.format_exc()
                    failures.append("%s, %s: %s" % (case.name, name, what))
                    failed.add(case.name)
                    print("round %d  %-8s %-9s  FAILED" % (number + 1, case.name, name), file=sys.stderr, flush=True)
                    break
                for row, value in measured.items():
                    rows.setdefault(row, {}).setdefault(name, []).append(value)
                print("round %d  %-8s %-9s  %s" % (
                    number + 1, case.name, name, "  ".join(map(brief, measured.values()))), file=sys.stderr, flush=True)
            seconds[case.name] = seconds.get(case.name, 0) + time.monotonic() - begin
    complete = {row: of for row, of in rows.items() if OWN in of and (REFERENCE in of or only_own(of))}
    return complete, seconds, failures, syncs


def only_own(of):
    """Whether the reference has no such row."""
    return all(row.only_own for row in of[OWN])


def brief(row):
    return "%s%s" % (format(row.value, ",.0f") if row.value >= 100 else "%.2f" % row.value, row.unit)
