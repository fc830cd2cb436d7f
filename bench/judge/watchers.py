"""Thousands of waiting watches on one thread.

wrk can only measure responses that it asks for. These clients wait, and what counts is when the last of them has its
event. A client that is readable has it, so nothing is read while the clock runs.
"""

import re
import select
import socket
import struct
import time
import urllib.request

TIMEOUT = 60
QUIET_SECONDS = 0.1     # nothing is on its way if nothing arrives for this long


class Connections:
    """`requests` has what each connection sends first."""

    def __init__(self, port, requests):
        self.poll, self.sockets = select.epoll(), []
        for request in requests:
            one = socket.create_connection(("127.0.0.1", port))
            # A reset instead of a normal close leaves no port behind in TIME_WAIT.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(request)
            self.sockets.append(one)

    def expect_events(self):
        """What has arrived until now does not count. Returns when nothing arrives any more."""
        by_descriptor = {one.fileno(): one for one in self.sockets}
        for one in self.sockets:
            one.setblocking(False)
            self.poll.register(one, select.EPOLLIN)
        while ready := self.poll.poll(QUIET_SECONDS):
            for descriptor, _ in ready:
                if not by_descriptor[descriptor].recv(4096):
                    raise SystemExit("a connection was closed while it waited for an event")
        for one in self.sockets:
            self.poll.modify(one, select.EPOLLIN | select.EPOLLONESHOT)

    def milliseconds_until_all_have(self, change):
        """Calls `change`, and waits until each connection has something to read."""
        begin, left = time.monotonic(), len(self.sockets)
        change()
        while left > 0:
            ready = self.poll.poll(TIMEOUT, maxevents=len(self.sockets))
            if not ready:
                raise SystemExit("%d of %d connections got no event" % (left, len(self.sockets)))
            left -= len(ready)
        return (time.monotonic() - begin) * 1000

    def close(self):
        self.poll.close()
        for one in self.sockets:
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Watchers(Connections):
    """`keys` has the key of each watch, below /v2/keys."""

    def __init__(self, server, keys):
        self.server = server
        already = waiting(server)
        super().__init__(server.port, (b"GET /v2/keys/%s?wait=true HTTP/1.1\r\nHost: a\r\n\r\n" % key.encode()
                                       for key in keys))
        self.wait_parked(already + len(self.sockets))
        # etcd sends the head of the response at once. It must not count as the event.
        self.expect_events()

    def wait_parked(self, count):
        deadline = time.monotonic() + TIMEOUT
        while waiting(self.server) < count:
            if time.monotonic() > deadline:
                raise SystemExit("%s: only %d of %d watches wait:\n%s" % (
                    self.server.name, waiting(self.server), count, self.server.log()))
            time.sleep(0.05)


def waiting(server):
    """How many watches the server says are waiting."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=TIMEOUT) as page:
        return int(float(re.search(r"^etcd_debugging_store_watchers (\S+)", page.read().decode(), re.M).group(1)))
