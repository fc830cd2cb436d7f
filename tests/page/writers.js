// A process that writes to a cluster at a rate: writers.js KEYS WRITES_PER_SECOND URL…
//
// It is a process of its own so that the test can give it a lower priority than the browser. Each second it prints how
// many writes were answered so far. It ends when its standard input does.

const net = require("node:net");

const CONNECTIONS = 40;
/** Requests of one connection without an answer. */
const WAITING_MAX = 8;
const TICK_MS = 10;

const [keys, perSecond] = process.argv.slice(2, 4).map(Number);
const urls = process.argv.slice(4).map((url) => new URL(url));
let [answered, due] = [0, 0];

function connect({ hostname, port }) {
  const socket = net.connect(port, hostname);
  socket.waiting = 0;
  socket.setEncoding("latin1");
  socket.on("data", (text) => {
    const answers = text.split("X-Raft-Term").length - 1;
    socket.waiting -= answers;
    answered += answers;
  });
  return socket;
}

function request() {
  const key = `/big/key-${String(Math.floor(Math.random() * keys)).padStart(6, "0")}`;
  return `PUT /v2/keys${key} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=v`;
}

const sockets = Array.from({ length: CONNECTIONS }, (_, at) => connect(urls[at % urls.length]));
setInterval(() => {
  // What could not be written is not made up for later, or the rate would be higher then.
  due = Math.min(due + (perSecond * TICK_MS) / 1000, perSecond / 10);
  for (const socket of sockets) {
    const count = Math.min(Math.ceil((perSecond * TICK_MS) / 1000 / CONNECTIONS), WAITING_MAX - socket.waiting, Math.floor(due));
    if (count <= 0) continue;
    socket.write(Array.from({ length: count }, request).join(""));
    socket.waiting += count;
    due -= count;
  }
}, TICK_MS);
setInterval(() => process.stdout.write(`${answered}\n`), 1000);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
