"""A slow disk for one process, and the cost of one raw sync.

`strace` delays each sync of the process. It works for both servers, needs no root and no kernel module, and its filter
(`--seccomp-bpf`) stops no other system call.
"""

import mmap
import os
import pathlib
import shutil
import statistics
import tempfile
import time

PAGE = 4096
SEGMENT = 1 << 20
SYNCS = "msync,fsync,fdatasync"


def wrapper(milliseconds):
    """Words before a command line whose syncs take this much longer."""
    if not shutil.which("strace"):
        raise SystemExit("a slow disk needs strace: apt-get install strace")
    return ["strace", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=" + SYNCS, "-e", "signal=none",
            "-e", "inject=%s:delay_enter=%d" % (SYNCS, milliseconds * 1000)]


def raw_sync(folder, count=300):
    """The median time in µs of an msync of one page, in a file that is allocated and was written before."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(bytes(SEGMENT))
        file.flush()
        os.fsync(file.fileno())
        took = []
        with mmap.mmap(file.fileno(), SEGMENT) as segment:
            for number in range(count):
                offset = number * PAGE % SEGMENT
                segment[offset:offset + PAGE] = bytes([number % 255 + 1]) * PAGE
                begin = time.perf_counter()
                segment.flush(offset, PAGE)
                took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1e6


def file_system(folder):
    """Type and device of the file system that contains the folder, from /proc/mounts."""
    best = ("/", "unknown", "unknown")
    path = str(pathlib.Path(folder).resolve())
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        device, mounted, kind = line.split()[:3]
        inside = path == mounted or path.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= len(best[0]):
            best = (mounted, device, kind)
    return "%s on %s" % (best[2], best[1])
