// The view "Health", and the texts that scripts compute.

const assert = require("node:assert/strict");
const { after, test } = require("node:test");
const { Cluster, closeBrowser, open, picture, put, until } = require("./harness.js");

after(closeBrowser);

const LATENCY = "etcd_http_successful_duration_seconds";
const PUT = `${LATENCY} PUT`;
const GET = `${LATENCY} GET`;
const SYNC = "etcd_disk_wal_fsync_duration_seconds";
const GIB = 2 ** 30;

/** What a member that is well says, in sums and in observations: how many took at most how many seconds. */
const GOOD = {
  sums: {
    edgetcd_disk_free_bytes: 5 * GIB, edgetcd_disk_size_bytes: 10 * GIB, edgetcd_disk_full: 0, edgetcd_apply_lag_entries: 3,
    edgetcd_apply_lag_seconds: 0, etcd_server_proposals_failed_total: 7, etcd_server_leader_changes_seen_total: 4, etcd_server_has_leader: 1,
  },
  seconds: { [PUT]: 0.008, [GET]: 0.004, [SYNC]: 0.016 },
};

/** By the title of a plot: values that are just good, values that are bad, and what the page says then. */
const LIMITS = {
  "Latency of writes": [{ seconds: { [PUT]: 0.5 } }, { seconds: { [PUT]: 0.6 } }, /disks of a majority/],
  "Latency of reads": [{ seconds: { [GET]: 0.1 } }, { seconds: { [GET]: 0.12 } }, /from memory/],
  "Sync of the log": [{ seconds: { [SYNC]: 0.25 } }, { seconds: { [SYNC]: 0.3 } }, /disk of its own/],
  "Free space on the disk": [{ sums: { edgetcd_disk_free_bytes: 0.06 * 10 * GIB } }, { sums: { edgetcd_disk_free_bytes: 0.04 * 10 * GIB } }, /make the disk larger/],
  "Entries to apply": [{ sums: { edgetcd_apply_lag_seconds: 2 } }, { sums: { edgetcd_apply_lag_seconds: 2.1 } }, /behind/],
  "Failed requests per minute": [{ sums: {} }, { sums: { etcd_server_proposals_failed_total: 8 } }, /no leader commits/],
  "Leader changes": [{ sums: { etcd_server_leader_changes_seen_total: 7 } }, { sums: { etcd_server_leader_changes_seen_total: 8 } }, /Leaders change often/],
};

/** Lets the page draw a member that was well, and then says this. Returns its red plots with their advice. */
function red(page, { sums = {}, seconds = {} }) {
  return page.evaluate(({ before, after }) => {
    const sample = ({ sums, seconds }, seen, at) => {
      const histogram = (bound) => new Map([[bound / 2, 0], [bound, seen], [Infinity, seen]]);
      const buckets = new Map(Object.entries(seconds).map(([name, bound]) => [name, histogram(bound)]));
      return { at, metrics: { sums: new Map(Object.entries(sums)), buckets } };
    };
    const { health } = page;
    health.samples = [sample(before, 0, 0), sample(after, 1000, 2000)];
    health.draw();
    const found = [...document.querySelectorAll(".plot.red")];
    return found.map((plot) => [plot.querySelector("h2").firstChild.textContent, plot.querySelector(".advice:not([hidden])")?.textContent]);
  }, { before: GOOD, after: { sums: { ...GOOD.sums, ...sums }, seconds: { ...GOOD.seconds, ...seconds } } });
}

test("plots show what clients do", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(`${cluster.urls[0]}/#health`);
    const card = (title) => page.locator(".plot", { has: page.locator("h2", { hasText: title }) });
    await until("a latency of writes", async () => {
      for (let count = 0; count < 10; count++) await put(cluster.urls[0], "/a", { value: "v" });
      return /p99 \d/.test(await card("Latency of writes").locator(".values").textContent());
    });
    assert.match(await card("Memory").textContent(), /MiB/);
    await picture(page, "health-light");
    // The member has each metric that decides whether a plot is red: without it, the plot would always be good.
    const has = await page.evaluate(({ sums, seconds }) => {
      const { metrics } = page.health.samples.at(-1);
      return [...sums.filter((name) => !metrics.sums.has(name)), ...seconds.filter((name) => !metrics.buckets.has(name))];
    }, { sums: Object.keys(GOOD.sums), seconds: [PUT, SYNC] });
    assert.deepEqual(has, []);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

// How fast a member answers depends on the machine, so the test itself says what the plots show.
test("red plots say what to do", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(`${cluster.urls[0]}/#health`);
    await page.evaluate(() => page.health.setActive(false));
    assert.deepEqual(await red(page, {}), []);
    for (const [title, [good, bad, advice]] of Object.entries(LIMITS)) {
      assert.deepEqual(await red(page, good), [], title);
      const found = await red(page, bad);
      assert.deepEqual(found.map(([title]) => title), [title]);
      assert.match(found[0][1], advice);
    }
    for (const [sums, title] of [[{ etcd_server_has_leader: 0 }, "Leader changes"], [{ edgetcd_disk_full: 1 }, "Free space on the disk"]]) {
      assert.deepEqual((await red(page, { sums })).map(([title]) => title), [title]);
    }
    // Each plot that can be red was.
    assert.deepEqual(await page.evaluate(() => PLOTS.filter((plot) => plot.red).map((plot) => plot.title)), Object.keys(LIMITS));
    assert.deepEqual(await red(page, {}), []);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("health fits a phone, in the dark", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(`${cluster.urls[0]}/#health`, { width: 390, height: 844, dark: true });
    await until("a plot", async () => /MiB/.test(await page.locator(".plots").textContent()));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} pixels are outside`);
    await picture(page, "health-phone-dark");
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("texts: numbers, JSON, YAML, differences, quantiles", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(cluster.urls[0]);
    const found = await page.evaluate(() => ({
      json: indentJson('{"a":[1,2,{}],"b":"x,{\\"","c":[],"d":-1.50e400}'),
      yaml: toYaml({ list: [1, [2, 3], { a: "yes", b: null }], text: "a: b", empty: {}, plain: "word" }),
      diff: diffLines("a\nb\nc\nd", "a\nc\nx\nd").map(([kind, line]) => kind + line).join("|"),
      life: [5, 65, 3700, 90000, 0.2].map(lifeText),
      bytes: [0, 1023, 1024, 5 * 1024 * 1024].map(bytesText),
      quantile: quantile(readMetrics('t_bucket{le="1"} 0\nt_bucket{le="2"} 0\nt_bucket{le="+Inf"} 0'),
        readMetrics('t_bucket{le="1"} 50\nt_bucket{le="2"} 100\nt_bucket{le="+Inf"} 100'), "t", 0.75),
    }));
    assert.equal(found.json, '{\n  "a": [\n    1,\n    2,\n    {}\n  ],\n  "b": "x,{\\"",\n  "c": [],\n  "d": -1.50e400\n}');
    assert.equal(found.yaml, 'list:\n- 1\n- - 2\n  - 3\n- a: "yes"\n  b: null\ntext: "a: b"\nempty: {}\nplain: word');
    assert.equal(found.diff, " a|-b| c|+x| d");
    assert.deepEqual(found.life, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h", "expired"]);
    assert.deepEqual(found.bytes, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB"]);
    assert.equal(found.quantile, 1.5);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});
