// The view "Health": small plots of /metrics over the last minutes, and what to do when one of them is red.

const SAMPLE_EVERY_MS = 2000;
const SAMPLES_MAX = 150;
const PLOT = { width: 240, height: 56 };

/** The sums of the samples of /metrics by name; histograms as [upper bound, count] pairs, also by name. */
function readMetrics(text) {
  const [sums, buckets] = [new Map(), new Map()];
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const space = line.lastIndexOf(" ");
    const brace = line.indexOf("{");
    const name = line.slice(0, brace < 0 ? space : brace);
    const value = Number(line.slice(space + 1));
    const bound = /[{,]le="([^"]+)"/.exec(line);
    if (!bound) {
      sums.set(name, (sums.get(name) ?? 0) + value);
      const method = /method="([A-Z]+)"/.exec(line)?.[1];
      if (method) sums.set(`${name} ${method}`, (sums.get(`${name} ${method}`) ?? 0) + value);
      continue;
    }
    const method = /method="([A-Z]+)"/.exec(line)?.[1];
    const whole = name.slice(0, -"_bucket".length) + (method ? ` ${method}` : "");
    const list = buckets.get(whole) ?? new Map();
    list.set(bound[1] === "+Inf" ? Infinity : Number(bound[1]), value);
    buckets.set(whole, list);
  }
  return { sums, buckets };
}

/** The duration below which a part of the observations between two samples lie, in seconds. NaN if there were none. */
function quantile(before, after, name, part) {
  const [old, now] = [before.buckets.get(name), after.buckets.get(name)];
  if (!now) return NaN;
  const counts = [...now].sort(([a], [b]) => a - b).map(([bound, count]) => [bound, count - (old?.get(bound) ?? 0)]);
  const total = counts.at(-1)[1];
  if (total <= 0) return NaN;
  let [below, lower] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= total * part) return bound === Infinity ? lower : lower + (bound - lower) * ((total * part - below) / Math.max(1, count - below));
    [below, lower] = [count, bound];
  }
  return lower;
}

const value = (name) => (before, after) => after.sums.get(name) ?? NaN;
const rate = (name) => (before, after, seconds) => (((after.sums.get(name) ?? 0) - (before.sums.get(name) ?? 0)) / seconds);
const part = (name, share) => (before, after) => quantile(before, after, name, share);
const DURATION = "etcd_http_successful_duration_seconds";

/** What is plotted. `red` decides whether a value is bad, and `advice` says what an operator should do then. */
const PLOTS = [
  { title: "Requests per second", text: countText, lines: [["all", rate("edgetcd_http_requests_total")], ["for keys", rate("etcd_http_received_total")]] },
  { title: "Latency of writes", text: secondsText, lines: [["p50", part(`${DURATION} PUT`, 0.5)], ["p99", part(`${DURATION} PUT`, 0.99)]],
    red: ([, p99]) => p99 > 0.5, advice: "Writes wait for the disks of a majority. Look at the sync time here and on the other members, and at the round trips in the view Cluster. Move the log to a faster disk (--wal-dir), or send fewer writes." },
  { title: "Latency of reads", text: secondsText, lines: [["p50", part(`${DURATION} GET`, 0.5)], ["p99", part(`${DURATION} GET`, 0.99)]],
    red: ([, p99]) => p99 > 0.1, advice: "Reads are answered from memory, so the processor is busy. Look for clients that list large directories, and for other programs on this machine." },
  { title: "Sync of the log", text: secondsText, lines: [["p50", part("etcd_disk_wal_fsync_duration_seconds", 0.5)], ["p99", part("etcd_disk_wal_fsync_duration_seconds", 0.99)]],
    red: ([, p99]) => p99 > 0.25, advice: "The disk is slow to store the log. Another program may use it, or it is worn out. Give the log a disk of its own with --wal-dir; raise --heartbeat-interval and --election-timeout if leaders change." },
  { title: "Written to the disk per second", text: bytesText, lines: [["bytes", rate("edgetcd_disk_written_bytes_total")], ["by clients", rate("edgetcd_client_written_bytes_total")]] },
  { title: "Free space on the disk", text: bytesText, lines: [["free", value("edgetcd_disk_free_bytes")]],
    red: ([free], now) => free < 0.05 * (now.sums.get("edgetcd_disk_size_bytes") ?? 0) || now.sums.get("edgetcd_disk_full") > 0,
    advice: "When the disk is full, this member refuses writes. Delete keys or other files, or make the disk larger. The guide's page “A full disk” has the commands." },
  { title: "Memory", text: bytesText, lines: [["resident", value("process_resident_memory_bytes")]] },
  { title: "Watchers", text: countText, lines: [["waiting", value("etcd_debugging_store_watchers")], ["connections", value("edgetcd_http_connections")]] },
  { title: "Entries to apply", text: countText, lines: [["behind", value("edgetcd_apply_lag_entries")]],
    red: (_, now) => now.sums.get("edgetcd_apply_lag_seconds") > 2, advice: "This member is behind: its reads show an older state. If it stays behind, its processor or disk is too slow for the writes of the cluster." },
  { title: "Failed requests per minute", text: countText, lines: [["error 300", (...all) => 60 * rate("etcd_server_proposals_failed_total")(...all)]],
    red: ([failed]) => failed > 0, advice: "Requests fail because no leader commits them in time. Look at the view Cluster: is a majority of the members reachable?" },
  { title: "Leader changes", text: countText, lines: [["since the start", value("etcd_server_leader_changes_seen_total")]],
    red: (_, now, before) => now.sums.get("etcd_server_has_leader") === 0 || now.sums.get("etcd_server_leader_changes_seen_total") - before.sums.get("etcd_server_leader_changes_seen_total") > 3,
    advice: "Leaders change often, or there is none. Usual reasons: a slow disk, a busy machine, a bad network. Raise --heartbeat-interval and --election-timeout on all members if the network is slow." },
];

class HealthPage {
  constructor(element, frame) {
    this.frame = frame;
    this.samples = [];
    this.note = h("p", { class: "note" }, "The plots begin when the page is opened and show the last five minutes. A hidden page reads nothing.");
    this.plots = PLOTS.map((plot) => makePlot(plot));
    fill(element, this.note, h("div", { class: "plots" }, this.plots.map((plot) => plot.card)));
  }

  /** Starts or ends the reading of /metrics. */
  setActive(isActive) {
    if (!isActive) {
      this.stopper?.abort();
      this.stopper = null;
    } else if (!this.stopper) {
      this.stopper = new AbortController();
      this.follow(this.stopper.signal);
    }
  }

  async follow(signal) {
    while (!signal.aborted) {
      try {
        const metrics = readMetrics(await (await send("GET", "/metrics", { signal })).text());
        this.samples.push({ at: performance.now(), metrics });
        if (this.samples.length > SAMPLES_MAX) this.samples.shift();
        this.draw();
      } catch {
        // The frame tells that this member does not answer.
      }
      await sleep(SAMPLE_EVERY_MS, signal);
    }
  }

  draw() {
    if (this.samples.length < 2) return;
    this.points ??= [];
    const [before, after] = this.samples.slice(-2);
    const seconds = (after.at - before.at) / 1000;
    const point = PLOTS.map((plot) => plot.lines.map(([, of]) => of(before.metrics, after.metrics, seconds)));
    this.points.push(point);
    if (this.points.length > SAMPLES_MAX) this.points.shift();
    if (this.frame.view !== "health") return;
    PLOTS.forEach((plot, place) => drawPlot(plot, this.plots[place], this.points.map((point) => point[place]), after.metrics, this.samples[0].metrics));
  }
}

function makePlot(plot) {
  const parts = {
    lines: plot.lines.map((_, at) => s("polyline", { class: `line line-${at}`, fill: "none" })),
    top: h("span", { class: "top" }),
    values: plot.lines.map(() => h("strong", {})),
    advice: h("p", { class: "advice", hidden: true, role: "alert" }, plot.advice ?? ""),
    state: h("span", { class: "state" }),
  };
  parts.card = h("div", { class: "plot pane" }, h("h2", {}, plot.title, parts.state),
    h("p", { class: "values" }, plot.lines.map(([name], at) => h("span", { class: `value-${at}` }, `${name} `, parts.values[at]))),
    h("div", { class: "graph" }, parts.top, s("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, parts.lines)),
    parts.advice);
  return parts;
}

function drawPlot(plot, parts, points, now, first) {
  const most = Math.max(...points.flat().filter(Number.isFinite), 0);
  const x = (at) => (PLOT.width * (SAMPLES_MAX - points.length + at + 1)) / SAMPLES_MAX;
  const y = (value) => PLOT.height - 2 - (most > 0 ? value / most : 0) * (PLOT.height - 6);
  plot.lines.forEach((_, line) => {
    const path = points.map((point, at) => Number.isFinite(point[line]) && `${x(at).toFixed(1)},${y(point[line]).toFixed(1)}`).filter(Boolean);
    setAttribute(parts.lines[line], "points", path.join(" "));
    setText(parts.values[line], plot.text(points.at(-1)[line]));
  });
  setText(parts.top, most > 0 ? plot.text(most) : "");
  const isRed = Boolean(plot.red?.(points.at(-1), now, first));
  parts.card.classList.toggle("red", isRed);
  parts.advice.hidden = !isRed;
  setText(parts.state, plot.red ? (isRed ? "look at this" : "good") : "");
}
