// Numbers, times, JSON, YAML and differences as text.

function bytesText(bytes) {
  if (!Number.isFinite(bytes)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (Math.abs(bytes) >= 1024 && unit < units.length - 1) bytes /= 1024, unit++;
  return `${bytes.toFixed(unit && Math.abs(bytes) < 100 ? 1 : 0)} ${units[unit]}`;
}

function countText(number) {
  if (!Number.isFinite(number)) return "–";
  return number >= 100 ? Math.round(number).toLocaleString("en") : number.toFixed(number >= 10 || Number.isInteger(number) ? 0 : 1);
}

function secondsText(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(1)} s`;
}

/** A remaining time to live. */
function lifeText(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([size]) => seconds >= size);
  if (at < 0) return "expired";
  return parts.slice(at, at + 2).map(([size, unit], place) =>
    `${Math.floor(place ? (seconds % parts[at][0]) / size : seconds / size)} ${unit}`).join(" ");
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** JSON with line breaks. Everything except the space between its parts stays as it is: long numbers, repeated names. */
function indentJson(text) {
  let [out, depth, at] = ["", 0, 0];
  const line = () => `\n${"  ".repeat(depth)}`;
  while (at < text.length) {
    const c = text[at++];
    if (c === '"') {
      const from = at - 1;
      while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
      out += text.slice(from, ++at);
    } else if (c === "{" || c === "[") {
      const rest = /^\s*[}\]]/.exec(text.slice(at, at + 200));
      if (rest) {
        at += rest[0].length;
        out += c + text[at - 1];
      } else {
        depth++;
        out += c + line();
      }
    } else if (c === "}" || c === "]") {
      depth--;
      out += line() + c;
    } else if (c === ",") out += c + line();
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}

/** A number of JSON that JavaScript would round. */
class Digits extends String {}

/** The value of a JSON text. Long numbers stay as they are if this browser tells how they are written. */
function readJson(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context?.source && context.source !== String(value) ? new Digits(context.source) : value);
}

/** A value of JSON as YAML. */
function toYaml(value, indent = "") {
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return value.map((item) => `${indent}- ${nested(item, `${indent}  `)}`).join("\n");
  }
  if (isStructure(value)) {
    const entries = Object.entries(value);
    if (!entries.length) return "{}";
    return entries.map(([name, item]) => {
      const isNested = isStructure(item) && Object.keys(item).length;
      return `${indent}${yamlScalar(name)}:${isNested ? `\n${toYaml(item, Array.isArray(item) ? indent : `${indent}  `)}` : ` ${toYaml(item)}`}`;
    }).join("\n");
  }
  return yamlScalar(value);
}

function isStructure(value) {
  return value !== null && typeof value === "object" && !(value instanceof Digits);
}

/** An item of a list: its first line follows the dash. */
function nested(item, indent) {
  return toYaml(item, indent).trimStart();
}

function yamlScalar(value) {
  if (typeof value !== "string") return String(value);
  const isPlain = /^[A-Za-z_./][\w./ -]*$/.test(value) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(value) && !/\s$/.test(value);
  return isPlain ? value : JSON.stringify(value);
}

/** Lines that are compared one by one. More are compared as a block. */
const DIFF_LINES_MAX = 1200;

/** The lines of two texts as [kind, line], where kind is " ", "-" or "+". */
function diffLines(before, after) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const same = (line) => [" ", line];
  return [
    ...a.slice(0, head).map(same),
    ...diffMiddle(a.slice(head, a.length - tail), b.slice(head, b.length - tail)),
    ...a.slice(a.length - tail).map(same),
  ];
}

/** The longest common subsequence of lines. */
function diffMiddle(a, b) {
  if (a.length > DIFF_LINES_MAX || b.length > DIFF_LINES_MAX) {
    return [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
  }
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) found.push([" ", a[i++]]), j++;
    else if (j >= b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) found.push(["-", a[i++]]);
    else found.push(["+", b[j++]]);
  }
  return found;
}

/** A difference as elements. Unchanged lines far from a change are left out. */
function diffView(before, after) {
  const lines = diffLines(before, after);
  const isNear = lines.map((_, at) => lines.slice(Math.max(0, at - 3), at + 4).some(([kind]) => kind !== " "));
  const rows = [];
  let isLeftOut = false;
  lines.forEach(([kind, line], at) => {
    if (!isNear[at]) {
      if (!isLeftOut) rows.push(h("div", { class: "far" }, "⋯"));
      isLeftOut = true;
      return;
    }
    isLeftOut = false;
    const name = { " ": "same", "-": "removed", "+": "added" }[kind];
    rows.push(h("div", { class: name }, h("span", { class: "sign" }, kind), line || " "));
  });
  if (!lines.some(([kind]) => kind !== " ")) return h("p", { class: "note" }, "Nothing is changed.");
  return h("div", { class: "diff", tabindex: "0" }, rows);
}
