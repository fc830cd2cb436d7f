"""Starts the reference and the server under test on free ports, each in its own folder.

The reference is Debian's etcd 3.4, the last series that speaks the v2 API; `etcd --enable-v2=true`.
Everything started here is ended here, by its own process handle.
"""

import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = "etcd --enable-v2=true"
DEFAULT_SERVER = str(ROOT / "target/release/edgetcd")
READY_SECONDS = 20
FIRST_PORT, PORT_COUNT = 11_000, 20_000
PORTS = iter(range(PORT_COUNT))     # each port is tried once in this process


def install_reference(packages=("etcd-server", "etcd-client")):
    """Install the reference's packages if its programs are missing (needs root and apt)."""
    programs = {"etcd-server": "etcd", "etcd-client": "etcdctl", "wrk": "wrk", "golang-go": "go",
                "golang-etcd-server-dev": "/usr/share/gocode/src/go.etcd.io/etcd"}
    missing = [package for package in packages
               if not (shutil.which(programs[package]) or os.path.isdir(programs[package]))]
    if not missing:
        return
    print("installing", " ".join(missing), flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    with no_services_started():
        for command in (["apt-get", "update", "-qq"],
                        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


class no_services_started:
    """While packages are installed: prevents, in Debian's way, that daemons are started."""

    path = pathlib.Path("/usr/sbin/policy-rc.d")

    def __enter__(self):
        self.mine = not self.path.exists()
        if self.mine:
            self.path.write_text("#!/bin/sh\nexit 101\n")
            self.path.chmod(0o755)

    def __exit__(self, *_):
        if self.mine:
            self.path.unlink()


def path_of(line):
    """The absolute path of the program of a command line."""
    word = shlex.split(line)[0]
    return os.path.abspath(word) if "/" in word else shutil.which(word)


def free_port():
    """A port on which no process listens, below the range of ports for outgoing connections. Processes that search at
    the same time start at different ports."""
    for step in PORTS:
        port = FIRST_PORT + (os.getpid() * 40_503 + step) % PORT_COUNT
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("no free port")


class Server:
    """One process. `line` is a command line to which addresses and data directory are added."""

    member = "default"
    wrapper = ()                # words before the command line: a program that runs the server as its only child
    cluster = None              # `--initial-cluster`; None: this server alone

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
        """The server itself, if it has a wrapper. The wrapper ends when the server does."""
        if not self.wrapper:
            return self.process.pid
        children = pathlib.Path("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid))
        return int(children.read_text().split()[0])

    def send(self, number):
        """Sends a signal to the server."""
        try:
            os.kill(self.pid, number)
        except (OSError, IndexError):
            pass                # it has ended meanwhile

    @property
    def peer_url(self):
        return "http://127.0.0.1:%d" % self.peer_port

    def command(self):
        peer = self.peer_url
        return list(self.wrapper) + self.words + [
            "--name=%s" % self.member, "--data-dir=%s" % self.data,
            "--listen-client-urls=%s" % self.url, "--advertise-client-urls=%s" % self.url,
            "--listen-peer-urls=%s" % peer, "--initial-advertise-peer-urls=%s" % peer,
            "--initial-cluster=%s" % (self.cluster or "%s=%s" % (self.member, peer))] + self.flags

    def spawn(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def start(self):
        self.spawn()
        return self.wait_ready()

    def wait_ready(self):
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

    def leader_named(self):
        """The name of the leader that this member reports. None: it knows no leader."""
        try:
            with urllib.request.urlopen(self.url + "/v2/members/leader", timeout=5) as answer:
                return json.load(answer)["name"]
        except (OSError, ValueError, KeyError):
            return None

    def log(self, lines=40):
        try:
            return "\n".join((self.folder / "log").read_text("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""

    def stop(self):
        """Sends SIGTERM, and SIGKILL if the process does not end."""
        if self.process and self.process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self.process.wait()
        self.process = None

    def start_anew(self):
        """Starts again on the same ports with an empty data directory."""
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)
        return self.start()

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_):
        self.remove()


class Cluster:
    """Several processes of one command line that form one cluster."""

    def __init__(self, line, name, count=3, folder=None, flags=()):
        self.name = name
        self.servers = [Server(line, name, folder, flags) for _ in range(count)]
        for number, server in enumerate(self.servers):
            server.member = "n%d" % number
        listed = ",".join("%s=%s" % (server.member, server.peer_url) for server in self.servers)
        for server in self.servers:
            server.cluster = listed

    def start(self):
        try:
            for server in self.servers:
                server.spawn()
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self.remove()
            raise
        return self

    def leader(self, among=None):
        """Waits until all members, or those of `among`, report the same of them as the leader. Returns its server."""
        among = among or self.servers
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            named = {server.leader_named() for server in among}
            for server in among:
                if named == {server.member}:
                    return server
            time.sleep(0.05)
        raise SystemExit("%s: no leader that all members name:\n%s" % (self.name, self.servers[0].log()))

    def remove(self):
        for server in self.servers:
            server.remove()


def memory_folder():
    """A folder in memory for tests that do not test disks. None: the usual folder."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
