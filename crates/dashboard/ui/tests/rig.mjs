// A real pipeline in single processes, each of which can be killed, frozen and started again. PENSTOCK_BIN names the binary.
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const BINARY = process.env.PENSTOCK_BIN;
const POSTGRES = ["/usr/local/bin", ...found("/usr/lib/postgresql").map((version) => `/usr/lib/postgresql/${version}/bin`), "/usr/bin"]
  .find((folder) => found(folder).includes("initdb"));

/** Why there can be no pipeline; false: there can. */
export const lack = !BINARY ? "PENSTOCK_BIN names no binary" : !POSTGRES ? "there is no PostgreSQL" : !programs("redis-server") ? "there is no redis-server" : false;

function found(folder) {
  try {
    return readdirSync(folder).sort().reverse();
  } catch {
    return [];
  }
}

function programs(name) {
  return (process.env.PATH ?? "").split(":").some((folder) => found(folder).includes(name));
}

export class Rig {
  #folder = mkdtempSync(join(tmpdir(), "penstock-situations-"));
  #children = new Map();
  #ports = {};
  /** PostgreSQL does not run as root. */
  #as = process.getuid() === 0 ? { uid: Number(execFileSync("id", ["-u", "nobody"])), gid: Number(execFileSync("id", ["-g", "nobody"])) } : {};

  /** Makes ports and folders, and starts Redis and PostgreSQL; nothing else runs yet. */
  async prepare() {
    chmodSync(this.#folder, 0o755);
    for (const name of ["redis", "postgres", "relay", "dashboard"]) this.#ports[name] = await freePort();
    for (const name of ["redis", "postgres"]) mkdirSync(join(this.#folder, name));
    if (this.#as.uid !== undefined) chownSync(join(this.#folder, "postgres"), this.#as.uid, this.#as.gid);
    execFileSync(join(POSTGRES, "initdb"), ["-D", join(this.#folder, "postgres"), "-U", "penstock", "-A", "trust", "--no-sync"], { ...this.#as, cwd: "/", stdio: "ignore" });
    await this.start("redis", "postgres");
    execFileSync(BINARY, ["migrate"], { env: this.#env(), stdio: "ignore" });
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.#ports.dashboard}/`;
  }

  /** Starts parts by name; workers are `worker-0`, `worker-1`, … */
  async start(...names) {
    for (const name of names) {
      const [command, args, options] = this.#command(name.replace(/-\d+$/, ""));
      const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], cwd: "/", ...options });
      child.said = "";
      for (const output of [child.stdout, child.stderr]) output.on("data", (piece) => { child.said = (child.said + piece).slice(-4_000); });
      child.gone = new Promise((done) => child.once("exit", done));
      this.#children.set(name, child);
      if (name === "redis") await until(() => this.redis("PING") === "PONG", "Redis");
      if (name === "postgres") await until(() => this.sql("SELECT 1") === "1", "PostgreSQL");
      if (name === "dashboard") await until(() => fetch(`${this.url}health`).then(() => true, () => false), "the dashboard");
    }
  }

  #env() {
    return {
      ...process.env, ADMIN_ADDRESS: "127.0.0.1:0", LOG_LEVEL: "warn",
      REDIS_URL: `redis://127.0.0.1:${this.#ports.redis}`, DATABASE_URL: `postgres://penstock@127.0.0.1:${this.#ports.postgres}/postgres`,
      RELAY_URL: `ws://127.0.0.1:${this.#ports.relay}`,
    };
  }

  #command(part) {
    const set = (...settings) => settings.flatMap((setting) => ["--set", setting]);
    const ours = (...args) => [BINARY, args, { env: this.#env() }];
    switch (part) {
      case "redis":
        return ["redis-server", ["--port", this.#ports.redis, "--bind", "127.0.0.1", "--dir", join(this.#folder, "redis"), "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"], {}];
      case "postgres":
        return [join(POSTGRES, "postgres"), ["-D", join(this.#folder, "postgres"), "-p", this.#ports.postgres, "-h", "127.0.0.1", "-k", "", "-F"], this.#as];
      case "relay":
        return ours("replay", "--address", `127.0.0.1:${this.#ports.relay}`, "--rate", process.env.RATE ?? "100", "--start-time", "now");
      case "ingest":
        return ours("ingest", ...set("relay.backoffMin=100ms", "relay.backoffMax=1s"));
      case "worker":
        // What a killed worker held is taken over within seconds.
        return ours("worker", ...set("worker.claimTime=6s", ...this.workers));
      case "dashboard":
        return ours("dashboard", ...set(`dashboard.address=127.0.0.1:${this.#ports.dashboard}`, "redis.commandTimeout=2s", ...this.dashboard));
      default:
        throw new Error(`there is no part ${part}`);
    }
  }

  /** Further settings of the dashboard. */
  dashboard = [];

  /** Further settings of workers. */
  workers = [];

  /** Has every write of likes take so many seconds more; 0: none. */
  slow(seconds) {
    this.sql("DROP TRIGGER IF EXISTS slow ON likes");
    if (seconds === 0) return;
    this.sql(`CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(${seconds}); RETURN NULL; END $$`);
    this.sql("CREATE TRIGGER slow BEFORE INSERT ON likes FOR EACH STATEMENT EXECUTE FUNCTION slow()");
  }

  /** Kills parts as the kernel does; PostgreSQL ends without a word to anybody. */
  async kill(...names) {
    for (const name of names) {
      const child = this.#children.get(name);
      if (!child || child.exitCode !== null || child.signalCode !== null) continue;
      this.thaw(name);
      child.kill(name === "postgres" ? "SIGQUIT" : "SIGKILL");
      await child.gone;
      this.#children.delete(name);
    }
  }

  /** Has every part run again, whatever an earlier test left. */
  async heal(...names) {
    for (const name of names) {
      const child = this.#children.get(name);
      if (child && child.exitCode === null && child.signalCode === null) this.thaw(name);
      else await this.start(name);
    }
  }

  /** Stops parts in the middle of what they do: they answer nothing, and their connections stay. */
  freeze(...names) {
    for (const name of names) this.#signal(name, "SIGSTOP");
  }

  thaw(...names) {
    for (const name of names) this.#signal(name, "SIGCONT");
  }

  #signal(name, signal) {
    const { pid } = this.#children.get(name);
    // PostgreSQL has a process for each connection.
    const children = name !== "postgres" ? [] : found("/proc").filter((entry) => /^\d+$/.test(entry) && parent(entry) === pid).map(Number);
    for (const one of [pid, ...children]) {
      try {
        process.kill(one, signal);
      } catch {
        // It has just ended.
      }
    }
  }

  redis(...words) {
    return execFileSync("redis-cli", ["-p", this.#ports.redis, ...words], { timeout: 5_000, stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
  }

  sql(statement) {
    return execFileSync("psql", ["-h", "127.0.0.1", "-p", this.#ports.postgres, "-U", "penstock", "-d", "postgres", "-Atqc", statement], { timeout: 10_000, stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
  }

  /** Holds every table that workers write, in a session of its own; returns how to let go. */
  async lock() {
    const held = spawn("psql", ["-h", "127.0.0.1", "-p", this.#ports.postgres, "-U", "penstock", "-d", "postgres", "-Atq"], { stdio: ["pipe", "pipe", "inherit"] });
    const locked = new Promise((done) => held.stdout.once("data", done));
    held.stdin.write("BEGIN; LOCK TABLE users, posts, likes, reposts, follows, blocks IN ACCESS EXCLUSIVE MODE; SELECT 'locked';\n");
    await locked;
    return () => new Promise((done) => {
      held.once("exit", done);
      held.stdin.end("ROLLBACK;\n");
    });
  }

  async metrics() {
    return (await fetch(`${this.url}api/metrics`)).json();
  }

  /** What a part said last, for a failure. */
  said() {
    return [...this.#children].map(([name, child]) => `${name}${child.exitCode === null ? "" : ` (ended with ${child.exitCode})`}: ${child.said.slice(-600)}`).join("\n");
  }

  async end() {
    for (const name of [...this.#children.keys()].reverse()) await this.kill(name);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function parent(pid) {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  } catch {
    return 0;
  }
}

async function until(holds, what) {
  const end = Date.now() + 60_000;
  for (;;) {
    try {
      if (await holds()) return;
    } catch {
      // Not yet.
    }
    if (Date.now() > end) throw new Error(`gave up waiting for ${what}`);
    await sleep(100);
  }
}

function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}
