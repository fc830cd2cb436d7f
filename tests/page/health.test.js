// The view "Health", and the texts that scripts compute.

const assert = require("node:assert/strict");
const { after, test } = require("node:test");
const { Cluster, closeBrowser, open, picture, put, until } = require("./harness.js");

after(closeBrowser);

test("plots show what clients do, and red ones say what to do", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(`${cluster.urls[0]}/#health`);
    const card = (title) => page.locator(".plot", { has: page.locator("h2", { hasText: title }) });
    await until("a latency of writes", async () => {
      for (let count = 0; count < 10; count++) await put(cluster.urls[0], "/a", { value: "v" });
      return /p99 \d/.test(await card("Latency of writes").locator(".values").textContent());
    });
    assert.match(await card("Memory").textContent(), /MiB/);
    assert.equal(await page.locator(".plot.red").count(), 0);
    await picture(page, "health-light");
    // A member without a leader.
    await page.evaluate(() => {
      const { metrics } = page.health.samples.at(-1);
      metrics.sums.set("etcd_server_has_leader", 0);
      page.health.draw();
    });
    assert.match(await page.locator(".plot.red .advice").textContent(), /slow disk/);
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
