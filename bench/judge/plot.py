"""Charts as SVG, readable on a light and on a dark page. A chart is text with elements of fixed places."""

import html
import math

CURVES_WIDTH, CURVES_HEIGHT = 450, 270

STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-size: 14px; font-weight: 600 }
.small { font-size: 11px; fill: #666 }
.grid { stroke: #ddd } .axis { stroke: #888 }
.own { fill: #0b6bcb; stroke: #0b6bcb } .reference { fill: #c4561a; stroke: #c4561a }
.line { fill: none; stroke-width: 2 }
text.own, text.reference { stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .small { fill: #aaa } .grid { stroke: #444 } .axis { stroke: #999 }
  .own { fill: #6cb6ff; stroke: #6cb6ff } .reference { fill: #ff9d66; stroke: #ff9d66 }
}
</style>"""


def text(x, y, words, kind="", anchor="start"):
    return '<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>' % (x, y, kind, anchor, html.escape(words))


def line(x1, y1, x2, y2, kind):
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>' % (x1, y1, x2, y2, kind)


def document(width, height, parts):
    return '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">\n%s\n%s\n</svg>\n' % (
        width, height, width, height, STYLE, "\n".join(parts))


def bars(title, rows):
    """Horizontal bars of ratios on a logarithmic axis. `rows`: (name, ratio, smallest, largest)."""
    left, right, top, step, width = 400, 60, 56, 22, 860
    values = [value for row in rows for value in row[1:]] + [1]
    low, high = math.log(min(values) * 0.9), math.log(max(values) * 1.1)

    def x(value):
        return left + (width - left - right) * (math.log(value) - low) / (high - low)

    bottom = top + step * len(rows)
    parts = [text(12, 22, title, "title")]
    for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        if low <= math.log(mark) <= high:
            parts += [line(x(mark), top - 8, x(mark), bottom, "axis" if mark == 1 else "grid"),
                      text(x(mark), top - 14, "%g×" % mark, "small", "middle")]
    for number, (name, ratio, smallest, largest) in enumerate(rows):
        y = top + step * number
        begin, end = sorted((x(1), x(ratio)))
        parts += [text(left - 8, y + 13, name, "", "end"),
                  '<rect x="%.1f" y="%d" width="%.1f" height="13" class="%s" fill-opacity="0.75" stroke="none"/>' % (
                      begin, y + 3, max(end - begin, 1), "own" if ratio >= 1 else "reference"),
                  line(x(smallest), y + 9.5, x(largest), y + 9.5, "axis"),
                  text(max(end, x(largest)) + 5, y + 13, "%.2g×" % ratio, "small")]
    parts.append(text(12, bottom + 20, "Thin lines: smallest and largest ratio of a round.", "small"))
    return document(width, bottom + 30, parts)


def grid(charts, columns=2):
    """Several charts of `curves` in one document."""
    parts = []
    for number, chart in enumerate(charts):
        x, y = number % columns * CURVES_WIDTH, number // columns * CURVES_HEIGHT
        parts.append('<g transform="translate(%d %d)">\n%s\n</g>' % (x, y, "\n".join(chart)))
    rows = (len(charts) + columns - 1) // columns
    return document(columns * CURVES_WIDTH, rows * CURVES_HEIGHT, parts)


def curves(title, x_name, y_name, series):
    """The elements of a chart: lines on two logarithmic axes. `series`: {"edgetcd" or "reference": [(x, y)]}."""
    left, right, top, bottom, width, height = 56, 70, 44, 50, CURVES_WIDTH, CURVES_HEIGHT
    points = [point for some in series.values() for point in some]
    xs, ys = [math.log(px) for px, _ in points], [math.log(py) for _, py in points]
    x_low, x_high = min(xs), max(xs)
    # At least a factor of ten, so that noise does not look like a cliff.
    y_low, y_high = min(ys) - 0.2, max(max(ys) + 0.2, min(ys) + math.log(10))

    def x(value):
        return left + (width - left - right) * (math.log(value) - x_low) / max(x_high - x_low, 1e-9)

    def y(value):
        return height - bottom - (height - top - bottom) * (math.log(value) - y_low) / (y_high - y_low)

    parts = [text(12, 20, title, "title"), text(12, 35, y_name, "small"),
             text((left + width - right) / 2, height - 14, x_name, "small", "middle")]
    for mark in marks(y_low, y_high, (1, 2, 5) if y_high - y_low < 5 else (1,)):
        parts += [line(left, y(mark), width - right, y(mark), "grid"),
                  text(left - 6, y(mark) + 4, brief(mark), "small", "end")]
    for mark in sorted({px for px, _ in points}):
        parts += [line(x(mark), height - bottom, x(mark), height - bottom + 4, "axis"),
                  text(x(mark), height - bottom + 17, brief(mark), "small", "middle")]
    parts.append(line(left, height - bottom, width - right, height - bottom, "axis"))
    ends = {name: y(some[-1][1]) + 4 for name, some in series.items()}
    if len(ends) == 2 and abs(ends["edgetcd"] - ends["reference"]) < 12:
        middle, above = sum(ends.values()) / 2, min(ends, key=ends.get)
        ends = {name: middle + (-6 if name == above else 6) for name in ends}
    for name, some in series.items():
        kind = "own" if name == "edgetcd" else "reference"
        path = " ".join("%.1f,%.1f" % (x(px), y(py)) for px, py in some)
        parts.append('<polyline points="%s" class="line %s" style="fill:none"/>' % (path, kind))
        parts += ['<circle cx="%.1f" cy="%.1f" r="3" class="%s"/>' % (x(px), y(py), kind) for px, py in some]
        parts.append(text(x(some[-1][0]) + 8, ends[name], "etcd" if kind == "reference" else name, kind))
    return parts


def marks(low, high, digits):
    """Round numbers whose logarithms lie in the range."""
    powers = range(math.floor(low / math.log(10)) - 1, math.ceil(high / math.log(10)) + 1)
    candidates = [digit * 10.0 ** power for power in powers for digit in digits]
    return [mark for mark in candidates if low <= math.log(mark) <= high]


def brief(number):
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return "%.3g%s" % (number / size, letter)
    return "%g" % number
