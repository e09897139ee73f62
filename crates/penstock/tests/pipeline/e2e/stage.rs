//! What stands beside the cluster: a relay, a Redis and a PostgreSQL on this machine, where pods reach them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use std::{env, fs};

use jiff::Timestamp;
use penstock_local::testing::{TempFolder, TestPostgres, TestRedis};
use penstock_local::{PostgresOptions, RedisOptions};
use penstock_replay::Settings;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::cluster::Cluster;
use crate::frames::Recording;
use crate::rig::Rig;
use crate::service::Service;

/// How many events the relay has, where EVENTS says nothing else.
const TOTAL: u64 = 160_000;

/// Events a second.
const RATE: NonZeroU32 = NonZeroU32::new(2_000).unwrap();

/// A cluster, servers that it reaches, and the rig that looks at them.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) rig: Rig,
    host: IpAddr,
    _redis: TestRedis,
    _postgres: TestPostgres,
    _folder: TempFolder,
}

/// `penstock replay` with a clock.
pub(super) struct Relay {
    pub(super) url: String,
    pub(super) total: u64,
    since: Instant,
    settings: Settings,
    _process: Service,
}

// === impl Stage ===

impl Stage {
    /// Starts the servers, and tells the cluster where they are.
    pub(super) async fn set() -> Self {
        let host: IpAddr = env::var("HOST_ADDRESS").unwrap().parse().unwrap();
        let listen = ["127.0.0.1".to_owned(), host.to_string()];
        let extra = ["--bind", &listen[0], &listen[1], "--protected-mode", "no"].map(str::to_owned).to_vec();
        let redis = TestRedis::start_with(RedisOptions { extra, ..RedisOptions::default() }).await.unwrap();
        let folder = TempFolder::new().unwrap();
        let access = folder.path().join("pg_hba.conf");
        fs::write(&access, "host all all all scram-sha-256\n").unwrap();
        let settings = [("listen_addresses", listen.join(",")), ("hba_file", access.display().to_string())];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let options = PostgresOptions { durable: false, settings, ..PostgresOptions::default() };
        let postgres = TestPostgres::start_with(options).await.unwrap();

        let cluster = Cluster::new().await;
        let of_pods = |url: String| url.replace("127.0.0.1", &host.to_string());
        cluster.secret("penstock-dev-redis", &of_pods(redis.url())).await;
        cluster.secret("penstock-dev-postgres", &of_pods(postgres.url())).await;
        let rig = Rig::between(&[("REDIS_URL", &redis.url())], &postgres.url()).await;
        rig.keep_stream().await;
        Self { cluster, rig, host, _redis: redis, _postgres: postgres, _folder: folder }
    }

    /// The minimal sample, with a relay of ours, and scaled so that a short run shows it.
    pub(super) fn pipeline(&self, relay: &str, policy: &str) -> String {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/samples/minimal.yaml");
        let sample = fs::read_to_string(sample).unwrap();
        format!(
            r#"{sample}
  deletionPolicy: {policy}
  relay: {{urls: ["{relay}"], start: oldest, dataTimeout: 10m}}
  workers:
    claimTime: 5s
    autoscaling: {{maxReplicas: 3, drainTarget: 2s, stabilizationWindow: 20s, capacityPerWorker: 4000}}
    pod: {{resources: {{requests: {{cpu: 50m, memory: 64Mi}}}}}}
"#
        )
    }

    /// Starts the relay, whose clock runs from now on.
    pub(super) async fn relay(&self) -> Relay {
        let total = env::var("EVENTS").map_or(TOTAL, |events| events.parse().unwrap());
        let address: SocketAddr = TcpListener::bind((self.host, 0)).unwrap().local_addr().unwrap();
        let start_time: Timestamp = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().parse().unwrap();
        let (at, events, rate) = (address.to_string(), total.to_string(), RATE.to_string());
        let (time, url) = (start_time.to_string(), format!("ws://{address}"));
        let words = ["replay", "--address", &at, "--total", &events, "--rate", &rate, "--start-time", &time];
        let process = self.rig.start(&words);
        process.line("serving the recording").await;
        let settings = Settings { total: Some(total), start_time: Some(start_time), ..Settings::default() };
        Relay { url, total, since: Instant::now(), settings, _process: process }
    }
}

// === impl Relay ===

impl Relay {
    /// Waits until so many events have become live.
    pub(super) async fn has_served(&self, events: u64) {
        let due = Duration::from_secs_f64(events as f64 / f64::from(RATE.get()));
        sleep(due.saturating_sub(self.since.elapsed())).await;
    }

    /// Everything that it says until its end.
    pub(super) async fn said(&self) -> Recording {
        let settings = self.settings.clone();
        spawn_blocking(move || Recording::of(&settings)).await.unwrap()
    }
}
