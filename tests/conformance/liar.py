#!/usr/bin/env python3
"""A server with wrong answers, to test that `run` finds them: the reference behind a proxy that changes responses.

    liar.py LIE etcd --enable-v2=true …     (`run` adds addresses and data directory)
"""

import re
import signal
import socket
import subprocess
import sys
import threading

# name: (pattern, replacement of the same length, so that the framing stays right)
LIES = {
    "none": (rb"\Z\A", b""),
    "status": (rb"HTTP/1.1 412", b"HTTP/1.1 409"),
    "error-code": (rb'"errorCode":105', b'"errorCode":102'),
    "index": (rb"(?s)(404 Not Found.*?X-Etcd-Index: \d*)[0-4]\r", rb"\g<1>9\r"),
    "field-order": (rb'("modifiedIndex":\d+),("createdIndex":\d+)\},"prev', rb'\2,\1},"prev'),
    "field-name": (rb'"prevNode"', b'"prevnode"'),
    "location": (rb"Location: /v2", b"Location: /v3"),
    "allow": (rb"Allow: HEAD,GET", b"Allow: GET,HEAD"),
    "event": (rb'(\r\n[0-9a-f]+\r\n\{"action":")delete', rb"\1remove"),
    "cors": (rb"Access-Control-Allow-Origin: \*", b"Access-Control-Allow-Origin: x"),
}


def pump(source, target, change):
    try:
        while True:
            piece = source.recv(262144)
            if not piece:
                break
            target.sendall(change(piece))
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    pattern, lie = LIES[sys.argv[1]]
    words = sys.argv[2:]
    url = re.compile(r"--listen-client-urls=http://127.0.0.1:(\d+)")
    port = next(int(found.group(1)) for found in map(url.match, words) if found)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        hidden = probe.getsockname()[1]
    words = [re.sub(url, "--listen-client-urls=http://127.0.0.1:%d" % hidden, word) for word in words]
    server = subprocess.Popen(words)

    def stop(*_):
        server.terminate()
        server.wait()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    while True:
        client, _ = listener.accept()
        try:
            inner = socket.create_connection(("127.0.0.1", hidden))
        except OSError:
            client.close()
            continue
        for end in (client, inner):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(client, inner, lambda piece: piece), daemon=True).start()
        threading.Thread(target=pump, args=(inner, client, lambda piece: re.sub(pattern, lie, piece)),
                         daemon=True).start()


if __name__ == "__main__":
    main()
