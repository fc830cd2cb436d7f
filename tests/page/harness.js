// Members as processes, and a headless Chromium that looks at pages. The tests of the lab's pages use it, too.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const { chromium } = require("playwright-core");

const PROGRAM = process.env.EDGETCD_SERVER;
const FOLDER = process.env.PAGE_FOLDER;
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Generous, because the machine may be busy. What must be fast is measured. */
const PATIENCE_MS = 60000;

async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => resolve(server));
    server.on("error", reject);
  })));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

/** Waits until `condition` returns something true, and returns it. */
async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`after ${PATIENCE_MS} ms there is not: ${what}`);
    await new Promise((again) => setTimeout(again, 20));
  }
}

/** Starts a process, possibly at the lowest priority. */
function start(program, values, stdio, { isLow = false } = {}) {
  if (!isLow) return spawn(program, values, { stdio });
  // Linux compares nice values only within a session if it groups processes by session, as desktops do. The browser has
  // a session of its own, so this process needs one too, and the group needs a nice value. A user may set one every
  // 100 ms. nice(1) becomes the program, so the process is the program's.
  const script = "for try in 1 2 3 4 5 6 7 8; do echo 19 >/proc/self/autogroup && break; sleep 0.2; done 2>/dev/null; exec nice -n 19 \"$@\"";
  const child = spawn("sh", ["-c", script, "sh", program, ...values], { stdio, detached: true });
  // In its own session, Ctrl-C does not reach it.
  const end = () => child.kill("SIGKILL");
  process.once("exit", end);
  process.once("SIGINT", () => process.exit(130));
  child.once("exit", () => process.removeListener("exit", end));
  return child;
}

class Cluster {
  /** Starts `count` members with these flags, and waits for a leader. `isLow` gives them the lowest priority. */
  static async start(count, flags = [], { isLow = false } = {}) {
    const cluster = new Cluster();
    cluster.isLow = isLow;
    cluster.place = fs.mkdtempSync(path.join(os.tmpdir(), "edgetcd-page-"));
    cluster.flags = flags;
    const ports = await freePorts(2 * count);
    cluster.urls = ports.slice(0, count).map((port) => `http://127.0.0.1:${port}`);
    cluster.peers = ports.slice(count).map((port) => `http://127.0.0.1:${port}`);
    cluster.processes = [];
    for (let member = 0; member < count; member++) cluster.launch(member);
    await cluster.leader();
    return cluster;
  }

  launch(member, more = []) {
    const all = this.peers.map((url, at) => `n${at + 1}=${url}`).join();
    const name = `n${member + 1}`;
    const log = fs.openSync(path.join(this.place, `${name}.log`), "a");
    this.processes[member] = start(PROGRAM, [
      `--name=${name}`, `--data-dir=${path.join(this.place, name)}`, `--listen-client-urls=${this.urls[member]}`,
      `--advertise-client-urls=${this.urls[member]}`, `--listen-peer-urls=${this.peers[member]}`,
      `--initial-advertise-peer-urls=${this.peers[member]}`, `--initial-cluster=${all}`, ...this.flags, ...more,
    ], ["ignore", log, log], this);
    fs.closeSync(log);
  }

  /** Waits until a member leads, and all running members say so. Returns its place. */
  leader() {
    return until("a leader", async () => {
      const running = this.urls.filter((_, member) => this.processes[member].exitCode === null && !this.processes[member].killed);
      const states = await Promise.all(running.map((url) => fetch(`${url}/edgetcd/status`).then((answer) => answer.json()).catch(() => null)));
      const leaders = new Set(states.map((state) => state?.leader));
      const place = this.urls.indexOf(running[states.findIndex((state) => state?.role === "leader")]);
      return leaders.size === 1 && place >= 0 ? { place, name: `n${place + 1}`, url: this.urls[place] } : null;
    });
  }

  /** Adds a member to the running cluster. Returns its place. */
  async add() {
    const [client, peer] = (await freePorts(2)).map((port) => `http://127.0.0.1:${port}`);
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`${this.urls[0]}/v2/members`, { method: "POST", headers, body: JSON.stringify({ peerURLs: [peer] }) });
    if (answer.status !== 201) throw new Error(`the member was not added: ${await answer.text()}`);
    this.urls.push(client);
    this.peers.push(peer);
    this.launch(this.urls.length - 1, ["--initial-cluster-state=existing"]);
    return this.urls.length - 1;
  }

  kill(member) {
    return new Promise((ended) => {
      this.processes[member].once("exit", ended);
      this.processes[member].kill("SIGKILL");
    });
  }

  async stop() {
    await Promise.all(this.processes.map((child, member) => child.exitCode === null && child.signalCode === null && this.kill(member)));
    fs.rmSync(this.place, { recursive: true, force: true });
  }
}

/** Sends a form to /v2/keys. Returns the answer's JSON. */
async function put(url, key, form, method = "PUT", headers = {}) {
  const body = method === "DELETE" || method === "GET" ? undefined : new URLSearchParams(form);
  const query = method === "DELETE" ? `?${new URLSearchParams(form)}` : "";
  const answer = await fetch(`${url}/v2/keys${key}${query}`, { method, body, headers });
  return answer.json();
}

/** Sends many PUT requests over a few connections, without waiting for each answer. `forms` yields [key, body]. */
async function putMany(url, forms, connections = 32) {
  const parts = Array.from({ length: connections }, () => []);
  forms.forEach(([key, body], at) => parts[at % connections].push(
    `PUT /v2/keys${key} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n\r\n${body}`));
  const { hostname, port } = new URL(url);
  await Promise.all(parts.filter((part) => part.length).map((part) => new Promise((done, failed) => {
    let [answers, rest] = [0, ""];
    const socket = net.connect(port, hostname, () => socket.write(part.join("")));
    socket.setEncoding("latin1");
    socket.on("error", failed);
    socket.on("close", () => failed(new Error(`${url} closed a connection after ${answers} answers`)));
    socket.on("data", (text) => {
      rest += text;
      const found = rest.split("HTTP/1.1 20");
      answers += found.length - 1;
      rest = found.at(-1).slice(-12);
      if (answers >= part.length) socket.removeAllListeners("close").destroy(), done();
    });
  })));
}

let browser;

/**
 * Opens a page. Every message of the console that is not expected is an error of the test, and every request that leaves
 * the browser if the page is `isAlone`.
 */
async function open(url, { width = 1280, height = 900, dark = false, expected = [], isAlone = false } = {}) {
  browser ??= await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox", "--disable-gpu"] });
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(`error: ${error.stack}`));
  page.on("console", (message) => {
    const text = `${message.type()}: ${message.text()} ${message.location().url}`;
    const isBad = message.type() === "error" || message.type() === "warning";
    if (isBad && !expected.some((pattern) => pattern.test(text))) page.complaints.push(text);
  });
  page.on("request", (request) => {
    if (isAlone && !/^(file|data|blob):/.test(request.url())) page.complaints.push(`asks for ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

/** Saves a picture in PAGE_FOLDER. */
async function picture(page, name) {
  await page.screenshot({ path: path.join(FOLDER, `${name}.png`), animations: "allow" });
}

async function closeBrowser() {
  await browser?.close();
  browser = undefined;
}

/** The browser reports an answer with this status. */
const status = (code) => new RegExp(`status of ${code} `);

/** Requests to a member that was killed fail, and the browser says so. */
const UNREACHABLE = /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE/;

module.exports = { Cluster, open, picture, put, putMany, start, until, closeBrowser, status, UNREACHABLE };
