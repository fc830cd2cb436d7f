"""Defines which responses are equal.

LEFT_OUT lists everything that is *not* compared, with reasons. Everything else is compared.
"""

import datetime
import json
import re
import urllib.parse

LEFT_OUT = {
    "unsorted-order": "the order of a listing without sorted=true is arbitrary",
    "date-server": "Date and Server name the moment and the program",
    "raft-position": "the values of X-Raft-Index, X-Raft-Term (their presence is compared)",
    "identity": "member and cluster ids come from addresses; so do the addresses themselves",
    "framing": "Content-Length or chunked",
    "clock": "expiration and ttl (left out: 0) may differ by 2 s: each server has read the clock itself",
    "version": "/version and /debug/vars, /metrics name the program's own values (shape or status only)",
    "stats-values": "stats count each server's own reads and moments (shape only)",
    "stream-twice": "a stream on a path that is itself deleted may get that event twice (reference) or once",
    "connection-close": "whether the connection is kept after the answer",
    "ttl-overflow": "a ttl whose moment lies beyond 2262 (reference: wraps around); none is sent",
    "head-limits": "where exactly a request head of about 1 MiB is too long; none is sent",
    "long-first-line": "a request line over 4 KiB as the first of a connection (reference: resets it, later ones it"
                       " takes; here all are taken); a connection begins with another request",
    "blank-in-line": "a raw blank in the request line (reference: closes without an answer; here: 400); none is sent",
    "json-parser-text": "what the JSON parser says of a bad body of a member or log-level request; none is sent",
}

COMPARED_HEADERS = ("x-etcd-index", "content-type", "allow", "location", "x-content-type-options",
                    "access-control-allow-methods", "access-control-allow-origin",
                    "access-control-allow-headers")
PRESENT_HEADERS = ("x-raft-index", "x-raft-term", "x-etcd-cluster-id")
SHAPE_ONLY = ("/v2/stats/", "/version", "/v2/members")
STATUS_ONLY = ("/metrics", "/debug/vars")
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z\Z")
SORTED = re.compile(r"[?&]sorted=([^&]*)")
TOLERANCE_SECONDS = 2
# Parts that depend on the time, and the pattern of unsorted listings.
CLOCK = re.compile(r',"expiration":"[^"]*"|,"ttl":-?\d+')
PART = re.compile(r'"(?:[^"\\]|\\.)*"|[^"]')


def differences(target, method, one, other):
    """The differences between the reference's response and the other one, as (place, reference, other)."""
    found = []
    if one.status != other.status:
        found.append(("status", one.status, other.status))
    for name in COMPARED_HEADERS:
        if one.headers.get(name) != other.headers.get(name):
            found.append((name, one.headers.get(name), other.headers.get(name)))
    for name in PRESENT_HEADERS:
        if (name in one.headers) != (name in other.headers):
            found.append((name + " present", name in one.headers, name in other.headers))
    path = urllib.parse.unquote(target.partition("?")[0])
    if one.body != other.body and not path.startswith(STATUS_ONLY):
        found += body_differences(path, target, one, other)
    return found


def is_sorted(target):
    """Whether a sorted listing was requested. If there are several values, the first counts."""
    given = SORTED.search(target)
    return bool(given) and given.group(1) in ("1", "t", "T", "TRUE", "true", "True")


def text_differences(one, other, in_order):
    """Differences of the text, including escapes and the order of fields. Times are compared elsewhere."""
    one, other = (CLOCK.sub("", body) for body in (one, other))
    if not in_order and '"nodes":[' in one:
        one, other = ("\n".join(sorted(PART.findall(body))) for body in (one, other))
    return [("text", one, other)] if one != other else []


def event_differences(one, other):
    """The differences between two lines of a watch."""
    return json_differences(one, other, False) or text_differences(whole(one), whole(other), False)


def body_differences(path, target, one, other):
    if "json" in one.headers.get("content-type", "") and one.status == other.status:
        shape_only = path.startswith(SHAPE_ONLY)
        found = json_differences(one.body, other.body, is_sorted(target), shape_only)
        if not found and not shape_only:
            found = text_differences(whole(one.body), whole(other.body), is_sorted(target))
        return found
    return [("body", text(one.body), text(other.body))]


def json_differences(one, other, in_order, shape_only=False):
    """Compares two JSON texts, including the order of fields and the text after the document."""
    try:
        first = decode(one)
        second = decode(other)
    except ValueError:
        return [("body", text(one), text(other))] if one != other else []
    found = []
    if first[1] != second[1]:
        found.append(("text after the JSON", first[1], second[1]))
    walk("body", first[0], second[0], in_order, shape_only, found)
    return found


def decode(data):
    source = data.decode("utf-8", "replace")
    document, end = DECODER.raw_decode(source)
    return document, source[end:]


class Fields(list):
    """An object as the list of its fields in order."""


DECODER = json.JSONDecoder(object_pairs_hook=Fields, strict=False)


def walk(place, one, other, in_order, shape_only, found):
    if isinstance(one, Fields) and isinstance(other, Fields):
        one, other = with_ttl(one), with_ttl(other)
        names, others = [name for name, _ in one], [name for name, _ in other]
        if names != others:
            found.append((place + " fields", " ".join(names), " ".join(others)))
            return
        for (name, value), (_, actual) in zip(one, other):
            walk("%s.%s" % (place, name), value, actual, in_order, shape_only, found)
    elif isinstance(one, list) and isinstance(other, list) and not isinstance(one, Fields):
        if len(one) != len(other):
            found.append((place + " length", len(one), len(other)))
            return
        if not in_order:
            one, other = sorted(one, key=node_key), sorted(other, key=node_key)
        for number, (value, actual) in enumerate(zip(one, other)):
            walk("%s[%d]" % (place, number), value, actual, in_order, shape_only, found)
    elif shape_only:
        if type(one) is not type(other):
            found.append((place + " type", type(one).__name__, type(other).__name__))
    elif one != other and not close_enough(place, one, other):
        found.append((place, one, other))


def with_ttl(node):
    """Both servers leave out a ttl of 0, as that of a key that expires while a slow machine writes the response."""
    names = [name for name, _ in node]
    if "expiration" not in names or "ttl" in names:
        return node
    at = names.index("expiration") + 1
    return Fields(node[:at] + [("ttl", 0)] + node[at:])


def node_key(node):
    return dict(node).get("key", "") if isinstance(node, Fields) else str(node)


def close_enough(place, one, other):
    if place.endswith(".ttl") and isinstance(one, int) and isinstance(other, int):
        return abs(one - other) <= TOLERANCE_SECONDS
    if place.endswith(".expiration") and isinstance(one, str) and isinstance(other, str):
        first, second = TIME.match(one), TIME.match(other)
        if first and second:
            moments = [datetime.datetime.fromisoformat(found.group(1)) for found in (first, second)]
            return abs((moments[0] - moments[1]).total_seconds()) <= TOLERANCE_SECONDS
    return False


def whole(data):
    return data.decode("utf-8", "backslashreplace")


def text(data):
    shown = whole(data)
    return shown if len(shown) <= 400 else shown[:400] + "… (%d bytes)" % len(data)
