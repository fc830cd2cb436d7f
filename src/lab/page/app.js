// The lab's page: draws the state of the engine, and passes on what the person does.
"use strict";

const SPEEDS_MS = [1, 3, 10, 30, 100, 300, 1000];
const TIMELINE_ROWS = 150;
/** A busy cluster writes more than a page can hold. */
const TRACE_BYTES_MAX = 64e6;
const QUIET = new Set(["heartbeat", "heartbeat-answer", "commit"]);
const VISIBLE = new Set(["role", "term", "timeout", "vote_asked", "vote_answer", "vote_stored", "appended", "truncated", "committed", "members", "snapshot", "start"]);
const RING = { x: 240, y: 200, rx: 165, ry: 140, node: 36 };

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function s(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

class Page {
  constructor(engine) {
    this.engine = this.simulation = engine;
    this.about = engine.about();
    this.about.runs = RUNS;
    const sentences = new Map(RULES);
    for (const rule of this.about.rules) rule.sentence ||= sentences.get(rule.name) ?? "";
    this.about.lessons = LESSONS.map(([name, source]) => [name, source, scriptsOf(source)]);
    this.chosen = 1;
    this.filter = 0;
    this.quiet = false;
    this.playing = false;
    this.lesson = null;
    this.clock = 0;
    this.wire();
    this.makeRules();
    this.makeLessons();
    this.showTab("handles");
    this.openAddress();
  }

  // Runs

  /** Opens the run in the address, or a new one. */
  openAddress() {
    const fragment = decodeURIComponent(location.hash.slice(1));
    if (!fragment) return this.openNew();
    this.openText(fragment.replaceAll(";", "\n").replaceAll("+", " "));
  }

  openNew() {
    const seed = 1 + Math.floor(Math.random() * 9999);
    this.openText(`lab 1\nseed ${seed}\nmembers ${$("members").value}\n`);
  }

  /** Opens a run and goes to its end. */
  openText(text) {
    this.pause();
    this.lesson = null;
    this.engine = this.simulation;
    try {
      this.engine.open(text);
    } catch (wrong) {
      this.say(`This run cannot be read: ${wrong.message}`);
      this.engine.open("lab 1\nseed 1\nmembers 3\n");
    }
    const end = /^(\d+) end$/m.exec(text);
    if (end) this.engine.seek(Number(end[1]));
    this.changed(true);
    this.drawLesson();
  }

  /** Opens a run, or the traces of real members as a recording. `files` are pairs of a name and a text. */
  openFiles(files) {
    if (files.length === 1 && /^\s*lab \d/.test(files[0][1])) return this.openText(files[0][1]);
    let recording;
    try {
      recording = new Recording(files);
    } catch (wrong) {
      return this.say(`This cannot be read: ${wrong.message}`);
    }
    this.pause();
    this.lesson = null;
    this.engine = recording;
    this.changed(true);
    this.drawLesson();
    this.showTab("handles");
    this.say("");
  }

  /** Reads files. Of traces with more than `most` bytes together, only the ends. */
  async readFiles(files, most = TRACE_BYTES_MAX) {
    const share = most / files.length;
    this.openFiles(await Promise.all([...files].map(async (file) => [file.name, await endOf(file, share)])));
  }

  /** The text of the run, with these rules off. */
  runWithout(names) {
    const lines = this.engine.run().split("\n").filter((line) => !line.startsWith("without "));
    lines.splice(3, 0, ...names.map((name) => `without ${name}`));
    return lines.join("\n");
  }

  share() {
    if (this.engine.isRecording) return this.say("A recording is its files. Send these.");
    const fragment = this.engine.run().trimEnd().replaceAll("\n", ";").replaceAll(" ", "+");
    history.replaceState(null, "", `#${fragment}`);
    const copied = navigator.clipboard ? navigator.clipboard.writeText(location.href) : Promise.reject();
    copied.then(() => this.say("The link is copied. It contains the seed and all acts."), () => this.say("The address of this page is the link."));
  }

  save() {
    if (this.engine.isRecording) return this.say("A recording is its files. They are saved already.");
    const link = h("a", { download: "lab.run", href: URL.createObjectURL(new Blob([this.engine.run()], { type: "text/plain" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // Time

  /** The state has changed. `afresh`: the records before are others too. */
  changed(afresh = false) {
    if (afresh || !this.known) {
      this.known = [0, 0];
      this.events = [];
    }
    this.state = this.engine.state();
    const trace = this.engine.trace(...this.known);
    this.known = trace.next;
    const records = trace.records.map((record) => ({ at: record.at, record }));
    const lines = trace.lines.map((line) => ({ at: line.at, text: line.text }));
    // Records and lines are each in order of time.
    this.events.push(...[...records, ...lines].sort((a, b) => a.at - b.at));
    this.clock = this.state.at;
    this.draw();
    return trace;
  }

  step(count = 1) {
    const done = this.engine.step(count);
    const trace = this.changed();
    if (done === 0 && !this.state.broken) this.say("Nothing more will happen by itself.");
    return trace;
  }

  /** Steps until a record that is worth a look. */
  next() {
    this.pause();
    for (let steps = 0; steps < 5000; steps++) {
      if (this.engine.step(1) === 0) break;
      const { records } = this.engine.trace(this.known[0], this.known[1]);
      if (records.some((record) => VISIBLE.has(record.kind))) break;
      this.known = this.peek();
    }
    this.changed();
  }

  /** Takes the new events into the timeline without drawing. */
  peek() {
    const trace = this.engine.trace(...this.known);
    const records = trace.records.map((record) => ({ at: record.at, record }));
    this.events.push(...records, ...trace.lines.map((line) => ({ at: line.at, text: line.text })));
    return trace.next;
  }

  seek(step) {
    this.pause();
    const back = step < this.state.step || this.state.broken;
    this.engine.seek(Math.max(0, step));
    this.changed(Boolean(back));
    if (back && this.lesson) this.lesson.left = true;
  }

  pause() {
    this.playing = false;
    $("play").textContent = "▶ Play";
  }

  play() {
    if (this.playing) return this.pause();
    this.playing = true;
    $("play").textContent = "⏸ Pause";
    let before = performance.now();
    const frame = (now) => {
      if (!this.playing) return;
      const passed = Math.min(now - before, 100);
      before = now;
      this.advance(passed);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /** Plays for this many milliseconds of the person's time. */
  advance(passedMs) {
    const until = this.clock + passedMs * SPEEDS_MS[$("speed").value];
    const done = this.engine.runTo(until, 5000);
    if (done > 0) this.changed();
    this.clock = Math.max(this.state.at, until);
    if (done === 0) this.drawFlights();
    if (this.state.broken || this.state.next_at === null) this.pause();
  }

  // Acts

  act(text) {
    const wrong = this.engine.act(text);
    this.say(wrong ? `“${text}”: ${wrong}` : text);
    if (this.lesson) this.lesson.left = true;
    this.changed();
  }

  actAll(texts) {
    for (const text of texts) this.engine.act(text);
    this.say(texts.length ? texts.join(", ") : "Nothing to do.");
    this.changed();
  }

  others(member) {
    return this.state.members.map((other) => other.id).filter((id) => id !== member);
  }

  say(text) {
    $("said").textContent = text;
  }

  // Drawing

  draw() {
    const { state } = this;
    const origin = this.engine.isRecording ? "recording" : `seed ${state.seed}${state.without.length ? ` · without ${state.without.join(", ")}` : ""}`;
    $("where").textContent = `step ${state.step} of ${Math.max(state.end, state.step)} · ${(state.at / 1000).toFixed(3)} ms · ${origin}`;
    $("seek").max = String(Math.max(state.end, state.step));
    $("seek").value = String(state.step);
    $("broken").hidden = !state.broken;
    if (state.broken) $("broken").textContent = `Broken in step ${state.broken[0]}: ${lineText(state.broken[1])}`;
    document.body.dataset.step = String(state.step);
    document.body.dataset.broken = state.broken ? String(state.broken[0]) : "";
    if (document.activeElement !== $("members")) $("members").value = String(state.founders);
    this.drawRing();
    this.drawLogs();
    this.drawHandles();
    this.drawTimeline();
  }

  place(id) {
    const at = this.state.members.findIndex((member) => member.id === id);
    const angle = (at / this.state.members.length) * 2 * Math.PI - Math.PI / 2;
    return { x: RING.x + RING.rx * Math.cos(angle), y: RING.y + RING.ry * Math.sin(angle) };
  }

  drawRing() {
    const { members, cuts } = this.state;
    const links = [];
    for (const a of members) {
      for (const b of members) {
        if (a.id === b.id) continue;
        const [from, to] = [this.aside(a.id, b.id, 0), this.aside(a.id, b.id, 1)];
        const isCut = cuts.some(([x, y]) => x === a.id && y === b.id);
        links.push(s("line", { class: isCut ? "link cut" : "link", x1: from.x, y1: from.y, x2: to.x, y2: to.y }));
      }
    }
    this.flights = s("g", {});
    $("ring").replaceChildren(...links, ...members.map((member) => this.node(member)), this.flights);
    this.drawFlights();
  }

  /** A point on the way from one member to another. Each direction has its own side. */
  aside(from, to, way) {
    const [a, b] = [this.place(from), this.place(to)];
    const length = Math.hypot(b.x - a.x, b.y - a.y);
    const [ux, uy] = [(b.x - a.x) / length, (b.y - a.y) / length];
    const along = RING.node + 4 + (length - 2 * RING.node - 8) * way;
    return { x: a.x + ux * along - uy * 5, y: a.y + uy * along + ux * 5 };
  }

  node(member) {
    const { x, y } = this.place(member.id);
    const isStored = member.stored_vote[0] === member.term && member.stored_vote[1] === member.vote;
    const vote = member.vote === null ? "no vote" : `vote n${member.vote}${isStored ? "" : " (memory)"}`;
    const state = member.paused ? "paused" : member.retired ? "ended" : member.disk !== "good" && member.up ? `${member.role}, disk ${member.disk}` : member.role === "pre-candidate" ? "asks first" : member.role;
    const choose = () => { this.chosen = member.id; this.draw(); };
    const classes = ["node", member.role, member.paused ? "paused" : "", member.id === this.chosen ? "chosen" : ""];
    return s("g", {
      class: classes.join(" "), transform: `translate(${x} ${y})`, tabindex: "0", role: "button", "data-member": member.id,
      "aria-label": `n${member.id}: ${state}, term ${member.term}, ${vote}, log up to ${last(member)}, committed ${member.commit}`,
      onclick: choose,
      onkeydown: (event) => { if (event.key === "Enter") choose(); },
    },
    s("circle", { r: RING.node }),
    text("name", -10, `n${member.id}`), text("small", 2, state), text("small", 13, `term ${member.term}`), text("small", 24, vote));
  }

  /** Draws the messages where they are at this moment. */
  drawFlights() {
    const dots = this.state.messages.map((message) => {
      const takes = Math.max(1, message.arrives - message.sent);
      const way = Math.min(1, Math.max(0, (this.clock - message.sent) / takes));
      const { x, y } = this.aside(message.from, message.to, way);
      const link = `${message.from} ${message.to}`;
      return s("g", { class: `flight ${message.what}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, onclick: () => this.act(`lose ${link}`) },
        s("title", {}, `n${message.from} → n${message.to}: ${message.text}. Click to lose the first message on this link.`),
        s("circle", { r: QUIET.has(message.what) ? 4 : 6.5 }), text("", -9, QUIET.has(message.what) ? "" : message.what));
    });
    this.flights.replaceChildren(...dots);
  }

  drawLogs() {
    const rows = this.state.members.map((member) => {
      const cells = member.log.map((entry) => {
        const stage = entry.index <= member.commit ? "stored committed" : entry.index <= member.stored ? "stored" : "memory";
        const label = `entry ${entry.index} of term ${entry.term}: ${entry.label}, ${stage}`;
        return h("span", { class: `cell t${entry.term % 6} ${stage}`, title: label }, h("span", { class: "i" }, `${entry.index}·t${entry.term}`), entry.label);
      });
      const keys = member.keys.map(([key, value]) => `k${key}=#${value}`).join(" ");
      return h("div", { class: "log" }, h("span", { class: "who" }, `n${member.id}`), h("span", { class: "cells" }, ...cells),
        h("span", { class: "hint" }, keys));
    });
    const scrolled = [...document.querySelectorAll(".cells")].map((cells) => cells.scrollLeft);
    $("logs").replaceChildren(...rows, h("p", { class: "legend" }, "Each cell is an entry: index, term, content. Its colour is the term. Dashed: in memory. Solid: on disk. Green: committed. Right: the keys that readers see."));
    document.querySelectorAll(".cells").forEach((cells, at) => { cells.scrollLeft = scrolled[at] ?? cells.scrollWidth; });
  }

  drawHandles() {
    if (this.engine.isRecording) return this.drawRecording();
    const { members } = this.state;
    if (!members.some((member) => member.id === this.chosen)) this.chosen = members[0].id;
    const n = this.chosen;
    const member = members.find((one) => one.id === n);
    const button = (label, act, title = act) => h("button", { title, "data-act": act, onclick: () => this.act(act) }, label);
    const links = this.others(n);
    const to = links.includes(this.peer) ? this.peer : links[0];
    this.peer = to;
    const key = this.key ?? "k0";
    const group = (...buttons) => h("div", { class: "group" }, ...buttons);
    const select = (values, value, onchange, label) => {
      const options = values.map((one) => h("option", { value: one, selected: String(one) === String(value) }, typeof one === "number" ? `n${one}` : one));
      return h("select", { "aria-label": label, onchange }, ...options);
    };
    const disks = ["good", "slow", "hung", "full"].filter((disk) => disk !== member.disk);
    const focus = document.activeElement?.dataset?.act;
    $("handles").replaceChildren(
      group(h("strong", {}, `n${n}`), h("span", { class: "hint" }, "Choose a member in the ring, or with the keys 1 to 9.")),
      h("h3", {}, "Process"),
      member.up
        ? group(button("Crash", `crash ${n}`, "The power fails: what is not synced is lost"), button("Kill", `kill ${n}`, "Only the process ends"), button("Tear", `tear ${n}`, "The power fails in the middle of a write"),
          member.paused ? button("Resume", `resume ${n}`) : button("Pause", `pause ${n}`), button("Stop", `stop ${n}`), button("Wipe", `wipe ${n}`, "Empties the data directory"))
        : group(button("Restart", `restart ${n}`), button("Wipe", `wipe ${n}`, "Empties the data directory")),
      h("h3", {}, "Disk"), group(...disks.map((disk) => button(disk, `disk ${n} ${disk}`))),
      h("h3", {}, "Client"),
      group(select(["k0", "k1", "k2", "k3"], key, (event) => { this.key = event.target.value; this.drawHandles(); }, "Key"), button("Write", `write ${n} ${key}`), button("Read", `read ${n} ${key}`)),
      this.requests(),
      h("h3", {}, "Link to"),
      group(select(links, to, (event) => { this.peer = Number(event.target.value); this.drawHandles(); }, "Other member"),
        button("Cut →", `cut ${n} ${to}`), button("Heal →", `heal ${n} ${to}`), button("Cut ←", `cut ${to} ${n}`), button("Heal ←", `heal ${to} ${n}`)),
      group(button("Lose one →", `lose ${n} ${to}`), button("Double one →", `duplicate ${n} ${to}`), button("Delay → 50 ms", `delay ${n} ${to} 50`)),
      group(h("button", { onclick: () => this.actAll(links.flatMap((other) => [`cut ${n} ${other}`, `cut ${other} ${n}`])) }, `Cut n${n} off`),
        h("button", { onclick: () => this.actAll(this.state.cuts.map(([a, b]) => `heal ${a} ${b}`)) }, "Heal all")),
      h("h3", {}, "Members"),
      group(button("Add a member", `add ${n}`), button(`Remove n${to}`, `remove ${n} ${to}`), button(`Lead: n${to}`, `transfer ${n} ${to}`, "The leader transfers its leadership")),
    );
    if (focus) document.querySelector(`[data-act="${focus}"]`)?.focus();
  }

  /** Who is who in a recording, in place of handles. */
  drawRecording() {
    const { members, items, skipped, dropped } = this.engine;
    const began = new Date(items[0].at / 1000).toISOString().replace("T", " ").replace("Z", " UTC");
    $("handles").replaceChildren(
      h("p", {}, `A recording of real members: ${items.length} records from ${began} on. A step is a record. It cannot be changed.`),
      h("ul", { class: "script" }, ...members.map(({ number, name, id }) => h("li", {}, `n${number}: ${name || "known to others only"} (${id})`))),
      h("p", { class: "hint" }, [skipped && `${skipped} lines are no records.`, dropped && `${dropped} older records are left out.`].filter(Boolean).join(" ")));
  }

  requests() {
    const shown = this.state.requests.slice(-4).map((request) => h("li", {}, `#${request.number} ${requestText(request)}`));
    return h("ul", { class: "script" }, ...shown);
  }

  drawTimeline() {
    const members = this.state.members.map((member) => member.id);
    const choice = (value, label) => h("button", { class: this.filter === value ? "on" : "", "aria-pressed": String(this.filter === value), onclick: () => { this.filter = value; this.drawTimeline(); } }, label);
    const quiet = h("input", { type: "checkbox", checked: this.quiet, onchange: (event) => { this.quiet = event.target.checked; this.drawTimeline(); } });
    $("filter").replaceChildren(h("div", { class: "group" }, choice(0, "All"), ...members.map((id) => choice(id, `n${id}`)), h("label", {}, quiet, " messages")));
    const rows = [];
    for (let at = this.events.length - 1; at >= 0 && rows.length < TIMELINE_ROWS; at--) {
      const row = this.row(this.events[at]);
      if (row) rows.push(row);
    }
    $("records").replaceChildren(...rows);
  }

  row({ at, record, text: line }) {
    const time = h("span", { class: "at" }, `${(at / 1000).toFixed(3)} ms`);
    if (!record) return h("li", { class: "act" }, time, lineText(line));
    const member = parseInt(record.member, 16);
    if (this.filter && member !== this.filter) return null;
    if (!this.quiet && (record.kind === "sent" || record.kind === "received")) return null;
    const [what, why, section] = describe(record);
    const rule = [why, section].filter(Boolean).join(" ");
    return h("li", { "data-kind": record.kind, "data-seq": record.seq ?? "", "data-of": record.member }, time, h("strong", {}, `n${member} `), what, h("span", { class: "rule-text" }, rule));
  }

  // Rules

  makeRules() {
    const options = (isRafts) => [h("option", { value: "" }, "all kept"), ...this.about.rules.filter((rule) => rule.raft === isRafts).map((rule) => h("option", { value: rule.name }, rule.name))];
    this.raftRule = h("select", { "aria-label": "Rule of raft" }, ...options(true));
    this.engineRule = h("select", { "aria-label": "Rule of the engine" }, ...options(false));
    const chosen = () => [this.raftRule.value, this.engineRule.value].filter(Boolean);
    const stored = new Map(this.about.runs);
    $("rules").replaceChildren(
      h("p", { class: "hint" }, "The server has no such switches. Here one rule of raft and one of the engine can be off."),
      h("div", { class: "group" }, "Off: ", this.raftRule, this.engineRule),
      h("div", { class: "group" },
        h("button", { id: "again", onclick: () => this.openText(this.runWithout(chosen())) }, "Play this run again with these rules"),
        h("button", { onclick: () => this.openText(`lab 1\nseed 1\nmembers ${$("members").value}\n${chosen().map((name) => `without ${name}\n`).join("")}`) }, "New run")),
      ...this.about.rules.map((rule) => h("div", { class: "rule" }, h("code", {}, rule.name), ` ${rule.sentence} `, h("span", { class: "hint" }, rule.section), " ",
        stored.has(rule.name) ? h("button", { "data-run": rule.name, onclick: () => this.openText(stored.get(rule.name)) }, "Shortest run that breaks it") : "")),
    );
    const runs = [h("option", { value: "" }, "choose…"), ...this.about.runs.map(([name]) => h("option", { value: name }, `without ${name}`))];
    $("runs").replaceChildren(...runs);
  }

  // Lessons

  makeLessons() {
    const list = this.about.lessons.map(([name, source], at) => h("li", {}, h("button", { "data-lesson": name, onclick: () => this.openLesson(at, 0) }, source.split("\n")[0].replace("# ", ""))));
    this.lessonList = h("ul", { class: "script" }, ...list);
    this.lessonBox = h("div", {});
    $("lessons").replaceChildren(this.lessonList, this.lessonBox);
  }

  openLesson(at, number) {
    this.pause();
    this.engine = this.simulation;
    const [name, source, scripts] = this.about.lessons[at];
    const lines = scripts[number].split("\n").filter((line) => line.trim());
    const setUp = lines.filter((line) => /^(members|seed|without) /.test(line));
    this.lesson = { at, name, source, scripts, number, lines, done: setUp.length, left: false, wrong: "" };
    this.engine.begin(setUp);
    this.say("");
    this.changed(true);
    this.drawLesson();
  }

  perform() {
    const { lesson, engine } = this;
    const line = lesson.lines[lesson.done].trim();
    engine.lineBegin();
    let result = "more";
    while (result === "more") result = engine.line(line, 500);
    if (result === "done") lesson.done++;
    else lesson.wrong = result;
    return result === "done";
  }

  /** Performs lines up to this one. After another act or a step back, the script begins again. */
  performTo(count) {
    this.pause();
    if (this.lesson.left || count <= this.lesson.done) this.openLesson(this.lesson.at, this.lesson.number);
    const { lesson } = this;
    while (lesson.done < Math.min(count, lesson.lines.length) && this.perform());
    this.engine.keep();
    this.changed(true);
    this.drawLesson();
  }

  drawLesson() {
    const { lesson } = this;
    this.lessonList.hidden = Boolean(lesson);
    if (!lesson) return this.lessonBox.replaceChildren();
    const lines = lesson.lines.map((line, at) => {
      const [words, why] = line.split("#");
      const state = at < lesson.done ? "done" : at === lesson.done ? (lesson.wrong ? "wrong" : "now") : "";
      return h("li", { class: state, onclick: () => this.performTo(at + 1) }, words, h("span", { class: "why" }, why ?? ""), state === "wrong" ? ` — ${lesson.wrong}` : "");
    });
    const next = h("button", { id: "line", disabled: lesson.done >= lesson.lines.length, onclick: () => this.performTo(lesson.done + 1) }, "Next line");
    const all = h("button", { id: "all", onclick: () => this.performTo(lesson.lines.length) }, "All lines");
    const back = h("button", { onclick: () => { this.lesson = null; this.drawLesson(); } }, "All lessons");
    const scripts = lesson.scripts.map((script, number) => h("button", { class: number === lesson.number ? "on" : "", "data-script": number, onclick: () => this.openLesson(lesson.at, number) }, /^without/m.test(script) ? "Without the rule" : lesson.scripts.some((other) => /^without/m.test(other)) ? "With the rule" : `Part ${number + 1}`));
    this.lessonBox.replaceChildren(h("div", { class: "group" }, back, ...scripts), ...this.prose(lesson.source, [h("ol", { class: "script" }, ...lines), h("div", { class: "group" }, next, all)]));
    if (lesson.done > 0) this.lessonBox.querySelector("li.now, li.wrong, #line").scrollIntoView({ block: "nearest" });
  }

  /** The text of a lesson as elements; `script` takes the place of its scripts. */
  prose(source, script) {
    const elements = [];
    let used = false;
    for (const block of source.replace(/```lab\n[^`]*```/g, "\n\n```\n\n").split(/\n{2,}/)) {
      const line = block.trim();
      if (!line) continue;
      if (line === "```") {
        if (!used) elements.push(...script);
        used = true;
      } else if (line.startsWith("#")) elements.push(h(line.startsWith("##") ? "h3" : "h2", {}, line.replace(/^#+ /, "")));
      else if (line.startsWith("1. ")) elements.push(h("ol", {}, ...line.split(/\n(?=\d+\. )/).map((item) => h("li", {}, ...inline(item.replace(/^\d+\. /, ""))))));
      else elements.push(h("p", {}, ...inline(line)));
    }
    return elements;
  }

  // Wiring

  showTab(name) {
    for (const tab of document.querySelectorAll("[role=tab]")) tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
    for (const panel of document.querySelectorAll(".tab")) panel.hidden = panel.id !== name;
  }

  wire() {
    $("new").onclick = () => this.openNew();
    $("members").onchange = () => this.openNew();
    $("share").onclick = () => this.share();
    $("save").onclick = () => this.save();
    $("load").onclick = () => $("file").click();
    $("file").onchange = async (event) => {
      await this.readFiles(event.target.files);
      // The same file can be chosen again.
      event.target.value = "";
    };
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.readFiles(event.dataTransfer.files);
    });
    $("runs").onchange = (event) => event.target.value && this.openText(new Map(this.about.runs).get(event.target.value));
    $("start").onclick = () => this.seek(0);
    $("back").onclick = () => this.seek(this.state.step - 1);
    $("step").onclick = () => { this.pause(); this.step(); };
    $("next").onclick = () => this.next();
    $("play").onclick = () => this.play();
    $("seek").oninput = (event) => this.seek(Number(event.target.value));
    $("speed").oninput = () => this.drawPace();
    this.drawPace();
    for (const tab of document.querySelectorAll("[role=tab]")) tab.onclick = () => this.showTab(tab.dataset.tab);
    window.addEventListener("hashchange", () => this.openAddress());
    document.addEventListener("keydown", (event) => this.key_(event));
  }

  drawPace() {
    $("pace").textContent = `${SPEEDS_MS[$("speed").value]} ms per second`;
  }

  key_(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select")) return;
    const keys = { ArrowRight: "step", ArrowLeft: "back", n: "next", Home: "start", " ": "play" };
    if (event.key === " " && event.target.closest("button")) return;
    if (/^[1-9]$/.test(event.key) && this.state.members.some((member) => member.id === Number(event.key))) {
      this.chosen = Number(event.key);
      this.draw();
    } else if (keys[event.key]) {
      event.preventDefault();
      $(keys[event.key]).click();
    }
  }
}

/** The first line of a file, which says whose trace it is, and its end. */
async function endOf(file, most) {
  if (file.size <= most) return file.text();
  const [head] = (await file.slice(0, 4096).text()).split("\n", 1);
  return `${head}\n${await file.slice(file.size - most).text()}`;
}

/** The scripts in the text of a lesson. */
function scriptsOf(source) {
  return source.split("```lab\n").slice(1).map((block) => block.split("```")[0]);
}

function last(member) {
  return member.log.at(-1)?.index ?? member.commit;
}

function text(name, y, content) {
  return s("text", { class: name, y }, content);
}

/** A request of a client and its reply. */
function requestText({ what, answer, returned }) {
  const asked = askedText(what);
  if (answer === null) return `${asked}: ${returned === null ? "waits" : "no reply in time"}`;
  return `${asked}: ${answerText(answer)}`;
}

/** What clients ask for, by its name in the simulator. Keys have numbers. */
const ASKED = {
  Read: "read k", Set: "write k", Create: "create k", Swap: "compare and swap k", SwapIndex: "compare and swap k",
  Delete: "delete k", Post: "post to the queue", Lease: "write with a TTL, key ", ReadLease: "read the key with a TTL, key ",
};

function askedText(what) {
  const [, verb, key] = /^(\w+)(?:\((\d+))?/.exec(what);
  return `${ASKED[verb] ?? verb}${key ?? ""}`;
}

function answerText(answer) {
  const found = /^Found\(Some\(\((\d+), (\d+)\)\)\)/.exec(answer);
  const done = /^Done\((?:None|Some\((\d+)\)), (\d+)\)/.exec(answer);
  if (found) return `the value of #${found[1]}, index ${found[2]}`;
  if (answer === "Found(None)") return "no such key";
  if (done) return `done, index ${done[2]}${done[1] ? `, before: #${done[1]}` : ""}`;
  return answer === "NotTaken" ? "not taken: ask again" : `failed, outcome unknown (${answer})`;
}

/** What the person or a client did, in words. */
function lineText(line) {
  const got = /^c\d+ gets #(\d+): (.*)$/.exec(line);
  const asks = /^c\d+ asks (n\d+): #(\d+) (.*)$/.exec(line);
  if (got) return `A client gets #${got[1]}: ${answerText(got[2])}`;
  if (asks) return `A client asks ${asks[1]}: #${asks[2]} ${askedText(asks[3])}`;
  const act = /^-- ([A-Z][a-z]+)\((.*)\)$/.exec(line);
  if (act) return `You: ${act[1].toLowerCase()} ${act[2].replace(/NodeId\((\d+)\)/g, "n$1").replaceAll(",", "")}`;
  return line.replace(/^-- /, "").replace(/NodeId\((\d+)\)/g, "n$1");
}

/** `code` and *emphasis* in a paragraph. */
function inline(source) {
  return source.replaceAll("\n", " ").split(/(`[^`]+`|\*[^*]+\*)/).map((part) =>
    part.startsWith("`") ? h("code", {}, part.slice(1, -1)) : part.startsWith("*") && part.length > 2 ? h("em", {}, part.slice(1, -1)) : part);
}

async function begin() {
  const packed = Uint8Array.from(atob(PROGRAM.replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
  const bytes = new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
  const module = await WebAssembly.compile(await bytes.arrayBuffer());
  window.lab = new Page(new Engine(module));
  document.body.dataset.ready = "yes";
}

begin().catch((wrong) => {
  const { hidden, textContent } = { hidden: false, textContent: `The lab cannot start: ${wrong.message}` };
  Object.assign(document.getElementById("broken"), { hidden, textContent });
});
