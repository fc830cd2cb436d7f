"""The tables and the charts of the growth groups."""

import json

from . import plot
from .report import shown
from .growth import ALL
from .turns import OWN, REFERENCE


def markdown(measured, told):
    out = ["Measured on %s." % told["machine"], "", "%s, rounds: %d, of %d s, %s. Load of the machine before: %.1f." % (
        told["date"], told["rounds"], told["seconds"], told["versions"], told["load"])]
    for name, charts in measured.items():
        x_name, _, _, units, _ = ALL[name]
        for chart, of in charts.items():
            out += ["", "| %s: %s, %s | etcd | edgetcd | of its first |" % (x_name, chart, units[chart]), "|---:|---:|---:|---:|"]
            theirs = dict(of.get(REFERENCE, []))
            first = of[OWN][0][1]
            out += ["| %s | %s | %s | %.0f%% |" % (format(x, ","), shown(theirs.get(x)), shown(y), 100 * y / first)
                    for x, y in of[OWN]]
    return "\n".join(out) + "\n"


def write(folder, measured, told):
    """Writes growth.md, growth.json, and growth.svg with a chart for each number of each group."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "growth.json"
    # A run of some groups keeps the others.
    known = json.loads(path.read_text())["groups"] if path.exists() else {}
    known.update(measured)
    groups = {name: known[name] for name in ALL if name in known}
    path.write_text(json.dumps({"about": told, "groups": groups}, indent=1, ensure_ascii=False) + "\n")
    (folder / "growth.md").write_text(markdown(groups, told))
    drawn = []
    for name, charts in groups.items():
        x_name, _, _, units, _ = ALL[name]
        for chart, of in charts.items():
            series = {server: of[server] for server in (OWN, REFERENCE) if of.get(server)}
            drawn.append(plot.curves(chart, x_name, units[chart], series))
    (folder / "growth.svg").write_text(plot.grid(drawn))
