// The page of edgetcd-lab cluster: the drawing of the node's page, from no member's point of view, and handles.

const CLUSTER_EVERY_MS = 300;
const LINK_DELAY_MS = 200;

/** Reads which processes run from edgetcd-lab, and what they do from the nodes themselves. */
class ProcessCluster extends LiveCluster {
  constructor(options) {
    super(options);
    this.hasTrace = this.mayAsk = true;
  }

  async follow(signal) {
    while (!signal.aborted) {
      try {
        const limit = AbortSignal.any([signal, AbortSignal.timeout(5000)]);
        this.take(await getJson("/cluster", { signal: limit }), signal);
        this.onTrouble(null);
      } catch (error) {
        if (signal.aborted) return;
        this.onTrouble(error);
      }
      await sleep(CLUSTER_EVERY_MS, signal);
    }
  }

  take(cluster, signal) {
    this.model.setMembers(cluster.members);
    this.names = new Map(cluster.members.map((member) => [member.id, member.name]));
    for (const { id, state, client_urls: [url] } of cluster.members) {
      const member = this.model.members.get(id);
      member.linked = state === "running";
      if (!member.linked) Object.assign(member, { up: false, answers: false, traced: false, isCorrected: false });
      if (this.sources.has(id)) continue;
      this.sources.set(id, {});
      this.watchMember(id, url, signal);
      this.readTrace(id, url, signal);
    }
    const cuts = cluster.links.filter((rule) => rule.cut);
    const id = (number) => cluster.members[number - 1].id;
    this.model.cuts = new Set(cuts.map(({ from, to }) => `${id(from)} ${id(to)}`));
    this.onStatus(cluster);
  }
}

/** The drawing, in the words of somebody who sees all processes. */
class ProcessPage extends ClusterPage {
  answer() {
    const { model } = this.live;
    const majority = Math.floor(model.voters() / 2) + 1;
    const leader = model.leader();
    const rule = `A leader needs the votes of ${majority} of ${model.voters()} members, and a change is committed when ${majority} of them have it on their disks.`;
    return leader ? `${leader.name} leads in term ${leader.term}. ${rule}` : `Nobody leads. ${rule}`;
  }
}

const page = {
  start() {
    this.live = new ProcessCluster({ onStatus: (cluster) => this.take(cluster), onTrouble: (error) => this.trouble(error) });
    this.view = new ProcessPage(document.getElementById("view-cluster"), this.live);
    this.handles = document.getElementById("handles");
    this.said = h("p", { id: "said", role: "status" });
    this.drawn = "";
    document.title = "edgetcd cluster";
    document.documentElement.dataset.theme = "auto";
    document.addEventListener("visibilitychange", () => this.wake());
    this.wake();
  },

  /** A hidden page sends no requests. */
  wake() {
    this.view.animate(!document.hidden);
    if (document.hidden) this.live.stop();
    else this.live.start();
  },

  take(cluster) {
    this.cluster = cluster;
    this.view.take(cluster);
    const leader = this.live.model.leader();
    const running = cluster.members.filter((member) => member.state === "running").length;
    setText(document.getElementById("summary"), `${running} of ${cluster.members.length} run, ${leader ? `leader ${leader.name}` : "no leader"}`);
    const drawn = JSON.stringify(cluster);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.draw();
  },

  trouble(error) {
    const line = document.getElementById("trouble");
    line.hidden = !error;
    if (error) setText(line, `edgetcd-lab does not answer (${error.message}). Trying again…`);
  },

  async act(act) {
    const answer = await fetch("/act", { method: "POST", body: act }).catch((error) => ({ ok: false, text: () => error.message }));
    setText(this.said, answer.ok ? act : `“${act}”: ${await answer.text()}`);
    if (answer.ok && this.live.stopper) this.live.take(await answer.json(), this.live.stopper.signal);
  },

  /** Writes a new key through a member, as a client. */
  async write(member) {
    const answer = await fetch(`${member.client_urls[0]}/v2/keys/lab`, { method: "POST", body: new URLSearchParams({ value: new Date().toISOString() }) })
      .then((response) => response.json()).catch((error) => ({ message: error.message }));
    setText(this.said, answer.node ? `${member.name} has written ${answer.node.key}` : `${member.name} does not write: ${answer.message}`);
  },

  draw() {
    const { members, links } = this.cluster;
    const focus = document.activeElement?.dataset?.act;
    const titles = { kill: "Ends the process as a crash does", pause: "Stops the process where it is", wipe: "Kills the process and deletes its data",
      restart: "Starts the process with its data", add: "Removes the member, and adds a new one without data in its place" };
    const button = (label, act) => h("button", { "data-act": act, title: titles[label] ?? act, onclick: () => this.act(act) }, label);
    const row = (member, at) => {
      const n = at + 1;
      const acts = { running: ["kill", "pause", "wipe"], starting: ["kill", "wipe"], paused: ["resume", "kill"], down: ["restart", "wipe", "add"] }[member.state];
      return h("div", { class: "handle" }, h("span", { class: "who" }, member.name), h("span", { class: "state" }, member.state),
        acts.map((act) => button(act, `${act} ${n}`)),
        member.state === "running" && h("button", { "data-act": `write ${n}`, title: "A client writes a new key", onclick: () => this.write(member) }, "write"),
        member.said && h("p", { class: "words-of" }, member.said));
    };
    const select = (label, chosen, onchange) => h("select", { "aria-label": label, onchange }, members.map((member, at) => h("option", { value: at + 1, selected: at + 1 === chosen }, member.name)));
    this.from ??= 1;
    this.to ??= Math.min(2, members.length);
    const link = `${this.from} ${this.to}`;
    const name = (number) => members[number - 1].name;
    const effect = (rule) => [rule.cut && "cut", rule.delay_ms && `${rule.delay_ms} ms later`].filter(Boolean).join(", ");
    fill(this.handles,
      h("fieldset", {}, h("legend", {}, "Nodes"), members.map(row)),
      h("fieldset", {}, h("legend", {}, "Links"),
        h("div", { class: "handle" }, select("From", this.from, (event) => this.choose("from", event)), "→", select("To", this.to, (event) => this.choose("to", event)),
          button("cut", `cut ${link}`), button(`delay ${LINK_DELAY_MS} ms`, `delay ${link} ${LINK_DELAY_MS}`), button("heal", `heal ${link}`)),
        links.map((rule) => h("div", { class: "handle" }, `${name(rule.from)} → ${name(rule.to)}: ${effect(rule)}`, button("heal", `heal ${rule.from} ${rule.to}`)))),
      this.said);
    if (focus) this.handles.querySelector(`[data-act="${focus}"]`)?.focus();
  },

  choose(end, event) {
    this[end] = Number(event.target.value);
    this.draw();
  },
};

page.start();
