// The frame of the page: the three views, sign-in, read-only mode, colours. A hidden page sends no requests.

const VIEWS = ["cluster", "keys", "health"];
const THEMES = ["auto", "light", "dark"];

const page = {
  view: null,
  readOnly: false,
  status: null,

  start() {
    this.live = new LiveCluster({ onStatus: (status) => this.take(status), onTrouble: (error) => this.trouble(error) });
    this.cluster = new ClusterPage(document.getElementById("view-cluster"), this.live);
    this.keys = new KeysPage(document.getElementById("view-keys"), this);
    this.health = new HealthPage(document.getElementById("view-health"), this);
    for (const view of VIEWS) document.getElementById(`tab-${view}`).onclick = () => (location.hash = view);
    document.querySelector("[role=tablist]").onkeydown = (event) => this.moveTab(event);
    window.addEventListener("hashchange", () => this.follow());
    document.addEventListener("visibilitychange", () => this.wake());
    const readOnly = document.getElementById("read-only");
    readOnly.onchange = () => this.setReadOnly(readOnly.checked);
    document.getElementById("sign-in").onclick = () => this.signIn();
    document.getElementById("theme").onclick = () => this.nextTheme();
    session.onRefused = () => this.needSignIn();
    this.setTheme(stored("theme") ?? "auto");
    this.follow();
    this.wake();
  },

  /** Shows the view of the address: #cluster, #keys, #keys/a/b, #health. */
  follow() {
    const [name] = location.hash.slice(1).split("/");
    const view = VIEWS.includes(name) ? name : "cluster";
    for (const each of VIEWS) {
      document.getElementById(`view-${each}`).hidden = each !== view;
      const tab = document.getElementById(`tab-${each}`);
      tab.setAttribute("aria-selected", each === view);
      tab.tabIndex = each === view ? 0 : -1;
    }
    const isNew = this.view !== view;
    this.view = view;
    if (view === "keys") this.keys.show(location.hash.slice("#keys".length));
    if (isNew) this.wake();
  },

  moveTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = VIEWS[(VIEWS.indexOf(this.view) + step + VIEWS.length) % VIEWS.length];
    location.hash = next;
    document.getElementById(`tab-${next}`).focus();
  },

  /** Starts or stops everything that costs something. */
  wake() {
    const isHidden = document.hidden;
    if (isHidden) this.live.stop();
    else this.live.start();
    this.health.setActive(!isHidden);
    this.keys.setActive(!isHidden);
    this.cluster.animate(!isHidden && this.view === "cluster");
  },

  take(status) {
    this.status = status;
    setText(document.getElementById("node-name"), status.name);
    document.title = `${status.name} · edgetcd`;
    const leader = this.live.names.get(status.leader);
    setText(document.getElementById("summary"), `${status.role}, term ${status.term}, ${leader ? `leader ${leader}` : "no leader"}`);
    document.getElementById("sign-in").hidden = !status.auth && !session.user;
    this.cluster.take(status);
    this.keys.takeIndex(status.index);
  },

  /** Shows why this member does not answer; null when it does. */
  trouble(error) {
    const line = document.getElementById("trouble");
    line.hidden = !error;
    if (error) setText(line, `This member does not answer (${error.message}). Trying again…`);
  },

  setReadOnly(readOnly) {
    this.readOnly = readOnly;
    document.documentElement.toggleAttribute("data-read-only", readOnly);
    this.keys.redraw();
  },

  /** A request needs credentials, or better ones. */
  needSignIn() {
    document.getElementById("sign-in").hidden = false;
    if (!session.user && !document.getElementById("dialog").open) this.signIn();
  },

  async signIn() {
    if (session.user) {
      session.signOut();
      setText(document.getElementById("sign-in"), "Sign in");
      this.keys.reload();
      return;
    }
    const name = h("input", { name: "user", autocomplete: "username", required: true });
    const password = h("input", { name: "password", type: "password", autocomplete: "current-password" });
    const body = [
      h("p", {}, "Authentication is enabled. The name and the password stay in the memory of this page and are sent to this member only."),
      h("label", {}, "User ", name), h("label", {}, "Password ", password),
    ];
    const answer = await ask("Sign in", body, [{ label: "Cancel", value: null }, { label: "Sign in", value: "yes", main: true }]);
    if (answer !== "yes" || !name.value) return;
    session.signIn(name.value, password.value);
    setText(document.getElementById("sign-in"), `${name.value}: sign out`);
    this.keys.reload();
  },

  nextTheme() {
    const now = document.documentElement.dataset.theme;
    this.setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  },

  setTheme(theme) {
    document.documentElement.dataset.theme = THEMES.includes(theme) ? theme : "auto";
    setText(document.getElementById("theme"), { auto: "◐ auto", light: "○ light", dark: "● dark" }[document.documentElement.dataset.theme]);
    store("theme", theme);
  },
};

/** A setting of this browser. It may forbid them. */
function stored(name) {
  try {
    return localStorage.getItem(`edgetcd-${name}`);
  } catch {
    return null;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(`edgetcd-${name}`, value);
  } catch {
    // The page works without it.
  }
}

page.start();
