// The tree of keys. It reads a directory page by page (/edgetcd/keys), and draws only the rows that are visible.
//
// A key is known by its path in URLs, because a key need not be text.

const ROW_PIXELS = 28;
const ROWS_BEYOND = 12;
const KEYS_PER_REQUEST = 500;

class KeyTree {
  constructor(element, { onOpen, onSelect }) {
    Object.assign(this, { onOpen, onSelect });
    this.selected = new Set();
    this.current = null;
    this.focus = 0;
    this.rows = [];
    this.space = h("div", { class: "space" });
    this.scroller = h("div", {
      class: "tree", role: "tree", tabindex: "0", "aria-label": "Keys", "aria-multiselectable": "true",
      onscroll: () => this.drawSoon(), onkeydown: (event) => this.press(event),
    }, this.space);
    element.append(this.scroller);
    new ResizeObserver(() => this.drawSoon()).observe(this.scroller);
    this.show("/", false);
  }

  /** Shows the keys that begin with the prefix: as a tree, or everything below it as a list. */
  show(prefix, isSearch) {
    this.prefix = prefix;
    this.root = { path: keyPath(prefix), isSearch, items: [], next: "", depth: -1, open: true };
    this.scroller.scrollTop = 0;
    this.focus = 0;
    this.list();
    this.load(this.root);
  }

  /** Reads everything again that is open. */
  async reload() {
    const open = new Set(this.rows.filter((row) => row.open).map((row) => row.path));
    const before = this.root;
    const fresh = { ...before, items: [], next: "", failed: null, loading: false };
    await this.load(fresh);
    if (this.root !== before) return;
    this.root = fresh;
    this.list();
    for (const row of this.rows.filter((row) => open.has(row.path))) await this.toggle(row, true);
  }

  /** Reads the next page of a directory. */
  async load(dir) {
    if (dir.loading || dir.next === undefined) return;
    dir.loading = true;
    const isRoot = dir.depth < 0;
    const prefix = isRoot ? dir.path : `${dir.path}/`;
    const after = dir.next && `&after=${dir.next}`;
    try {
      const page = await getJson(`/edgetcd/keys?prefix=${prefix}&limit=${KEYS_PER_REQUEST}${dir.isSearch ? "&recursive=true" : ""}${after}`);
      dir.items.push(...page.nodes.map((node) => ({
        ...node, path: node.path ?? keyPath(node.key), depth: dir.depth + 1, items: [], next: "", open: false,
      })));
      dir.next = page.next;
      dir.failed = null;
    } catch (error) {
      dir.failed = error.status === 401 ? "You may not read these keys. A user who may read only some can search for their beginning, such as /app/." : error.message;
      dir.next = undefined;
    }
    dir.loading = false;
    this.list();
  }

  /** Computes the rows from the open directories. */
  list() {
    const rows = [];
    const add = (dir) => {
      for (const item of dir.items) {
        rows.push(item);
        if (item.open) add(item);
      }
      if (dir.next !== undefined) rows.push({ more: dir, depth: dir.depth + 1 });
      if (dir.failed) rows.push({ text: dir.failed, depth: dir.depth + 1 });
      else if (dir.next === undefined && !dir.items.length) rows.push({ text: dir.isSearch ? "No key begins with this." : "No keys here.", depth: dir.depth + 1 });
    };
    add(this.root);
    this.rows = rows;
    this.focus = Math.min(this.focus, rows.length - 1);
    this.space.style.height = `${rows.length * ROW_PIXELS}px`;
    this.drawSoon();
  }

  drawSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_PIXELS) - ROWS_BEYOND);
    const last = Math.min(this.rows.length, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / ROW_PIXELS) + ROWS_BEYOND);
    const drawn = [];
    for (let place = first; place < last; place++) {
      const row = this.rows[place];
      if (row.more && !row.more.loading && this.scroller.clientHeight) this.load(row.more);
      drawn.push(this.drawRow(row, place));
    }
    fill(this.space, drawn);
    this.scroller.setAttribute("aria-activedescendant", `row-${this.focus}`);
  }

  drawRow(row, place) {
    const element = h("div", { class: "row", id: `row-${place}`, role: "treeitem", "aria-level": row.depth + 1 });
    element.style.top = `${place * ROW_PIXELS}px`;
    element.style.paddingLeft = `${0.4 + row.depth * 1.1}rem`;
    if (row.more || row.text) {
      element.classList.add("note");
      element.append(row.text ?? "Loading…");
      return element;
    }
    const isSelected = this.selected.has(row.path);
    element.classList.toggle("current", row.path === this.current);
    element.classList.toggle("focus", place === this.focus);
    element.setAttribute("aria-selected", isSelected);
    if (row.dir && !this.root.isSearch) element.setAttribute("aria-expanded", row.open);
    const name = this.root.isSearch ? row.key : row.key.slice(row.key.lastIndexOf("/") + 1);
    element.onclick = (event) => this.click(event, place);
    fill(element,
      h("input", { type: "checkbox", checked: isSelected, tabindex: "-1", "aria-label": `Select ${row.key}`, onclick: (event) => this.select(event, place) }),
      h("span", { class: "twist" }, row.dir && !this.root.isSearch ? (row.open ? "▾" : "▸") : ""),
      h("span", { class: row.dir ? "name dir" : "name", title: row.key }, name + (row.dir ? "/" : "")),
      h("span", { class: "size" }, row.ttl !== undefined && h("span", { class: "ttl-mark" }, "ttl "), row.dir ? countText(row.children) : bytesText(row.bytes)));
    return element;
  }

  click(event, place) {
    if (event.target.tagName === "INPUT") return;
    if (event.shiftKey || event.ctrlKey || event.metaKey) return this.select(event, place);
    this.focus = place;
    const row = this.rows[place];
    if (row.dir && !this.root.isSearch && (event.target.className === "twist" || row.path === this.current || !row.open)) this.toggle(row);
    this.onOpen(row.path);
  }

  /** Selects a row, or with shift all rows from the one before. */
  select(event, place) {
    event.stopPropagation();
    const from = event.shiftKey ? Math.min(this.focus, place) : place;
    const to = event.shiftKey ? Math.max(this.focus, place) : place;
    const isOn = !this.selected.has(this.rows[place].path);
    for (const row of this.rows.slice(from, to + 1)) {
      if (!row.path) continue;
      if (isOn) this.selected.add(row.path);
      else this.selected.delete(row.path);
    }
    this.focus = place;
    this.onSelect(this.selected);
    this.drawSoon();
  }

  async toggle(row, open = !row.open) {
    row.open = open;
    this.list();
    if (open && !row.items.length) await this.load(row);
  }

  clearSelection() {
    this.selected.clear();
    this.onSelect(this.selected);
    this.drawSoon();
  }

  press(event) {
    const row = this.rows[this.focus];
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW_PIXELS) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      this.focus = Math.max(0, Math.min(this.rows.length - 1, this.focus + moves[event.key]));
      this.reveal();
    } else if (event.key === "ArrowRight" && row?.dir) this.toggle(row, true);
    else if (event.key === "ArrowLeft" && row?.open) this.toggle(row, false);
    else if (event.key === "ArrowLeft") {
      const parent = this.rows.slice(0, this.focus).findLastIndex((above) => above.depth < row.depth);
      if (parent >= 0) this.focus = parent;
      this.reveal();
    } else if (event.key === "Enter" && row?.path) {
      if (row.dir && !this.root.isSearch) this.toggle(row);
      this.onOpen(row.path);
    } else if (event.key === " " && row?.path) this.select(event, this.focus);
    else return;
    event.preventDefault();
  }

  reveal() {
    const top = this.focus * ROW_PIXELS;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    if (top + ROW_PIXELS > scrollTop + clientHeight) this.scroller.scrollTop = top + ROW_PIXELS - clientHeight;
    this.drawSoon();
  }
}
