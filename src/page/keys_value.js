// One key: its value, its time to live, its earlier values, and how it is changed.
//
// A change names the index of the value that was seen (compare-and-swap). If somebody else has changed the key since,
// the server refuses, and the page shows both values instead of overwriting one.

const COMPARE_FAILED = 101;
const KEY_NOT_FOUND = 100;
const VALUE_SHOWN_MAX = 100000;
const EVENTS_SHOWN_MAX = 100;

class KeyPane {
  constructor(element, frame) {
    Object.assign(this, { element, frame });
    this.path = null;
    this.format = "stored";
    setInterval(() => this.tick(), 1000);
  }

  /** Shows the key with this path. An edit that is not saved stays until the user leaves it. */
  async show(path) {
    if (path !== this.path) this.unwatch();
    this.path = path;
    this.edit = null;
    if (!path) return fill(this.element, h("p", { class: "note" }, "Choose a key on the left. With the keyboard: arrows, Enter, space to select."));
    await this.read();
  }

  async read() {
    const path = this.path;
    try {
      const { node } = await getJson(`/v2/keys${path === "/" ? "/" : path}`);
      if (path !== this.path) return;
      this.take(node);
    } catch (error) {
      if (path !== this.path) return;
      this.node = null;
      this.drawMissing(error);
    }
    this.readEarlier();
  }

  take(node) {
    this.node = { key: "/", ...node, readAt: performance.now() };
    if (!this.edit) this.draw();
  }

  get name() {
    return this.node?.key ?? pathText(this.path);
  }

  draw() {
    const { node } = this;
    this.life = h("dd", { class: "life" });
    const write = (label, act, more = {}) => h("button", { class: "writes", onclick: act, ...more }, label);
    this.watchButton = h("button", { onclick: () => this.toggleWatch(), "aria-pressed": Boolean(this.watcher) }, this.watcher ? "Stop watching" : "Watch live");
    fill(this.element,
      h("h2", { class: "key-name" }, node.key),
      h("p", { class: "actions" },
        node.dir ? write("New key here", () => this.frame.create(node.key)) : write("Edit", () => this.startEdit(node, node.value), { class: "writes main" }),
        this.watchButton,
        node.key !== "/" && write("Delete", () => this.remove(), { class: "writes danger" }),
        h("button", { onclick: () => this.read() }, "Read again")),
      h("dl", { class: "meta" },
        h("dt", {}, "modified at index"), h("dd", {}, String(node.modifiedIndex ?? "–")),
        h("dt", {}, "created at index"), h("dd", {}, String(node.createdIndex ?? "–")),
        h("dt", {}, "time to live"), this.life),
      node.dir ? h("p", { class: "note" }, "A directory.") : this.drawValue(),
      this.liveList = h("div", { class: "live", hidden: !this.watcher }, h("h2", {}, "Live"), this.events ?? (this.events = h("ol", { class: "events" }))),
      this.earlier = h("div", { class: "earlier" }));
    this.tick();
  }

  drawValue() {
    const { value } = this.node;
    const json = value.length < 2e6 && isJson(value) && /^\s*[[{]/.test(value);
    const format = h("select", { "aria-label": "Show the value as", onchange: () => {
      this.format = format.value;
      this.draw();
      this.readEarlier();
    } }, ["stored", ...(json ? ["JSON", "YAML"] : [])].map((name) => h("option", { value: name }, name === "stored" ? "as stored" : name)));
    format.value = json ? this.format : "stored";
    const text = { stored: () => value, JSON: () => indentJson(value), YAML: () => toYaml(readJson(value)) }[format.value]();
    const shown = text.slice(0, VALUE_SHOWN_MAX);
    return [
      h("p", { class: "value-head" }, h("span", {}, `${countText(new Blob([value]).size)} bytes`), format,
        h("button", { class: "quiet", onclick: () => navigator.clipboard?.writeText(value) }, "Copy")),
      h("pre", { class: "value", tabindex: "0" }, shown),
      shown.length < text.length && h("p", { class: "note" }, `The first ${VALUE_SHOWN_MAX.toLocaleString("en")} characters. Export the key to see all of it.`),
    ];
  }

  drawMissing(error) {
    const isGone = error.code === KEY_NOT_FOUND;
    fill(this.element,
      h("h2", { class: "key-name" }, this.name),
      h("p", { class: "note" }, isGone ? "There is no such key." : error.status === 401 ? "You may not read this key." : error.message),
      isGone && h("p", {}, h("button", { class: "writes", onclick: () => this.frame.create(this.name) }, "Create it")),
      this.earlier = h("div", { class: "earlier" }));
  }

  /** The remaining time to live, by this browser's clock since the value was read. */
  lifeLeft() {
    if (this.node?.ttl === undefined) return null;
    return this.node.ttl - (performance.now() - this.node.readAt) / 1000;
  }

  tick() {
    if (!this.node || !this.life || document.hidden) return;
    const left = this.lifeLeft();
    setText(this.life, left === null ? "none" : lifeText(left));
    this.life.classList.toggle("soon", left !== null && left < 30);
    if (left !== null && left < -1 && !this.edit) this.read();
  }

  // Editing

  startEdit(base, text) {
    const left = this.lifeLeft();
    const area = h("textarea", { rows: 14, spellcheck: "false", "aria-label": "Value", value: text });
    const ttl = h("input", { type: "number", min: "1", class: "ttl", placeholder: "none", value: left === null ? "" : Math.max(1, Math.ceil(left)) });
    this.edit = { base, area, ttl };
    this.hint = h("p", { class: "note" });
    fill(this.element,
      h("h2", { class: "key-name" }, base.key),
      area,
      h("p", { class: "actions" }, h("label", {}, "Time to live in seconds ", ttl),
        h("button", { onclick: () => isJson(area.value) && (area.value = indentJson(area.value)) }, "Indent JSON")),
      this.hint,
      h("p", { class: "actions" },
        h("button", { class: "writes main", onclick: () => this.review() }, "Review"),
        h("button", { onclick: () => this.leave() }, "Cancel")));
    area.focus();
  }

  leave() {
    this.edit = null;
    this.read();
  }

  /** Shows what would be changed. */
  review() {
    const { base, area, ttl } = this.edit;
    const text = area.value;
    fill(this.element,
      h("h2", { class: "key-name" }, base.key),
      h("p", {}, "This will be changed:"), diffView(base.value, text),
      h("p", { class: "note" }, ttl.value ? `The key will live for ${lifeText(Number(ttl.value))}.` : "The key will have no time to live."),
      h("p", { class: "actions" },
        h("button", { class: "writes main", onclick: () => this.save(base, text, ttl.value) }, "Save"),
        h("button", { onclick: () => this.startEdit(base, text) }, "Back"),
        h("button", { onclick: () => this.leave() }, "Cancel")));
  }

  async save(base, value, ttl) {
    const form = { value, prevIndex: base.modifiedIndex, ...(ttl ? { ttl } : {}) };
    try {
      await send("PUT", `/v2/keys${this.path}`, { form });
      this.edit = null;
      await this.read();
      this.frame.say(`Saved ${base.key}.`);
    } catch (error) {
      if (error.code === COMPARE_FAILED || error.code === KEY_NOT_FOUND) await this.conflict(base, value, ttl);
      else this.frame.fail(error);
    }
  }

  /** Somebody else has changed the key since it was read. */
  async conflict(base, mine, ttl) {
    const answer = await getJson(`/v2/keys${this.path}`).catch((error) => error);
    const theirs = answer.node;
    const again = (label, act, more = {}) => h("button", { onclick: act, ...more }, label);
    fill(this.element,
      h("h2", { class: "key-name" }, base.key),
      h("div", { class: "conflict", role: "alert" },
        h("p", {}, h("strong", {}, "Nothing was saved: somebody else has changed this key"), theirs
          ? ` (index ${base.modifiedIndex} is now ${theirs.modifiedIndex}).` : ". It does not exist any more."),
        theirs && [h("p", {}, "Their change:"), diffView(base.value, theirs.value ?? ""), h("p", {}, "Your text compared with theirs:"), diffView(theirs.value ?? "", mine)]),
      h("p", { class: "actions" },
        theirs && again("Edit on top of theirs", () => this.startEdit(theirs, mine), { class: "writes main" }),
        theirs && again("Replace theirs by mine", () => this.save(theirs, mine, ttl), { class: "writes danger" }),
        !theirs && again("Create it again", () => this.restore(this.path, mine, null), { class: "writes main" }),
        again("Keep theirs", () => this.leave())));
  }

  async remove() {
    const { node } = this;
    const what = node.dir ? "the directory and everything below it" : "this key";
    const answer = await ask(`Delete ${node.key}?`, h("p", {}, `This deletes ${what}. `, node.dir
      ? "Keys that are among the last thousand changes can be restored afterwards, older ones cannot."
      : "It can be undone as long as the history reaches back to it."),
    [{ label: "Cancel", value: null }, { label: "Delete", value: "yes", danger: true, main: true }]);
    if (answer !== "yes") return;
    try {
      // Compare-and-delete is for keys only.
      await send("DELETE", `/v2/keys${this.path}${node.dir ? "?recursive=true" : `?prevIndex=${node.modifiedIndex}`}`);
      this.frame.changed();
    } catch (error) {
      this.frame.fail(error);
    }
    await this.read();
  }

  // Earlier values

  async readEarlier() {
    const path = this.path;
    const list = this.earlier;
    try {
      const told = await getJson(`/edgetcd/history?key=${path}`);
      if (path === this.path && list) fill(list, this.drawEarlier(told));
    } catch {
      // Without the right to read the key there is no history of it either.
    }
  }

  drawEarlier({ changes, first }) {
    const isUseful = ({ before, after }) => before && (!before.dir || (!this.node && !after));
    const rows = changes.filter(isUseful).map((change) => h("li", {},
      h("span", { class: "when" }, `before index ${change.index} (${change.action})`),
      h("code", {}, preview(change.before)),
      h("button", { class: "writes quiet", onclick: () => this.undo(this.path, change) }, this.node ? "Restore" : "Undo")));
    if (!rows.length) return [];
    return [h("h2", {}, "Earlier values"), h("ol", { class: "changes" }, rows), h("p", { class: "note" }, `The history reaches back to index ${first}.`)];
  }

  /** Writes the value that a key had before a change, or the keys of a removed directory. */
  async undo(path, change) {
    if (change.before.dir) {
      await restoreDirectory(this.frame, path, change.index);
      if (path === this.path) await this.read();
      return;
    }
    try {
      const value = change.before.value ?? (await eventAt(path, change.index)).prevNode.value;
      await this.restore(path, value, path === this.path ? this.node : null);
    } catch (error) {
      this.frame.fail(error);
    }
  }

  /** `over` is the present node, as it was shown, or null if there is none. */
  async restore(path, value, over) {
    const form = { value, ...(over ? { prevIndex: over.modifiedIndex } : { prevExist: "false" }) };
    try {
      await send("PUT", `/v2/keys${path}`, { form });
      this.frame.say(`Restored ${pathText(path)}.`);
    } catch (error) {
      this.frame.fail(error);
    }
    this.edit = null;
    this.frame.changed();
    if (path === this.path) await this.read();
  }

  // Watching

  toggleWatch() {
    if (this.watcher) this.unwatch();
    else this.watch();
    if (this.node) this.draw(), this.readEarlier();
  }

  unwatch() {
    this.watcher?.abort();
    this.watcher = this.events = null;
  }

  async watch() {
    const own = (this.watcher = new AbortController());
    while (!own.signal.aborted) {
      try {
        const more = this.node?.dir ? "&recursive=true" : "";
        const response = await send("GET", `/v2/keys${this.path}?wait=true&stream=true${more}`, { signal: own.signal });
        await readLines(response, (events) => this.happened(events));
      } catch (error) {
        if (own.signal.aborted) return;
        if (error.status) return this.frame.fail(error);
      }
      await sleep(1000, own.signal);
    }
  }

  /** Events of the watched key, possibly many at once. */
  happened(events) {
    for (const event of events.slice(-EVENTS_SHOWN_MAX)) {
      this.events?.prepend(h("li", {}, h("span", { class: "when" }, `${event.node.modifiedIndex} ${event.action}`),
        this.node?.dir && h("span", {}, event.node.key), h("code", {}, event.node.value?.slice(0, 200) ?? "")));
    }
    while (this.events?.children.length > EVENTS_SHOWN_MAX) this.events.lastChild.remove();
    const last = events.at(-1);
    if (last.node.key !== this.name || this.node?.dir) return;
    if (this.edit) return setText(this.hint, "Somebody else has changed this key meanwhile. Saving will show both.");
    if (this.redraw) return;
    // A key that changes a thousand times per second is drawn a few times per second.
    this.redraw = setTimeout(() => {
      this.redraw = null;
      if (!this.edit) this.read();
    }, 200);
  }
}

function preview(node) {
  if (node.dir) return "directory";
  if (node.value === undefined) return `${countText(node.bytes)} bytes`;
  return node.value.length > 160 ? `${node.value.slice(0, 160)}…` : node.value;
}
