"""Code shared by the benchmarks: counters of processes, runs of wrk, rounds, the table and its limits.

CPU and bytes are those of the server processes alone, from /proc/PID/stat and /proc/PID/io.
"""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import servers

CONNECTIONS = 64
TICKS = os.sysconf("SC_CLK_TCK")
# A process is idle if it uses at most this much CPU in this time: the reference works a little all the time.
IDLE_SECONDS = 0.5
IDLE_CPU_SECONDS = 0.02


class Process:
    """The counters of one server process."""

    def __init__(self, pid):
        self.pid = pid

    def cpu(self):
        fields = self.read("stat").rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def written(self):
        return int(re.search(r"^write_bytes: (\d+)", self.read("io"), re.M).group(1))

    def memory(self):
        return int(re.search(r"^VmRSS:\s+(\d+)", self.read("status"), re.M).group(1)) / 1024

    def read(self, name):
        return pathlib.Path("/proc/%d/%s" % (self.pid, name)).read_text()


def wrk(server, connections, seconds, target, script=None, url=None):
    """Runs wrk against `server`, at its `url` (default: the one for http). Returns requests per second, the server's CPU
    µs and written bytes per request, and the 99th percentile in ms."""
    process = Process(server.pid)
    cpu, written = process.cpu(), process.written()
    command = ["wrk", "-t%d" % min(2, connections), "-c%d" % connections, "-d%ds" % seconds, "--latency"]
    command += (["-s", str(script)] if script else []) + [(url or server.url) + target]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for complaint in ("Non-2xx", "Socket errors"):
        if complaint in output:
            raise SystemExit("%s: %s\n%s\n%s\nlog:\n%s" % (
                server.name, " ".join(command), output, answer_now(server, target), server.log()))
    count = int(re.search(r"(\d+) requests in", output).group(1))
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),
        "cpu": (process.cpu() - cpu) / count * 1e6,
        "bytes": (process.written() - written) / count,
        "p99": milliseconds(re.search(r"^ +99% +(\S+)", output, re.M).group(1)),
    }


def answer_now(server, target):
    """Sends a GET for the same target and describes the response, for the error message."""
    try:
        with urllib.request.urlopen(server.url + target, timeout=10) as answer:
            return "a GET returns %d: %s" % (answer.status, answer.read(400))
    except urllib.error.HTTPError as answer:
        return "a GET returns %d: %s" % (answer.code, answer.read(400))
    except OSError as error:
        return "a GET fails: %s" % error


def write(server, key, value):
    url = "%s/v2/keys/%s?value=%s" % (server.url, key, value)
    urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10).close()


def wait_value(server, key, seconds=10, unless=lambda: False):
    """Waits until this server has the key in its own memory, or `unless` is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not unless():
        try:
            urllib.request.urlopen("%s/v2/keys/%s" % (server.url, key), timeout=10).close()
            return
        except OSError:
            time.sleep(0.01)
    if unless():
        return
    raise SystemExit("%s has no %s after %d s:\n%s" % (server.name, key, seconds, server.log()))


def idle_memory(process, seconds=30):
    """Waits until the process has used no CPU for a moment, so that its start or its work is over. Returns its MiB."""
    deadline, before = time.monotonic() + seconds, process.cpu()
    while time.monotonic() < deadline:
        time.sleep(IDLE_SECONDS)
        now = process.cpu()
        if now - before <= IDLE_CPU_SECONDS:
            return process.memory()
        before = now
    raise SystemExit("process %d is still busy after %d s" % (process.pid, seconds))


def milliseconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def table(medians, order):
    lines = ["| median | reference | edgetcd | ratio |", "|---|---:|---:|---:|"]
    for name in order:
        one, other = medians["reference"][name], medians["edgetcd"][name]
        ratio = "%.2f×" % (other / one) if one else "–"
        lines.append("| %s | %s | %s | %s |" % (name, shown(one), shown(other), ratio))
    return "\n".join(lines)


def shown(number):
    return "{:,.0f}".format(number) if number >= 100 else "%.2f" % number


def missed(medians, bars):
    """Returns a message for each limit that is missed."""
    found = []
    for name, kind, bar in bars:
        one, other = medians["reference"][name], medians["edgetcd"][name]
        value = other / one if kind.startswith("ratio") else other
        if value < bar if kind.endswith("least") else value > bar:
            found.append("%s: %.3g, the limit is %s %s" % (name, value, kind, bar))
    return found


def add_options(parser):
    parser.add_argument("--server", default=servers.DEFAULT_SERVER, help="command line of the server under test")
    parser.add_argument("--reference", default=servers.REFERENCE, help="command line of the reference")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each wrk run")
    parser.add_argument("--folder", default=str(servers.ROOT / "target"), help="a folder on the disk to measure")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a limit is missed")


def compare(options, one_round, shown_after_each, order, bars):
    """Runs the reference and edgetcd alternately and prints the table. Returns the exit status."""
    servers.install_reference(("etcd-server", "wrk"))
    pathlib.Path(options.folder).mkdir(exist_ok=True)
    load = os.getloadavg()[0]
    rows = {"reference": [], "edgetcd": []}
    for number in range(options.rounds):
        for name, line in (("reference", options.reference), ("edgetcd", options.server)):
            row = one_round(line, name, options.folder, options.seconds)
            rows[name].append(row)
            print("round %d %-9s %s" % (number + 1, name, shown_after_each(row)), file=sys.stderr, flush=True)
    medians = {name: {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
               for name, rounds in rows.items()}
    print("wrk, %d connections, %d cores, %d rounds of %d s, load of the machine before: %.1f\n" % (
        CONNECTIONS, os.cpu_count(), options.rounds, options.seconds, load))
    print(table(medians, order))
    misses = missed(medians, bars)
    if misses:
        print("\nmissed:")
        print("\n".join("* " + miss for miss in misses))
    return 1 if misses and options.check else 0
