//! What each service says while one of its servers is killed or frozen, and when it is back, counted line by line.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use penstock_local::testing::{TestPostgres, TestRedis};
use penstock_local::{Persistence, RedisOptions};
use serde_json::Value;
use tokio::time::sleep;

use crate::redis_kinds::free_port;
use crate::rig::{Rig, eventually};
use crate::service::Service;
use crate::traces::collector::{Collector, HEADER};

/// Events a second.
const RATE: u64 = 100;

/// The most warnings and errors of one service in the first minute of an outage.
const MOST: usize = 3;

/// How long it is waited after a recovery for a line too many.
const AFTER: Duration = Duration::from_secs(5);

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Killed,
    Frozen,
}

/// The servers, in the words of the log.
const SITUATIONS: [(&str, Blow); 7] = [
    ("relay", Blow::Killed),
    ("relay", Blow::Frozen),
    ("redis", Blow::Killed),
    ("redis", Blow::Frozen),
    ("postgresql", Blow::Killed),
    ("postgresql", Blow::Frozen),
    ("collector", Blow::Killed),
];

/// Who has to say something of which server.
fn is_concerned(service: &str, server: &str) -> bool {
    match server {
        "relay" => service == "ingest",
        // Ingest asks it only where Redis lost its data.
        "postgresql" => service != "ingest",
        _ => true,
    }
}

/// Everything around the services.
struct Stage {
    rig: Rig,
    redis: TestRedis,
    postgres: TestPostgres,
    relay: Option<Service>,
    relay_port: u16,
    collector: Option<Collector>,
    collector_port: u16,
}

/// A line of a log.
#[derive(Debug)]
struct Line {
    level: String,
    text: String,
}

// === impl Stage ===

impl Stage {
    async fn new() -> Self {
        let options = RedisOptions { persistence: Persistence::Aof, ..RedisOptions::default() };
        let redis = TestRedis::start_with(options).await.unwrap();
        let postgres = TestPostgres::start().await.unwrap();
        let database = postgres.create_database("outages").await.unwrap();
        let mut rig = Rig::between(&[("REDIS_URL", &redis.url())], &database).await;
        rig.migrate().await;
        let (relay_port, collector_port) = (free_port(), free_port());
        rig.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{collector_port}"));
        rig.set("OTEL_EXPORTER_OTLP_HEADERS", &format!("{}={}", HEADER.0, HEADER.1));
        rig.set("PENSTOCK_TELEMETRY_OTLP_METRICS", "true");
        rig.set("PENSTOCK_TELEMETRY_OTLP_METRICS_INTERVAL", "1s");
        rig.set("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "1");
        rig.set("PENSTOCK_TELEMETRY_SUMMARY_INTERVAL", "0s");
        rig.set("PENSTOCK_RELAY_URLS", &format!("ws://127.0.0.1:{relay_port}"));
        rig.set("PENSTOCK_RELAY_DATA_TIMEOUT", "5s");
        let collector = Some(Collector::grpc_on(collector_port).await);
        let mut stage = Self { rig, redis, postgres, relay: None, relay_port, collector, collector_port };
        stage.start_relay(0);
        stage
    }

    fn start_relay(&mut self, backlog: u64) {
        let (address, backlog) = (format!("127.0.0.1:{}", self.relay_port), backlog.to_string());
        let words = ["replay", "--address", &address, "--rate", &RATE.to_string(), "--backlog", &backlog];
        self.relay = Some(self.rig.start(&words));
    }

    /// What the log must hold of this server.
    fn address(&self, server: &str) -> String {
        let port = match server {
            "relay" => self.relay_port,
            "redis" => self.redis.port(),
            "postgresql" => self.postgres.port(),
            _ => self.collector_port,
        };
        format!("127.0.0.1:{port}")
    }

    async fn strike(&mut self, server: &str, blow: Blow) {
        match (server, blow) {
            ("relay", Blow::Killed) => self.relay.take().unwrap().kill().await,
            ("redis", Blow::Killed) => self.redis.kill(),
            ("postgresql", Blow::Killed) => self.postgres.kill(),
            ("collector", _) => self.collector = None,
            _ => self.signal(server, Signal::SIGSTOP),
        }
    }

    async fn mend(&mut self, server: &str, blow: Blow, outage: Duration) {
        match (server, blow) {
            // What came meanwhile is there.
            ("relay", Blow::Killed) => self.start_relay((outage.as_secs() + 60) * RATE),
            ("redis", Blow::Killed) => self.redis.restart().await.unwrap(),
            ("postgresql", Blow::Killed) => self.postgres.restart().await.unwrap(),
            ("collector", _) => self.collector = Some(Collector::grpc_on(self.collector_port).await),
            _ => self.signal(server, Signal::SIGCONT),
        }
    }

    /// Sends a signal to a server and its children.
    fn signal(&self, server: &str, signal: Signal) {
        let pid = match server {
            "relay" => self.relay.as_ref().unwrap().pid(),
            "redis" => self.redis.pid(),
            _ => self.postgres.pid(),
        };
        let pid = pid.unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        for pid in std::iter::once(pid).chain(children) {
            // A child may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

// === impl Line ===

impl Line {
    /// Reads what a service has said from a byte of its log on.
    fn read(service: &Service, from: usize) -> Vec<Self> {
        let log = service.log();
        let parsed = log[from..].lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        parsed.map(|line| Self { level: text(&line, "level").to_uppercase(), text: line.to_string() }).collect()
    }

    fn is_warning(&self) -> bool {
        matches!(&*self.level, "WARN" | "ERROR")
    }

    fn is_recovery(&self, server: &str) -> bool {
        self.level == "INFO" && self.text.contains(&format!("{server} answers again after "))
    }
}

/// Strikes each server for so long, and counts what each service says.
async fn count_lines(outage: Duration) {
    let mut stage = Stage::new().await;
    let services = [
        ("ingest", stage.rig.start(&["ingest"])),
        ("worker", stage.rig.worker("w-1")),
        ("dashboard", stage.rig.start(&["dashboard"])),
    ];
    let [(_, ingest), (_, worker), (_, dashboard)] = &services;
    ingest.says("connected to the relay").await;
    worker.says("worker started").await;
    dashboard.says("redis connected").await;
    eventually("events are applied", async || worker.metric("penstock_worker_entries_acked_total").await > 100.0).await;
    let mut table = format!(
        "| Server | Outage of {} s | Service | WARN and ERROR | Recovery |\n|---|---|---|---|---|\n",
        outage.as_secs()
    );
    let (mut said, mut wrong) = (String::new(), String::new());
    for (server, blow) in SITUATIONS {
        let starts = services.each_ref().map(|(_, service)| service.log().len());
        stage.strike(server, blow).await;
        sleep(outage).await;
        let during = services.each_ref().map(|(_, service)| service.log().len());
        stage.mend(server, blow, outage).await;
        for ((name, service), from) in services.iter().zip(starts) {
            if is_concerned(name, server) {
                let back = async || Line::read(service, from).iter().any(|line| line.is_recovery(server));
                eventually(&format!("{name} says that {server} is back, {blow:?}"), back).await;
            }
        }
        sleep(AFTER).await;
        for (((name, service), from), until) in services.iter().zip(starts).zip(during) {
            let all = Line::read(service, from);
            let first: Vec<_> = {
                let log = service.log();
                let in_outage = log[from..until].lines().count();
                all.iter().take(in_outage).filter(|line| line.is_warning()).collect()
            };
            let warnings: Vec<_> = all.iter().filter(|line| line.is_warning()).collect();
            let back = all.iter().filter(|line| line.is_recovery(server)).count();
            let blow = format!("{blow:?}").to_lowercase();
            writeln!(table, "| {server} | {blow} | {name} | {} | {back} |", warnings.len()).unwrap();
            let lines = all.iter().filter(|line| line.is_warning() || line.is_recovery(server));
            lines.for_each(|line| writeln!(said, "{name}: {}", line.text).unwrap());
            let is_addressed = first.first().is_some_and(|line| {
                line.text.contains(&stage.address(server)) && line.text.contains("does not answer")
            });
            let is_right = match is_concerned(name, server) {
                true => is_addressed && warnings.len() <= MOST && back == 1,
                false => warnings.is_empty() && back == 0,
            };
            if !is_right {
                writeln!(wrong, "{server} {blow}, {name}: {warnings:#?}").unwrap();
                let recoveries = all.iter().filter(|line| line.is_recovery(server));
                recoveries.for_each(|line| writeln!(wrong, "{}", line.text).unwrap());
            }
        }
    }
    println!("{table}\n{said}");
    // Who is asked to end while Redis is away does so, and calls nothing an error.
    let starts = services.each_ref().map(|(_, service)| service.log().len());
    stage.strike("redis", Blow::Killed).await;
    for ((name, service), from) in services.into_iter().zip(starts) {
        eventually("it says that redis is away", async || service.log()[from..].contains("does not answer")).await;
        service.terminate();
        let log = service.path();
        service.ended().await;
        let log = fs::read_to_string(log).unwrap();
        let said: Vec<_> =
            log[from..].lines().filter(|line| line.to_uppercase().contains("\"LEVEL\":\"ERROR\"")).collect();
        if !said.is_empty() {
            writeln!(wrong, "{name} at its end: {said:#?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_at_most_three_lines_with_the_address_and_one_of_recovery() {
    Box::pin(count_lines(Duration::from_secs(15))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes: make outages"]
async fn outage_suite() {
    Box::pin(count_lines(Duration::from_secs(65))).await;
}
