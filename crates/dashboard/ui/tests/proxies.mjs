// Real proxies in front of a real dashboard, with the blocks that docs/proxies.md shows.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PATIENCE } from "./browser.mjs";

export const BINARY = process.env.PENSTOCK_BIN;
const PAGE = readFileSync(new URL("../../../../docs/proxies.md", import.meta.url), "utf8");

/** Where a program is; null: nowhere. */
export function program(name) {
  return [...(process.env.PATH ?? "").split(":"), "/usr/sbin"].map((folder) => join(folder, name)).find((path) => existsSync(path)) ?? null;
}

/** The block of a proxy in the manual. */
export function block(language) {
  const [, found] = new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, "m").exec(PAGE) ?? [];
  if (!found) throw new Error(`docs/proxies.md has no block of ${language}`);
  return found;
}

/** Replaces what must be there. */
export function put(text, ...replacements) {
  for (const [from, to] of replacements) {
    if (!text.includes(from)) throw new Error(`docs/proxies.md no longer says ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** Processes, ports and files of one test run. */
export class Place {
  folder = mkdtempSync(join(tmpdir(), "penstock-proxies-"));
  #children = [];

  /** A certificate for localhost that nobody signed; HAProxy takes both halves in one file. */
  certificate() {
    const [cert, key, both] = ["cert.pem", "key.pem", "both.pem"].map((name) => join(this.folder, name));
    execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], { stdio: "ignore" });
    writeFileSync(both, readFileSync(cert, "utf8") + readFileSync(key, "utf8"));
    return { cert, key, both };
  }

  async redis() {
    const port = await freePort();
    this.run("redis-server", ["--port", String(port), "--save", "", "--appendonly", "no", "--dir", this.folder]);
    await this.open(port);
    this.redisPort = port;
  }

  /** Starts a dashboard with these settings, and returns its port. */
  async dashboard(settings) {
    const port = await freePort();
    const all = [`redis.url=redis://127.0.0.1:${this.redisPort}`, `dashboard.address=127.0.0.1:${port}`, "telemetry.adminAddress=127.0.0.1:0", ...settings];
    this.run(BINARY, ["dashboard", ...all.flatMap((setting) => ["--set", setting])]);
    await this.open(port);
    return port;
  }

  async nginx(http) {
    const folder = join(this.folder, `nginx-${this.#children.length}`);
    mkdirSync(folder);
    const file = join(folder, "nginx.conf");
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n");
    writeFileSync(file, `${process.getuid() === 0 ? "user root;" : ""}\ndaemon off;\nworker_processes 1;\npid ${folder}/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n${paths}\n${http}\n}\n`);
    this.run(program("nginx"), ["-p", folder, "-c", file, "-e", "stderr"]);
  }

  haproxy(text) {
    const file = join(this.folder, "haproxy.cfg");
    writeFileSync(file, text);
    this.run(program("haproxy"), ["-db", "-f", file]);
  }

  caddy(text) {
    const file = join(this.folder, "Caddyfile");
    writeFileSync(file, text);
    this.run(program("caddy"), ["run", "--adapter", "caddyfile", "--config", file], { HOME: this.folder, XDG_DATA_HOME: this.folder, XDG_CONFIG_HOME: this.folder });
  }

  run(command, args, env = {}) {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], cwd: this.folder, env: { ...process.env, ...env } });
    child.said = "";
    child.gone = new Promise((done) => child.once("exit", done));
    child.on("error", (error) => { child.said += error; });
    for (const output of [child.stdout, child.stderr]) output.on("data", (piece) => { child.said = (child.said + piece).slice(-4_000); });
    this.#children.push(child);
    return child;
  }

  /** Waits until somebody listens at a port. */
  async open(port) {
    const end = Date.now() + PATIENCE;
    while (!(await listens(port))) {
      const gone = this.#children.find((child) => child.exitCode !== null);
      if (gone || Date.now() > end) throw new Error(`nobody listens at ${port}: ${this.said()}`);
      await sleep(50);
    }
  }

  said() {
    return this.#children.map((child) => `${child.spawnfile}: ${child.said.slice(-800)}`).join("\n");
  }

  cli(...words) {
    return execFileSync("redis-cli", ["-p", String(this.redisPort), ...words], { timeout: 10_000 }).toString().trim();
  }

  async end() {
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) continue;
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await child.gone;
      clearTimeout(late);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function listens(port) {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => { socket.destroy(); done(true); });
    socket.on("error", () => done(false));
  });
}

/** Passes connections on, and notes which end of each is closed first: `near`, who connected, or `far`. */
export async function noted(target) {
  const closed = [];
  const sockets = new Set();
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ port: target, host: "127.0.0.1", allowHalfOpen: true });
    let first = null;
    for (const [name, socket, other] of [["near", near, far], ["far", far, near]]) {
      sockets.add(socket);
      socket.on("data", (piece) => other.write(piece));
      socket.on("error", () => other.destroy());
      socket.on("end", () => {
        if (!first) closed.push((first = name));
        other.end();
      });
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: server.address().port,
    /** The ends that were closed first, one for each connection that is over. */
    closed,
    stop() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

export function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}
