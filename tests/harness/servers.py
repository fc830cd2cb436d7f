"""Starting the reference and the server under test side by side, on free ports, in folders of their own.

The reference is Debian's etcd 3.4, the last series that speaks the v2 API; `etcd --enable-v2=true`.
Everything started here is ended here, by its own process handle.
"""

import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = "etcd --enable-v2=true"
DEFAULT_SERVER = str(ROOT / "target/release/edgetcd")
READY_SECONDS = 20


def install_reference(packages=("etcd-server", "etcd-client")):
    """Install the reference's packages if its programs are missing (needs root and apt)."""
    programs = {"etcd-server": "etcd", "etcd-client": "etcdctl", "wrk": "wrk"}
    missing = [package for package in packages if not shutil.which(programs[package])]
    if not missing:
        return
    print("installing", " ".join(missing), flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    with no_services_started():
        for command in (["apt-get", "update", "-qq"],
                        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


class no_services_started:
    """While packages are installed: Debian's own way to say that no daemon is to be started."""

    path = pathlib.Path("/usr/sbin/policy-rc.d")

    def __enter__(self):
        self.mine = not self.path.exists()
        if self.mine:
            self.path.write_text("#!/bin/sh\nexit 101\n")
            self.path.chmod(0o755)

    def __exit__(self, *_):
        if self.mine:
            self.path.unlink()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One process. `line` is a command line to which addresses and data directory are added."""

    def __init__(self, line, name, folder=None, flags=("--cors=*",)):
        self.words = shlex.split(line)
        if "/" in self.words[0]:
            self.words[0] = os.path.abspath(self.words[0])
        self.name = name
        self.flags = list(flags)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="edgetcd-%s-" % name, dir=folder))
        self.data = self.folder / "data"
        self.port, self.peer_port = free_port(), free_port()
        self.process = None

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    @property
    def pid(self):
        return self.process.pid

    def command(self):
        peer = "http://127.0.0.1:%d" % self.peer_port
        return self.words + [
            "--data-dir=%s" % self.data,
            "--listen-client-urls=%s" % self.url, "--advertise-client-urls=%s" % self.url,
            "--listen-peer-urls=%s" % peer, "--initial-advertise-peer-urls=%s" % peer,
            "--initial-cluster=default=%s" % peer] + self.flags

    def spawn(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def start(self):
        self.spawn()
        deadline = time.monotonic() + READY_SECONDS
        while not self.healthy():
            if self.process.poll() is not None:
                raise SystemExit("%s ended with %d:\n%s" % (self.name, self.process.returncode, self.log()))
            if time.monotonic() > deadline:
                raise SystemExit("%s is not ready after %d s:\n%s" % (self.name, READY_SECONDS, self.log()))
            time.sleep(0.01)
        return self

    def healthy(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return connection.recv(65536).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def log(self, lines=40):
        try:
            return "\n".join((self.folder / "log").read_text("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""

    def stop(self):
        """SIGTERM, and SIGKILL for one that does not care."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()


def memory_folder():
    """A folder in memory for tests that are not about disks; None: the usual one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
