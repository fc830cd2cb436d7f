// Many keys: export, import, deletion; the keys that were deleted lately. Also the frame of the view "Keys".

/** Requests of an export, an import or a deletion that run at the same time. */
const AT_ONCE = 6;
const SEARCH_DELAY_MS = 180;
const SAID_MS = 6000;

class KeysPage {
  constructor(element, frame) {
    this.frame = frame;
    this.search = h("input", { type: "search", id: "search", placeholder: "Find keys that begin with…  /app/", "aria-label": "Find keys by their beginning",
      oninput: () => this.searchSoon() });
    this.note = h("p", { class: "note", role: "status" });
    this.selection = h("p", { class: "selection", hidden: true });
    this.stale = h("button", { class: "quiet", onclick: () => this.reload() }, "Reload");
    const write = (label, act) => h("button", { class: "writes", onclick: act }, label);
    const left = h("div", { class: "pane left" });
    const right = h("div", { class: "pane right", "aria-live": "off" });
    fill(element, h("div", { class: "bar" }, this.search, write("New key", () => this.create("/")),
      h("button", { onclick: () => this.showRemoved() }, "Deleted keys"), write("Import", () => this.chooseFile()), this.stale, this.note),
    this.selection, h("div", { class: "keys" }, left, right));
    this.pane = new KeyPane(right, this);
    this.tree = new KeyTree(left, { onOpen: (path) => (location.hash = `keys${path}`), onSelect: (selected) => this.drawSelection(selected) });
    this.pane.show(null);
  }

  show(path) {
    this.tree.current = path || null;
    this.tree.drawSoon();
    if ((path || null) !== this.pane.path) this.pane.show(path || null);
  }

  setActive(isActive) {
    // A hidden page watches nothing. The value is read again when it is visible.
    if (!isActive && this.pane.watcher) {
      this.pane.unwatch();
      this.wasWatching = true;
    } else if (isActive && this.wasWatching) {
      this.wasWatching = false;
      this.pane.toggleWatch();
      this.pane.read();
    }
  }

  /** The index of the tree, which tells whether the list is old. */
  takeIndex(index) {
    this.index = index;
    const isOld = this.listed !== undefined && index !== this.listed;
    setText(this.stale, isOld ? "Reload (keys have changed)" : "Reload");
    this.listed ??= index;
  }

  redraw() {
    this.tree.drawSoon();
  }

  reload() {
    this.listed = this.index;
    this.tree.reload();
    if (this.pane.path && !this.pane.edit) this.pane.read();
  }

  changed() {
    this.listed = undefined;
    this.tree.reload();
  }

  say(text) {
    setText(this.note, text);
    this.note.classList.remove("failed");
    clearTimeout(this.saying);
    this.saying = setTimeout(() => setText(this.note, ""), SAID_MS);
  }

  fail(error) {
    this.say(error.status === 401 ? "You may not do this: sign in as another user." : `Not done: ${error.message}`);
    this.note.classList.add("failed");
  }

  searchSoon() {
    clearTimeout(this.searching);
    this.searching = setTimeout(() => {
      const text = this.search.value.trim();
      const prefix = text && !text.startsWith("/") ? `/${text}` : text;
      this.tree.show(prefix || "/", Boolean(prefix));
    }, SEARCH_DELAY_MS);
  }

  async create(parent) {
    const key = h("input", { name: "key", required: true, value: parent === "/" ? "/" : `${parent}/`, spellcheck: "false" });
    const value = h("textarea", { name: "value", rows: 6, spellcheck: "false" });
    const ttl = h("input", { name: "ttl", type: "number", min: "1", placeholder: "none" });
    const dir = h("input", { type: "checkbox", name: "dir" });
    const body = [h("label", {}, "Key ", key), h("label", {}, "Value ", value), h("label", {}, "Time to live in seconds ", ttl),
      h("label", { class: "toggle" }, dir, "a directory")];
    const answer = await ask("New key", body, [{ label: "Cancel", value: null }, { label: "Create", value: "yes", main: true }]);
    if (answer !== "yes") return;
    const name = key.value.startsWith("/") ? key.value : `/${key.value}`;
    const form = { prevExist: "false", ...(dir.checked ? { dir: "true" } : { value: value.value }), ...(ttl.value ? { ttl: ttl.value } : {}) };
    try {
      await send("PUT", `/v2/keys${keyPath(name)}`, { form });
      this.changed();
      location.hash = `keys${keyPath(name)}`;
      this.pane.show(keyPath(name));
    } catch (error) {
      this.fail(error);
    }
  }

  // Selected keys

  drawSelection(selected) {
    this.selection.hidden = !selected.size;
    fill(this.selection, `${selected.size} selected `,
      h("button", { onclick: () => this.exportKeys([...selected]) }, "Export"),
      h("button", { class: "writes danger", onclick: () => this.removeAll([...selected]) }, "Delete"),
      h("button", { class: "quiet", onclick: () => this.tree.clearSelection() }, "Clear"));
  }

  /** Saves keys, and everything below directories, as `edgetcdctl export` does: one line of JSON per key. */
  async exportKeys(paths) {
    const lines = new Map();
    const add = (node) => {
      const entry = { key: node.key, ...(node.dir ? { dir: true } : { value: node.value }), ...(node.ttl > 0 ? { ttl: node.ttl } : {}) };
      if (node.key) lines.set(node.key, JSON.stringify(entry));
      for (const child of node.nodes ?? []) add(child);
    };
    try {
      await together(paths, async (path) => add((await getJson(`/v2/keys${path}?recursive=true`)).node));
    } catch (error) {
      return this.fail(error);
    }
    const file = new Blob([...lines.keys()].sort().map((key) => `${lines.get(key)}\n`), { type: "application/x-ndjson" });
    const link = h("a", { href: URL.createObjectURL(file), download: "keys.jsonl" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    this.say(`Exported ${countText(lines.size)} keys and directories.`);
  }

  async removeAll(paths) {
    const list = h("ul", {}, paths.slice(0, 12).map((path) => h("li", {}, pathText(path))), paths.length > 12 && h("li", {}, `and ${paths.length - 12} more`));
    const answer = await ask(`Delete ${paths.length} keys?`, [list, h("p", {}, "Directories are deleted with everything below them.")],
      [{ label: "Cancel", value: null }, { label: "Delete", value: "yes", danger: true, main: true }]);
    if (answer !== "yes") return;
    try {
      await together(paths, (path) => send("DELETE", `/v2/keys${path}?recursive=true`).catch((error) => {
        if (error.code !== KEY_NOT_FOUND) throw error;
      }));
      this.say(`Deleted ${paths.length} keys.`);
    } catch (error) {
      this.fail(error);
    }
    this.tree.clearSelection();
    this.changed();
    if (this.pane.path) this.pane.read();
  }

  chooseFile() {
    const input = h("input", { type: "file", accept: ".jsonl,.json,.ndjson", onchange: () => input.files[0] && this.importKeys(input.files[0]) });
    input.click();
  }

  /** Writes the keys of an export. Asks first what to do with keys that exist. */
  async importKeys(file) {
    let entries;
    try {
      entries = (await file.text()).split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
      if (entries.some((entry) => typeof entry.key !== "string")) throw new Error("a line has no key");
    } catch (error) {
      return this.fail(new Error(`${file.name} is not an export: ${error.message}`));
    }
    const answer = await ask(`Import ${entries.length} keys?`, h("p", {}, `${file.name} contains ${entries.length} keys and directories. Keys that exist already can be kept or replaced.`),
      [{ label: "Cancel", value: null }, { label: "Replace", value: "replace", danger: true }, { label: "Keep", value: "keep", main: true }]);
    if (!answer) return;
    let kept = 0;
    try {
      await together(entries, async (entry) => {
        const form = { ...(entry.dir ? { dir: "true" } : { value: entry.value ?? "" }), ...(entry.ttl ? { ttl: entry.ttl } : {}), ...(answer === "keep" || entry.dir ? { prevExist: "false" } : {}) };
        await send("PUT", `/v2/keys${keyPath(entry.key)}`, { form }).catch((error) => {
          if (error.status !== 412) throw error;
          kept++;
        });
      });
      this.say(`Imported ${entries.length - kept} keys; ${kept} existed.`);
    } catch (error) {
      this.fail(error);
    }
    this.changed();
  }

  /** The keys that were deleted or have expired, as far as the history reaches back. */
  async showRemoved() {
    let told;
    try {
      told = await getJson("/edgetcd/history?recursive=true&removed=true&limit=100");
    } catch (error) {
      return this.fail(error);
    }
    location.hash = "keys";
    this.pane.path = null;
    const rows = told.changes.map((change) => {
      const path = change.path ?? keyPath(change.key);
      return h("li", {}, h("span", { class: "when" }, `${change.action} at index ${change.index}`), h("strong", {}, change.key),
        change.before && [h("code", {}, preview(change.before)), h("button", { class: "writes quiet", onclick: async () => {
          await this.pane.undo(path, change);
          this.showRemoved();
        } }, "Undo")]);
    });
    fill(this.pane.element, h("h2", {}, "Deleted keys"),
      rows.length ? h("ol", { class: "changes" }, rows) : h("p", { class: "note" }, "None in the history."),
      h("p", { class: "note" }, `The history reaches back to index ${told.first}. A deleted directory is restored with the keys below it that were written since.`));
  }
}

/** Runs a task for each item, a few at a time. Stops at the first failure. */
async function together(items, task) {
  const rest = [...items];
  const run = async () => {
    while (rest.length) await task(rest.shift());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
}
