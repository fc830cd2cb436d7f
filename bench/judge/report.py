"""The table of a run, as Markdown and JSON."""

import dataclasses
import json
import os
import pathlib
import platform
import statistics
import time
from typing import Optional

from . import goals, slow_disk
from .turns import OWN, REFERENCE


@dataclasses.dataclass
class Line:
    """One row: medians of both servers, and the ratios of the rounds."""

    name: str
    unit: str
    reference: Optional[float]
    own: float
    ratio: Optional[float]
    ratio_min: Optional[float]
    ratio_max: Optional[float]
    reference_cpu: Optional[float] = None
    own_cpu: Optional[float] = None
    cpu_ratio: Optional[float] = None
    reference_bytes: Optional[float] = None
    own_bytes: Optional[float] = None
    reference_p99: Optional[float] = None
    own_p99: Optional[float] = None


def lines(rows):
    return [line(name, of) for name, of in rows.items()]


def line(name, of):
    one, other = of.get(REFERENCE, []), of[OWN]
    ratios = [mine.value / its.value for its, mine in zip(one, other) if its.value]

    def median(rounds, field):
        values = [getattr(row, field) for row in rounds]
        return None if None in values or not values else statistics.median(values)

    cpus = [mine.cpu / its.cpu for its, mine in zip(one, other) if its.cpu and mine.cpu is not None]
    return Line(
        name, other[0].unit, median(one, "value"), median(other, "value"),
        statistics.median(ratios) if ratios else None, min(ratios, default=None), max(ratios, default=None),
        median(one, "cpu"), median(other, "cpu"), statistics.median(cpus) if cpus else None,
        median(one, "bytes"), median(other, "bytes"), median(one, "p99"), median(other, "p99"))


def shown(number, unit=""):
    if number is None:
        return ""
    text = "{:,.0f}".format(number) if number >= 100 else "%.2f" % number if number < 10 else "%.1f" % number
    return text + ("" if unit in ("/s", "") else " " + unit)


def spread(row):
    if row.ratio is None:
        return "–"
    if row.ratio_min == row.ratio_max:
        return "%.2f×" % row.ratio
    return "%.2f× (%.2f–%.2f)" % (row.ratio, row.ratio_min, row.ratio_max)


def pair(one, other):
    return "" if one is None or other is None else "%s / %s" % (shown(one), shown(other))


def markdown(table, limits, about):
    """The whole report. Numbers before a slash are the reference's."""
    out = ["Measured on %s." % about["machine"], "",
           "%s, %d rounds in turns of %d s, %s. Load of the machine before: %.1f." % (
               about["date"], about["rounds"], about["seconds"], about["versions"], about["load"]), "",
           "| | etcd | edgetcd | ratio (smallest–largest) | CPU µs | bytes written | p99 ms | goal |",
           "|---|---:|---:|---:|---:|---:|---:|---|"]
    for row in table:
        reached = ", ".join(("%s" if is_reached else "**%s**") % text for text, is_reached in goals.check(row))
        out.append("| %s | %s | %s | %s | %s | %s | %s | %s |" % (
            row.name, shown(row.reference, row.unit), shown(row.own, row.unit), spread(row),
            pair(row.reference_cpu, row.own_cpu), pair(row.reference_bytes, row.own_bytes),
            pair(row.reference_p99, row.own_p99), reached))
    out += ["", "Rates are requests per second. CPU, bytes and p99 are per request: etcd / edgetcd. A goal in bold is "
            "missed.", "", "| what the machine allows | |", "|---|---:|"]
    out += ["| %s | %s |" % (name, shown(number, unit)) for name, (number, unit) in limits.items()]
    return "\n".join(out) + "\n"


def about(options, load):
    """The machine and the run."""
    cpu = next((text.split(":")[1].strip() for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if text.startswith("model name")), platform.machine())
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) >> 20
    return {
        "machine": "%d cores (%s), %d GiB of memory, %s, Linux %s" % (
            os.cpu_count(), cpu, memory, slow_disk.file_system(options.folder), platform.release()),
        "date": time.strftime("%Y-%m-%d"), "rounds": options.rounds, "seconds": options.seconds, "load": load,
        "versions": "etcd 3.4 and edgetcd",
    }


def write(folder, name, table, limits, told, seconds):
    """Writes NAME.md and NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (name + ".md")).write_text(markdown(table, limits, told))
    data = {"about": told, "limits": limits, "seconds_of_cases": {key: round(value, 1) for key, value in seconds.items()},
            "rows": [dataclasses.asdict(row) for row in table]}
    (folder / (name + ".json")).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def missed(table):
    return ["%s: %s" % (row.name, text) for row in table for text, reached in goals.check(row) if not reached]
