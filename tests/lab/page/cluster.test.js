// A cluster of real nodes, used through the page of edgetcd-lab cluster.

const assert = require("node:assert");
const { test, after } = require("node:test");
const { UNREACHABLE, closeBrowser, open, picture, until } = require("../../page/harness.js");
const { RealCluster } = require("./real.js");

after(closeBrowser);

/** The number of the member that is drawn as the only leader. */
const leader = (page) => page.evaluate(() => {
  const leaders = document.querySelectorAll(".node.leader .name");
  return leaders.length === 1 ? Number(leaders[0].textContent.slice(1)) : null;
});
const act = (page, text) => page.click(`[data-act="${text}"]`);
const state = async (cluster, member) => (await cluster.members())[member - 1].state;

test("handles kill, pause and restart real nodes, and cut their links", async () => {
  const cluster = await RealCluster.start();
  try {
    const page = await open(cluster.url, { height: 1000, expected: [UNREACHABLE] });
    const first = await until("a leader", () => leader(page));
    await act(page, `write ${first}`);
    await page.waitForFunction(() => /has written \/lab\//.test(document.getElementById("said").textContent));
    await act(page, `kill ${first}`);
    const second = await until("the next leader", async () => {
      const now = await leader(page);
      return now !== first && now;
    });
    await until("its end", async () => (await state(cluster, first)) === "down");
    await act(page, `restart ${first}`);
    await until("the first one again", async () => (await state(cluster, first)) === "running");
    // The leader's messages are lost, those to it arrive: another member is elected, and deposes it.
    const others = [1, 2, 3].filter((member) => member !== second);
    await page.selectOption('[aria-label="From"]', String(second));
    for (const other of others) {
      await page.selectOption('[aria-label="To"]', String(other));
      await act(page, `cut ${second} ${other}`);
    }
    await until("two links that are drawn as cut", async () => (await page.locator(".links .cut").count()) === 2);
    // A record of the connection, which works, does not hide that.
    const cut = await page.evaluate(([member, peer]) => {
      const [from, to] = [member, peer].map((name) => [...page.live.model.members.values()].find((one) => one.name === name).id);
      page.live.model.apply({ kind: "link", member: from, peer: to, up: true, at: page.live.model.at });
      page.view.draw();
      return document.querySelectorAll(".links .cut").length;
    }, [`n${second}`, `n${others[0]}`]);
    assert.equal(cut, 2);
    const third = await until("a leader that is heard", async () => {
      const now = await leader(page);
      return now !== second && now;
    });
    await until("the cut in words", async () => (await page.textContent("#handles")).includes(`n${second} → n${others[0]}: cut`));
    await picture(page, "real-cluster");
    await act(page, `pause ${third}`);
    await until("its pause", async () => (await state(cluster, third)) === "paused");
    await act(page, `resume ${third}`);
    await until("it runs", async () => (await state(cluster, third)) === "running");
    // A member that has lost its data says why it does not start. As another member it is drawn again.
    for (const other of others) await act(page, `heal ${second} ${other}`);
    const lost = await until("one leader", async () => {
      const now = await leader(page);
      return now && 1 + (now % 3);
    });
    await act(page, `wipe ${lost}`);
    await act(page, `restart ${lost}`);
    await page.waitForFunction(() => /its data is lost/.test(document.getElementById("handles").textContent));
    const before = (await cluster.members())[lost - 1].id;
    await act(page, `add ${lost}`);
    await until("it runs", async () => (await state(cluster, lost)) === "running");
    await until("another id", async () => (await cluster.members())[lost - 1].id !== before);
    await page.waitForFunction((name) => [...document.querySelectorAll(".node.follower .name, .node.learner .name")].some((one) => one.textContent === name), `n${lost}`);
    assert.deepEqual(page.complaints, []);
  } finally {
    await cluster.end();
    cluster.remove();
  }
});
