// The page of a busy cluster: how long its frames take, and what it costs the member that serves it.
//
// The browser and seven members share this machine's processors, so a frame is late when a member computes. What counts
// is how long the page itself computes (long tasks), and the processor time of the member with and without the page. The
// limits apply with PAGE_BARS=yes.

const assert = require("node:assert/strict");
const net = require("node:net");
const { after, test } = require("node:test");
const { Cluster, closeBrowser, open, picture, putMany, until } = require("./harness.js");

const MEMBERS = 7;
const KEYS = Number(process.env.PAGE_KEYS ?? 100000);
const WRITES_PER_SECOND = Number(process.env.PAGE_WRITES ?? 5000);
const SECONDS = Number(process.env.PAGE_SECONDS ?? 6);
const FRAME_MS_MAX = 100;
const COST_MAX = 0.05;
const CONNECTIONS = 40;

after(closeBrowser);

/** Writes at a rate, if the cluster is as fast, until `stop` is called. */
class Writers {
  constructor(urls) {
    this.answers = 0;
    this.due = 0;
    this.sockets = Array.from({ length: CONNECTIONS }, (_, at) => this.connect(new URL(urls[at % urls.length])));
    this.timer = setInterval(() => this.tick(), 10);
  }

  connect({ hostname, port }) {
    const socket = net.connect(port, hostname);
    socket.waiting = 0;
    socket.setEncoding("latin1");
    socket.on("data", (text) => {
      const answers = text.split("X-Raft-Term").length - 1;
      socket.waiting -= answers;
      this.answers += answers;
    });
    return socket;
  }

  tick() {
    this.due = Math.min(this.due + WRITES_PER_SECOND / 100, WRITES_PER_SECOND / 10);
    for (const socket of this.sockets) {
      if (this.due < 1) return;
      const count = Math.min(Math.ceil(this.due / CONNECTIONS), 8 - socket.waiting);
      if (count <= 0) continue;
      const key = () => `/big/key-${String(Math.floor(Math.random() * KEYS)).padStart(6, "0")}`;
      const one = () => `PUT /v2/keys${key()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=v`;
      socket.write(Array.from({ length: count }, one).join(""));
      socket.waiting += count;
      this.due -= count;
    }
  }

  stop() {
    clearInterval(this.timer);
    for (const socket of this.sockets) socket.destroy();
  }
}

/** Processor seconds of a member so far. */
async function used(url) {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^process_cpu_seconds_total (.*)$/m.exec(text)[1]);
}

/** What happens in some seconds: writes per second, and processor seconds of the member per 1,000 writes. */
async function measure(writers, url) {
  const [answers, cpu, began] = [writers.answers, await used(url), Date.now()];
  await new Promise((later) => setTimeout(later, SECONDS * 1000));
  const seconds = (Date.now() - began) / 1000;
  const writes = writers.answers - answers;
  return { rate: writes / seconds, cost: ((await used(url)) - cpu) / (writes / 1000) };
}

test("a busy cluster of seven is drawn smoothly, and the member hardly notices", async () => {
  const cluster = await Cluster.start(MEMBERS);
  let writers;
  try {
    const leader = await cluster.leader();
    await putMany(leader.url, Array.from({ length: KEYS }, (_, at) => [`/big/key-${String(at).padStart(6, "0")}`, `value=${at}`]));
    const watched = cluster.urls.find((url) => url !== leader.url);
    writers = new Writers(cluster.urls);
    const without = await measure(writers, watched);
    const page = await open(watched);
    await until("seven members", async () => (await page.locator(".node:not(.unreachable)").count()) === MEMBERS);
    await page.evaluate(() => {
      Object.assign(window, { tasks: [], frames: [], drawn: [] });
      new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration))).observe({ type: "longtask" });
      let before = performance.now();
      const frame = (now) => {
        frames.push(now - before);
        before = now;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
      const { draw } = page.cluster;
      page.cluster.draw = function () {
        const began = performance.now();
        draw.call(this);
        drawn.push(performance.now() - began);
      };
    });
    const watchedToo = await measure(writers, watched);
    await picture(page, "cluster-busy-light");
    const seen = await page.evaluate(() => {
      const part = (list, share) => [...list].sort((a, b) => a - b)[Math.floor((list.length - 1) * share)] ?? 0;
      return { tasks: tasks.length, task: Math.max(0, ...tasks), frames: frames.length, frame: part(frames, 1), frame99: part(frames, 0.99), draw: part(drawn, 1), draw50: part(drawn, 0.5) };
    });
    await page.goto(`${watched}/#keys`);
    await page.locator(".row", { hasText: "big/" }).click();
    await page.locator(".row", { hasText: "key-000003" }).waitFor();
    const cost = watchedToo.cost / without.cost - 1;
    console.log(`${without.rate.toFixed(0)} writes/s without the page, ${watchedToo.rate.toFixed(0)} with it; `
      + `processor time of the member per 1,000 writes: ${(without.cost * 1000).toFixed(1)} ms without, ${(watchedToo.cost * 1000).toFixed(1)} ms with it (${(cost * 100).toFixed(1)}%)`);
    console.log(`frames: ${seen.frames}, p99 ${seen.frame99.toFixed(0)} ms, longest ${seen.frame.toFixed(0)} ms; long tasks: ${seen.tasks}, longest ${seen.task.toFixed(0)} ms; `
      + `drawing: half take ${seen.draw50.toFixed(1)} ms, longest ${seen.draw.toFixed(1)} ms`);
    if (process.env.PAGE_BARS) {
      assert.ok(seen.task <= FRAME_MS_MAX && seen.frame <= FRAME_MS_MAX, "a frame takes too long");
      assert.ok(cost < COST_MAX, "the page costs too much");
    }
    assert.deepEqual(page.complaints, []);
  } finally {
    writers?.stop();
    await cluster.stop();
  }
});
