//! Every kind of Redis there is: with TLS and a password, as a Cluster, behind a Sentinel.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU32;

use penstock_local::RedisOptions;
use penstock_local::testing::{TestRedis, TestSentinel};
use penstock_replay::{Rate, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frames::Recording;
use crate::http::{self, LiveStream};
use crate::model;
use crate::rig::{Relay, Rig, eventually, relay_with};
use crate::service::Service;
use crate::tls::Authority;

/// What nobody but the processes and their Redis may see.
const PASSWORD: &str = "hunter2-of-the-test";

/// Events a second, so that there is a middle in which things happen.
const RATE: NonZeroU32 = NonZeroU32::new(400).unwrap();

/// One process of each service.
struct Fleet {
    ingest: Service,
    worker: Service,
    dashboard: Service,
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_private_authority_and_a_password_carry_everything() {
    let authority = Authority::new();
    let port = free_port();
    let mut arguments = authority.redis_arguments(port);
    arguments.extend(["--requirepass", PASSWORD].map(str::to_owned));
    let redis = redis(arguments).await;
    let mut rig = Rig::over(&[("REDIS_URL", &format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.port()))]).await;
    rig.migrate().await;
    let (mut relay, recording) = paced_relay(600).await;
    let plain: SocketAddr = relay.url.strip_prefix("ws://").unwrap().parse().unwrap();
    relay.url = format!("wss://{}", authority.before(plain).await);

    rig.set("REDIS_URL", &format!("rediss://:{PASSWORD}@127.0.0.1:{port}"));
    refused_by_redis(&rig, &relay, "UnknownIssuer").await;
    rig.set("SSL_CERT_FILE", &authority.certificate());
    rig.set("REDIS_URL", &format!("rediss://:not-{PASSWORD}@127.0.0.1:{port}"));
    refused_by_redis(&rig, &relay, "WRONGPASS").await;
    rig.set("REDIS_URL", &format!("rediss://127.0.0.1:{port}"));
    refused_by_redis(&rig, &relay, "NOAUTH").await;

    rig.set("REDIS_URL", &format!("rediss://:{PASSWORD}@127.0.0.1:{port}"));
    let fleet = Fleet::start(&rig, &relay).await;
    fleet.carried(&rig, &recording).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_carries_everything_while_the_pipelines_slot_moves_to_another_node() {
    let [first, second] = [cluster_node().await, cluster_node().await];
    let prefix = "{p}:";
    let slot = ask(first.port(), &format!("CLUSTER KEYSLOT {prefix}")).await;
    let slot: u16 = slot.strip_prefix(':').unwrap().parse().unwrap();
    // All of the pipeline's keys are where the address does not say; without any slot a node would become a replica.
    let (others, ours) = (format!("0 {} {} 16383", slot - 1, slot + 2), format!("{slot} {}", slot + 1));
    told(first.port(), &format!("CLUSTER ADDSLOTSRANGE {others}")).await;
    told(second.port(), &format!("CLUSTER ADDSLOTSRANGE {ours}")).await;
    told(second.port(), "CLUSTER SET-CONFIG-EPOCH 2").await;
    let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", second.port(), bus_port(&second).await);
    told(first.port(), &meet).await;
    eventually("the nodes are one cluster", async || {
        let seen = [ask(first.port(), "CLUSTER INFO").await, ask(second.port(), "CLUSTER INFO").await];
        let whole = ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:2"];
        seen.iter().all(|info| whole.iter().all(|part| info.contains(part)))
    })
    .await;
    // What a node does that holds nothing of the pipeline is none of its business.
    told(first.port(), "CONFIG SET maxmemory-policy allkeys-lru").await;

    let url = format!("redis-cluster://127.0.0.1:{}", first.port());
    let mut rig = Rig::over(&[("REDIS_URL", &url), ("PENSTOCK_REDIS_KEY_PREFIX", prefix)]).await;
    rig.migrate().await;
    let (relay, recording) = paced_relay(4_000).await;
    let fleet = Fleet::start(&rig, &relay).await;
    told(first.port(), "CONFIG SET maxmemory-policy noeviction").await;
    move_slot(slot, &second, &first).await;
    rig.reconnect().await;
    assert!(rig.cursor().await.unwrap() < recording.last, "the slot moved after everything was read");
    fleet.carried(&rig, &recording).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_hash_tag_is_refused_with_the_reason() {
    let mut rig = Rig::without_tables().await;
    rig.set("REDIS_URL", "redis-cluster://127.0.0.1:1");
    for (prefix, service) in [("", "ingest"), ("p:", "worker"), ("{}p:", "dashboard")] {
        rig.set("PENSTOCK_REDIS_KEY_PREFIX", prefix);
        let refused = rig.run(&[service]).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(64), "{said}");
        assert!(said.contains("redis.keyPrefix") && said.contains("must share a hash slot"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinels_failover_on_the_way_loses_and_doubles_nothing() {
    let primary = redis(["--repl-diskless-sync-delay", "0"].map(str::to_owned).into()).await;
    let replica = redis(["--replicaof", "127.0.0.1", &primary.port().to_string()].map(str::to_owned).into()).await;
    eventually("the replica is in step", async || ask(replica.port(), "ROLE").await.contains("connected")).await;
    let sentinel = TestSentinel::start("main", primary.port()).await.unwrap();
    // By itself it looks every 10 s, and the old primary stays one for another 8 s.
    told(sentinel.port(), "SENTINEL DEBUG INFO-PERIOD 100 PUBLISH-PERIOD 100").await;
    let url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", sentinel.port());
    let mut rig = Rig::over(&[("REDIS_URL", &url), ("PENSTOCK_WORKER_CLAIM_TIME", "500ms")]).await;
    rig.migrate().await;
    let (relay, recording) = paced_relay(4_000).await;

    rig.set("REDIS_URL", &replica.url());
    refused_by_redis(&rig, &relay, "is a read-only replica").await;
    rig.set("REDIS_URL", &url);
    let fleet = Fleet::start(&rig, &relay).await;
    eventually("the replica has what the primary has", async || {
        let groups = ask(replica.port(), &format!("XINFO GROUPS {}", rig.keys.stream())).await;
        ask(replica.port(), &format!("EXISTS {}", rig.keys.cursor())).await == ":1" && !groups.starts_with('-')
    })
    .await;
    eventually("the sentinel fails over", async || {
        ask(sentinel.port(), "SENTINEL FAILOVER main").await.starts_with("+OK")
    })
    .await;
    eventually("primary and replica change places", async || {
        // Who changes places drops its clients.
        let role = async |redis: &TestRedis| try_ask(redis.port(), "ROLE").await.unwrap_or_default();
        role(&replica).await.contains("master") && role(&primary).await.contains("slave")
    })
    .await;
    rig.reconnect().await;
    assert!(rig.cursor().await.unwrap() < recording.last, "the failover came after everything was read");
    fleet.carried(&rig, &recording).await;
}

// === impl Fleet ===

impl Fleet {
    /// Starts all services, and waits until events have come through to a client of the dashboard, and to the worker.
    async fn start(rig: &Rig, relay: &Relay) -> Self {
        rig.keep_stream().await;
        let dashboard = rig.start(&["dashboard"]);
        let mut live = LiveStream::open(dashboard.dashboard().await).await;
        live.wait_for("metrics").await;
        let (ingest, worker) = (rig.ingest(relay), rig.worker("w-1"));
        live.wait_for("event").await;
        eventually("the worker is on its way", async || {
            rig.group().await.is_some_and(|group| group.delivered != "0-0")
        })
        .await;
        Self { ingest, worker, dashboard }
    }

    /// Waits until everything is carried, and asserts that nothing is lost or doubled on the way.
    async fn carried(self, rig: &Rig, recording: &Recording) {
        rig.ingested(recording.last).await;
        rig.settled().await;
        self.worker.stop().await;
        rig.assert_stream_is(&recording.entries).await;
        rig.assert_result_is(&recording.entries, 1).await;
        let address = self.dashboard.dashboard().await;
        let total = model::event_counts(&recording.entries, 1)["totalEvents"];
        eventually("the dashboard has looked again", async || {
            let (status, shown) = http::get(address, "/api/metrics").await.unwrap();
            // While it does not get through it says so.
            if status != 200 {
                return false;
            }
            let shown: Value = serde_json::from_str(&shown).unwrap();
            shown["eventsProcessed"] == total
                && shown["firehoseStatus"]["connected"] == true
                && shown["firehoseStatus"]["currentCursor"] == json!(recording.last.to_string())
        })
        .await;
        for service in [&self.ingest, &self.dashboard] {
            assert!(!service.log().contains(PASSWORD), "a log holds the password");
        }
        self.ingest.stop().await;
        self.dashboard.stop().await;
    }
}

/// Asserts that no service gets to its Redis, and that each says why, and nothing that is secret.
async fn refused_by_redis(rig: &Rig, relay: &Relay, reason: &str) {
    let services = [
        ("waiting for redis", rig.ingest(relay)),
        ("startup step failed, retrying", rig.worker("w-1")),
        ("redis unavailable", rig.start(&["dashboard"])),
    ];
    for (message, service) in services {
        // One whose certificate is not trusted gives no answer at all.
        let is_said = |line: &str| line.contains(message) || line.contains("does not answer");
        eventually(reason, async || service.log().lines().any(|line| is_said(line) && line.contains(reason))).await;
        assert!(!service.log().contains(PASSWORD), "a log holds the password");
        service.stop().await;
    }
}

async fn paced_relay(total: u64) -> (Relay, Recording) {
    relay_with(Settings { total: Some(total), rate: Rate::PerSecond(RATE), ..Settings::default() }).await
}

async fn redis(extra: Vec<String>) -> TestRedis {
    TestRedis::start_with(RedisOptions { extra, ..RedisOptions::default() }).await.unwrap()
}

async fn cluster_node() -> TestRedis {
    // By itself the bus listens 10,000 above the port, which may be above all ports.
    let bus = free_port().to_string();
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "127.0.0.1"];
    redis(arguments.map(str::to_owned).into()).await
}

async fn bus_port(node: &TestRedis) -> u16 {
    let answer = ask(node.port(), "CONFIG GET cluster-port").await;
    answer.lines().last().unwrap().parse().unwrap()
}

/// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
async fn move_slot(slot: u16, from: &TestRedis, to: &TestRedis) {
    let id = async |node: &TestRedis| ask(node.port(), "CLUSTER MYID").await.lines().last().unwrap().to_owned();
    let (from_id, to_id) = (id(from).await, id(to).await);
    told(to.port(), &format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
    told(from.port(), &format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
    loop {
        let keys = ask(from.port(), &format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
        let keys: Vec<_> = keys.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
        if keys.is_empty() {
            break;
        }
        let migrate = format!("MIGRATE 127.0.0.1 {} \"\" 0 5000 KEYS {}", to.port(), keys.join(" "));
        let moved = ask(from.port(), &migrate).await;
        assert!(moved.starts_with("+OK") || moved.starts_with("+NOKEY"), "{moved}");
    }
    for node in [to, from] {
        told(node.port(), &format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
}

/// Tells a server something, and asserts that it does it.
async fn told(port: u16, command: &str) {
    let answer = ask(port, command).await;
    assert_eq!(answer, "+OK", "to {command}");
}

/// Asks a server, and returns its answer as it came.
async fn ask(port: u16, command: &str) -> String {
    try_ask(port, command).await.unwrap()
}

async fn try_ask(port: u16, command: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    socket.write_all(format!("{command}\r\n").as_bytes()).await?;
    socket.shutdown().await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
