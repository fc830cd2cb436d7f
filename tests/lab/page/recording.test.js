// Recordings of real nodes in the lab: the same events in the same order, without any node.

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { test, after } = require("node:test");
const { UNREACHABLE, closeBrowser, open, picture, until } = require("../../page/harness.js");
const { RealCluster } = require("./real.js");

const LAB = pathToFileURL(process.env.LAB_FILE).href;
/** From the kill of a leader to the picture of the next one. Checked on a machine that does nothing else. */
const SEEN_WITHIN_MS = 3000;

after(closeBrowser);

async function openLab() {
  const page = await open(LAB, { height: 1000, isAlone: true });
  await page.waitForSelector("body[data-ready=yes]");
  return page;
}

const drawnLeader = (page) => page.evaluate(() => {
  const term = (node) => Number(/term (\d+)/.exec(node.textContent)[1]);
  const leaders = [...document.querySelectorAll(".node.leader")].sort((a, b) => term(b) - term(a));
  return leaders.length > 0 ? Number(leaders[0].querySelector(".name").textContent.slice(1)) : null;
});
/** The records in the text of a file, without heads. */
const records = (text) => text.split("\n").filter((line) => line && JSON.parse(line).format === undefined);

/** Runs three nodes, kills the leader with the page's handle, and ends when another one leads. Returns the folder. */
async function record() {
  const cluster = await RealCluster.start();
  try {
    const page = await open(cluster.url, { height: 1000, expected: [UNREACHABLE] });
    const first = await until("a leader", () => drawnLeader(page));
    await page.click(`[data-act="write ${first}"]`);
    await page.waitForFunction(() => /has written/.test(document.getElementById("said").textContent));
    const began = Date.now();
    await page.click(`[data-act="kill ${first}"]`);
    const second = await until("the next leader", async () => {
      const now = await drawnLeader(page);
      return now !== first && now;
    });
    const took = Date.now() - began;
    console.log(`the next leader was drawn after ${took} ms`);
    assert.ok(took < SEEN_WITHIN_MS || !process.env.LAB_BARS, `${took} ms`);
    // A killed node records no end: it counts as down when the others have recorded for two seconds more (recording.js: 1.5 s).
    const sofar = await until("records of two seconds without the first leader", async () => {
      await page.click(`[data-act="write ${second}"]`);
      const text = await (await fetch(`${cluster.url}recording`)).text();
      const latest = Math.max(...records(text).map((line) => JSON.parse(line).at));
      return latest > (began + 2000) * 1000 && text;
    });
    assert.deepStrictEqual(page.complaints, []);
    await page.close();
    return { cluster, first, second, sofar };
  } finally {
    await cluster.end();
  }
}

/**
 * Each message is sent before it is received, unless the files contradict that. A member records that it has sent a message
 * after it was sent, and that can be after it has received something that follows from it. The file of a member that was
 * killed lacks its last records.
 */
function assertCausal(lines, killed) {
  const events = lines.map((line) => JSON.parse(line));
  const messages = new Map();
  events.forEach(({ kind, member, to, from, what, first, last }, place) => {
    if (kind !== "sent" && kind !== "received") return;
    const key = JSON.stringify(kind === "sent" ? [member, to, what, first, last] : [from, member, what, first, last]);
    if (!messages.has(key)) messages.set(key, { sent: [], received: [] });
    messages.get(key)[kind].push(place);
  });
  // The third that arrives is at least the third that was sent.
  let pairs = [...messages.values()].flatMap(({ sent, received }) => received.map((place, count) => [sent[count], place]));
  for (const [sent, received] of pairs) assert.ok(sent !== undefined || events[received].from === killed, `never sent: ${lines[received]}`);
  pairs = pairs.filter(([sent]) => sent !== undefined);
  const wrong = pairs.filter(([sent, received]) => sent > received);
  const follows = new Map(events.map((_, place) => [place, []]));
  const newest = new Map();
  events.forEach(({ member }, place) => {
    if (newest.has(member)) follows.get(newest.get(member)).push(place);
    newest.set(member, place);
  });
  for (const [sent, received] of pairs) follows.get(sent).push(received);
  for (const [sent, received] of wrong) {
    const reached = new Set([received]);
    for (const place of reached) for (const later of follows.get(place)) reached.add(later);
    assert.ok(reached.has(sent), `received before it was sent: ${lines[received]}`);
  }
  return wrong.length;
}

test("a recording of real nodes replays with the same events in the same order", async () => {
  const { cluster, first, second, sofar } = await record();
  try {
    const files = [1, 2, 3].map((n) => path.join(cluster.records, `n${n}.trace`));
    const written = files.map((file) => records(fs.readFileSync(file, "utf8")));
    const page = await openLab();
    await page.setInputFiles("#file", files);
    await page.waitForFunction(() => window.lab.engine.isRecording);
    const replayed = await page.evaluate(() => window.lab.engine.lines());
    for (const lines of written) {
      const { member } = JSON.parse(lines[0]);
      assert.ok(lines.length > 50, `${lines.length} records`);
      assert.deepStrictEqual(replayed.filter((line) => JSON.parse(line).member === member), lines);
    }
    assert.strictEqual(replayed.length, written.flat().length);
    const wrong = assertCausal(replayed, JSON.parse(written[first - 1][0]).member);
    console.log(`${replayed.length} records; the files contradict the order of ${wrong} messages`);
    // The page shows them in this order.
    await page.evaluate(() => window.lab.seek(120));
    await page.check("#filter input");
    const rows = await page.$$eval("#records li", (found) => found.map((row) => [Number(row.dataset.of), Number(row.dataset.seq)]).reverse());
    const names = new Map(written.map((lines, place) => [JSON.parse(lines[0]).member, place + 1]));
    assert.deepStrictEqual(rows, replayed.slice(0, 120).map((line) => [names.get(JSON.parse(line).member), JSON.parse(line).seq]));
    // At the election of the second leader it leads, and a step back from there it does not lead yet.
    const id = JSON.parse(written[second - 1][0]).member;
    const elected = replayed.findLastIndex((line) => /"kind":"role","role":"leader"/.test(line) && JSON.parse(line).member === id) + 1;
    assert.ok(elected > 0);
    await page.evaluate((step) => window.lab.seek(step), elected);
    assert.strictEqual(await drawnLeader(page), second);
    const state = await page.evaluate(() => JSON.stringify(window.lab.state));
    await page.keyboard.press("ArrowLeft");
    assert.notStrictEqual(await drawnLeader(page), second);
    await page.evaluate(() => window.lab.seek(0));
    await page.evaluate((step) => window.lab.seek(step), elected);
    assert.strictEqual(await page.evaluate(() => JSON.stringify(window.lab.state)), state);
    await picture(page, "recording");
    await page.evaluate(() => window.lab.seek(window.lab.state.end));
    assert.match(await page.getAttribute(`.node[data-member="${first}"]`, "aria-label"), /down/);
    // It plays by itself from any step, and stops at visible events.
    await page.evaluate(() => window.lab.seek(50));
    await page.evaluate(() => { document.getElementById("speed").value = "6"; });
    await page.focus("body");
    await page.keyboard.press(" ");
    await page.waitForFunction(() => Number(document.body.dataset.step) > 80);
    await page.keyboard.press(" ");
    await page.evaluate(() => window.lab.seek(0));
    await page.keyboard.press("n");
    assert.match(await page.textContent("#records li"), /starts with a log up to 0/);
    // What the cluster's page saves is the beginning of the same, in one file.
    await page.evaluate((text) => window.lab.openFiles([["cluster.trace", text]]), sofar);
    const saved = await page.evaluate(() => window.lab.engine.lines());
    assert.ok(saved.length > 150, `${saved.length} records`);
    for (const lines of written) {
      const { member } = JSON.parse(lines[0]);
      const own = saved.filter((line) => JSON.parse(line).member === member);
      assert.deepStrictEqual(own, lines.slice(0, own.length));
    }
    assert.deepStrictEqual(page.complaints, []);
  } finally {
    cluster.remove();
  }
});

/** A trace file with these records: [time, kind and fields]. */
function file(member, start, list) {
  const head = { format: 1, member, name: `m-${member}`, start, first: 1, next: 1 };
  return [head, ...list.map(([at, fields], place) => ({ seq: place + 1, at, member, term: 1, ...fields }))].map((line) => JSON.stringify(line)).join("\n") + "\n";
}

test("clocks that differ, restarts, cut lines and files that are no traces", async () => {
  const page = await openLab();
  const show = (files) => page.evaluate((all) => {
    window.lab.openFiles(all);
    return window.lab.engine.isRecording ? window.lab.engine.lines().map((line) => JSON.parse(line)).map((record) => `${record.member}${record.seq ?? ""}`) : document.getElementById("said").textContent;
  }, files);
  const sends = (to, last) => ({ kind: "sent", to, what: "append", first: last, last });
  const receives = (from, last) => ({ kind: "received", from, what: "append", first: last, last });
  // The clock of b is a second behind: a message seems to arrive before it was sent.
  const a = file("a", 5_000_000, [[5_000_000, sends("b", 1)], [5_000_500, { kind: "stored", last: 1 }], [5_100_000, sends("b", 2)], [5_100_500, receives("b", 7)]]);
  const b = file("b", 4_000_000, [[4_000_200, receives("a", 1)], [4_000_300, { kind: "stored", last: 1 }], [4_100_200, receives("a", 2)], [4_100_300, sends("a", 7)]]);
  assert.deepStrictEqual(await show([["b", b], ["a", a]]), ["a1", "b1", "b2", "a2", "a3", "b3", "b4", "a4"]);
  // Only one member: what it mentions is shown as a member too.
  assert.deepStrictEqual(await show([["b", b]]), ["b1", "b2", "b3", "b4"]);
  assert.strictEqual(await page.evaluate(() => window.lab.state.members.length), 2);
  // The second process of a member numbers from 1 again, the older file comes first, and a file counts once.
  const cut = '{"seq":5,"at":5200000,"mem\n';
  const later = file("a", 6_000_000, [[6_000_000, { kind: "start", first: 1, last: 2, applied: 0 }]]);
  assert.deepStrictEqual(await show([["a", `${later}`], ["a.1", a + cut], ["again", a]]), ["a1", "a2", "a3", "a4", "a1"]);
  assert.match(await page.textContent("#handles"), /1 lines are no records/);
  const gap = `${a}{"kind":"gap","from":5,"to":9}\n`;
  assert.deepStrictEqual(await show([["a", gap]]), ["a1", "a2", "a3", "a4", "undefined"]);
  // Of long files only the ends are shown, and whose they are.
  const ends = await page.evaluate(async (texts) => {
    await window.lab.readFiles(texts.map((text) => new File([text], "x.trace")), 450);
    return { lines: window.lab.engine.lines().map((line) => JSON.parse(line).seq), names: window.lab.engine.members.map((member) => member.name) };
  }, [a, b]);
  assert.deepStrictEqual(ends, { lines: [3, 3, 4, 4], names: ["m-a", "m-b"] });
  // Markup in a name stays text.
  const name = a.replace("m-a", "<b id=x>");
  await show([["a", name]]);
  assert.strictEqual(await page.$("#x"), null);
  await page.click("#new");
  assert.match(await show([["x", "{}\nnot a trace\n"]]), /cannot be read: there is no trace record/);
  assert.match(await show([["x", a.replace('"format":1', '"format":2')]]), /x has the format 2/);
  assert.match(await page.textContent("#where"), /seed/, "the run before is still shown");
  assert.deepStrictEqual(page.complaints, []);
});
