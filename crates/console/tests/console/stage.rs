//! A dashboard that runs, and what ingest and workers leave in its Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{HashesInterface, KeysInterface, PubsubInterface, StreamsInterface};
use fred::types::Expiration;
use jiff::Timestamp;
use penstock_core::settings::{Layers, Settings};
use penstock_dashboard::DashboardError;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A dashboard that runs until it is ended.
pub(crate) struct Dashboard {
    pub(crate) address: SocketAddr,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), DashboardError>>,
}

/// What ingest and one worker would write, in their place; each can be ended.
pub(crate) struct Crew {
    pub(crate) client: Client,
    pub(crate) settings: Arc<Settings>,
    pub(crate) ingests: Arc<AtomicBool>,
    pub(crate) works: Arc<AtomicBool>,
    _end: DropGuard,
}

pub(crate) fn settings(redis_url: &str, flags: &[(&str, &str)]) -> Arc<Settings> {
    let layers = Layers::default()
        .flag("redis.url", redis_url)
        .flag("redis.commandTimeout", "2s")
        .flag("dashboard.address", "127.0.0.1:0")
        .flag("dashboard.metricsInterval", "200ms")
        .flag("worker.claimTime", "1s");
    let layers = flags.iter().fold(layers, |layers, (path, value)| layers.flag(path, *value));
    Arc::new(Settings::load(&layers).unwrap())
}

/// Waits until it is so, for at most a minute.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === impl Dashboard ===

impl Dashboard {
    pub(crate) fn start(settings: Arc<Settings>) -> Self {
        let server = penstock_dashboard::bind(settings).unwrap();
        let (address, cancel) = (server.local_addr(), CancellationToken::new());
        let task = tokio::spawn(server.run(Metrics::new(), Health::new(), cancel.clone()));
        Self { address, cancel, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn end(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }
}

// === impl Crew ===

impl Crew {
    /// Starts to write, 20 times a second.
    pub(crate) async fn start(settings: Arc<Settings>) -> Self {
        let client = penstock_core::redis::connect(&settings).await.unwrap();
        let keys = settings.keys.clone();
        let () = client.xgroup_create(keys.stream(), keys.group(), "0", true).await.unwrap();
        let cancel = CancellationToken::new();
        let (ingests, works) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let (does_ingest, does_work) = (Arc::clone(&ingests), Arc::clone(&works));
        let (writer, end) = (client.clone(), cancel.clone());
        tokio::spawn(async move {
            for number in 1_u64.. {
                if end.is_cancelled() {
                    return;
                }
                // A Redis that is away is what some tests are about.
                if does_ingest.load(Ordering::Relaxed) {
                    let status =
                        json!({"connected": true, "url": "wss://relay.test", "currentCursor": number.to_string()});
                    let _: Result<(), _> =
                        writer.set(keys.status(), status.to_string(), Some(Expiration::EX(10)), None, false).await;
                    let _: Result<(), _> =
                        writer.hset(keys.ingest_state(), ("eventTime", Timestamp::now().to_string())).await;
                    let fields = vec![("type", "commit"), ("data", "{}"), ("seq", "1")];
                    let _: Result<(), _> = writer.xadd(keys.stream(), false, ("MAXLEN", "~", 1000), "*", fields).await;
                    let _: Result<(), _> = writer.publish(keys.broadcast(), event(number).to_string()).await;
                }
                if does_work.load(Ordering::Relaxed) {
                    let pulse = keys.consumer_pulse("w-1");
                    let _: Result<(), _> = writer.set(pulse, 1, Some(Expiration::PX(2_000)), None, false).await;
                    let read: Result<fred::types::Value, _> =
                        writer.xreadgroup(keys.group(), "w-1", Some(1000), None, true, keys.stream(), ">").await;
                    drop(read);
                    let _: Result<(), _> = writer.hincrby(keys.cluster_metrics(), "totalEvents", 1).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { client, settings, ingests, works, _end: cancel.drop_guard() }
    }
}

/// Returns one event as ingest broadcasts it.
pub(crate) fn event(number: u64) -> Value {
    let lexicon = if number.is_multiple_of(2) { "app.bsky.feed.post" } else { "app.bsky.graph.follow" };
    json!({
        "type": "#commit", "lexicon": lexicon, "did": format!("did:plc:{number}"), "action": "create",
        "timestamp": "12:00:00",
    })
}
