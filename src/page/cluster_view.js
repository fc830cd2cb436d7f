// Draws a cluster below an element: the members in a ring, the messages between them, and their logs.
//
//   const view = new ClusterView(element, { onSelect: (id) => … });
//   view.draw(model, at, { flightMicros, asSeenBy });
//
// `model` is a ClusterModel, `at` the time to show in the model's microseconds. A message needs at least `flightMicros` of
// that time for its way, because a real one is too fast to be seen. Nothing here knows where the records come from.

const RING = { x: 320, y: 235, radius: 165, node: 44, wide: 1.35, narrow: 0.95, margin: 72 };
/** A drawing with fewer pixels is a narrow one. */
const NARROW_PIXELS = 540;
const CELLS_WIDE = 56;
const CELLS_NARROW = 24;
const TERM_COLOURS = 8;
/** Messages that move at the same time, and how many of them can have a text without covering each other. */
const DOTS_MAX = 90;
const TEXTS_MAX = 12;
/** Messages that only keep a leader in office. They are drawn small. */
const QUIET = new Set(["heartbeat", "heartbeat-answer", "commit", "read-index", "read-index-answer", "blank"]);

class ClusterView {
  constructor(element, { onSelect = () => {} } = {}) {
    this.onSelect = onSelect;
    this.nodes = new Map();
    this.strips = new Map();
    this.order = "";
    this.lines = new Map();
    this.links = s("g", { class: "links" });
    this.flights = s("g", { class: "flights", "aria-hidden": "true" });
    this.ring = s("g", { class: "nodes" });
    this.svg = s("svg", { class: "ring", role: "group", "aria-label": "Members" },
      this.links, this.flights, this.ring);
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    this.logs = h("div", { class: "logs", role: "group", "aria-label": "Logs" });
    fill(element, this.svg, h("div", { class: "strips" }, h("h2", {}, "Logs"), this.logs, this.axis, logLegend()));
    this.showQuiet = true;
    this.dots = [];
    // To ask an element for its width in the midst of a drawing would compute the layout twice.
    this.width = element.clientWidth;
    new ResizeObserver(([{ contentRect }]) => (this.width = contentRect.width)).observe(element);
  }

  /** Draws the model at this time. */
  draw(model, at, { flightMicros = 400000, asSeenBy = null } = {}) {
    const members = [...model.members.values()];
    const isNarrow = this.width < NARROW_PIXELS;
    const order = `${members.map((member) => member.id).join()} ${isNarrow}`;
    if (order !== this.order) this.place(members, order, isNarrow);
    for (const member of members) this.drawNode(model, member, at, asSeenBy);
    this.drawLinks(model);
    this.drawFlights(model, at, flightMicros);
    this.drawLogs(model, members);
  }

  /** Makes the elements of these members. */
  place(members, order, isNarrow) {
    this.order = order;
    const across = RING.radius * (isNarrow ? RING.narrow : RING.wide);
    this.nodes.clear();
    this.strips.clear();
    members.forEach((member, place) => {
      const angle = (place / members.length) * 2 * Math.PI - Math.PI / 2;
      const x = RING.x + across * Math.cos(angle);
      const y = RING.y + RING.radius * Math.sin(angle);
      this.nodes.set(member.id, this.makeNode(member, x, y));
      this.strips.set(member.id, this.makeStrip(member));
    });
    const bottom = Math.max(...[...this.nodes.values()].map((node) => node.y), RING.y) + RING.margin;
    const left = RING.x - across - RING.margin;
    setAttribute(this.svg, "viewBox", `${left} 0 ${2 * (RING.x - left)} ${bottom}`);
    fill(this.ring, [...this.nodes.values()].map((node) => node.group));
    fill(this.logs, [...this.strips.values()].map((strip) => strip.row));
    this.lines = new Map();
    const pairs = members.flatMap((a, at) => members.slice(at + 1).map((b) => [a.id, b.id]));
    fill(this.links, pairs.map(([a, b]) => {
      const [from, to] = [this.nodes.get(a), this.nodes.get(b)];
      const line = s("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
      this.lines.set(`${a} ${b}`, line);
      return line;
    }));
  }

  makeNode(member, x, y) {
    const r = RING.node;
    const around = 2 * Math.PI * (r + 5);
    const parts = {
      x, y, around,
      countdown: s("circle", { class: "countdown", r: r + 5, "stroke-dasharray": around, transform: "rotate(-90)" }),
      disc: s("circle", { class: "disc", r }),
      name: s("text", { class: "name", y: -8 }),
      role: s("text", { class: "role", y: 10 }),
      term: s("text", { class: "term", y: 26 }),
      votes: s("text", { class: "votes", y: r + 20 }),
      crown: s("path", { class: "crown", d: "M-15 0 L-18 -17 L-8 -9 L0 -21 L8 -9 L18 -17 L15 0 Z", transform: `translate(0 ${-r + 1})` }),
    };
    const choose = () => this.onSelect(member.id);
    parts.group = s("g", {
      class: "node", transform: `translate(${x} ${y})`, tabindex: "0", role: "button", onclick: choose,
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") choose(), event.preventDefault();
      },
    }, parts.countdown, parts.disc, parts.crown, parts.name, parts.role, parts.term, parts.votes);
    return parts;
  }

  drawNode(model, member, at, asSeenBy) {
    const node = this.nodes.get(member.id);
    const role = member.up ? member.role : "unreachable";
    setAttribute(node.group, "class", `node ${role}${member.id === asSeenBy ? " self" : ""}`);
    setText(node.name, member.name);
    setText(node.role, role === "pre-candidate" ? "asks first" : role);
    setText(node.term, member.up || member.term ? `term ${member.term}` : "");
    const asks = member.role === "candidate" || member.role === "pre-candidate";
    setText(node.votes, asks && member.up ? `${member.votes.length} of ${model.voters()} votes` : silence(member));
    const left = timeLeft(model, member, at);
    setAttribute(node.countdown, "stroke-dashoffset", (node.around * (1 - left)).toFixed(1));
    setAttribute(node.group, "aria-label", nodeLabel(member, role));
  }

  drawLinks({ members, cuts }) {
    for (const [pair, line] of this.lines) {
      const [a, b] = pair.split(" ").map((id) => members.get(id));
      const isLost = (from, to) => from.links[to.id] === false || cuts.has(`${from.id} ${to.id}`);
      const isCut = isLost(a, b) || isLost(b, a);
      setAttribute(line, "class", !a.up || !b.up ? "gone" : isCut ? "cut" : "");
    }
  }

  drawFlights(model, at, flightMicros) {
    const moving = [];
    for (const flight of model.flights) {
      const takes = Math.max(flightMicros, (flight.received ?? flight.sent) - flight.sent);
      const way = (at - flight.sent) / takes;
      if (way >= 0 && way <= 1 && (this.showQuiet || !QUIET.has(flight.what))) moving.push([flight, way]);
    }
    const drawn = moving.slice(-DOTS_MAX);
    const hasText = drawn.filter(([{ what }]) => what === "append").length <= TEXTS_MAX;
    drawn.forEach(([flight, way], place) => {
      const isLost = way > 0.75 && model.isLost(flight);
      this.drawDot(place, flight, isLost ? 0.75 : way, isLost, hasText);
    });
    for (let place = drawn.length; place < this.dots.length; place++) setAttribute(this.dots[place].group, "visibility", "hidden");
  }

  drawDot(place, flight, way, isLost, hasText) {
    if (!this.dots[place]) {
      const dot = { circle: s("circle", {}), text: s("text", { y: -9 }) };
      dot.group = s("g", {}, dot.circle, dot.text);
      this.dots[place] = dot;
      this.flights.append(dot.group);
    }
    const dot = this.dots[place];
    const [from, to] = [this.nodes.get(flight.from), this.nodes.get(flight.to)];
    if (!from || !to) return;
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = Math.hypot(dx, dy);
    // From edge to edge, each direction on its own side of the line.
    const along = RING.node + (length - 2 * RING.node) * way;
    const [ux, uy] = [dx / length, dy / length];
    const x = from.x + ux * along - uy * 8;
    const y = from.y + uy * along + ux * 8;
    setAttribute(dot.group, "visibility", "visible");
    setAttribute(dot.group, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    const kind = messageClass(flight.what);
    setAttribute(dot.group, "class", `flight ${kind}${isLost ? " lost" : ""}`);
    setAttribute(dot.circle, "r", kind === "quiet" ? 3 : kind === "answer" ? 4.5 : 6.5);
    setText(dot.text, hasText && flight.what === "append" && flight.last >= flight.first ? rangeText(flight.first, flight.last) : "");
  }

  makeStrip(member) {
    const parts = {
      name: h("span", { class: "member" }),
      cells: s("svg", { class: "cells", preserveAspectRatio: "none" }),
      note: h("span", { class: "note" }),
      drawn: "",
      rects: [],
    };
    parts.row = h("div", { class: "strip", role: "img" }, parts.name, parts.cells, parts.note);
    setText(parts.name, member.name);
    return parts;
  }

  drawLogs(model, members) {
    const cells = this.width < NARROW_PIXELS ? CELLS_NARROW : CELLS_WIDE;
    const last = model.lastIndex();
    // The window moves in steps, so that entries stand still while it is looked at.
    const step = cells / 4;
    const first = Math.max(1, Math.ceil((last - cells + 1) / step) * step + 1 - step + (last < cells ? step : 0));
    const from = last <= cells ? 1 : Math.max(first, last - cells + 1);
    for (const member of members) this.drawStrip(model, member, from, cells, last);
    setText(this.axis, `entries ${from} to ${from + cells - 1}`);
  }

  drawStrip(model, member, from, cells, longest) {
    const strip = this.strips.get(member.id);
    setText(strip.name, member.name);
    const behind = Math.max(0, longest - member.stored);
    const note = !member.up ? "unreachable" : member.last === 0 && !member.told ? "unknown" : behind > 0 ? `${behind} behind` : "up to date";
    setText(strip.note, note);
    const { last, stored, commit, applied, up, first } = member;
    const terms = member.terms.filter((run, at) => !(member.terms[at + 1]?.[0] <= from)).join(";");
    const drawn = [from, cells, last, stored, commit, applied, up, first, terms].join();
    if (drawn === strip.drawn) return;
    strip.drawn = drawn;
    setAttribute(strip.row, "aria-label", `Log of ${member.name}: entries up to ${last}, stored ${stored}, committed ${commit}, applied ${applied}; ${note}`);
    setAttribute(strip.cells, "class", `cells${up ? "" : " gone"}`);
    if (strip.rects.length !== cells) this.makeCells(strip, cells);
    strip.rects.forEach((rect, place) => setAttribute(rect, "class", cellClass(member, from + place)));
    const mark = (rect, index) => setAttribute(rect, "width", Math.max(0, Math.min(Math.min(index, last) - from + 1, cells) * 10 - 1.4));
    mark(strip.commit, commit);
    mark(strip.applied, applied);
  }

  makeCells(strip, cells) {
    strip.rects = Array.from({ length: cells }, (_, place) => s("rect", { x: place * 10 + 0.7, y: 2, width: 8.6, height: 13, rx: 1.2 }));
    strip.commit = s("rect", { class: "commit-mark", x: 0.7, y: 16.2, height: 2 });
    strip.applied = s("rect", { class: "applied-mark", x: 0.7, y: 19.2, height: 2 });
    setAttribute(strip.cells, "viewBox", `0 0 ${cells * 10} 22`);
    fill(strip.cells, strip.rects, strip.commit, strip.applied);
  }
}

/** How an entry is drawn: in the colour of its term, the stronger the safer it is. */
function cellClass(member, index) {
  if (index > member.last) return "cell none";
  const term = termAt(member, index);
  if (term === undefined) return "cell forgotten";
  return `cell ${termClass(term)} ${index <= member.commit ? "committed" : index <= member.stored ? "stored" : "memory"}`;
}

/** The colour of a term. Neighbouring terms differ. */
function termClass(term) {
  return `t${term % TERM_COLOURS}`;
}

function messageClass(what) {
  if (QUIET.has(what)) return "quiet";
  if (what === "vote" || what === "pre-vote" || what === "transfer") return "vote";
  if (what.endsWith("-answer")) return what.includes("vote") ? "vote answer" : "answer";
  if (what.endsWith("-refusal") || what === "newer-term") return "refusal";
  return what === "snapshot" ? "snapshot" : what.startsWith("forward") ? "forward" : "append";
}

function rangeText(first, last) {
  return first === last ? String(first) : `${first}–${last}`;
}

/** The part of its election timeout that is left: 1 if the member has just heard of the leader. */
function timeLeft(model, member, at) {
  if (!member.up || member.role === "leader" || member.role === "learner") return 0;
  if (member.heard === null) return 1;
  const timeout = (member.timeoutMs ?? model.electionTimeoutMs) * 1000;
  return Math.min(1, Math.max(0, 1 - (at - member.heard) / timeout));
}

function silence(member) {
  if (member.silentMs === null || member.silentMs < 1500) return "";
  return `silent for ${(member.silentMs / 1000).toFixed(0)} s`;
}

function nodeLabel(member, role) {
  return `${member.name}: ${role}, term ${member.term}, log up to ${member.last}, committed ${member.commit}`;
}

function logLegend() {
  const cell = (name, text) => h("span", {}, s("svg", { viewBox: "0 0 10 15", class: "key" },
    s("rect", { x: 0.7, y: 1, width: 8.6, height: 13, rx: 1.2, class: `cell t1 ${name}` })), text);
  const mark = (name, text) => h("span", {}, s("svg", { viewBox: "0 0 16 15", class: "key" },
    s("rect", { x: 0, y: 6, width: 16, height: 3, class: name })), text);
  return h("p", { class: "legend" }, "One cell is one entry. Its colour is the term of the leader that wrote it.",
    cell("memory", "in memory"), cell("stored", "on this disk"), cell("committed", "on a majority: committed"),
    mark("commit-mark", "committed up to here"), mark("applied-mark", "applied to the keys"));
}
