// The view "Cluster": the drawing, its controls, what happens in words, and the chosen member.

const WORDS_MAX = 80;
const FRAME_MS = 33;
/** A busy cluster needs the processor more than its picture does. */
const FRAME_MS_BUSY = 80;
/** Part of the time that drawings may take. */
const DRAWING_SHARE = 0.2;
const SPEEDS = [[1, "as it happens"], [0.1, "10 × slower"], [0.01, "100 × slower"], [0.001, "1000 × slower"], [0, "pause"]];

class ClusterPage {
  constructor(element, live) {
    this.live = live;
    this.chosen = null;
    this.status = null;
    this.drawing = h("div", { class: "drawing" });
    this.words = h("ol", { class: "words", tabindex: "0", "aria-label": "What happened, newest first" });
    this.details = h("div", { class: "details" });
    this.lag = h("span", { class: "lag", role: "status" });
    const speed = h("select", { id: "speed", onchange: () => this.setSpeed(Number(speed.value)) },
      SPEEDS.map(([value, text]) => h("option", { value }, text)));
    const quiet = h("input", { type: "checkbox", checked: true, onchange: () => (this.view.showQuiet = quiet.checked) });
    fill(element,
      h("div", { class: "bar" },
        h("label", {}, "Time ", speed), h("label", { class: "toggle" }, quiet, "heartbeats"), this.lag, messageLegend()),
      h("div", { class: "cluster" }, this.drawing,
        h("aside", {}, this.details, h("h2", {}, "What happened"), this.words)));
    this.view = new ClusterView(this.drawing, { onSelect: (id) => this.choose(id) });
    live.onRecord = (record) => this.tell(record);
  }

  setSpeed(speed) {
    this.live.speed = speed;
  }

  choose(id) {
    this.chosen = this.chosen === id ? null : id;
    this.drawDetails();
  }

  tell(record) {
    const name = (id) => this.live.names.get(id) ?? id;
    const sentence = traceSentence(record, name);
    if (!sentence) return;
    const time = new Date(record.at / 1000).toISOString().slice(11, 23);
    const line = h("li", { class: `kind-${record.kind}` }, h("time", {}, time), " ", sentence);
    line.at = record.at;
    // The past of one member may arrive after the present of another.
    this.words.insertBefore(line, [...this.words.children].find((older) => older.at <= record.at) ?? null);
    while (this.words.children.length > WORDS_MAX) this.words.lastChild.remove();
  }

  /** A new status of this member. */
  take(status) {
    this.status = status;
    this.drawDetails();
  }

  drawDetails() {
    if (!this.status) return;
    const { model, names } = this.live;
    const member = model.members.get(this.chosen);
    if (!member) {
      fill(this.details, h("h2", {}, "Who leads?"), h("p", {}, this.answer()));
      return;
    }
    const known = this.status.members.find((one) => one.id === member.id);
    const row = (title, value) => [h("dt", {}, title), h("dd", {}, value ?? "–")];
    fill(this.details,
      h("h2", {}, member.name, " ", h("button", { class: "quiet", onclick: () => this.choose(member.id) }, "close")),
      h("dl", {},
        row("id", member.id), row("role", member.up ? member.role : "unreachable"), row("term", String(member.term)),
        row("votes for", member.votedFor ? names.get(member.votedFor) : undefined),
        row("log", `${member.first} to ${member.last}`), row("on its disk", `up to ${member.stored}`),
        row("committed", `up to ${member.commit}`), row("applied", `up to ${member.applied}`),
        row("round trip", known?.rtt_ms ? `${known.rtt_ms.toFixed(2)} ms` : undefined),
        row("client URLs", known?.client_urls.map((url) => h("a", { href: url, rel: "noopener" }, url, " ")))));
  }

  /** The state of the cluster in words, for somebody who sees raft for the first time. */
  answer() {
    const { model, names } = this.live;
    const leader = model.leader();
    const members = [...model.members.values()];
    const reached = members.filter((member) => member.up).length;
    const majority = Math.floor(model.voters() / 2) + 1;
    if (!leader) {
      return `Nobody. ${reached} of ${members.length} members are reachable from here, and a leader needs the votes of ${majority}. Without a leader no key can be changed.`;
    }
    const self = names.get(this.live.self);
    const limits = this.live.mayAsk ? "" : ` This page has an address that is no client URL of the cluster, so it shows the other members as ${self} sees them. Open ${this.live.urls[0] ?? "a client URL"} to see what each of them does.`;
    const old = this.live.isOld ? " There is a member that this document does not know: load the page again to see what it does itself." : "";
    return `${leader.name} leads in term ${leader.term}. It puts every change into its log and sends it to the others. A change is committed when ${majority} of ${model.voters()} have it on their disks. `
      + `You are looking at this from ${self}; ${reached} of ${members.length} members are reachable. While the others hear from ${leader.name}, their rings stay full. A ring that runs empty starts an election.${limits}${old}`;
  }

  /** Starts or ends the drawing. A drawing that takes long comes less often, so that the page stays usable. */
  animate(isActive) {
    cancelAnimationFrame(this.frame);
    if (!isActive) return;
    let due = 0;
    const frame = (now) => {
      if (now >= due - 4) {
        this.draw();
        const took = performance.now() - now;
        due = now + Math.max(this.live.isBusy() ? FRAME_MS_BUSY : FRAME_MS, took / DRAWING_SHARE);
      }
      this.frame = requestAnimationFrame(frame);
    };
    this.frame = requestAnimationFrame(frame);
  }

  draw() {
    const at = this.live.play();
    const speed = Math.max(this.live.speed, 0.0001);
    this.view.draw(this.live.model, at, { flightMicros: 400000 * Math.min(1, Math.max(speed, 0.0025)), asSeenBy: this.live.self });
    const lag = this.live.lag();
    const busy = this.live.isBusy() ? "Busy: one dot stands for several messages." : "";
    setText(this.lag, lag > 1 ? `${lag.toFixed(0)} s behind` : busy);
  }
}

function messageLegend() {
  const dot = (kind, r, text) => h("span", {}, s("svg", { viewBox: "-8 -8 16 16", class: "key" },
    s("g", { class: `flight ${kind}` }, s("circle", { r }))), text);
  return h("p", { class: "legend" }, dot("append", 6, "entries"), dot("answer", 4.5, "answer"), dot("vote", 6, "vote"), dot("quiet", 3, "heartbeat"),
    dot("forward", 6, "forwarded write"), dot("snapshot", 6, "snapshot"));
}
