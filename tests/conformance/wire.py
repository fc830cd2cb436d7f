"""HTTP/1.1 as bytes: kept-alive connections for requests, and streams for answers that stay open."""

import socket
import time

ANSWER_SECONDS = 15
FIRST_LINE_MAX = 4000       # see "long-first-line" in compare.LEFT_OUT


class Answer:
    __slots__ = ("status", "headers", "body")

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class Broken(Exception):
    """There was no complete response. The text contains what was received."""


def request_bytes(method, target, headers, body):
    """`target` has one character per byte. A body that is a list of pieces is sent chunked."""
    head = "%s %s HTTP/1.1\r\nHost: localhost\r\n" % (method, target)
    for name, value in headers:
        head += "%s: %s\r\n" % (name, value)
    if isinstance(body, list):
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in body if piece]
        return head.encode("latin-1") + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"
    if body is not None:
        head += "Content-Length: %d\r\n" % len(body)
    return head.encode("latin-1") + b"\r\n" + (body or b"")


def parse_head(head):
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise Broken("not an answer: %r" % lines[0])
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(parts[1]), headers


class Connection:
    """Sends requests one after another. Reconnects if the server has closed the connection."""

    def __init__(self, port):
        self.port = port
        self.socket = None
        self.buffer = b""

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None
        self.buffer = b""

    def send(self, data):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if data.find(b"\r\n") > FIRST_LINE_MAX:
                self.begin()
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # still read what the server sent before it closed

    def begin(self):
        """Sends a short request and ignores the response."""
        self.socket.sendall(request_bytes("GET", "/version", [], None))
        self.receive_whole(False)

    def more(self):
        try:
            piece = self.socket.recv(262144)
        except socket.timeout:
            raise Broken("no answer within %d s" % ANSWER_SECONDS)
        except OSError as error:
            raise Broken(str(error))
        if not piece:
            raise Broken("closed after %r" % self.buffer[:80])
        self.buffer += piece

    def receive(self, headless):
        try:
            return self.receive_whole(headless)
        except Broken:
            self.close()
            raise

    def receive_whole(self, headless):
        status = 100
        while 100 <= status < 200:
            while True:
                end = self.buffer.find(b"\r\n\r\n")
                if end >= 0:
                    break
                self.more()
            status, headers = parse_head(self.buffer[:end])
            self.buffer = self.buffer[end + 4:]
        if headless or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = self.chunks()
        elif "content-length" in headers:
            length = int(headers["content-length"])
            while len(self.buffer) < length:
                self.more()
            body, self.buffer = self.buffer[:length], self.buffer[length:]
        else:
            body = self.rest()
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    def rest(self):
        try:
            while True:
                self.more()
        except Broken:
            body, self.buffer = self.buffer, b""
            self.close()
            return body

    def chunks(self):
        body = []
        while True:
            line = self.until_crlf()
            size = int(line, 16)
            while len(self.buffer) < size + 2:
                self.more()
            body.append(self.buffer[:size])
            self.buffer = self.buffer[size + 2:]
            if size == 0:
                return b"".join(body)

    def until_crlf(self):
        while True:
            end = self.buffer.find(b"\r\n")
            if end >= 0:
                line, self.buffer = self.buffer[:end], self.buffer[end + 2:]
                return line
            self.more()


class Stream:
    """A request with a response that may stay open: first the head, then lines as they arrive."""

    def __init__(self, port, data):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(data)
        self.raw = b""
        self.body = b""
        self.ended = None       # "end": according to its framing, "cut": before that
        self.left = None        # bytes left of a body; None: until the connection ends

    def head(self):
        """Status and headers; the body is read by `poll`."""
        while b"\r\n\r\n" not in self.raw:
            try:
                piece = self.socket.recv(65536)
            except OSError as error:
                raise Broken(str(error))
            if not piece:
                raise Broken("closed after %r" % self.raw[:80])
            self.raw += piece
        head, _, self.raw = self.raw.partition(b"\r\n\r\n")
        status, headers = parse_head(head)
        self.chunked = headers.get("transfer-encoding") == "chunked"
        if not self.chunked:
            self.left = int(headers["content-length"]) if "content-length" in headers else None
        self.socket.setblocking(False)
        self.unframe()
        return Answer(status, headers, b"")

    def poll(self):
        """Reads what has arrived, without waiting."""
        while self.ended is None:
            try:
                piece = self.socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                piece = b""
            if not piece:
                self.ended = "cut" if self.chunked or self.left is not None else "end"
                return
            self.raw += piece
            self.unframe()

    def unframe(self):
        if not self.chunked and self.left is None:
            self.body, self.raw = self.body + self.raw, b""
            return
        if not self.chunked:
            self.body += self.raw[:self.left]
            self.left -= len(self.raw[:self.left])
            self.raw = b""
            if self.left == 0:
                self.ended = "end"
            return
        while self.ended is None:
            line, found, rest = self.raw.partition(b"\r\n")
            if not found:
                return
            size = int(line, 16)
            if len(rest) < size + 2:
                return
            self.body += rest[:size]
            self.raw = rest[size + 2:]
            if size == 0:
                self.ended = "end"

    def close(self):
        self.socket.close()


def wait_until(condition, seconds):
    """True as soon as the condition is true. False after this many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True
