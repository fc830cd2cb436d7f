"""Every call of python-etcd's own, against the servers at URLS; prints what each came to.

    scenario.py URL[,URL...]

The output of two clusters that do the same is the same, if both start at the same index. Errors are printed
with what they carry. Nothing of an answer is left out but times and addresses. With several members each call goes
to the next one, and at the end the leader is killed under a client that watches.
"""

import itertools
import sys
import threading
import time
import urllib.parse

import etcd

ADDRESSES = [urllib.parse.urlsplit(url).netloc.split(":") for url in sys.argv[1].split(",")]
HOSTS = tuple((host, int(port)) for host, port in ADDRESSES)
TURNS = itertools.cycle(HOSTS)


def client(**options):
    """Of the next member."""
    host, port = next(TURNS)
    return etcd.Client(host=host, port=port, **options)


class InTurn:
    """A client of each member; each call is the next one's, once that has applied what the others confirmed."""

    def __init__(self):
        self.clients = [client() for _ in HOSTS]
        self.turns = itertools.cycle(self.clients)

    def next(self):
        member = next(self.turns)
        try:
            member.read("/none", quorum=True)
        except etcd.EtcdKeyNotFound:
            return member

    def __getattr__(self, name):
        return getattr(self.next(), name)

    def __contains__(self, key):
        return key in self.next()


def shown(value):
    if isinstance(value, etcd.EtcdResult):
        parts = [value.action, value.key, repr(value.value), "modified=%s" % value.modifiedIndex,
                 "created=%s" % value.createdIndex, "index=%s" % getattr(value, "etcd_index", "unknown")]
        if value.dir:
            parts.append("dir")
        if value.ttl:
            parts.append("ttl")
        if value.newKey:
            parts.append("new")
        previous = getattr(value, "_prev_node", None)
        if previous is not None:
            parts.append("previous=(%s %r %s)" % (previous.key, previous.value, previous.modifiedIndex))
        if value._children:
            parts.append("children=%s" % sorted(child["key"] for child in value._children))
        return " ".join(map(str, parts))
    return repr(value)


def call(what, function, *positional, **named):
    try:
        result = function(*positional, **named)
    except etcd.EtcdException as error:
        payload = {key: value for key, value in (error.payload or {}).items()}
        print("%s: %s %s" % (what, type(error).__name__, sorted(payload.items())), flush=True)
        return None
    print("%s: %s" % (what, shown(result)), flush=True)
    return result


def reading_and_writing(c):
    call("write", c.write, "/p/a", "one")
    call("write again", c.write, "/p/a", "two")
    call("write with ttl", c.write, "/p/t", "soon", ttl=1000)
    call("write unicode", c.write, "/p/사과", "값 & <b> + %")
    call("read unicode", c.read, "/p/사과")
    call("write empty", c.write, "/p/empty", "")
    call("read", c.read, "/p/a")
    call("read quorum", c.read, "/p/a", quorum=True)
    call("read missing", c.read, "/p/none")
    call("get", c.get, "/p/a")
    call("set", c.set, "/p/s", "set")
    call("contains", lambda: "/p/a" in c)
    call("contains not", lambda: "/p/none" in c)
    call("write prevExist", c.write, "/p/new", "1", prevExist=False)
    call("write prevExist again", c.write, "/p/new", "1", prevExist=False)
    call("write dir", c.write, "/p/d", None, dir=True)
    call("write dir again", c.write, "/p/d", None, dir=True)
    call("write below a file", c.write, "/p/a/b", "1")
    call("append", c.write, "/p/queue", "first", append=True)
    call("append", c.write, "/p/queue", "second", append=True)
    call("read sorted", c.read, "/p/queue", sorted=True)
    call("read recursive", c.read, "/p", recursive=True, sorted=True)
    for leaf in c.read("/p", recursive=True, sorted=True).leaves:
        print("leaf", leaf.key, repr(leaf.value))
    call("ls-like", lambda: sorted(child.key for child in c.read("/p").children))
    call("refresh", c.refresh, "/p/t", ttl=2000)
    call("refreshed", c.read, "/p/t")
    result = c.read("/p/a")
    result.value = "by update"
    call("update", c.update, result)
    result.value = "stale"
    call("update with an old index", c.update, result)


def comparing(c):
    call("swap value", c.test_and_set, "/p/a", "swapped", "by update")
    call("swap wrong", c.test_and_set, "/p/a", "never", "wrong")
    call("swap missing", c.test_and_set, "/p/none", "never", "wrong")
    index = c.read("/p/a").modifiedIndex
    call("swap index", c.write, "/p/a", "at index", prevIndex=index)
    call("swap old index", c.write, "/p/a", "never", prevIndex=index)
    call("delete wrong value", c.delete, "/p/a", prevValue="wrong")
    call("delete value", c.delete, "/p/a", prevValue="at index")


def deleting(c):
    call("delete missing", c.delete, "/p/none")
    call("delete", c.delete, "/p/s")
    call("delete dir as file", c.delete, "/p/d")
    call("delete dir", c.delete, "/p/d", dir=True)
    call("delete full dir", c.delete, "/p/queue", dir=True)
    call("delete recursive", c.delete, "/p/queue", recursive=True)
    call("pop", c.pop, "/p/t")
    call("delete root", c.delete, "/", recursive=True)


def watching(c):
    start = c.write("/w/a", "0").modifiedIndex
    for number in range(1, 6):
        c.write("/w/a", str(number))
    call("watch history", c.watch, "/w/a", index=start + 1)
    call("watch history recursive", c.watch, "/w", index=start + 2, recursive=True)
    call("watch timeout", c.watch, "/w/none", timeout=0.3)
    seen = []
    for event in c.eternal_watch("/w/a", index=start):
        seen.append(event.value)
        if len(seen) == 6:
            break
    print("eternal watch over history:", seen)

    events = []

    def follow():
        for event in client().eternal_watch("/w", index=start + 6, recursive=True):
            events.append((event.action, event.key, event.value))
            if event.key == "/w/end":
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    for number in range(20):
        c.write("/w/live/%d" % (number % 3), str(number))
    c.delete("/w/live/1")
    c.write("/w/end", "1")
    thread.join(10)
    print("eternal watch, live:", events)

    wait_for_watchers(c, 0)
    waiting = threading.Thread(target=lambda: events.append(shown(client().watch("/w/once"))), daemon=True)
    waiting.start()
    wait_for_watchers(c, 1)
    c.write("/w/once", "now")
    waiting.join(10)
    print("watch, live:", events[-1])


def wait_for_watchers(c, count):
    deadline = time.monotonic() + 10
    while sum(member.store_stats["watchers"] for member in c.clients) != count:
        if time.monotonic() > deadline:
            raise SystemExit("there are never %d watchers" % count)
        time.sleep(0.005)


def locking(c):
    lock = etcd.Lock(c, "the-lock")
    print("acquired:", lock.acquire(blocking=True, lock_ttl=1000), lock.is_acquired)
    other = etcd.Lock(client(), "the-lock")
    print("second, not blocking:", other.acquire(blocking=False, lock_ttl=1000), other.is_acquired)
    order = []

    def second():
        mine = etcd.Lock(client(), "the-lock")
        mine.acquire(blocking=True, lock_ttl=1000)
        order.append("second has it")
        mine.release()

    other.release()
    wait_for_watchers(c, 0)
    thread = threading.Thread(target=second, daemon=True)
    thread.start()
    wait_for_watchers(c, 1)
    order.append("first gives it back")
    lock.release()
    thread.join(10)
    print("order:", order, lock.is_acquired)
    with etcd.Lock(c, "with-lock"):
        print("in the with block")


def asking_about_the_cluster(c):
    print("machines:", len(c.machines), "version:", type(c.version).__name__)
    print("members:", [sorted(member) for member in c.members.values()])
    print("leader:", sorted(c.leader))
    print("stats:", sorted(key for key in c.stats if "Rate" not in key))
    print("store stats:", sorted(c.store_stats))
    told = []
    for member in c.clients:
        try:
            told.append(str(sorted(member.leader_stats)))
        except etcd.EtcdException as error:
            told.append(str(error))
    print("leader stats:", sorted(told))
    try:
        c.election
    except NotImplementedError as error:
        print("election:", error)   # removed from the library for servers from 2.0 on


def losing_the_leader(c):
    """A client that first knows the leader, and then has to find another member."""
    url = urllib.parse.urlsplit(c.leader["clientURLs"][0])
    leader = (url.hostname, url.port)
    hosts = (leader,) + tuple(host for host in HOSTS if host != leader)
    follower, writer = (etcd.Client(host=hosts, allow_reconnect=True) for _ in range(2))
    start = writer.write("/l/start", "1").modifiedIndex
    lock = etcd.Lock(writer, "held")
    lock.acquire(lock_ttl=1000)
    events = []

    def follow():
        for event in follower.eternal_watch("/l", index=start + 1, recursive=True):
            events.append((event.action, event.key, event.value))
            if event.key == "/l/end":
                return

    thread = threading.Thread(target=follow, daemon=True)
    wait_for_watchers(c, 0)
    thread.start()
    wait_for_watchers(c, 1)
    writer.write("/l/before", "1")
    print("kill the leader", flush=True)
    sys.stdin.readline()
    call("write without the old leader", writer.write, "/l/after", "1")
    call("read without it", writer.read, "/l/after", quorum=True)
    call("swap without it", writer.test_and_set, "/l/after", "2", "1")
    print("still locked:", lock.is_acquired)
    lock.release()
    for number in range(10):
        writer.write("/l/%d" % (number % 3), str(number))
    call("machines without it", lambda: len(writer.machines))
    call("end", writer.write, "/l/end", "1")
    thread.join(20)
    print("what the watch saw across it:", events)


def main():
    c = InTurn()
    reading_and_writing(c)
    comparing(c)
    deleting(c)
    watching(c)
    locking(c)
    asking_about_the_cluster(c)
    if len(HOSTS) > 1:
        losing_the_leader(c)


if __name__ == "__main__":
    main()
