// A real cluster: edgetcd-lab with its nodes, for the tests.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { until } = require("../../page/harness.js");

class RealCluster {
  /** Starts `edgetcd-lab cluster` on a free port. */
  static async start(flags = []) {
    const cluster = new RealCluster();
    cluster.place = fs.mkdtempSync(path.join(os.tmpdir(), "edgetcd-lab-test-"));
    cluster.records = path.join(cluster.place, "records");
    cluster.process = spawn(process.env.EDGETCD_LAB, ["cluster", "--listen=127.0.0.1:0", `--folder=${path.join(cluster.place, "nodes")}`, `--record=${cluster.records}`, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    cluster.process.stdout.on("data", (text) => (said += text));
    cluster.url = await until("the address", () => {
      if (cluster.process.exitCode !== null) throw new Error(`edgetcd-lab has ended with ${cluster.process.exitCode}`);
      return /^page: ([^;]+);/.exec(said)?.[1];
    });
    return cluster;
  }

  /** The members' names and process states. */
  async members() {
    return (await (await fetch(`${this.url}cluster`)).json()).members;
  }

  /** Ends it as Ctrl-C does. The files of records are complete then. */
  async end() {
    const { process: child } = this;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGINT");
    await ended;
  }

  remove() {
    fs.rmSync(this.place, { recursive: true, force: true });
  }
}

module.exports = { RealCluster };
