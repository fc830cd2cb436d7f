// The view "Cluster".

const assert = require("node:assert/strict");
const { after, test } = require("node:test");
const { Cluster, UNREACHABLE, closeBrowser, open, picture, put, until } = require("./harness.js");

/** From the kill of a leader to the picture of the next one. */
const SEEN_WITHIN_MS = 3000;

after(closeBrowser);

/** The name of the member that is drawn as the leader. */
const drawnLeader = (page) => page.evaluate(() => {
  const leaders = document.querySelectorAll(".node.leader .name");
  return leaders.length === 1 ? leaders[0].textContent : null;
});

test("the page shows the leader, and the next one when it is killed", async () => {
  const cluster = await Cluster.start(3);
  try {
    const first = await cluster.leader();
    const watched = cluster.urls.find((url) => url !== first.url);
    const page = await open(watched, { expected: [UNREACHABLE] });
    assert.equal(await until("a drawn leader", () => drawnLeader(page)), first.name);
    for (let count = 0; count < 30; count++) await put(watched, `/key${count}`, { value: "v" });
    await picture(page, "cluster-light");
    const began = Date.now();
    await cluster.kill(first.place);
    const next = await until("another drawn leader", async () => {
      const name = await drawnLeader(page);
      return name !== first.name && name;
    });
    const took = Date.now() - began;
    console.log(`the next leader was drawn after ${took} ms`);
    assert.equal(next, (await cluster.leader()).name);
    assert.ok(took < SEEN_WITHIN_MS || !process.env.PAGE_BARS, `${took} ms`);
    await until("the killed member as unreachable", () => page.locator(".node.unreachable").count());
    await picture(page, "cluster-after-kill");
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("messages travel, and what happened is told in words", async () => {
  const cluster = await Cluster.start(3);
  try {
    const leader = await cluster.leader();
    const watched = cluster.urls.find((url) => url !== leader.url);
    const page = await open(watched);
    const kinds = () => page.evaluate(() => [...document.querySelectorAll(".flight:not([visibility=hidden])")].map((dot) => dot.getAttribute("class")));
    await until("heartbeats", async () => (await kinds()).some((kind) => kind.includes("quiet")));
    const seen = new Set();
    await until("a forwarded write, entries and answers", async () => {
      await put(watched, "/a", { value: "v" });
      for (const kind of await kinds()) seen.add(kind);
      return ["append", "answer", "forward"].every((wanted) => [...seen].some((kind) => kind.includes(wanted)));
    });
    await until("the election in words", async () => {
      const words = await page.locator(".words").textContent();
      return words.includes(`${leader.name} is the leader of term`) && words.includes("votes for");
    });
    await page.locator(".node.leader").press("Enter");
    assert.match(await page.locator(".details").textContent(), /on its disk/);
    // Slower than real time, the page falls behind and says so.
    await page.selectOption("#speed", "0");
    await until("a lag", async () => /behind/.test(await page.locator(".lag").textContent()));
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("a page of another origin shows the members as its own member sees them", async () => {
  const cluster = await Cluster.start(3);
  try {
    const leader = await cluster.leader();
    const page = await open(leader.url.replace("127.0.0.1", "localhost"));
    assert.equal(await until("a drawn leader", () => drawnLeader(page)), leader.name);
    await put(leader.url, "/a", { value: "v" });
    await until("the logs of all", async () => (await page.locator(".strip .note", { hasText: "up to date" }).count()) === 3);
    await until("messages to the others", () => page.locator(".flight.append").count());
    assert.match(await page.locator(".details").textContent(), /no client URL/);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("a hidden page sends no requests", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(cluster.urls[0]);
    await until("a drawn leader", () => drawnLeader(page));
    const hide = (hidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    const requests = async () => {
      const text = await (await fetch(`${cluster.urls[0]}/metrics`)).text();
      return ["edgetcd_http_requests_total", "edgetcd_http_connections"].map((name) => Number(new RegExp(`^${name} (.*)$`, "m").exec(text)[1]));
    };
    const [before] = await requests();
    await new Promise((later) => setTimeout(later, 3000));
    const [after] = await requests();
    assert.equal(after - before, 1, "only the test's own request");
    await hide(false);
    await until("new requests", async () => (await requests())[0] > after + 4);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("the drawing fits a phone, in the dark", async () => {
  const cluster = await Cluster.start(3);
  try {
    const page = await open(cluster.urls[0], { width: 390, height: 844, dark: true });
    await until("a drawn leader", () => drawnLeader(page));
    await put(cluster.urls[0], "/a", { value: "v" });
    await picture(page, "cluster-phone-dark");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} pixels are outside`);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});
