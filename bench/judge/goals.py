"""The goal of each row: what is compared, and its limit.

| what | |
|---|---|
| `ratio` | edgetcd's value divided by the reference's |
| `cpu` | the same for CPU per request |
| `value`, `bytes` | edgetcd's own number |
"""

AT_LEAST, AT_MOST = "≥", "≤"

GOALS = {
    "GET, 1 connection": [("ratio", AT_LEAST, 3)],
    "GET, 64 connections": [("ratio", AT_LEAST, 3.5), ("cpu", AT_MOST, 0.17)],
    "GET, 256 connections": [("ratio", AT_LEAST, 3.5), ("cpu", AT_MOST, 0.17)],
    "PUT, 1 connection": [("ratio", AT_LEAST, 1.3), ("bytes", AT_MOST, 4240)],
    "PUT, 8 connections": [("bytes", AT_MOST, 1200)],
    "PUT, 64 connections": [("ratio", AT_LEAST, 3.5), ("cpu", AT_MOST, 0.2), ("bytes", AT_MOST, 400)],
    "PUT, 256 connections": [("ratio", AT_LEAST, 3.5), ("cpu", AT_MOST, 0.2)],
    "writes per sync, 1000 connections": [("value", AT_LEAST, 1000)],
    "writes per sync, 2500 connections, 50 ms in each sync": [("value", AT_LEAST, 1000)],
    "quorum GET, 64 connections": [("ratio", AT_LEAST, 6)],
    "listing of 1,000 keys, 8 connections": [("ratio", AT_LEAST, 8)],
    "CAS of one key, 64 connections": [("ratio", AT_LEAST, 3)],
    "in-order POST, 64 connections": [("ratio", AT_LEAST, 3)],
    "PUT with ttl, 100,000 live, 64 connections": [("ratio", AT_LEAST, 3)],
    "3 members: PUT, 1 connection": [("ratio", AT_LEAST, 2)],
    "3 members: PUT through the leader, 64 connections": [("ratio", AT_LEAST, 4), ("cpu", AT_MOST, 0.2)],
    "3 members: PUT through a follower, 64 connections": [("ratio", AT_LEAST, 4.5), ("cpu", AT_MOST, 0.2)],
    "3 members: quorum GET through a follower, 64 connections": [("ratio", AT_LEAST, 10), ("cpu", AT_MOST, 0.4)],
    "1,000 watches woken by one PUT": [("ratio", AT_MOST, 0.25)],
    "5,000 watches woken by one PUT": [("ratio", AT_MOST, 0.25)],
    "PUT beside 10,000 idle watches, part of PUT without": [("value", AT_LEAST, 95)],
    "quorum GET p99, 20 ms in each sync of one follower": [("value", AT_MOST, 2)],
    "quorum GET p99, 150 ms in each sync of one follower": [("value", AT_MOST, 2)],
    "quorum GET p99, 20 ms in each sync of the leader": [("value", AT_MOST, 2)],
    "quorum GET p99, 150 ms in each sync of the leader": [("value", AT_MOST, 2)],
    "memory per key, 100,000 keys": [("value", AT_MOST, 220)],
    "memory per key, 1,000,000 keys": [("value", AT_MOST, 220)],
    "memory, idle": [("value", AT_MOST, 4)],
    "start to first write": [("value", AT_MOST, 100)],
    "restart to first write": [("value", AT_MOST, 100)],
    "data directory, empty": [("value", AT_MOST, 4)],
    "program": [("value", AT_MOST, 5.6)],
    "restart with 1,000,000 keys to the first answer": [("value", AT_MOST, 0.7)],
    "its p99, part of the p99 without snapshots, 1,000,000 keys": [("value", AT_MOST, 200)],
    "longest time between two heartbeats, beside snapshots of 1,000,000 keys": [("value", AT_MOST, 150)],
    "failover after kill -9, median": [("value", AT_MOST, 50)],
    "failover after kill -9, worst": [("value", AT_MOST, 300)],
}


def without_row(rows):
    """The goals that belong to no row of a run of all cases: a row was renamed, so its goal is not checked."""
    return sorted(set(GOALS) - set(rows))


def check(row):
    """The goals of a row as text, and whether each is reached: [(text, reached)]. `row` is one of `report.Line`. A goal
    whose number could not be measured is not reached."""
    found = []
    for what, how, limit in GOALS.get(row.name, []):
        got = {"ratio": row.ratio, "cpu": row.cpu_ratio, "value": row.own, "bytes": row.own_bytes}[what]
        reached = got is not None and (got >= limit if how == AT_LEAST else got <= limit)
        unit = {"ratio": "×", "cpu": "× CPU", "value": " " + row.unit, "bytes": " B"}[what].rstrip()
        text = "%s %s%s" % (how, format(limit, ",g") if limit < 1e4 else format(limit, ","), unit)
        found.append((text if got is not None else text + " (no number)", reached))
    return found
