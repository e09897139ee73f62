// Runs the pipeline on the bundled recording, a real Prometheus that scrapes it and loads the alerts, and asks every query of every
// dashboard and alert. What is wrong only now and then is made to go wrong: a connection is cut, a frame is damaged, something else writes the
// cursor, PostgreSQL ends connections. The operator runs against an API server without nodes where scripts/envtest.sh finds one; else without any, and
// what it counts by reason is then not there.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const BINARY = process.env.PENSTOCK_BIN;
const RULES = resolve("deploy/alerts/penstock.rules.yaml");
const DASHBOARDS = resolve("deploy/grafana");

// Counted only where identities are resolved, or once a repo has missed something: that they exist is said by their definitions.
const RARE = ["penstock_ingest_desynchronized_total", "penstock_identity_requests_total", "penstock_identity_cache_total", "penstock_repo_requests_total",
  "penstock_ingest_filtered_total", "penstock_heal_repairs_total", "penstock_heal_records_total", "penstock_heal_differences_total"];
const METRICS = readFileSync("crates/telemetry/src/metrics/definitions.rs", "utf8");
// Counted by reason, and so not there before the first; an operator without a cluster never comes so far.
const NEEDS_A_CLUSTER = ["penstock_operator_decisions_total", "penstock_operator_reconcile_errors_total"];
// Queries that find nothing while all is well, or with fewer than a hundred clients; and without a cluster.
// Identities are off here, and no commit of the recording fails.
const MAY_BE_EMPTY =
  /ALERTS\{|memory_limit_bytes\{.*> 0|changes\(process_start_time|> 100\)|penstock_identity_|penstock_ingest_desynchronized_total|penstock_heal_(records|differences|repairs)_total|penstock_heal_oldest_proof|penstock_heal_proven|penstock_repo_requests|penstock_ingest_filtered_total|result=~"failed\|refused"/;
const EMPTY_WITHOUT_A_CLUSTER = /penstock_operator_(decisions|reconcile|scaling)_/;
// The recording makes one entry in 583 fail; the rest is what this test breaks.
const MAY_FIRE = ["PenstockDeadLetters", "PenstockGap", "PenstockOperatorNoLeader"];

const started = Date.now();
const work = mkdtempSync(join(tmpdir(), "penstock-observability-"));
// PostgreSQL runs as a user of its own.
chmodSync(work, 0o755);
const children = [];

function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options, env: { ...process.env, ...options.env } });
  child.text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (child.text += data));
  child.gone = new Promise((done) => child.on("exit", done).on("error", done));
  children.push(child);
  return child;
}

async function stop(child) {
  if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await child.gone;
  clearTimeout(late);
}

/** Asks until there is an answer; what is thrown counts as none. */
async function until(what, ask, seconds = 90) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    const ended = children.find((child) => child.exitCode !== null);
    if (ended) throw new Error(`${ended.spawnargs[1]} has ended`);
    if (Date.now() > deadline) throw new Error(`gave up waiting for ${what}`, { cause: last });
    await new Promise((done) => setTimeout(done, 250));
  }
}

const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

/** Sends one command to Redis, and returns the start of its answer. */
const redis = (port, ...words) =>
  new Promise((done, failed) => {
    const socket = connect(port, "127.0.0.1", () =>
      socket.write(`*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`),
    );
    socket.on("error", failed).once("data", (data) => {
      socket.end();
      done(data.toString());
    });
  });

/** Stands between relay and ingest: `cut` ends the connections, `damage` changes a byte of the next large piece. */
async function between(relayPort) {
  const sockets = new Set();
  let isDamaging = false;
  const server = createServer((client) => {
    const upstream = connect(relayPort, "127.0.0.1");
    for (const [socket, other] of [[client, upstream], [upstream, client]]) {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", () => other.destroy());
    }
    client.pipe(upstream);
    upstream.on("data", (data) => {
      if (isDamaging && data.length > 2000) {
        data[data.length >> 1] ^= 0xff;
        isDamaging = false;
      }
      client.write(data);
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: server.address().port,
    damage: () => (isDamaging = true),
    cut: () => sockets.forEach((socket) => socket.destroy()),
  };
}

/** Starts an API server with two pipelines, of which one names a Secret that is not there; returns how to reach it. */
async function cluster(redisPort, postgresPort) {
  let programs;
  try {
    programs = execFileSync("scripts/envtest.sh", ["--find"], { stdio: ["ignore", "pipe", "ignore"] }).toString().trim();
  } catch {
    return { address: "http://127.0.0.1:9" };
  }
  const [store, peer, port] = await Promise.all([freePort(), freePort(), freePort()]);
  const key = join(work, "accounts.key");
  execFileSync("openssl", ["genrsa", "-out", key, "2048"], { stdio: "ignore" });
  writeFileSync(join(work, "tokens"), "admin,admin,admin,system:masters\n");
  start(join(programs, "etcd"), ["--data-dir", join(work, "etcd"), "--unsafe-no-fsync",
    "--listen-client-urls", `http://127.0.0.1:${store}`, "--advertise-client-urls", `http://127.0.0.1:${store}`,
    "--listen-peer-urls", `http://127.0.0.1:${peer}`, "--initial-advertise-peer-urls", `http://127.0.0.1:${peer}`,
    "--initial-cluster", `default=http://127.0.0.1:${peer}`]);
  start(join(programs, "kube-apiserver"), ["--etcd-servers", `http://127.0.0.1:${store}`, "--bind-address", "127.0.0.1", "--secure-port", port,
    "--cert-dir", join(work, "certs"), "--token-auth-file", join(work, "tokens"), "--authorization-mode", "RBAC",
    "--disable-admission-plugins", "ServiceAccount", "--service-account-issuer", "https://test", "--service-account-key-file", key,
    "--service-account-signing-key-file", key, "--service-cluster-ip-range", "10.0.0.0/24"]);
  const found = { address: `https://127.0.0.1:${port}`, isReal: true };
  writeKubeconfig(found);
  const kubectl = (words, input) =>
    execFileSync(join(programs, "kubectl"), ["--kubeconfig", kubeconfig, ...words], { input, stdio: ["pipe", "ignore", "ignore"] });
  await until("the API server", () => kubectl(["apply", "--server-side", "-f", "crds/"]) || true);
  const pipeline = (name, redis) => ({
    apiVersion: "penstock.dev/v1alpha1", kind: "FirehosePipeline", metadata: { name, namespace: "default" },
    spec: { redis, postgres: { url: `postgres://penstock@127.0.0.1:${postgresPort}/penstock` } },
  });
  const items = [
    pipeline("bluesky", { url: `redis://127.0.0.1:${redisPort}` }),
    pipeline("broken", { urlSecret: { name: "not-there", key: "url" } }),
  ];
  await until("the pipelines", () => kubectl(["apply", "-f", "-"], JSON.stringify({ apiVersion: "v1", kind: "List", items })) || true);
  const change = () => kubectl(["patch", "fhp", "bluesky", "--type=merge", "--patch", '{"spec":{"workers":{"batchSize":500}}}']);
  return { ...found, change };
}

const kubeconfig = join(work, "kubeconfig");
function writeKubeconfig({ address }) {
  writeFileSync(kubeconfig, JSON.stringify({
    apiVersion: "v1", kind: "Config", "current-context": "test",
    clusters: [{ name: "test", cluster: { server: address, ...(address.startsWith("https") && { "insecure-skip-tls-verify": true }) } }],
    users: [{ name: "admin", user: { token: "admin" } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
  }));
}

async function main() {
  // === what runs ===

  const [relayPort, operatorPort, prometheusPort, dashboardPort, healerPort] = await Promise.all([1, 2, 3, 4, 5].map(freePort));
  start(BINARY, ["replay", "--address", `127.0.0.1:${relayPort}`, "--rate", "500", "--start-time", "now"]);
  await until("the relay", () => fetch(`http://127.0.0.1:${relayPort}/`).then(() => true));
  const relay = await between(relayPort);
  // Every event is traced, to a collector that is away: what leads from a histogram to a trace is there all the same.
  const quick = ["telemetry.otlpEndpoint=http://127.0.0.1:9", "telemetry.sampleRatio=1", "messageBuffer.enabled=true",
    "relay.backoffMin=100ms", "relay.backoffMax=1s", "dashboard.address=127.0.0.1:" + dashboardPort];
  const run = start(BINARY, ["run", "--data", join(work, "data"), "--relay", `ws://127.0.0.1:${relay.port}`, ...quick.flatMap((set) => ["--set", set])]);
  const address = await until("penstock run", () => run.text.match(/metrics +http:\/\/([0-9.:]+)\//)?.[1]);
  const redisPort = run.text.match(/redis +redis:\/\/127.0.0.1:(\d+)/)[1];
  const [, postgresPort] = run.text.match(/postgres +postgres:\/\/[^@]*@127.0.0.1:(\d+)/);
  const kubernetes = await cluster(redisPort, postgresPort);
  writeKubeconfig(kubernetes);
  start(BINARY, ["operator"], {
    env: {
      KUBECONFIG: kubeconfig, ADMIN_ADDRESS: `127.0.0.1:${operatorPort}`, PENSTOCK_OPERATOR_ADDRESS: "127.0.0.1:0",
      PENSTOCK_IMAGE: "localhost/penstock:test",
    },
  });
  // No host of the recording's accounts is there: the healer tries each again.
  const password = readFileSync(join(work, "data/postgres/password"), "utf8").trim();
  start(BINARY, ["heal"], {
    env: {
      REDIS_URL: `redis://127.0.0.1:${redisPort}`, DATABASE_URL: `postgres://penstock:${password}@127.0.0.1:${postgresPort}/penstock`,
      ADMIN_ADDRESS: `127.0.0.1:${healerPort}`, PENSTOCK_IDENTITY_PLC_URL: "http://127.0.0.1:9", PENSTOCK_IDENTITY_ALLOWED_NETWORKS: "127.0.0.0/8",
    },
  });
  // The configuration of deploy/observability, told the pods by a file in the place of the API server, which Debian's Prometheus cannot ask:
  // ours, one of somebody else, one that has ended, and the port of the dashboard's page.
  const pod = (address, namespace, name, instance, component, more = {}) => {
    const meta = {
      namespace, pod_name: name, pod_phase: "Running", pod_container_port_name: "metrics", pod_label_app_kubernetes_io_part_of: "penstock",
      pod_label_app_kubernetes_io_instance: instance, pod_label_app_kubernetes_io_component: component, ...more,
    };
    return { targets: [address], labels: Object.fromEntries(Object.entries(meta).map(([key, value]) => [`__meta_kubernetes_${key}`, value])) };
  };
  const pods = join(work, "pods.json");
  writeFileSync(pods, JSON.stringify([
    pod(address, "firehose", "bluesky-worker-0", "bluesky", "worker"),
    pod(`127.0.0.1:${operatorPort}`, "penstock", "penstock-operator-0", "penstock", "operator"),
    pod(`127.0.0.1:${healerPort}`, "firehose", "bluesky-heal-0", "bluesky", "heal"),
    pod("127.0.0.1:1", "firehose", "other-0", "other", "worker", { pod_label_app_kubernetes_io_part_of: "other" }),
    pod("127.0.0.1:2", "firehose", "bluesky-worker-1", "bluesky", "worker", { pod_phase: "Failed" }),
    pod("127.0.0.1:3", "firehose", "bluesky-dashboard-0", "bluesky", "dashboard", { pod_container_port_name: "http" }),
  ]));
  const config = join(work, "prometheus.yaml");
  writeFileSync(config, readFileSync("deploy/observability/config/prometheus.yaml", "utf8")
    .replace("kubernetes_sd_configs: [{role: pod}]", `file_sd_configs: [{files: [${pods}]}]`)
    .replace("{scrape_interval: 15s, evaluation_interval: 30s}", "{scrape_interval: 1s, evaluation_interval: 2s}")
    .replace(/rule_files: .*/, `rule_files: [${RULES}]`));
  start("prometheus", [
    `--config.file=${config}`, `--storage.tsdb.path=${join(work, "tsdb")}`, `--web.listen-address=127.0.0.1:${prometheusPort}`,
    "--enable-feature=exemplar-storage", "--log.level=warn",
  ]);
  const api = async (path, query = {}) => {
    const answer = await fetch(`http://127.0.0.1:${prometheusPort}/api/v1/${path}`, { method: "POST", body: new URLSearchParams(query) });
    const { status, data, error } = await answer.json();
    assert.equal(status, "success", `${error}: ${JSON.stringify(query)}`);
    return data;
  };
  const get = async (path) => (await (await fetch(`http://127.0.0.1:${prometheusPort}/api/v1/${path}`)).json()).data;
  const value = async (query) => Number((await api("query", { query })).result[0]?.value[1] ?? 0);
  // A client for the live streams, and one for the API.
  const live = new AbortController();
  const page = `http://127.0.0.1:${dashboardPort}`;
  fetch(`${page}/api/events/stream`, { signal: live.signal }).then((answer) => answer.body.pipeTo(new WritableStream())).catch(() => {});
  const asking = setInterval(() => fetch(`${page}/api/metrics`).then((answer) => answer.text()).catch(() => {}), 500);

  // === what goes wrong ===

  await until("entries in PostgreSQL", () => value("penstock_worker_entries_acked_total > 500"));
  await redis(redisPort, "SET", "firehose:python_cursor", "77");
  await until("a refused batch", () => value("penstock_ingest_publishes_refused_total > 0"));
  const [psql] = execFileSync("sh", ["-c", "command -v psql || ls /usr/lib/postgresql/*/bin/psql"]).toString().split("\n");
  // A lock makes a worker's transaction wait, so that there is always one to end. A first end is made good on another connection
  // at once, which is no retry: the one after it is ended as well.
  const end = `SELECT pg_sleep(1); SELECT pg_stat_clear_snapshot();
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid();`;
  const lockAndEnd = `BEGIN; LOCK TABLE likes IN SHARE MODE; ${end} ${end} COMMIT`;
  await until("a transaction tried again", () => {
    execFileSync(psql, ["-h", "127.0.0.1", "-p", postgresPort, "-U", "penstock", "-qAtc", lockAndEnd, "penstock"],
      { env: { ...process.env, PGPASSWORD: password }, stdio: ["ignore", "ignore", "ignore"] });
    return value("penstock_worker_retries_total > 0");
  });
  relay.cut();
  await until("a connection given up", () => value("penstock_ingest_reconnects_total > 0"));
  await until("the relay again", () => value("penstock_ingest_connected > 0"));
  await until("a damaged frame", () => {
    relay.damage();
    return value("penstock_ingest_frames_refused_total > 0");
  });
  if (kubernetes.isReal) {
    await until("a decision", () => value("sum(penstock_operator_decisions_total) > 1"));
    kubernetes.change();
  }
  // Rates need some scrapes of calm after it.
  const calm = Date.now();
  await until("calm", () => Date.now() > calm + 12_000);

  // === what is asked ===

  const filled = (query) =>
    query.replaceAll("$namespace", ".*").replaceAll("$pipeline", ".*").replaceAll("$__rate_interval", "40s").replaceAll("$__interval", "10s");
  const names = readdirSync(DASHBOARDS).filter((name) => name.endsWith(".json"));
  assert.ok(names.length >= 5, `dashboards: ${names}`);
  const files = names.map((name) => [name, JSON.parse(readFileSync(join(DASHBOARDS, name), "utf8"))]);
  const wrong = [];
  let queries = 0;
  const now = Date.now() / 1000;
  for (const [name, { panels, annotations, templating }] of files) {
    const asked = panels.flatMap((panel) => (panel.targets ?? []).map((target) => [panel.title, target.expr]));
    asked.push(...annotations.list.map((annotation) => [annotation.name, annotation.expr]));
    for (const [title, expr] of asked) {
      queries += 1;
      try {
        const { result } = await api("query_range", { query: filled(expr), start: now - 30, end: now, step: 5 });
        const isNumber = result.some((series) => series.values.some(([, value]) => value !== "NaN"));
        const isExcused = MAY_BE_EMPTY.test(expr) || (!kubernetes.isReal && EMPTY_WITHOUT_A_CLUSTER.test(expr));
        if (!isNumber && !isExcused) wrong.push(`${name}, ${title}: no data: ${expr}`);
      } catch (error) {
        wrong.push(`${name}, ${title}: ${error.message}`);
      }
    }
    for (const { name: variable, definition } of templating.list.filter(({ type }) => type === "query")) {
      const [, selector, label] = definition.match(/^label_values\((.*), (\w+)\)$/);
      const { result } = await api("query", { query: `group by (${label}) (${filled(selector)})` });
      if (!result.some(({ metric }) => metric[label])) wrong.push(`${name}: the variable ${variable} has no value`);
    }
  }

  const found = (await get("targets?state=active")).activeTargets.filter(({ scrapePool }) => scrapePool === "penstock").map(({ labels }) => labels);
  assert.deepEqual(found.map(({ instance, ...labels }) => labels).sort((a, b) => a.pod.localeCompare(b.pod)), [
    { job: "penstock", namespace: "firehose", pipeline: "bluesky", component: "heal", pod: "bluesky-heal-0" },
    { job: "penstock", namespace: "firehose", pipeline: "bluesky", component: "worker", pod: "bluesky-worker-0" },
    { job: "penstock", namespace: "penstock", component: "operator", pod: "penstock-operator-0" },
  ]);

  const exemplars = await api("query_exemplars", {
    query: "penstock_ingest_frame_to_published_seconds_bucket", start: now - 60, end: now,
  });
  if (!exemplars.some((series) => series.exemplars.some(({ labels }) => /^[0-9a-f]{32}$/.test(labels.trace_id)))) wrong.push("no exemplar names a trace");

  // A name that is asked for is one that was scraped.
  const scraped = new Set(await get("label/__name__/values"));
  const text = [RULES, ...names.map((name) => join(DASHBOARDS, name))].map((path) => readFileSync(path, "utf8")).join("\n");
  const asked = new Set(text.match(/\b(penstock|process)_[a-z_]+/g).filter((name) => !name.endsWith("_")));
  for (const name of asked) {
    const isRare = RARE.includes(name) && METRICS.includes(`"${name}"`);
    if (!scraped.has(name) && !isRare && (kubernetes.isReal || !NEEDS_A_CLUSTER.includes(name))) wrong.push(`no scrape shows ${name}`);
  }
  const definitions = readFileSync("crates/telemetry/src/metrics/definitions.rs", "utf8");
  for (const name of NEEDS_A_CLUSTER) assert.ok(definitions.includes(`"${name}"`), `no metric is called ${name}`);

  const { groups } = await get("rules");
  const rules = groups.flatMap((group) => group.rules);
  const alerts = readFileSync(RULES, "utf8").match(/^ *- alert: /gm).length;
  assert.equal(rules.length, alerts, "Prometheus has other rules than the file");
  for (const rule of rules) {
    if (rule.health !== "ok") wrong.push(`${rule.name}: ${rule.health} ${rule.lastError ?? ""}`);
    const fires = rule.alerts.some(({ state }) => state === "firing");
    if (fires && !MAY_FIRE.includes(rule.name)) wrong.push(`${rule.name} fires: ${JSON.stringify(rule.alerts[0])}`);
  }
  assert.ok(rules.find(({ name }) => name === "PenstockDeadLetters").alerts.length > 0, "no dead letter is told of");

  clearInterval(asking);
  live.abort();
  assert.deepEqual(wrong, [], "dashboards and alerts against the pipeline");
  const seconds = Math.round((Date.now() - started) / 1000);
  console.log(`observability: ${queries} queries of ${files.length} dashboards, ${alerts} alerts and ${asked.size} names passed in ${seconds} s`);
  if (!kubernetes.isReal) console.log(`observability: not seen without an API server (make envtest): ${NEEDS_A_CLUSTER.join(", ")}`);
}

let failed;
const interrupted = new Promise((_, fail) => {
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => fail(new Error(`ended by ${signal}`)));
});
try {
  await Promise.race([main(), interrupted]);
} catch (error) {
  failed = error;
}
for (const child of children.reverse()) await stop(child);
if (failed) {
  for (const child of children) console.error(`--- ${child.spawnargs.slice(0, 3).join(" ")}\n${child.text.slice(-2000)}`);
  console.error("observability: FAILED:", failed);
}
rmSync(work, { recursive: true, force: true });
process.exit(failed ? 1 : 0);
