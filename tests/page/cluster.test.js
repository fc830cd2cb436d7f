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

/** What a page that does not know a member better shows of it. */
const drawn = (page, name) => page.evaluate((name) => {
  const strip = [...document.querySelectorAll(".strip")].find((strip) => strip.querySelector(".member").textContent === name);
  const node = [...document.querySelectorAll(".node")].find((node) => node.querySelector(".name").textContent === name);
  return `${node?.getAttribute("class")}, ${strip?.querySelector(".note").textContent}`;
}, name);

test("a member that does not let the page read is shown as the others see it, and left alone", async () => {
  const cluster = await Cluster.start(3);
  try {
    const leader = await cluster.leader();
    const place = cluster.urls.findIndex((url) => url !== leader.url);
    const name = `n${place + 1}`;
    let [asked, refuses] = [0, true];
    const page = await open("about:blank", { expected: [/ERR_FAILED/, UNREACHABLE] });
    await page.route(`${cluster.urls[place]}/**`, (route) => {
      if (!refuses) return route.continue();
      asked++;
      return route.abort();
    });
    await page.goto(leader.url);
    await put(leader.url, "/a", { value: "v" });
    await until("the log of a member that was not read", async () => (await drawn(page, name)) === "node follower, up to date");
    await until("three refusals", () => asked >= 3);
    await page.evaluate(() => (window.statuses = 0, page.live.onStatus = ((before) => (status) => (window.statuses++, before(status)))(page.live.onStatus)));
    await until("more statuses of its own member", () => page.evaluate(() => window.statuses >= 3));
    assert.equal(asked, 3, "it is not asked again");
    await put(leader.url, "/b", { value: "v" });
    await until("its newest entry", async () => (await page.evaluate((name) => {
      const members = [...page.live.model.members.values()];
      const [leader, other] = ["leader", name].map((what) => members.find((member) => member.role === what || member.name === what));
      return !other.told && other.last === leader.last && other.commit > 0;
    }, name)));
    // A new connection means a new process, which may answer.
    refuses = false;
    await cluster.kill(place);
    await until("the killed member as unreachable", async () => /unreachable/.test(await drawn(page, name)));
    cluster.launch(place);
    await until("its own records", () => page.evaluate((name) => [...page.live.model.members.values()].find((member) => member.name === name).traced, name));
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.stop();
  }
});

test("a member that came later is shown as the others see it, until the page is loaded again", async () => {
  const cluster = await Cluster.start(1);
  try {
    const page = await open(cluster.urls[0]);
    await until("a drawn leader", () => drawnLeader(page));
    const added = await cluster.add();
    await until("the added member", async () => (await drawn(page, `n${added + 1}`)) === "node follower, up to date");
    assert.match(await page.locator(".details").textContent(), /member that this document does not know/);
    await page.reload();
    await until("the added member by its own records", () => page.evaluate(() => [...page.live.model.members.values()].every((member) => member.traced)));
    assert.doesNotMatch(await page.locator(".details").textContent(), /does not know/);
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
