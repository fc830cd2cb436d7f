"""The judge: measures this server and the reference in turns and compares them.

| module | purpose |
|---|---|
| `case` | what a case is; the table of all cases |
| `load` | load from wrk, and from a client that fills a server with keys |
| `watchers` | thousands of waiting watches on one thread |
| `slow_disk` | delays in the syncs of one process; the cost of one raw sync |
| `node_cases`, `cluster_cases`, `watch_cases`, `size_cases` | the cases |
| `growth` | how the cost grows with keys, values, connections, watchers, members, and with the shape of the tree |
| `goals` | the goal of each row |
| `limits` | what the machine allows: the HTTP server alone, one sync alone |
| `turns` | runs the cases in turns, round by round |
| `report` | the table, as Markdown and JSON |
| `growth_report` | the tables and charts of the growth groups |
| `plot` | charts, as SVG |

Python's standard library is enough. The load generator is wrk.
"""
