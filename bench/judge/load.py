"""Load on a server: wrk for rates, and a client that fills a server with a number of keys."""

import os
import re
import resource
import select
import socket
import subprocess

from measure import Process, milliseconds, answer_now

from .case import HERE, Row

SCRIPT = HERE / "load.lua"
TIMEOUT = "30s"          # the reference stalls for seconds while it stores a large snapshot
FILL_CONNECTIONS = 16
FILL_AHEAD = 64          # requests on the way per connection


def raise_descriptor_limit():
    """Thousands of connections need as many descriptors, here and in wrk."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def rate(server, connections, seconds, target="", kind=None, processes=None, **variables):
    """Requests per second as a Row. With a `kind` of load.lua it writes, otherwise it sends GETs to `target`."""
    processes = [Process(one.pid) for one in processes or [server]]
    before = [sum(map(count, processes)) for count in (Process.cpu, Process.written)]
    command = ["wrk", "-t%d" % min(2, connections), "-c%d" % connections, "-d%ds" % seconds, "--latency",
               "--timeout", TIMEOUT]
    command += (["-s", str(SCRIPT)] if kind else []) + [server.url + target]
    environment = dict(os.environ, LOAD=kind or "", **{name.upper(): str(value) for name, value in variables.items()})
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    for complaint in ("Non-2xx", "Socket errors"):
        if complaint in output:
            raise SystemExit("%s: %s\n%s\n%s\nlog:\n%s" % (
                server.name, " ".join(command), output, answer_now(server, target), server.log()))
    count = int(re.search(r"(\d+) requests in", output).group(1))
    if count == 0:
        raise SystemExit("%s: no response in %d s\n%s" % (server.name, seconds, server.log()))
    cpu, written = (sum(map(counter, processes)) - start for counter, start in
                    zip((Process.cpu, Process.written), before))
    return Row(value=float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)), cpu=cpu / count * 1e6,
               bytes=written / count, requests=count,
               p99=milliseconds(re.search(r"^ +99% +(\S+)", output, re.M).group(1)))


class Filler:
    """One connection that sends many PUTs without waiting for each response."""

    END = b"HTTP/1.1 20"

    def __init__(self, port, targets, body):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.targets, self.body, self.unanswered, self.tail = targets, body, 0, b""
        self.send()

    def send(self):
        """Sends as many requests as may be on the way. Returns whether some are unanswered."""
        requests = []
        while self.unanswered < FILL_AHEAD:
            target = next(self.targets, None)
            if target is None:
                break
            requests.append(b"PUT /v2/keys/%s HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                            b"Content-Length: %d\r\n\r\n%s" % (target, len(self.body), self.body))
            self.unanswered += 1
        self.socket.sendall(b"".join(requests))
        return self.unanswered > 0

    def receive(self):
        received = self.socket.recv(1 << 18)
        if not received:
            raise SystemExit("the server closed a connection while it was filled")
        self.tail += received
        self.unanswered -= self.tail.count(self.END)
        self.tail = self.tail[-(len(self.END) - 1):]


def fill(server, count, value_bytes=64, directory="fill", width=1000, ttl=None):
    """Puts `count` keys into directories of `width` keys each."""
    body = b"value=" + b"v" * value_bytes + (b"&ttl=%d" % ttl if ttl else b"")
    targets = iter(["%s/d%d/k%d" % (directory, number // width, number % width) for number in range(count)])
    encoded = map(str.encode, targets)
    fillers = [Filler(server.port, encoded, body) for _ in range(FILL_CONNECTIONS)]
    waiting = {filler.socket.fileno(): filler for filler in fillers if filler.unanswered}
    poll = select.epoll()
    for descriptor in waiting:
        poll.register(descriptor, select.EPOLLIN)
    while waiting:
        for descriptor, _ in poll.poll():
            filler = waiting[descriptor]
            filler.receive()
            if not filler.send():
                poll.unregister(descriptor)
                del waiting[descriptor]
    poll.close()
    for filler in fillers:
        filler.socket.close()
